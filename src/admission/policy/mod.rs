//! How much may be dispatched to a backend: turns the estimate's signals and the gate's report into [`Limits`].
//!
//! [`tick`] runs the estimator first, then [`Control`]. `first_token_window` and `kv_cap` are weir's own policy; `limiters` has the
//! published ones for comparison; `control_policy` says which is configured.
//!
//! Absent: dispatch and publication. If no tick comes, the last limits stay in force.

mod control_policy;
pub(in crate::admission) mod first_token_window;
mod kv_cap;
mod limiters;

use std::time::Duration;

use super::gate_stats::GateStats;
use super::limits::Limits;
use crate::estimate::Estimator;
use crate::measure::Sample;
use crate::vocabulary::mode::Mode;
use crate::vocabulary::signals::Signals;
use crate::vocabulary::time::Timestamp;
pub use control_policy::ControlPolicy;
use first_token_window::FirstTokenWindow;
use kv_cap::KvCap;
use limiters::ConcurrencyLimiter;

/// The policy of one backend.
#[derive(Debug)]
pub struct Control {
    policy: ControlPolicy,
    window: FirstTokenWindow,
    kv_cap: KvCap,
    limiter: Option<ConcurrencyLimiter>,
}

/// One tick of a backend: its estimator first, then its policy. Returns the limits to publish.
pub fn tick(
    estimator: &mut Estimator,
    control: &mut Control,
    gate_stats: &GateStats,
    mode: Mode,
    now: Timestamp,
) -> Limits {
    if gate_stats.memory_bound {
        estimator.on_held_back();
    }
    estimator.on_tick(now);
    control.tick(&estimator.signals(), gate_stats, mode, now)
}

impl Control {
    /// `slo_ttft` is the objective from arrival to first token.
    pub fn new(policy: ControlPolicy, slo_ttft: Duration) -> Self {
        let limiter = ConcurrencyLimiter::new(policy, slo_ttft.as_secs_f64());
        Self { policy, window: FirstTokenWindow::new(), kv_cap: KvCap::new(), limiter }
    }

    /// Only the limiters need single samples.
    pub fn on_sample(&mut self, sample: &Sample) {
        if let Some(limiter) = &mut self.limiter {
            limiter.on_sample(sample);
        }
    }

    /// The limits from now on.
    pub fn tick(&mut self, signals: &Signals, gate_stats: &GateStats, mode: Mode, now: Timestamp) -> Limits {
        if self.policy != ControlPolicy::FirstTokenWindow {
            let concurrency = self.limiter.as_ref().map(ConcurrencyLimiter::concurrency);
            return Limits { mode, window: f64::INFINITY, kv_cap: None, concurrency, signals: *signals };
        }
        self.window.on_tick(signals, gate_stats);
        self.kv_cap.on_tick(signals, gate_stats, now.since(Timestamp::ZERO).as_secs_f64());
        Limits { mode, window: self.window.size(), kv_cap: self.kv_cap.tokens(), concurrency: None, signals: *signals }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(control: &mut Control, window_bound: bool, queued: usize) -> Limits {
        let signals = Signals { ttft_target: 0.25, start_rate: 100.0, recent_ttft: 0.05, ..Signals::UNKNOWN };
        let gate_stats = GateStats { window_bound, queued, ..GateStats::default() };
        control.tick(&signals, &gate_stats, Mode::Enforce, Timestamp::ZERO)
    }

    #[test]
    fn a_window_that_held_no_request_back_stays() {
        let mut control = Control::new(ControlPolicy::FirstTokenWindow, Duration::from_secs(1));
        (0..100).for_each(|_| assert_eq!(tick(&mut control, false, 0).window, 4.0));
        assert_eq!(tick(&mut control, true, 0).window, 4.0, "no request waits any more");
        assert!(tick(&mut control, true, 1).window > 5.0);
    }

    #[test]
    fn a_static_policy_sets_its_number_and_no_window() {
        let limits = tick(&mut Control::new(ControlPolicy::Static(7), Duration::from_secs(1)), true, 9);
        assert_eq!((limits.concurrency, limits.window), (Some(7), f64::INFINITY));
        let limits = tick(&mut Control::new(ControlPolicy::None, Duration::from_secs(1)), true, 9);
        assert_eq!((limits.concurrency, limits.window), (None, f64::INFINITY), "no limit at all");
    }
}
