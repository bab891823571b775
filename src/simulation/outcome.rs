//! The outcome of one run: readings second by second, transitions, and what happened to every request.

use std::time::Duration;

use super::machine::Lengths;
use crate::admission::{Class, Tenant};
use crate::estimate::{Reading, SaturationState, Transition};
use crate::vocabulary::time::Timestamp;

/// Everything that a verdict or a chart needs.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulationOutcome {
    /// One a second, from the first second on.
    pub moments: Vec<Observation>,
    /// Changes of state, in order.
    pub transitions: Vec<Transition>,
    /// Every request that arrived, in order of arrival.
    pub requests: Vec<Served>,
    /// When the loop ended: with the last segment, or when everything was served.
    pub ended: Timestamp,
}

/// A reading, and the counts that go with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// When.
    pub at: Timestamp,
    /// What the estimator published.
    pub reading: Reading,
    /// Requests that enforcement would have refused.
    pub would_shed: u64,
    /// Requests that had arrived.
    pub offered: u64,
    /// Requests that had been dispatched.
    pub admitted: u64,
    /// Requests that had been completed.
    pub completed: u64,
}

/// What happened to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// When it arrived.
    pub arrived: Timestamp,
    /// How long it really is.
    pub lengths: Lengths,
    /// When its first token reached weir.
    pub first_token: Option<Timestamp>,
    /// When its last one did.
    pub completed: Option<Timestamp>,
    /// In which class.
    pub class: Class,
    /// Of which tenant.
    pub tenant: Tenant,
    /// Whether it was dispatched.
    pub dispatched: bool,
    /// Whether weir refused it, or aborted it when it was late.
    pub refused: bool,
    /// The request that this is another try of: its number, and how many tries went before.
    pub retry: Option<(usize, u32)>,
}

impl SimulationOutcome {
    /// The reading of that moment: the last one not after it.
    pub fn at(&self, at: Duration) -> Option<&Observation> {
        let at = Timestamp::ZERO + at;
        let after = self.moments.partition_point(|moment| moment.at <= at);
        after.checked_sub(1).map(|last| &self.moments[last])
    }

    /// When the state became saturated within `[from, to)`.
    pub fn alarms(&self, from: Duration, to: Duration) -> impl Iterator<Item = Duration> {
        self.transitions
            .iter()
            .filter(|transition| {
                transition.to == SaturationState::Saturated && transition.from != SaturationState::Saturated
            })
            .map(|transition| transition.at.since(Timestamp::ZERO))
            .filter(move |at| (from..to).contains(at))
    }
}

impl Served {
    /// Arrival to first token.
    pub fn ttft(&self) -> Option<Duration> {
        Some(self.first_token?.since(self.arrived))
    }
}
