//! What control publishes for one backend, and admission is to obey: a small value, swapped whole.
//!
//! It says what is allowed and what is to be expected, and not why. Nobody has to renew it: a gate whose control stands
//! still goes on with the last one.

use crate::vocabulary::mode::Mode;
use crate::vocabulary::signals::Signals;

/// How much may be dispatched to one backend, and what a request has to expect there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Whether they are obeyed.
    pub mode: Mode,
    /// Dispatched requests without a first token that are allowed at a time, in parts; rounded, and at least one.
    pub window: f64,
    /// Most tokens of context in flight; `None` while memory has not shown itself to be the limit.
    pub kv_cap: Option<f64>,
    /// Most requests in flight: of policies that know no window.
    pub concurrency: Option<u32>,
    /// What the estimate says: what a request has to expect.
    pub signals: Signals,
}

impl Limits {
    /// What is published before anything is known.
    pub const fn new(mode: Mode) -> Self {
        Self { mode, window: FIRST_WINDOW, kv_cap: None, concurrency: None, signals: Signals::UNKNOWN }
    }

    /// The window in whole requests; `u32::MAX` for a policy without one.
    pub fn first_token_window(&self) -> u32 {
        self.window.round().max(1.0) as u32
    }
}

/// Small enough for the smallest engine, and it opens by 30 % a tick.
pub const FIRST_WINDOW: f64 = 4.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_whole_requests_and_at_least_one() {
        let window = |window| Limits { window, ..Limits::new(Mode::Enforce) }.first_token_window();
        assert_eq!((window(0.0), window(2.5), window(f64::INFINITY)), (1, 3, u32::MAX));
    }
}
