//! What one backend can do, from the stamps of its own streams: saturated or not, the knee with its error, what changed.
//!
//! [`Estimator`] takes [`Sample`](crate::measure::Sample)s in the order of their stamps and a tick every 100 ms, and gives a
//! [`Reading`] on request. It reads no clock and asks no engine: a live backend, a replayed journal and a rehearsal are the same
//! to it. The formulas are those of docs/internals/control.md, with its symbols.

mod advice;
mod answer_lengths;
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
mod mix;
mod prediction;
mod prompt_test;
mod prompts;
mod reading;
mod saturation;
mod settings;
mod speed;
mod step_visibility;
mod steps;
mod throughput;

pub use advice::{Advice, CountedBy, advice};
pub use estimator::Estimator;
pub use reading::{
    BlockCounts, Estimate, Knee, Missing, NotEnoughEvidence, Prediction, Reading, Regime, SaturationState, Shift,
    ShiftKind, SpeedChanges, StepCosts, Transition,
};
pub use settings::{EngineLimits, Settings};
