//! The simulated inference engine.
//!
//! [`model`] is continuous batching in virtual time, [`profile`] the engines it is known to play, [`server`] plays one in
//! real time over HTTP. The first two are pure and shared with the rehearsal; only the server touches clock and socket.

pub mod model;
pub mod profile;
pub mod server;
