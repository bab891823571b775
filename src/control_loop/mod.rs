//! The control loop: every 100 ms, samples from the ledger go through the estimate and the policy, and the results are published.
//!
//! One task writes and all others read: publications are immutable and replaced as a whole. The estimate receives the same samples
//! and ticks as in a simulation, a little after they happened. At every tick the policy makes limits from the estimate and the gate's
//! report, and the pool obeys the last ones published, even if the loop stops. A change of state is one log line and one call of
//! [`OnTransition`].
//!
//! - `backend_loop`: one backend · `reorder_buffer`: its samples in order of time · `shadow_mode`: what enforcement would refuse
//! - `published`: what readers see · `command`: what a reload changes
//!
//! Absent: formulas (`estimate`, `admission::policy`).

mod backend_loop;
mod command;
mod published;
mod reorder_buffer;
mod shadow_mode;

use std::sync::Arc;
use std::time::Duration;

use self::backend_loop::{BackendLoop, TICK};
pub use self::command::{Command, CommandQueue};
pub use self::published::{Published, PublishedReadings};
use crate::admission;
use crate::admission::Mode;
use crate::admission::policy::ControlPolicy;
use crate::admission::pool::Pool;
use crate::clock::Clock;
use crate::estimate::{EngineLimits, SaturationState, Settings, Transition};
use crate::measure::{Ledger, SampleBuffer};
use crate::vocabulary::backend_id::BackendId;
use crate::vocabulary::time::Timestamp;

/// Called at every change of state, beside the log.
pub type OnTransition = Box<dyn FnMut(BackendId, &Transition) + Send>;

/// Returns the engine's own limits, from the configuration or from the engine itself.
pub type LimitsOf = Box<dyn Fn(BackendId) -> EngineLimits + Send>;

/// The gates that the loop controls.
pub struct GateControl {
    pub pool: Arc<Pool>,
    /// Which policy makes the limits.
    pub policy: ControlPolicy,
    /// The settings of the pool's queues, for the shadow.
    pub settings: admission::Settings,
    /// Whether the limits are enforced now; may change at any time.
    pub mode: Box<dyn Fn() -> Mode + Send>,
}

/// The loop over all backends.
pub struct ControlLoop {
    ledger: Arc<Ledger>,
    /// By backend index.
    loops: Vec<Option<BackendLoop>>,
    commands: Arc<CommandQueue>,
    slo_ttft: Duration,
    /// One list of buffers per shard, swapped for the filled ones at every tick.
    buffers: Vec<Vec<SampleBuffer>>,
    readings: Arc<PublishedReadings>,
    gate: GateControl,
    limits_of: LimitsOf,
    on_transition: OnTransition,
}

impl ControlLoop {
    /// A loop over `ledger`, with one estimator per backend.
    pub fn new(
        ledger: Arc<Ledger>,
        slo_ttft: Duration,
        readings: Arc<PublishedReadings>,
        gate: GateControl,
        limits_of: LimitsOf,
        on_transition: OnTransition,
        now: Timestamp,
    ) -> Self {
        let buffers = ledger.shards().iter().map(|_| Vec::new()).collect();
        let commands = Arc::default();
        let mut control_loop = Self {
            ledger: ledger.clone(),
            loops: Vec::new(),
            commands,
            slo_ttft,
            buffers,
            readings,
            gate,
            limits_of,
            on_transition,
        };
        ledger.roster().into_iter().for_each(|(backend, names)| control_loop.add_backend(backend, names.name, now));
        control_loop
    }

    /// The same, with changes from `commands`.
    #[must_use]
    pub fn with_commands(mut self, commands: Arc<CommandQueue>) -> Self {
        self.commands = commands;
        self
    }

    /// Ticks every 100 ms as long as the task lives.
    pub async fn run(mut self, clock: Clock) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            self.tick(clock.now());
        }
    }

    /// One tick at `now`.
    pub fn tick(&mut self, now: Timestamp) {
        for command in self.commands.drain() {
            self.apply(command, now);
        }
        for (shard, buffers) in self.ledger.shards().iter().zip(&mut self.buffers) {
            shard.drain_samples(buffers);
        }
        for (i, backend_loop) in self.loops.iter_mut().enumerate() {
            let Some(backend_loop) = backend_loop else { continue };
            let backend = BackendId::from_index(i);
            backend_loop.on_samples(self.buffers.iter().filter_map(|buffers| buffers.get(i)), now);
            let gate_stats = self.gate.pool.gate_stats(backend, now).unwrap_or_default();
            backend_loop.advance(now, gate_stats, (self.gate.mode)());
            self.gate.pool.publish(backend, backend_loop.limits, now);
            let name = backend_loop.name.clone();
            let mut changed = false;
            for transition in backend_loop.transitions() {
                changed = true;
                log_transition(&name, &transition);
                (self.on_transition)(backend, &transition);
            }
            let last = backend_loop.published_at;
            if changed || now.since(last) >= PUBLISH || last == Timestamp::ZERO {
                backend_loop.set_engine_limits((self.limits_of)(backend));
                self.readings.store(backend, Some(backend_loop.publish(now)));
            }
        }
    }

    fn apply(&mut self, command: Command, now: Timestamp) {
        match command {
            Command::AddBackend(backend, name) => self.add_backend(backend, name, now),
            Command::RemoveBackend(backend) => {
                if let Some(backend_loop) = self.loops.get_mut(backend.index()) {
                    *backend_loop = None;
                }
                self.readings.store(backend, None);
            }
            Command::Reconfigure { slo_ttft, policy, settings } => {
                let same_policy = policy == self.gate.policy && slo_ttft == self.slo_ttft;
                (self.slo_ttft, self.gate.policy, self.gate.settings) = (slo_ttft, policy, settings);
                for backend_loop in self.loops.iter_mut().flatten() {
                    backend_loop.set_queue_settings(settings, slo_ttft);
                    if !same_policy {
                        backend_loop.set_policy(policy, slo_ttft);
                    }
                }
            }
        }
    }

    fn add_backend(&mut self, backend: BackendId, name: Arc<str>, now: Timestamp) {
        let index = backend.index();
        let estimate = Settings { slo_ttft: self.slo_ttft, engine: (self.limits_of)(backend) };
        let mut backend_loop = BackendLoop::new(name, estimate, self.gate.policy, self.gate.settings, now);
        backend_loop.begin((self.gate.mode)(), now);
        self.gate.pool.publish(backend, backend_loop.limits, now);
        self.loops.resize_with(self.loops.len().max(index + 1), || None);
        self.loops[index] = Some(backend_loop);
        // A buffer swapped in at this tick is the one that the shard returns samples in at the next.
        self.buffers.iter_mut().for_each(|buffers| buffers.resize(self.loops.len(), SampleBuffer::default()));
        self.readings.store(backend, None);
    }
}

fn log_transition(backend: &str, transition: &Transition) {
    let Transition { from, to, reason, .. } = transition;
    let (from, to) = (from.word(), to.word());
    match transition.to {
        SaturationState::Saturated => tracing::warn!(backend, from, to, reason, "saturation changed"),
        _ => tracing::info!(backend, from, to, reason, "saturation changed"),
    }
}

/// A publication costs some microseconds, and readers look once a second at most.
const PUBLISH: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{Account, Arrival, BackendNames, BucketSettings, Class, Entry};
    use crate::vocabulary::slo::Slo;
    use std::collections::VecDeque;
    use std::sync::Mutex;

    const A: BackendId = BackendId(0);

    /// A backend that never ends a stream: every request waits for its first token or decodes.
    struct LoopRig {
        ledger: Arc<Ledger>,
        readings: Arc<PublishedReadings>,
        control_loop: ControlLoop,
        seen: Arc<Mutex<Vec<SaturationState>>>,
        waiting: VecDeque<Entry>,
        served: Vec<Entry>,
    }

    impl LoopRig {
        fn new(limits: impl Fn(BackendId) -> EngineLimits + Send + 'static) -> Self {
            let names = [BackendNames { name: "gpu-0".into(), model_name: None }];
            let ledger = Ledger::new(2, &names, Slo::default(), BucketSettings::default(), None);
            let (readings, seen) = (PublishedReadings::new(1), Arc::new(Mutex::new(Vec::new())));
            let seen_too = seen.clone();
            let on_transition = move |backend, transition: &Transition| {
                assert_eq!(backend, A);
                seen_too.lock().unwrap().push(transition.to);
            };
            let (limits, on_transition) = (Box::new(limits), Box::new(on_transition));
            let slo = Duration::from_secs(1);
            let gate = GateControl {
                pool: Pool::new(Default::default(), 1, admission::Settings::default()),
                policy: ControlPolicy::default(),
                settings: admission::Settings::default(),
                mode: Box::new(|| Mode::Enforce),
            };
            let control_loop =
                ControlLoop::new(ledger.clone(), slo, readings.clone(), gate, limits, on_transition, Timestamp::ZERO);
            Self { ledger, readings, control_loop, seen, waiting: VecDeque::new(), served: Vec::new() }
        }

        /// One second in ten ticks: in each, `arrive` requests arrive and `start` get their first token.
        fn second(&mut self, second: u64, arrive: u64, start: u64) {
            for tenth in 1..=10 {
                let now = at(second * 1000 + tenth * 100);
                for i in 0..arrive {
                    self.arrive(now - Duration::from_millis(90 - i), (i % 2) as usize);
                }
                for _ in 0..start {
                    if let Some(mut entry) = self.waiting.pop_front() {
                        entry.on_emission(now - Duration::from_millis(5), 1, false);
                        self.served.push(entry);
                    }
                }
                self.control_loop.tick(now);
            }
        }

        fn arrive(&mut self, at: Timestamp, shard: usize) {
            let account = Account { backend: A, model: self.ledger.model(A, Some("m")) };
            let arrival = Arrival {
                at,
                stream: true,
                assembled: false,
                trace: false,
                dialect: "openai.chat",
                prompt_tokens: Some(100),
                max_output: None,
                choices: 1,
                slo_ttft: Some(Slo::default().ttft),
            };
            let mut entry = Entry::offer(&self.ledger.shard(shard), account, Class::Default, arrival);
            entry.admit(at);
            self.waiting.push_back(entry);
        }

        fn state(&self, second: u64) -> SaturationState {
            self.readings
                .read(A, at(second * 1000))
                .map_or(SaturationState::Unknown, |published| published.reading.state)
        }

        fn seen(&self) -> Vec<SaturationState> {
            self.seen.lock().unwrap().clone()
        }
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn arrivals_beyond_the_starts_are_published_as_saturated() {
        let mut rig = LoopRig::new(|_| EngineLimits::default());
        (0..10).for_each(|second| rig.second(second, 2, 2));
        assert_eq!(rig.state(10), SaturationState::Healthy);
        let found = (10..25).find(|second| {
            rig.second(*second, 4, 2);
            rig.state(second + 1) == SaturationState::Saturated
        });
        assert!(found.is_some_and(|second| second < 15), "{found:?}");
        assert_eq!(rig.seen().last(), Some(&SaturationState::Saturated));
    }

    #[test]
    fn work_that_starts_as_it_arrives_is_never_saturated() {
        let mut rig = LoopRig::new(|_| EngineLimits::default());
        (0..60).for_each(|second| rig.second(second, 4, 4));
        assert_eq!(rig.seen(), [SaturationState::Healthy]);
        let published = rig.readings.read(A, at(60_000)).unwrap();
        assert_eq!((published.lost, published.late), (0, 0));
    }

    #[test]
    fn readings_of_a_stopped_loop_are_not_returned() {
        let mut rig = LoopRig::new(|_| EngineLimits::default());
        rig.second(0, 1, 1);
        assert!(rig.readings.read(A, at(10_000)).is_some());
        assert!(rig.readings.read(A, at(12_000)).is_none());
        assert!(rig.readings.read(BackendId(1), at(1000)).is_none());
    }

    #[test]
    fn limits_that_become_known_reach_the_estimate() {
        let known = Arc::new(Mutex::new(EngineLimits::default()));
        let asked = known.clone();
        let mut rig = LoopRig::new(move |_| *asked.lock().unwrap());
        rig.second(0, 1, 1);
        *known.lock().unwrap() = EngineLimits { max_num_seqs: Some(8), ..EngineLimits::default() };
        (1..3).for_each(|second| rig.second(second, 1, 1));
        assert_eq!(rig.control_loop.loops[0].as_ref().unwrap().engine_limits.max_num_seqs, Some(8));
    }

    #[test]
    fn a_machine_that_slept_continues_from_now() {
        let mut rig = LoopRig::new(|_| EngineLimits::default());
        (0..5).for_each(|second| rig.second(second, 2, 2));
        rig.control_loop.tick(at(100_000_000));
        assert!(at(100_000_000).since(rig.control_loop.loops[0].as_ref().unwrap().next_tick) < Duration::from_secs(1));
        rig.second(100_001, 2, 2);
        assert_eq!(rig.state(100_002), SaturationState::Healthy);
    }
}
