//! What control publishes for one backend, and admission is to obey: a small value, swapped whole.
//!
//! It says what is allowed and what is to be expected, and not why. Nobody has to renew it: a gate whose control stands
//! still goes on with the last one.

use crate::vocabulary::average::octave;

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
    /// What a request has to expect.
    pub forecast: Forecast,
}

/// What a request has to expect at one backend. Times are seconds, rates per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// Dispatch to first token when nobody else waits for one, by floor(log2(prompt tokens)); 0 while unknown.
    pub free: [f32; BUCKETS],
    /// What first tokens took beyond that lately: the mean ...
    pub beyond: f64,
    /// ... and the standard deviation.
    pub beyond_deviation: f64,
    /// First tokens per second of the time in which somebody was pending, `mu`.
    pub busy_start_rate: f64,
    /// First tokens per second.
    pub start_rate: f64,
    /// Dispatch to first token of the last few.
    pub recent: f64,
    /// Load-free time to first token of the usual request.
    pub usual: f64,
    /// Between two tokens of a stream.
    pub gap: f64,
    /// The time from dispatch to first token that the window aims at.
    pub goal: f64,
    /// Tokens of the mean answer; 0 while unknown.
    pub mean_answer: f64,
    /// Streams that decode at the knee, once it is known.
    pub knee_in_flight: Option<f64>,
    /// Seconds of engine time per prompt token, where prompts are most of the work.
    pub per_prompt_token: Option<f64>,
}

/// Whether the gate's decision is enforced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Measure, and say what would be done.
    #[default]
    Observe,
    /// Gate, queue and shed.
    Enforce,
}

impl Limits {
    /// What is published before anything is known.
    pub const fn new(mode: Mode) -> Self {
        Self { mode, window: FIRST_WINDOW, kv_cap: None, concurrency: None, forecast: Forecast::UNKNOWN }
    }

    /// The window in whole requests; `u32::MAX` for a policy without one.
    pub fn first_token_window(&self) -> u32 {
        self.window.round().max(1.0) as u32
    }
}

impl Forecast {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self {
        free: [0.0; BUCKETS],
        beyond: 0.0,
        beyond_deviation: 0.0,
        busy_start_rate: 0.0,
        start_rate: 0.0,
        recent: 0.0,
        usual: 0.0,
        gap: 0.0,
        goal: 0.0,
        mean_answer: 0.0,
        knee_in_flight: None,
        per_prompt_token: None,
    };

    /// Seconds from dispatch to first token of a prompt for which nobody is in the way.
    pub fn free(&self, prompt: f64) -> f64 {
        f64::from(self.free[octave(prompt).min(BUCKETS - 1)])
    }

    /// Seconds from dispatch to first token, `deviations` above the mean.
    pub fn first_token(&self, prompt: f64, deviations: f64) -> f64 {
        self.free(prompt) + self.beyond + deviations * self.beyond_deviation
    }
}

impl Mode {
    /// Both modes.
    pub const ALL: [Self; 2] = [Self::Observe, Self::Enforce];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Enforce => "enforce",
        }
    }
}

/// Small enough for the smallest engine, and it opens by 30 % a tick.
pub const FIRST_WINDOW: f64 = 4.0;

/// Classes of prompt lengths, as the baseline has them.
const BUCKETS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forecast_knows_prompts_by_their_logarithm() {
        let mut forecast = Forecast { beyond: 0.5, beyond_deviation: 0.1, ..Forecast::UNKNOWN };
        forecast.free[7] = 0.25;
        assert_eq!(forecast.free(128.0), 0.25);
        assert_eq!(forecast.free(256.0), 0.0);
        assert!((forecast.first_token(200.0, 2.0) - 0.95).abs() < 1e-9);
        assert_eq!((forecast.free(0.0), forecast.free(f64::NAN), forecast.free(1e30)), (0.0, 0.0, 0.0));
    }

    #[test]
    fn a_window_is_whole_requests_and_at_least_one() {
        let window = |window| Limits { window, ..Limits::new(Mode::Enforce) }.first_token_window();
        assert_eq!((window(0.0), window(2.5), window(f64::INFINITY)), (1, 3, u32::MAX));
    }
}
