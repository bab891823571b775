//! The data port: clients on one side, backends on the other, and one task for each exchange between them.
//!
//! `listener` accepts, `connection` is the life of a client's connection, `arriving` reads a request, `passage` takes it to a
//! backend, `exchange` moves the bytes of it and of its answer, `tap` reads along, `refusal` speaks when the engine does not. The rules of HTTP are in `http1/`, the words
//! of the dialects in `wire/`, the books in `measure/`; here are sockets, buffers and deadlines.

pub mod admission;
mod answer;
mod arriving;
mod assembling;
mod budget;
mod claims;
mod connection;
pub mod drain;
mod exchange;
pub mod gateway;
pub mod health;
mod held;
pub mod io;
pub mod listener;
mod offering;
mod outbox;
mod outgoing;
mod passage;
mod queueing;
mod refusal;
mod request_id;
pub mod rules;
pub mod settings;
pub mod spans;
mod talk;
mod tap;
mod timer;
pub mod upstream;

pub use budget::Budget;
pub use connection::serve;
