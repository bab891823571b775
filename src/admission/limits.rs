//! What the policy allows at one backend: a small value, replaced as a whole.
//!
//! It says what is allowed and what to expect, not why. It does not expire: if the control loop stops, the last limits stay in force.

use crate::vocabulary::mode::Mode;
use crate::vocabulary::signals::Signals;

/// How much may be dispatched to one backend, and what a request can expect there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Whether the gate applies them.
    pub mode: Mode,
    /// Requests without a first token allowed at a time. A fraction: the gate rounds it, to at least one.
    pub window: f64,
    /// Tokens of context allowed in flight; `None` while memory has not proved to be the limit.
    pub kv_cap: Option<f64>,
    /// Requests allowed in flight, for policies without a window.
    pub concurrency: Option<u32>,
    /// The estimate: what a request can expect.
    pub signals: Signals,
}

impl Limits {
    /// In force before anything is known.
    pub const fn new(mode: Mode) -> Self {
        Self { mode, window: FIRST_WINDOW, kv_cap: None, concurrency: None, signals: Signals::UNKNOWN }
    }

    /// The window in whole requests; `u32::MAX` for a policy without a window.
    pub fn first_token_window(&self) -> u32 {
        self.window.round().max(1.0) as u32
    }
}

/// Requests. Small enough for the smallest engine; the window can grow by 30 % per tick.
pub(super) const FIRST_WINDOW: f64 = 4.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_whole_requests_and_at_least_one() {
        let window = |window| Limits { window, ..Limits::new(Mode::Enforce) }.first_token_window();
        assert_eq!((window(0.0), window(2.5), window(f64::INFINITY)), (1, 3, u32::MAX));
    }
}
