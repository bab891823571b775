//! Synthetic load inside a running weir: it looks for the knee beside the traffic of clients, which always has precedence.
//!
//! It acquires the same permits from the same pool as a client's request does, in the lowest class, and sends to the backend
//! itself. So it obeys every limit, and none of its requests is counted with those of clients. `guard` decides when to stop and
//! `ladder` how much to hold; both are pure. `run` runs it on a thread of its own, `senders` keeps its requests in flight, `progress` is
//! what they share with the admin port. It holds no admin port: that sees it as an
//! [`export::probe::ProbeControl`](crate::export::probe::ProbeControl).

mod context;
pub mod guard;
pub mod ladder;
mod progress;
pub mod run;
mod senders;
pub mod settings;
