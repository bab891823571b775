//! What one backend can do, from the stamps of its own streams: saturated or not, the knee with its error, what changed.
//!
//! [`Estimator`] takes [`Sample`](crate::measure::Sample)s as they happen and a tick every 100 ms, and says a [`Reading`]
//! when asked. It reads no clock and asks no engine: a live backend, a replayed journal and a rehearsal are the same to it.

mod advice;
mod baseline;
mod blocks;
mod capacity;
mod closed_loop;
mod costs;
mod detector;
mod drift;
mod estimator;
mod first_token;
mod headroom;
mod in_flight;
mod length_test;
mod lengths;
mod mix;
mod prediction;
mod prompt_test;
mod prompts;
mod reading;
mod saturation;
mod speed;
mod step_visibility;
mod steps;
mod throughput;

use std::time::Duration;

pub use advice::{Advice, CountedBy, advice};
pub use estimator::Estimator;
pub use reading::{
    BlockCounts, Estimate, Knee, Missing, NotEnoughEvidence, Prediction, Reading, Regime, SaturationState, Shift,
    ShiftKind, SpeedChanges, StepCosts, Transition,
};

/// What the estimator has to be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The objective for arrival to first token; waits are judged against it.
    pub slo_ttft: Duration,
    /// The engine's own limits, as far as they are known.
    pub engine: EngineLimits,
}

/// An engine's hard limits, from its configuration or its own metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineLimits {
    /// Most sequences in the running batch.
    pub max_num_seqs: Option<u32>,
    /// KV memory, in tokens.
    pub kv_tokens: Option<u32>,
    /// Most tokens in one step.
    pub max_num_batched_tokens: Option<u32>,
}
