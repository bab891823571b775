//! What control reads of a backend at every tick: plain figures, and no opinion on what follows.

/// Classes of prompt lengths: powers of two.
pub const BUCKETS: usize = 16;

/// One look. Times are seconds, rates per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct View {
    /// Dispatch to first token with nobody in the way, by floor(log2(prompt tokens)); 0 while unknown.
    pub free: [f64; BUCKETS],
    /// What first tokens took beyond that: the mean ...
    pub beyond: f64,
    /// ... and the standard deviation.
    pub beyond_deviation: f64,
    /// First tokens per second of the time in which somebody was pending.
    pub busy_start_rate: f64,
    /// First tokens per second.
    pub start_rate: f64,
    /// Dispatch to first token of the last few.
    pub recent: f64,
    /// Load-free time to first token of the usual request.
    pub usual: f64,
    /// Step time, which is the gap between a stream's emissions.
    pub gap: f64,
    /// The time from dispatch to first token that control aims at.
    pub goal: f64,
    /// Tokens of the mean answer; 0 while unknown.
    pub mean_answer: f64,
    /// Streams that decode at the knee, once it is known.
    pub knee_in_flight: Option<f64>,
    /// Seconds of engine time per prompt token, where prompts are most of the work.
    pub per_prompt_token: Option<f64>,
    /// Tokens that the engine's memory holds, where that is known.
    pub kv_tokens: Option<f64>,
    /// Seconds lost to recomputation, per second.
    pub wasted: f64,
    /// The same over the last one or two seconds.
    pub wasted_lately: f64,
}
