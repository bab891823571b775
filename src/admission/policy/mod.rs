//! How much may be dispatched to a backend: what the estimator sees becomes [`Limits`] for admission.
//!
//! A [`Control`] is asked at every tick, after its estimator; [`turn`] does both in their order. It decides and publishes, and
//! dispatches nothing. If nobody ticks it, the last limits stay in force.

mod control_policy;
pub(in crate::admission) mod first_token_window;
mod kv_cap;
mod limiters;

use std::time::Duration;

use super::{Forecast, GateStats, Limits, Mode};
use crate::estimate::{Estimator, View};
use crate::measure::Sample;
use crate::vocabulary::time::Timestamp;
pub use control_policy::ControlPolicy;
use first_token_window::{FirstTokenWindow, StageView};
use kv_cap::KvCap;
use limiters::ConcurrencyLimiter;

/// One backend's control.
#[derive(Debug)]
pub struct Control {
    policy: ControlPolicy,
    window: FirstTokenWindow,
    kv_cap: KvCap,
    rival: Option<ConcurrencyLimiter>,
}

/// One tick of a backend: its estimator first, then its control. Returns what is to be published.
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
    control.tick(&estimator.view(), gate_stats, mode, now)
}

impl Control {
    /// Knows nothing yet; `slo_ttft` is the objective for arrival to first token.
    pub fn new(policy: ControlPolicy, slo_ttft: Duration) -> Self {
        let rival = ConcurrencyLimiter::new(policy, slo_ttft.as_secs_f64());
        Self { policy, window: FirstTokenWindow::new(), kv_cap: KvCap::new(), rival }
    }

    /// Takes in what the estimator was told. Only the policies that judge single requests need it.
    pub fn on_sample(&mut self, sample: &Sample) {
        if let Some(rival) = &mut self.rival {
            rival.on_sample(sample);
        }
    }

    /// What may be dispatched from now on.
    pub fn tick(&mut self, view: &View, gate_stats: &GateStats, mode: Mode, now: Timestamp) -> Limits {
        let forecast = forecast(view);
        if self.policy != ControlPolicy::FirstTokenWindow {
            let concurrency = self.rival.as_ref().map(ConcurrencyLimiter::concurrency);
            return Limits { mode, window: f64::INFINITY, kv_cap: None, concurrency, forecast };
        }
        // Without somebody who was held back nothing is proved about the window's size.
        if gate_stats.refused && gate_stats.queued > 0 {
            let latency = view.recent.max(gate_stats.oldest_pending);
            self.window.on_refusal(&StageView { latency, start_rate: view.start_rate, goal: view.goal });
        }
        self.kv_cap.on_tick(view, gate_stats, now.since(Timestamp::ZERO).as_secs_f64());
        Limits { mode, window: self.window.size(), kv_cap: self.kv_cap.tokens(), concurrency: None, forecast }
    }
}

pub(in crate::admission) fn forecast(view: &View) -> Forecast {
    Forecast {
        free: view.free.map(|free| free as f32),
        beyond: view.beyond,
        beyond_deviation: view.beyond_deviation,
        busy_start_rate: view.busy_start_rate,
        start_rate: view.start_rate,
        recent: view.recent,
        usual: view.usual,
        gap: view.gap,
        goal: view.goal,
        mean_answer: view.mean_answer,
        knee_in_flight: view.knee_in_flight,
        per_prompt_token: view.per_prompt_token,
    }
}

#[cfg(test)]
fn view_of_nothing() -> View {
    Estimator::new(
        crate::estimate::Settings { slo_ttft: Duration::from_secs(1), engine: Default::default() },
        Timestamp::ZERO,
    )
    .view()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(control: &mut Control, refused: bool, queued: usize) -> Limits {
        let view = View { goal: 0.25, start_rate: 100.0, recent: 0.05, ..view_of_nothing() };
        let gate_stats = GateStats { refused, queued, ..GateStats::default() };
        control.tick(&view, &gate_stats, Mode::Enforce, Timestamp::ZERO)
    }

    #[test]
    fn a_window_that_held_nobody_back_stays_where_it_is() {
        let mut control = Control::new(ControlPolicy::FirstTokenWindow, Duration::from_secs(1));
        (0..100).for_each(|_| assert_eq!(tick(&mut control, false, 0).window, 4.0));
        assert_eq!(tick(&mut control, true, 0).window, 4.0, "who was held back has gone since");
        assert!(tick(&mut control, true, 1).window > 5.0);
    }

    #[test]
    fn a_static_policy_says_its_number_and_no_window() {
        let limits = tick(&mut Control::new(ControlPolicy::Static(7), Duration::from_secs(1)), true, 9);
        assert_eq!((limits.concurrency, limits.window), (Some(7), f64::INFINITY));
        let limits = tick(&mut Control::new(ControlPolicy::None, Duration::from_secs(1)), true, 9);
        assert_eq!((limits.concurrency, limits.window), (None, f64::INFINITY), "no limit at all");
    }
}
