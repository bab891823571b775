//! The estimator and the admission policy, fed with samples and ticked; their readings are kept once a second.

use super::outcome::{Observation, SimulationOutcome};
use crate::admission::Shadow;
use crate::admission::policy::{self, Control};
use crate::admission::{GateStats, Limits, Mode};
use crate::estimate::{Estimator, Settings};
use crate::measure::{Sample, What};
use crate::vocabulary::time::Timestamp;

/// An estimator, and its outcome so far.
pub(super) struct ObservedEstimator {
    estimator: Estimator,
    control: Control,
    shadow: Option<Shadow>,
    ticks: u64,
    offered: u64,
    admitted: u64,
    completed: u64,
    pub outcome: SimulationOutcome,
}

impl ObservedEstimator {
    pub fn new(settings: Settings, control: Control, shadow: Option<Shadow>, now: Timestamp) -> Self {
        let outcome =
            SimulationOutcome { moments: Vec::new(), transitions: Vec::new(), requests: Vec::new(), ended: now };
        Self {
            estimator: Estimator::new(settings, now),
            control,
            shadow,
            ticks: 0,
            offered: 0,
            admitted: 0,
            completed: 0,
            outcome,
        }
    }

    pub fn on_sample(&mut self, sample: &Sample) {
        match sample.what {
            What::Offered { .. } => self.offered += 1,
            What::Admitted => self.admitted += 1,
            What::Finished { completed: true, .. } => self.completed += 1,
            What::Finished { .. } | What::Emission { .. } | What::Left { .. } => {}
        }
        self.estimator.on_sample(sample);
        self.control.on_sample(sample);
        if let Some(shadow) = &mut self.shadow {
            shadow.on_sample(sample, &self.estimator);
        }
    }

    /// A tenth of a second is over: returns what may be dispatched from now on. On a whole second of the clock a reading is kept.
    pub fn on_tick(&mut self, gate_stats: &GateStats, mode: Mode, now: Timestamp) -> Limits {
        self.ticks += 1;
        let limits = policy::tick(&mut self.estimator, &mut self.control, gate_stats, mode, now);
        if let Some(shadow) = &mut self.shadow {
            shadow.on_tick(now, &self.estimator);
        }
        self.outcome.transitions.extend(self.estimator.transitions());
        self.outcome.ended = now;
        if now.as_nanos().is_multiple_of(READING_EVERY) {
            self.outcome.moments.push(Observation {
                at: now,
                reading: self.estimator.reading(),
                would_shed: self.shadow.as_ref().map_or(0, |shadow| shadow.would_shed().total()),
                offered: self.offered,
                admitted: self.admitted,
                completed: self.completed,
            });
        }
        limits
    }

    /// Prompt tokens, as the estimator assumes them.
    pub fn prompt(&self, seen: Option<u32>) -> f64 {
        self.estimator.prompt(seen)
    }

    /// Ticks so far.
    pub fn ticks(&self) -> u64 {
        self.ticks
    }

    /// Requests of which the end was seen.
    pub fn completed(&self) -> u64 {
        self.completed
    }
}

/// A reading is published once a second, in nanoseconds.
const READING_EVERY: u64 = 1_000_000_000;
