//! What enforcement would have refused, counted while it is not in force.
//!
//! A shadow knows only what it was told since it began, so one is made anew when the mode comes back to observe; what earlier ones
//! have counted is kept.

use std::time::Duration;

use crate::admission;
use crate::admission::{Mode, Settings};
use crate::estimate::Estimator;
use crate::measure::Sample;
use crate::vocabulary::time::Timestamp;
use crate::vocabulary::would_shed::WouldShed;

/// The shadow of the moment, and the count of all.
#[derive(Debug)]
pub(super) struct ShadowMode {
    settings: Settings,
    slo_ttft: Duration,
    now: Option<admission::Shadow>,
    before: WouldShed,
}

impl ShadowMode {
    pub fn new(settings: Settings, slo_ttft: Duration) -> Self {
        Self { settings, slo_ttft, now: None, before: WouldShed::default() }
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
    pub fn counts(&self) -> WouldShed {
        let mut counts = self.before;
        let Some(shadow) = &self.now else { return counts };
        counts.add_all(&shadow.would_shed());
        counts
    }
}
