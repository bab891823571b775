//! The tests that hold real rates, waits and latencies against bounds, or need seconds of real time to say anything: one at a time, on a
//! machine that does nothing else. `make realtime` runs them; `make test` does not. `tests/chaos` is the same at length.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on should say so and stop"
)]

#[path = "../support/mod.rs"]
mod support;

mod cancels;
mod overload;
mod probe;
mod replay;
mod saturation;
mod slow_clients;
mod stamps;
mod sweep;
