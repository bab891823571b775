//! What the estimate of a backend publishes for admission: plain figures, and no decision.

use super::average::octave;
use super::quantities::{PerSecond, Seconds, Tokens};

/// Classes of prompt lengths: powers of two.
pub const PROMPT_CLASSES: usize = 16;

/// One backend at one tick.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Signals {
    /// Seconds from dispatch to first token without load, by floor(log2(prompt tokens)); 0 while unknown.
    pub unloaded_ttft: [f32; PROMPT_CLASSES],
    /// What recent first tokens took beyond that: the mean.
    pub excess_ttft: Seconds,
    /// Its standard deviation.
    pub excess_ttft_deviation: Seconds,
    /// First tokens per second of the time in which a request was pending, `mu`.
    pub busy_start_rate: PerSecond,
    /// First tokens per second.
    pub start_rate: PerSecond,
    /// Dispatch to first token of the last few requests.
    pub recent_ttft: Seconds,
    /// Dispatch to first token of the typical request, without load.
    pub typical_ttft: Seconds,
    /// Step time, which is the gap between two emissions of a stream.
    pub step_time: Seconds,
    /// Dispatch to first token that the window aims at.
    pub ttft_target: Seconds,
    /// Tokens of the mean answer; 0 while unknown.
    pub mean_answer: Tokens,
    /// Streams that decode at the knee, once it is known.
    pub knee_in_flight: Option<f64>,
    /// Seconds of engine time per prompt token, where prompts are most of the work.
    pub per_prompt_token: Option<Seconds>,
    /// Tokens that the engine's KV memory holds, where that is known.
    pub kv_tokens: Option<Tokens>,
    /// Seconds lost to recomputation, per second.
    pub wasted: PerSecond,
    /// The same over the last one or two seconds.
    pub wasted_lately: PerSecond,
}

impl Signals {
    /// The signals of a backend of which nothing is known.
    pub const UNKNOWN: Self = Self {
        unloaded_ttft: [0.0; PROMPT_CLASSES],
        excess_ttft: 0.0,
        excess_ttft_deviation: 0.0,
        busy_start_rate: 0.0,
        start_rate: 0.0,
        recent_ttft: 0.0,
        typical_ttft: 0.0,
        step_time: 0.0,
        ttft_target: 0.0,
        mean_answer: 0.0,
        knee_in_flight: None,
        per_prompt_token: None,
        kv_tokens: None,
        wasted: 0.0,
        wasted_lately: 0.0,
    };

    /// Dispatch to first token without load, for a prompt of that many tokens.
    pub fn unloaded_ttft(&self, prompt: Tokens) -> Seconds {
        f64::from(self.unloaded_ttft[octave(prompt).min(PROMPT_CLASSES - 1)])
    }

    /// Dispatch to first token under the load of now, `deviations` standard deviations above the mean.
    pub fn expected_ttft(&self, prompt: Tokens, deviations: f64) -> Seconds {
        self.unloaded_ttft(prompt) + self.excess_ttft + deviations * self.excess_ttft_deviation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_looked_up_by_the_prompts_logarithm() {
        let mut signals = Signals { excess_ttft: 0.5, excess_ttft_deviation: 0.1, ..Signals::UNKNOWN };
        signals.unloaded_ttft[7] = 0.25;
        assert_eq!(signals.unloaded_ttft(128.0), 0.25);
        assert_eq!(signals.unloaded_ttft(256.0), 0.0);
        assert!((signals.expected_ttft(200.0, 2.0) - 0.95).abs() < 1e-9);
        let unknown = [0.0, f64::NAN, 1e30].map(|prompt| signals.unloaded_ttft(prompt));
        assert_eq!(unknown, [0.0; 3]);
    }
}
