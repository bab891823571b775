//! What enforcement would have refused, counted while it is not in force.
//!
//! A shadow knows only what it was told since it began, so one is made anew when the mode comes back to observe; what earlier ones
//! have counted is kept.

use std::time::Duration;

use crate::admission;
use crate::admission::{Class, Mode, Settings, ShedReason};
use crate::estimate::Estimator;
use crate::measure::{Priority, Sample, ShedReason as Reason};
use crate::vocabulary::time::Timestamp;

/// By class and reason, as the books count.
pub type WouldShedCounts = [[u64; Reason::COUNT]; Priority::COUNT];

/// The shadow of the moment, and the count of all.
#[derive(Debug)]
pub(super) struct ShadowMode {
    settings: Settings,
    slo_ttft: Duration,
    now: Option<admission::Shadow>,
    before: WouldShedCounts,
}

impl ShadowMode {
    pub fn new(settings: Settings, slo_ttft: Duration) -> Self {
        Self { settings, slo_ttft, now: None, before: WouldShedCounts::default() }
    }

    /// Counts on by other settings.
    pub fn reset(&mut self, settings: Settings, slo_ttft: Duration) {
        (self.before, self.now) = (self.counts(), None);
        (self.settings, self.slo_ttft) = (settings, slo_ttft);
    }

    /// There is a shadow in mode observe, and none while the gate itself decides.
    pub fn set_mode(&mut self, mode: Mode) {
        match mode {
            Mode::Observe if self.now.is_none() => {
                self.now = Some(admission::Shadow::new(self.settings, self.slo_ttft))
            }
            Mode::Enforce if self.now.is_some() => (self.before, self.now) = (self.counts(), None),
            _ => {}
        }
    }

    pub fn on_sample(&mut self, sample: &Sample, estimator: &Estimator) {
        if let Some(shadow) = &mut self.now {
            shadow.on_sample(sample, estimator);
        }
    }

    pub fn on_tick(&mut self, now: Timestamp, estimator: &Estimator) {
        if let Some(shadow) = &mut self.now {
            shadow.on_tick(now, estimator);
        }
    }

    /// Ever.
    pub fn counts(&self) -> WouldShedCounts {
        let mut counts = self.before;
        let Some(shadow) = &self.now else { return counts };
        let seen = shadow.would_shed();
        for (class, priority) in [
            (Class::System, Priority::System),
            (Class::Interactive, Priority::Interactive),
            (Class::Default, Priority::Default),
            (Class::Bulk, Priority::Bulk),
        ] {
            for (own, reason) in [
                (ShedReason::Saturated, Reason::Saturated),
                (ShedReason::Deadline, Reason::Deadline),
                (ShedReason::QueueFull, Reason::QueueFull),
                (ShedReason::QueueBytes, Reason::QueueBytes),
            ] {
                counts[priority.index()][reason.index()] += seen.of(class, own);
            }
        }
        counts
    }
}
