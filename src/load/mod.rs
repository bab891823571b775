//! Synthetic load: what `sweep`, `demo` and `probe` send, and what came back.
//!
//! Half of the room is pure (when to send: `schedule`; what to send: `workload`, `listing`, `body`; what it meant: `record`,
//! `steady`, `summary`, `times`) and rehearses in virtual time. The other half has hands: `link` (one kept-alive connection), `client` (one
//! request, stamped as its answer is read) and `runner` (one level, open or closed loop).
//!
//! It holds no search for the knee and no verdict: it runs the level it is told to and reports what it saw. Nothing in
//! it is ever counted as client traffic.

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
