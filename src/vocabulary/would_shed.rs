//! Requests that enforcement would have refused, in mode observe.

use super::class::Class;
use super::shed_reason::ShedReason;

/// Requests that enforcement would have refused since the process began, by class and reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WouldShed {
    counts: [[u64; ShedReason::COUNT]; Class::COUNT],
}

impl WouldShed {
    /// Counts one more request.
    pub fn add(&mut self, class: Class, reason: ShedReason) {
        self.counts[class.index()][reason.index()] += 1;
    }

    pub fn add_all(&mut self, other: &Self) {
        for (own, other) in self.counts.iter_mut().flatten().zip(other.counts.iter().flatten()) {
            *own += other;
        }
    }

    /// The requests of one class that would have been refused for one reason.
    pub fn of(&self, class: Class, reason: ShedReason) -> u64 {
        self.counts[class.index()][reason.index()]
    }

    /// The requests of all classes and reasons.
    pub fn total(&self) -> u64 {
        self.counts.iter().flatten().sum()
    }
}
