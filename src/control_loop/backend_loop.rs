//! The control loop of one backend: its estimator, its policy and its shadow, in the samples' own time.

use std::sync::Arc;
use std::time::Duration;

use super::published::Published;
use super::reorder_buffer::ReorderBuffer;
use super::shadow_mode::ShadowMode;
use crate::admission::policy::{self, Control, ControlPolicy};
use crate::admission::{self, GateStats, Limits, Mode};
use crate::estimate::{EngineLimits, Estimator, Settings, Transition};
use crate::measure::SampleBuffer;
use crate::vocabulary::time::Timestamp;

pub(super) struct BackendLoop {
    pub name: Arc<str>,
    estimator: Estimator,
    control: Control,
    shadow: ShadowMode,
    /// The limits of the last tick.
    pub limits: Limits,
    /// The gate's report for the next tick.
    gate_stats: GateStats,
    pub(super) engine_limits: EngineLimits,
    reorder: ReorderBuffer,
    pub(super) next_tick: Timestamp,
    pub published_at: Timestamp,
    lost: u64,
    /// Samples up to this time are incomplete.
    loss_until: Timestamp,
    /// When a loss was last logged.
    warned: Option<Timestamp>,
}

impl BackendLoop {
    pub fn new(
        name: Arc<str>,
        estimate: Settings,
        policy: ControlPolicy,
        queue: admission::Settings,
        now: Timestamp,
    ) -> Self {
        let Settings { slo_ttft, engine } = estimate;
        Self {
            name,
            estimator: Estimator::new(estimate, now),
            control: Control::new(policy, slo_ttft),
            shadow: ShadowMode::new(queue, slo_ttft),
            limits: Limits::new(Mode::Observe),
            gate_stats: GateStats::default(),
            engine_limits: engine,
            reorder: ReorderBuffer::new(now),
            next_tick: now + TICK,
            published_at: Timestamp::ZERO,
            lost: 0,
            loss_until: Timestamp::ZERO,
            warned: None,
        }
    }

    /// The policy's limits before any sample: a policy that needs no estimate is in force from the first request.
    pub fn begin(&mut self, mode: Mode, now: Timestamp) {
        self.tick(mode, now);
    }

    pub fn set_engine_limits(&mut self, engine_limits: EngineLimits) {
        if engine_limits != self.engine_limits {
            self.engine_limits = engine_limits;
            self.estimator.set_limits(engine_limits);
        }
    }

    pub fn set_queue_settings(&mut self, settings: admission::Settings, slo_ttft: Duration) {
        self.shadow.reset(settings, slo_ttft);
    }

    /// Starts the policy afresh; the estimate keeps what it knows of the engine.
    pub fn set_policy(&mut self, policy: ControlPolicy, slo_ttft: Duration) {
        self.control = Control::new(policy, slo_ttft);
        self.estimator.set_slo(slo_ttft);
    }

    pub fn on_samples<'a>(&mut self, buffers: impl Iterator<Item = &'a SampleBuffer> + Clone, now: Timestamp) {
        let lost: u64 = buffers.clone().map(|buffer| buffer.lost).sum();
        if lost > 0 && self.warned.is_none_or(|warned| now.since(warned) >= REMIND) {
            self.warned = Some(now);
            tracing::warn!(
                backend = &*self.name,
                lost,
                "samples found no room: the estimate has seen less than happened"
            );
        }
        if lost > 0 {
            self.lost += lost;
            self.loss_until = now;
        }
        self.reorder.push(buffers.flat_map(|buffer| &buffer.samples), now);
    }

    /// Runs the estimator and the policy over the samples that have settled, with a tick every 100 ms of the samples' time. What the
    /// gate held back since the last call is reported with the first of these ticks.
    pub fn advance(&mut self, now: Timestamp, gate_stats: GateStats, mode: Mode) {
        self.limits.mode = mode;
        self.shadow.set_mode(mode);
        let (window_bound, memory_bound) = (self.gate_stats.window_bound, self.gate_stats.memory_bound);
        self.gate_stats = gate_stats;
        self.gate_stats.window_bound |= window_bound;
        self.gate_stats.memory_bound |= memory_bound;
        let settled = self.reorder.settled(now);
        if settled.since(self.next_tick) > CATCH_UP {
            self.next_tick = settled - CATCH_UP;
        }
        while self.next_tick <= settled {
            if self.next_tick <= self.loss_until {
                self.estimator.on_loss();
            }
            for sample in self.reorder.release(self.next_tick) {
                self.estimator.on_sample(&sample);
                self.control.on_sample(&sample);
                self.shadow.on_sample(&sample, &self.estimator);
            }
            self.tick(mode, self.next_tick);
            (self.gate_stats.window_bound, self.gate_stats.memory_bound) = (false, false);
            self.shadow.on_tick(self.next_tick, &self.estimator);
            self.next_tick = self.next_tick + TICK;
        }
    }

    /// Changes of state since the last call.
    pub fn transitions(&mut self) -> impl Iterator<Item = Transition> {
        self.estimator.transitions()
    }

    pub fn publish(&mut self, now: Timestamp) -> Published {
        self.published_at = now;
        Published {
            at: now,
            reading: self.estimator.reading(),
            would_shed: self.shadow.counts(),
            lost: self.lost,
            late: self.reorder.late(),
            held_back: self.reorder.span(),
        }
    }

    fn tick(&mut self, mode: Mode, at: Timestamp) {
        self.limits = policy::tick(&mut self.estimator, &mut self.control, &self.gate_stats, mode, at);
    }
}

/// The estimate's tick.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// Missed ticks (a suspended machine) are made up for at most this long; older samples describe a load that has ended.
const CATCH_UP: Duration = Duration::from_secs(10);
/// How often continuing losses are logged again.
const REMIND: Duration = Duration::from_secs(60);
