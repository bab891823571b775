//! The data port: clients on one side, backends on the other, and one task for each exchange between them.
//!
//! `listener` accepts, `connection` is the life of a client's connection, `exchange` moves the bytes of one request and
//! its answer, `tap` reads along, `refusal` speaks when the engine does not. The rules of HTTP are in `http1/`, the words
//! of the dialects in `wire/`, the books in `measure/`; here are sockets, buffers and deadlines.

mod answer;
mod budget;
mod connection;
pub mod drain;
mod exchange;
pub mod gateway;
pub mod health;
mod held;
pub mod io;
pub mod listener;
mod outbox;
mod outgoing;
mod refusal;
pub mod settings;
mod tap;
pub mod upstream;

pub use budget::Budget;
pub use connection::serve;
