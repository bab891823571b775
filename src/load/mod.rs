//! Synthetic load: what `sweep`, `demo` and `probe` send, and its results.
//!
//! Half of the module is pure and also runs in virtual time: when to send (`schedule`), what to send (`workload`, `trace_file`,
//! `body`), and what the answers amount to (`record`, `steady`, `summary`, `times`). The other half does I/O: `connection` (one
//! kept-alive connection), `client` (one request, its answer stamped as it is read) and `runner` (one level, open or closed loop).
//!
//! It holds no search for the knee and no verdict: it runs the level it is given and reports what it measured. None of its
//! requests is counted as client traffic.

pub mod body;
pub mod client;
pub mod connection;
pub mod record;
pub mod runner;
pub mod schedule;
pub mod steady;
pub mod summary;
pub mod times;
pub mod trace_file;
pub mod workload;
