//! Counts what enforcement would have refused, while the mode is observe.
//!
//! A shadow knows only the samples since its start, so each return to mode observe starts a new one; the counts of earlier shadows
//! are kept.

use std::time::Duration;

use crate::admission;
use crate::admission::{Mode, Settings};
use crate::estimate::Estimator;
use crate::measure::Sample;
use crate::vocabulary::time::Timestamp;
use crate::vocabulary::would_shed::WouldShed;

/// The current shadow, and the counts of all.
#[derive(Debug)]
pub(super) struct ShadowMode {
    settings: Settings,
    slo_ttft: Duration,
    shadow: Option<admission::Shadow>,
    before: WouldShed,
}

impl ShadowMode {
    pub fn new(settings: Settings, slo_ttft: Duration) -> Self {
        Self { settings, slo_ttft, shadow: None, before: WouldShed::default() }
    }

    /// Continues with other settings and a new shadow.
    pub fn reset(&mut self, settings: Settings, slo_ttft: Duration) {
        (self.before, self.shadow) = (self.counts(), None);
        (self.settings, self.slo_ttft) = (settings, slo_ttft);
    }

    /// Mode observe has a shadow; in mode enforce the gate itself decides.
    pub fn set_mode(&mut self, mode: Mode) {
        match mode {
            Mode::Observe if self.shadow.is_none() => {
                self.shadow = Some(admission::Shadow::new(self.settings, self.slo_ttft))
            }
            Mode::Enforce if self.shadow.is_some() => (self.before, self.shadow) = (self.counts(), None),
            _ => {}
        }
    }

    pub fn on_sample(&mut self, sample: &Sample, estimator: &Estimator) {
        if let Some(shadow) = &mut self.shadow {
            shadow.on_sample(sample, estimator);
        }
    }

    pub fn on_tick(&mut self, now: Timestamp, estimator: &Estimator) {
        if let Some(shadow) = &mut self.shadow {
            shadow.on_tick(now, estimator);
        }
    }

    /// Since the start.
    pub fn counts(&self) -> WouldShed {
        let mut counts = self.before;
        let Some(shadow) = &self.shadow else { return counts };
        counts.add_all(&shadow.would_shed());
        counts
    }
}
