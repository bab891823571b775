//! The simulated inference engine.
//!
//! [`model`] is continuous batching in virtual time, [`profile`] the engines it can be, [`server`] runs one in real time over
//! HTTP. The first two are pure and shared with the simulation; only the server uses a clock and a socket.

pub mod model;
pub mod profile;
pub mod server;
