//! The data port: clients on one side, backends on the other, and one task for each exchange between them.
//!
//! By the life of a request: `listener` accepts, `connection` serves one client, `request` reads a request, `dispatch` has it
//! admitted and connected (`acquire` where it must wait or dial), `exchange` moves the bytes of it and of its answer, `response`
//! rewrites and observes the answer, `finish` ends it. `upstream` is what is known of the backends, `local_reply` what weir answers
//! itself, `state` what all of them share. The rules of HTTP are in `http1/`, the words of the dialects in `wire/`, the
//! statistics in `measure/`; here are sockets, buffers and deadlines.

mod acquire;
mod address_cap;
pub mod admission_settings;
mod attempt;
mod budget;
mod client_io;
mod connection;
mod dispatch;
pub mod drain;
mod end;
mod exchange;
mod finish;
pub mod io;
pub mod listener;
mod local_reply;
pub mod policy;
mod read_ahead;
mod request;
mod response;
mod scratch;
pub mod settings;
pub mod spans;
pub mod state;
mod timer;
pub mod upstream;

pub use budget::Budget;
pub use connection::serve;
