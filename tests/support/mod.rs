//! What the tests over real sockets stand on: weir in this process or as a process of its own, the simulated engine, a
//! scripted backend, a client that sees bytes, and readers of what weir says about itself.
//!
//! Shared by `tests/it` and `tests/chaos`. Everything blocks and every wait has an end; no port is fixed.
#![allow(dead_code, unused_imports, reason = "two test binaries, and neither uses all of it")]

pub mod canary;
pub mod cancel;
pub mod census;
pub mod chaos;
pub mod client;
pub mod collector;
pub mod dice;
pub mod drains;
pub mod engine;
pub mod exposition;
pub mod nvml;
pub mod origin;
pub mod overload;
pub mod process;
pub mod reloads;
pub mod stamps;
pub mod storm;
pub mod time;
pub mod weir;

pub use client::{Answer, Client, chat, post};
pub use engine::Engine;
pub use nvml::FakeNvml;
pub use origin::{Conversation, Origin, Seen};
pub use process::Process;
pub use weir::Weir;
