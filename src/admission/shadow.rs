//! What enforcement would have refused, in mode observe: the same requests, in a queue that holds no real request.
//!
//! In mode observe every request is dispatched on arrival, so the engine holds a backlog that a gate would have kept. The shadow has
//! a [`BackendQueue`] of its own, the code that enforces, and a window that moves as the policy moves it. Its simulated engine starts
//! work at the moments at which the real one does: each first token counts as that of the shadow's oldest pending request, whichever
//! request it belongs to. Under load both engines start at the same rate, the engine's capacity, and the shadow sheds the rest; where
//! the engine keeps up, both hold the same requests. The shadow never holds more than the engine does, so a request whose end it did
//! not see (a failure, a lost sample) cannot stay in it.
//!
//! Limitations: an engine that preempts under its backlog is taken as slow as it is with the backlog, so the count is too high there.
//! The KV cap, retries of refused clients and tenants are not simulated, and answers that are not streamed are let through. A first
//! token never counts sooner than the unloaded time, but may count for a request that the window would have delayed.

use std::collections::VecDeque;
use std::time::Duration;

use super::gate::Slot;
use super::limits::Limits;
use super::policy::first_token_window::FirstTokenWindow;
use super::queue::backend_queue::{BackendQueue, Dequeued, Offered};
use super::request::{AdmissionRequest, Tenant};
use super::settings::Settings;
use crate::estimate::Estimator;
use crate::measure::{Sample, What};
use crate::vocabulary::average::{DecayingRate, Moments, Smoothed};
use crate::vocabulary::class::Class;
use crate::vocabulary::mode::Mode;
use crate::vocabulary::signals::Signals;
use crate::vocabulary::time::Timestamp;
use crate::vocabulary::would_shed::WouldShed;

/// The shadow of one backend. It receives every sample and tick after the estimator.
#[derive(Debug)]
pub struct Shadow {
    slo: Duration,
    queue: BackendQueue<Class>,
    limits: Limits,
    window: FirstTokenWindow,
    pending: VecDeque<ShadowRequest>,
    stage: FirstTokenStage,
    /// The engine's first tokens that were applied.
    followed: u64,
    would_shed: WouldShed,
}

#[derive(Clone, Copy, Debug)]
struct ShadowRequest {
    slot: Slot,
    dispatched: Timestamp,
    prompt: f64,
}

/// The shadow's times to first token; the engine's own include the backlog.
#[derive(Debug)]
struct FirstTokenStage {
    /// Seconds from dispatch to first token.
    recent: Smoothed,
    /// Seconds beyond the unloaded time.
    excess: Moments,
    starts: DecayingRate,
    /// First tokens per second of the time in which a request was pending, `mu`.
    busy_starts: DecayingRate,
    busy: f64,
    busy_since: Option<f64>,
}

impl Shadow {
    /// `slo` is the objective from arrival to first token.
    pub fn new(settings: Settings, slo: Duration) -> Self {
        Self {
            slo,
            queue: BackendQueue::new(settings),
            limits: Limits::new(Mode::Enforce),
            window: FirstTokenWindow::new(),
            pending: VecDeque::new(),
            stage: FirstTokenStage::new(),
            followed: 0,
            would_shed: WouldShed::default(),
        }
    }

    /// Call it after `estimator` received the same sample.
    pub fn on_sample(&mut self, sample: &Sample, estimator: &Estimator) {
        let now = sample.at;
        match sample.what {
            What::Offered { prompt, stream: true, priority } => {
                self.on_arrival(estimator.prompt(prompt), priority, now);
            }
            What::Emission { .. } if estimator.starts() != self.followed => self.on_first_token(now),
            What::Finished { .. } | What::Left { .. } => self.settle(now, estimator),
            What::Offered { .. } | What::Admitted | What::Emission { .. } => {}
        }
        self.followed = estimator.starts();
    }

    /// Call it every 100 ms.
    pub fn on_tick(&mut self, now: Timestamp, estimator: &Estimator) {
        self.settle(now, estimator);
        let gate_stats = self.queue.gate_stats(now);
        self.limits.signals = self.stage.signals(estimator.signals(), seconds(now));
        self.window.on_tick(&self.limits.signals, &gate_stats);
        self.limits.window = self.window.size();
        self.advance(now);
    }

    /// The counts so far.
    pub fn would_shed(&self) -> WouldShed {
        self.would_shed
    }

    fn on_arrival(&mut self, prompt: f64, class: Class, now: Timestamp) {
        let prompt32 = prompt as f32;
        let request = AdmissionRequest {
            arrived: now,
            prompt: prompt32,
            bytes: 0,
            class,
            tenant: Tenant(0),
            slo: Some(self.slo),
            streamed: true,
        };
        match self.queue.offer(&self.limits, request, || class, now) {
            Offered::Dispatched(slot) => self.on_dispatch(slot, prompt, now),
            Offered::Queued(_) => self.advance(now),
            Offered::Shed(shed) => self.would_shed.add(class, shed.reason),
        }
    }

    /// The engine starts a request; in the shadow that is the oldest one.
    fn on_first_token(&mut self, now: Timestamp) {
        let Some(request) = self.pending.pop_front() else { return };
        let unloaded = self.limits.signals.unloaded_ttft(request.prompt);
        let ttft = now.since(request.dispatched).as_secs_f64().max(unloaded);
        self.stage.on_first_token(seconds(now), ttft, unloaded);
        self.queue.on_first_token(request.slot, now);
        self.end(request, now);
        self.advance(now);
    }

    /// Drops requests that the engine no longer holds.
    fn settle(&mut self, now: Timestamp, estimator: &Estimator) {
        let waiting = estimator.waiting() as usize;
        while self.pending.len() + self.queue.queued() > waiting {
            match self.pending.pop_front() {
                Some(request) => self.end(request, now),
                None if self.queue.take_next().is_none() => break,
                None => {}
            }
        }
        self.advance(now);
    }

    fn advance(&mut self, now: Timestamp) {
        let (mut dispatched, would_shed) = (Vec::new(), &mut self.would_shed);
        self.queue.advance(&self.limits, now, &mut |class, dequeued| match dequeued {
            Dequeued::Dispatch(slot) => dispatched.push(slot),
            Dequeued::Shed(shed) => would_shed.add(class, shed.reason),
        });
        for slot in dispatched {
            let prompt = self.queue.prompt(slot);
            self.on_dispatch(slot, prompt, now);
        }
    }

    fn on_dispatch(&mut self, slot: Slot, prompt: f64, now: Timestamp) {
        if self.pending.is_empty() {
            self.stage.busy_since = Some(seconds(now));
        }
        self.pending.push_back(ShadowRequest { slot, dispatched: now, prompt });
    }

    fn end(&mut self, request: ShadowRequest, now: Timestamp) {
        self.queue.on_end(request.slot);
        if self.pending.is_empty() {
            self.stage.on_idle(seconds(now));
        }
    }
}

impl FirstTokenStage {
    fn new() -> Self {
        Self {
            recent: Smoothed::new(0.2),
            excess: Moments::new(0.95),
            starts: DecayingRate::new(1.5),
            busy_starts: DecayingRate::new(2.0),
            busy: 0.0,
            busy_since: None,
        }
    }

    fn on_first_token(&mut self, now: f64, ttft: f64, unloaded: f64) {
        self.recent.add(ttft);
        self.excess.add(ttft - unloaded);
        self.starts.add(now);
        self.busy_starts.add(self.busy_time(now));
    }

    fn on_idle(&mut self, now: f64) {
        self.busy = self.busy_time(now);
        self.busy_since = None;
    }

    /// The engine's signals, with the shadow's own times to first token.
    fn signals(&self, engine: Signals, now: f64) -> Signals {
        Signals {
            excess_ttft: self.excess.mean,
            excess_ttft_deviation: self.excess.deviation(),
            busy_start_rate: self.busy_starts.at(self.busy_time(now)),
            start_rate: self.starts.at(now),
            recent_ttft: self.recent.value(),
            knee_in_flight: None, // decoding streams are not followed
            ..engine
        }
    }

    fn busy_time(&self, now: f64) -> f64 {
        self.busy + self.busy_since.map_or(0.0, |since| now - since)
    }
}

fn seconds(at: Timestamp) -> f64 {
    at.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimate::{EngineLimits, Settings as Estimated};
    use crate::measure::RequestKey;
    use crate::vocabulary::shed_reason::ShedReason;

    /// An engine that starts the oldest of its requests every `1/rate` seconds and ends it at once, offered `load` per second for
    /// 60 s: the share that would have been shed.
    fn shed_at(load: f64, rate: f64) -> f64 {
        let slo = Duration::from_secs(1);
        let mut estimator =
            Estimator::new(Estimated { slo_ttft: slo, engine: EngineLimits::default() }, Timestamp::ZERO);
        let mut shadow = Shadow::new(Settings::default(), slo);
        let sample = |seconds: f64, request, what, estimator: &mut Estimator, shadow: &mut Shadow| {
            let at = Timestamp::from_nanos((seconds * 1e9) as u64);
            let sample = Sample { at, request: RequestKey(request), what };
            estimator.on_sample(&sample);
            shadow.on_sample(&sample, estimator);
        };
        let (mut offered, mut started, mut next_start) = (0, 0, 0.0_f64);
        for millisecond in 0..60_000_u32 {
            let now = f64::from(millisecond) * 1e-3;
            if now * load >= offered as f64 {
                sample(
                    now,
                    offered,
                    What::Offered { prompt: Some(100), stream: true, priority: Class::Interactive },
                    &mut estimator,
                    &mut shadow,
                );
                sample(now, offered, What::Admitted, &mut estimator, &mut shadow);
                next_start = if started == offered { now + 1.0 / rate } else { next_start };
                offered += 1;
            }
            if started < offered && now >= next_start {
                sample(now, started, What::Emission { tokens: 1, limited: false }, &mut estimator, &mut shadow);
                let finished = What::Finished { completed: true, input: None, output: None, cached: None };
                sample(now, started, finished, &mut estimator, &mut shadow);
                (started, next_start) = (started + 1, next_start + 1.0 / rate);
            }
            if millisecond % 100 == 0 {
                let at = Timestamp::from_nanos(u64::from(millisecond) * 1_000_000);
                estimator.on_tick(at);
                shadow.on_tick(at, &estimator);
            }
        }
        let shed = shadow.would_shed();
        let reasons = ShedReason::ALL.map(|reason| shed.of(Class::Interactive, reason));
        assert_eq!(reasons.iter().sum::<u64>(), shed.total(), "all in their class");
        shed.total() as f64 / offered as f64
    }

    #[test]
    fn at_twice_the_capacity_half_would_have_been_shed() {
        let share = shed_at(40.0, 20.0);
        assert!((0.42..0.55).contains(&share), "{share}");
    }

    #[test]
    fn below_the_capacity_none_would_have_been_shed() {
        assert_eq!(shed_at(14.0, 20.0), 0.0);
    }
}
