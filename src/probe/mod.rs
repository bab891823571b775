//! Synthetic load inside a running weir: looks for the knee beside clients, who always win.
//!
//! It asks the same pool for the same permits as a client's request does, in the lowest class, and sends what it gets to the
//! backend itself. So it obeys every limit, and no request of its is ever in the books of clients. `guard` says when to stop,
//! `ladder` how much to hold; both are pure. `run` does it, on a thread of its own. It holds no admin port: that sees it as an
//! [`export::probe::ProbeControl`](crate::export::probe::ProbeControl).

pub mod guard;
pub mod ladder;
pub mod run;
pub mod settings;
