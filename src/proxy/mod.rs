//! The data port: clients on one side, backends on the other, and one task for each exchange between them.
//!
//! `listener` accepts, `connection` is the life of a client's connection, `arriving` reads a request, `attempt` takes it to a
//! backend, `exchange` moves the bytes of it and of its answer, `tap` reads along, `reply` speaks when the engine does not. The rules of HTTP are in `http1/`, the words
//! of the dialects in `wire/`, the books in `measure/`; here are sockets, buffers and deadlines.

mod accounting;
pub mod admission_settings;
mod budget;
mod client_io;
mod connection;
mod dispatch;
pub mod drain;
mod end;
mod exchange;
pub mod io;
pub mod listener;
mod local_reply;
pub mod policy;
mod queue_wait;
mod request;
mod response;
pub mod settings;
pub mod spans;
pub mod state;
mod timer;
pub mod upstream;

pub use budget::Budget;
pub use connection::serve;
