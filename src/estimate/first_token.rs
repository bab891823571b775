//! The first-token stage: requests that were dispatched and have no first token yet.
//!
//! How long first tokens take without load and now, how many come per second, how long the stage has been busy. From these follow
//! how long the head of the queue may wait, and when a backend counts as queueing.

use super::baseline::{BUCKETS, TtftBaseline};
use crate::vocabulary::average::{DecayingRate, Moments, Smoothed};

/// The stage's state.
#[derive(Clone, Debug)]
pub(super) struct FirstTokens {
    baseline: TtftBaseline,
    /// Smoothed baseline of the requests that start.
    typical: Smoothed,
    /// Smoothed time from dispatch to first token.
    recent: Smoothed,
    /// Smoothed step time, which is the time between a stream's emissions.
    step_time: Smoothed,
    starts: DecayingRate,
    /// First tokens per second of busy time.
    busy_starts: DecayingRate,
    /// What first tokens took beyond their baseline.
    excess: Moments,
    /// When a request entered the empty stage, unless it is empty now.
    busy_since: Option<f64>,
    /// Seconds in which the stage was not empty, up to the last time it became empty.
    busy: f64,
    slo: f64,
}

impl FirstTokens {
    /// `slo` is the objective for arrival to first token, in seconds.
    pub fn new(slo: f64) -> Self {
        Self {
            baseline: TtftBaseline::default(),
            typical: Smoothed::new(0.05),
            recent: Smoothed::new(0.2),
            step_time: Smoothed::new(0.05),
            starts: DecayingRate::new(1.5),
            busy_starts: DecayingRate::new(2.0),
            excess: Moments::new(0.95),
            busy_since: None,
            busy: 0.0,
            slo,
        }
    }

    /// Changes the objective, in seconds; what was measured stays.
    pub fn set_slo(&mut self, slo: f64) {
        self.slo = slo;
    }

    /// A request entered the empty stage.
    pub fn on_busy(&mut self, now: f64) {
        self.busy_since = Some(now);
    }

    /// The stage became empty.
    pub fn on_idle(&mut self, now: f64) {
        self.busy += self.busy_since.take().map_or(0.0, |since| now - since);
    }

    /// A first token arrived `ttft` seconds after dispatch. `unloaded`: no other request delayed it.
    pub fn on_first_token(&mut self, now: f64, ttft: f64, prompt: f64, unloaded: bool) {
        self.starts.add(now);
        self.busy_starts.add(self.busy(now));
        self.recent.add(ttft);
        let unloaded_ttft = self.baseline(prompt);
        self.excess.add((ttft - unloaded_ttft).max(-0.5 * unloaded_ttft));
        if unloaded || self.baseline.is_new(prompt) {
            self.baseline.add(prompt, ttft);
        }
        if let Some(baseline) = self.baseline.of(prompt) {
            self.typical.add(baseline);
        }
    }

    /// A step that decoded took `duration` seconds.
    pub fn on_step(&mut self, duration: f64) {
        self.step_time.add(duration);
    }

    /// Unloaded TTFT of a prompt, in seconds from dispatch; 0 while unknown.
    pub fn baseline(&self, prompt: f64) -> f64 {
        self.baseline.of(prompt).unwrap_or(0.0)
    }

    /// First tokens per second.
    pub fn start_rate(&self, now: f64) -> f64 {
        self.starts.at(now)
    }

    /// First tokens per second of busy time, `mu`.
    pub fn busy_start_rate(&self, now: f64) -> f64 {
        self.busy_starts.at(self.busy(now))
    }

    /// What first tokens took beyond their baseline: mean and standard deviation.
    pub fn excess(&self) -> (f64, f64) {
        (self.excess.mean, self.excess.deviation())
    }

    /// Seconds from dispatch to first token of the last few requests.
    pub fn recent(&self) -> f64 {
        self.recent.value()
    }

    /// Smoothed unloaded TTFT of the requests that start.
    pub fn typical(&self) -> f64 {
        self.typical.value()
    }

    /// Smoothed step time.
    pub fn step_time(&self) -> f64 {
        self.step_time.value()
    }

    /// Unloaded TTFT by floor(log2(prompt tokens)); 0 while unknown.
    pub fn baselines(&self) -> [f32; BUCKETS] {
        std::array::from_fn(|index| self.baseline((index as f64).exp2()) as f32)
    }

    /// Seconds in which the stage was not empty.
    pub fn busy(&self, now: f64) -> f64 {
        self.busy + self.busy_since.map_or(0.0, |since| now - since)
    }

    /// How long the head of the queue may wait beyond its baseline, `w0`.
    pub fn allowed_wait(&self) -> f64 {
        (2.0 * self.typical.value()).max(0.1 * self.slo).max(3.0 * self.step_time.value())
    }

    /// Time from dispatch to first token that control aims at, `target`: a quarter of the objective, but more than the
    /// engine needs in any case and never so much that the objective is missed.
    pub fn ttft_target(&self) -> f64 {
        let (typical, step_time) = (self.typical.value(), self.step_time.value());
        (0.25 * self.slo).max(1.3 * typical + 3.0 * step_time).min(0.6 * self.slo).max(1.05 * typical)
    }

    /// Whether the engine makes requests wait; `oldest` is the time since dispatch of the request that has waited longest.
    pub fn is_queueing(&self, oldest: f64) -> bool {
        let typical = self.typical.value();
        self.recent.value().max(oldest) > typical + 0.4 * (self.ttft_target() - typical)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typical() -> FirstTokens {
        let mut stage = FirstTokens::new(1.0);
        (0..200).for_each(|n| stage.on_first_token(f64::from(n), 0.05, 100.0, true));
        (0..100).for_each(|_| stage.on_step(0.02));
        stage
    }

    #[test]
    fn an_engine_at_its_baseline_is_not_queueing() {
        let stage = typical();
        assert!((stage.ttft_target() - 0.25).abs() < 1e-9, "{}", stage.ttft_target());
        assert!(!stage.is_queueing(0.05));
        assert!((stage.allowed_wait() - 0.1).abs() < 1e-9);
    }

    #[test]
    fn an_engine_that_makes_requests_wait_is_queueing() {
        let mut stage = typical();
        assert!(stage.is_queueing(0.14));
        (0..20).for_each(|n| stage.on_first_token(300.0 + f64::from(n), 0.3, 100.0, false));
        assert!(stage.is_queueing(0.0));
        assert!((stage.baseline(100.0) - 0.05).abs() < 1e-6, "load does not move the baseline");
    }

    #[test]
    fn the_clock_runs_while_a_request_is_in_the_stage() {
        let mut stage = FirstTokens::new(1.0);
        stage.on_busy(1.0);
        stage.on_idle(3.0);
        stage.on_busy(10.0);
        assert_eq!(stage.busy(11.0), 3.0);
        stage.on_idle(12.0);
        assert_eq!(stage.busy(50.0), 4.0);
    }

    #[test]
    fn the_target_stays_below_the_objective() {
        let mut slow = FirstTokens::new(1.0);
        (0..200).for_each(|n| slow.on_first_token(f64::from(n), 0.55, 100.0, true));
        assert!((slow.ttft_target() - 0.6).abs() < 1e-9, "{}", slow.ttft_target());
    }
}
