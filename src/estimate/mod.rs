//! What one backend can do, from the stamps of its own streams: saturated or not, the knee with its error, what changed.
//!
//! [`Estimator`] takes [`Sample`]s as they happen and a tick every 100 ms, and says a [`Reading`] when asked. It reads no
//! clock and asks no engine: a live backend, a replayed journal and a rehearsal are the same to it.

mod reading;

use std::time::Duration;

pub use reading::{
    BlockCounts, Estimate, Knee, Missing, NotEnoughEvidence, Prediction, Reading, Regime, SpeedChanges, State,
    StepCosts, Transition,
};

use crate::measure::Sample;
use crate::time::Timestamp;

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

/// One backend's estimator.
#[derive(Debug)]
pub struct Estimator {
    started: Timestamp,
    transitions: Vec<Transition>,
}

impl Estimator {
    /// Knows nothing yet.
    pub fn new(_settings: Settings, now: Timestamp) -> Self {
        Self { started: now, transitions: Vec::new() }
    }

    /// Takes one sample in, in the order of their stamps. O(1) amortised; no allocation for an emission.
    pub fn on_sample(&mut self, _sample: &Sample) {}

    /// Time has passed; call it every 100 ms.
    pub fn on_tick(&mut self, _now: Timestamp) {}

    /// The changes of state since the last call.
    pub fn transitions(&mut self) -> impl Iterator<Item = Transition> {
        self.transitions.drain(..)
    }

    /// What is known now. Costs a few microseconds: for once a second, not for every tick.
    pub fn reading(&self) -> Reading {
        let missing = || NotEnoughEvidence { why: vec![Missing::SaturatedBlocks { have: 0, need: 3 }] };
        Reading {
            state: State::Unknown,
            since: self.started,
            reason: "no traffic seen".into(),
            ratio: None,
            demand_ratio: None,
            knee: Err(missing()),
            prediction: Err(missing()),
            upper_bound: None,
            lower_bound: None,
            costs: None,
            speed_changes: SpeedChanges::default(),
            mix_changes: 0,
            drifts: 0,
            stalls: 0,
            blocks: BlockCounts::default(),
            in_flight: 0,
            pending: 0,
            queued: 0,
        }
    }
}
