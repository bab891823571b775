//! Every 100 ms: samples out of the ledger, through the estimate, to what is published.
//!
//! One place turns the wheel and everybody else reads what it left: readings are immutable and swapped whole. The estimate sees
//! the same samples and the same ticks that a rehearsal would give it, a little after they happened. A change of state is
//! one log line and one call to whoever keeps the journal. At every turn control makes limits of what the estimate sees and of
//! what happened at the gate, and they are published to the pool; when the wheel stands still, the last ones stay in force.

mod reorder_buffer;
mod shadow_mode;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use self::reorder_buffer::ReorderBuffer;
use self::shadow_mode::ShadowMode;
use crate::admission::policy;
use crate::admission::policy::{Control, ControlPolicy};
use crate::admission::pool::Pool;
use crate::admission::{self, GateStats, Mode};
use crate::clock::Clock;
use crate::estimate::{EngineLimits, Estimator, Reading, SaturationState, Settings, Transition};
use crate::measure::{Ledger, SampleBuffer};
use crate::vocabulary::backend_id::BackendId;
use crate::vocabulary::time::Timestamp;
use crate::vocabulary::would_shed::WouldShed;

/// What was last published of one backend.
#[derive(Clone, Debug)]
pub struct Published {
    /// When.
    pub at: Timestamp,
    pub reading: Reading,
    /// Mode observe: requests that enforcement would have refused, ever.
    pub would_shed: WouldShed,
    /// Samples that found no room in a buffer, ever.
    pub lost: u64,
    /// Samples that were told at a wrong time because they came too late, ever.
    pub late: u64,
    /// How long samples are held back to be put into order.
    pub held_back: Duration,
}

/// Where readings lie, in the configuration's order. Reading one never waits.
#[derive(Debug)]
pub struct PublishedReadings(Box<[ArcSwapOption<Published>]>);

/// Whoever is told of a change of state, beside the log.
pub type OnTransition = Box<dyn FnMut(BackendId, &Transition) + Send>;

/// Whoever knows the engine's limits now: from the configuration, or from the engine itself.
pub type LimitsOf = Box<dyn Fn(BackendId) -> EngineLimits + Send>;

/// What is steered.
pub struct GateControl {
    pub pool: Arc<Pool>,
    /// Which rule makes the limits.
    pub policy: ControlPolicy,
    /// What a line would be told, for the shadow.
    pub settings: admission::Settings,
    /// Whether they are enforced now; may change at any time.
    pub mode: Box<dyn Fn() -> Mode + Send>,
}

/// The wheel.
pub struct ControlLoop {
    ledger: Arc<Ledger>,
    /// By place.
    loops: Vec<Option<BackendLoop>>,
    commands: Arc<CommandQueue>,
    slo_ttft: Duration,
    /// One list of buffers a shard; swapped for the filled ones at every turn.
    buffers: Vec<Vec<SampleBuffer>>,
    readings: Arc<PublishedReadings>,
    gate: GateControl,
    limits_of: LimitsOf,
    on_transition: OnTransition,
}

/// What has changed about what is steered: said by a reload, done at the next turn.
#[derive(Clone, Debug)]
pub enum Command {
    /// Another backend stands at this place, or the one there has another engine behind it.
    AddBackend(BackendId, Arc<str>),
    /// Nobody stands there any more.
    RemoveBackend(BackendId),
    /// Other objectives, another rule or other lines. What is known of the engines stays; what control had learned of its
    /// limits it learns anew.
    Reconfigure { slo_ttft: Duration, policy: ControlPolicy, settings: admission::Settings },
}

/// Changes that wait for the next turn.
#[derive(Debug, Default)]
pub struct CommandQueue(Mutex<Vec<Command>>);

impl CommandQueue {
    /// Says a change.
    pub fn push(&self, command: Command) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(command);
    }

    fn take(&self) -> Vec<Command> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One backend.
struct BackendLoop {
    name: Arc<str>,
    estimator: Estimator,
    control: Control,
    shadow: ShadowMode,
    /// Published last.
    allowed: admission::Limits,
    /// What control has to be told of the gate at the next tick.
    gate_stats: GateStats,
    limits: EngineLimits,
    order: ReorderBuffer,
    next_tick: Timestamp,
    published: Timestamp,
    lost: u64,
    /// Samples up to here have gaps.
    loss_until: Timestamp,
    /// When losses were last said.
    warned: Option<Timestamp>,
}

impl PublishedReadings {
    /// A readings for `backends` backends.
    pub fn new(backends: usize) -> Arc<Self> {
        Arc::new(Self((0..backends).map(|_| ArcSwapOption::empty()).collect()))
    }

    /// What is known of a backend at `now`; `None` before the first publication, and when the wheel no longer turns.
    pub fn read(&self, backend: BackendId, now: Timestamp) -> Option<Arc<Published>> {
        let published = self.0.get(backend.index())?.load_full()?;
        (now.since(published.at) <= STOPPED).then_some(published)
    }

    /// Every backend's, in order.
    pub fn read_all(&self, now: Timestamp) -> Vec<Option<Arc<Published>>> {
        (0..self.0.len()).map(|i| self.read(id(i), now)).collect()
    }
}

impl ControlLoop {
    /// A wheel over `ledger`, with one estimator a backend.
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

    /// The same, told of changes through `commands`.
    #[must_use]
    pub fn with_commands(mut self, commands: Arc<CommandQueue>) -> Self {
        self.commands = commands;
        self
    }

    fn add_backend(&mut self, backend: BackendId, name: Arc<str>, now: Timestamp) {
        let place = backend.index();
        let engine = (self.limits_of)(backend);
        let mut backend_loop = BackendLoop::new(name, Settings { slo_ttft: self.slo_ttft, engine }, &self.gate, now);
        // Before anything is known: a policy that needs to know nothing is in force from the first request.
        let BackendLoop { estimator, control, gate_stats, .. } = &mut backend_loop;
        backend_loop.allowed = policy::tick(estimator, control, gate_stats, (self.gate.mode)(), now);
        self.gate.pool.publish(backend, backend_loop.allowed, now);
        self.loops.resize_with(self.loops.len().max(place + 1), || None);
        self.loops[place] = Some(backend_loop);
        // A buffer that is swapped in here is the one that the shard gives samples back in.
        self.buffers.iter_mut().for_each(|buffers| buffers.resize(self.loops.len(), SampleBuffer::default()));
        if let Some(slot) = self.readings.0.get(place) {
            slot.store(None);
        }
    }

    fn apply(&mut self, change: Command, now: Timestamp) {
        match change {
            Command::AddBackend(backend, name) => self.add_backend(backend, name, now),
            Command::RemoveBackend(backend) => {
                if let Some(backend_loop) = self.loops.get_mut(backend.index()) {
                    *backend_loop = None;
                }
                if let Some(slot) = self.readings.0.get(backend.index()) {
                    slot.store(None);
                }
            }
            Command::Reconfigure { slo_ttft, policy, settings } => {
                let same_rule = policy == self.gate.policy && slo_ttft == self.slo_ttft;
                (self.slo_ttft, self.gate.policy, self.gate.settings) = (slo_ttft, policy, settings);
                for backend_loop in self.loops.iter_mut().flatten() {
                    backend_loop.shadow.reset(settings, slo_ttft);
                    if !same_rule {
                        backend_loop.control = Control::new(policy, slo_ttft);
                        backend_loop.estimator.set_slo(slo_ttft);
                    }
                }
            }
        }
    }

    /// Turns every 100 ms for as long as the task lives.
    pub async fn run(mut self, clock: Clock) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            self.tick(clock.now());
        }
    }

    /// One turn at `now`.
    pub fn tick(&mut self, now: Timestamp) {
        for change in self.commands.take() {
            self.apply(change, now);
        }
        for (shard, buffers) in self.ledger.shards().iter().zip(&mut self.buffers) {
            shard.drain_samples(buffers);
        }
        for (i, backend_loop) in self.loops.iter_mut().enumerate() {
            let Some(backend_loop) = backend_loop else { continue };
            let told = self.buffers.iter().filter_map(|buffers| buffers.get(i));
            let backend = id(i);
            backend_loop.take_in(told, now);
            let gate_stats = self.gate.pool.gate_stats(backend, now).unwrap_or_default();
            backend_loop.advance(now, gate_stats, (self.gate.mode)());
            self.gate.pool.publish(backend, backend_loop.allowed, now);
            let mut changed = false;
            for transition in backend_loop.estimator.transitions() {
                changed = true;
                log_transition(&backend_loop.name, &transition);
                (self.on_transition)(backend, &transition);
            }
            if changed || now.since(backend_loop.published) >= PUBLISH || backend_loop.published == Timestamp::ZERO {
                backend_loop.published = now;
                backend_loop.set_limits((self.limits_of)(backend));
                if let Some(slot) = self.readings.0.get(i) {
                    slot.store(Some(Arc::new(backend_loop.publish(now))));
                }
            }
        }
    }
}

impl BackendLoop {
    fn new(name: Arc<str>, settings: Settings, gate: &GateControl, now: Timestamp) -> Self {
        let limits = settings.engine;
        let control = Control::new(gate.policy, settings.slo_ttft);
        let shadow = ShadowMode::new(gate.settings, settings.slo_ttft);
        let estimator = Estimator::new(settings, now);
        let (order, next_tick) = (ReorderBuffer::new(now), now + TICK);
        Self {
            name,
            estimator,
            control,
            shadow,
            allowed: admission::Limits::new(Mode::Observe),
            gate_stats: GateStats::default(),
            limits,
            order,
            next_tick,
            published: Timestamp::ZERO,
            lost: 0,
            loss_until: Timestamp::ZERO,
            warned: None,
        }
    }

    fn set_limits(&mut self, limits: EngineLimits) {
        if limits != self.limits {
            self.limits = limits;
            self.estimator.set_limits(limits);
        }
    }

    fn take_in<'a>(&mut self, told: impl Iterator<Item = &'a SampleBuffer> + Clone, now: Timestamp) {
        let lost: u64 = told.clone().map(|buffer| buffer.lost).sum();
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
        self.order.take_in(told.flat_map(|buffer| &buffer.samples), now);
    }

    /// Tells the estimator and control what has settled, with a tick every 100 ms of the samples' time. What was held back at the
    /// gate since the last turn is told with the first of these ticks.
    fn advance(&mut self, now: Timestamp, gate_stats: GateStats, mode: Mode) {
        self.allowed.mode = mode;
        self.shadow.set_mode(mode);
        let (refused, memory_bound) = (self.gate_stats.refused, self.gate_stats.memory_bound);
        self.gate_stats = gate_stats;
        self.gate_stats.refused |= refused;
        self.gate_stats.memory_bound |= memory_bound;
        let settled = self.order.settled(now);
        if settled.since(self.next_tick) > CATCH_UP {
            self.next_tick = settled - CATCH_UP;
        }
        while self.next_tick <= settled {
            if self.next_tick <= self.loss_until {
                self.estimator.on_loss();
            }
            for sample in self.order.release(self.next_tick) {
                self.estimator.on_sample(&sample);
                self.control.on_sample(&sample);
                self.shadow.on_sample(&sample, &self.estimator);
            }
            let tick = self.next_tick;
            self.allowed = policy::tick(&mut self.estimator, &mut self.control, &self.gate_stats, mode, tick);
            (self.gate_stats.refused, self.gate_stats.memory_bound) = (false, false);
            self.shadow.on_tick(tick, &self.estimator);
            self.next_tick = self.next_tick + TICK;
        }
    }

    fn publish(&self, now: Timestamp) -> Published {
        Published {
            at: now,
            reading: self.estimator.reading(),
            would_shed: self.shadow.counts(),
            lost: self.lost,
            late: self.order.late(),
            held_back: self.order.span(),
        }
    }
}

fn id(place: usize) -> BackendId {
    BackendId::from_index(place)
}

fn log_transition(backend: &str, transition: &Transition) {
    let Transition { from, to, reason, .. } = transition;
    let (from, to) = (from.word(), to.word());
    match transition.to {
        SaturationState::Saturated => tracing::warn!(backend, from, to, reason, "saturation changed"),
        _ => tracing::info!(backend, from, to, reason, "saturation changed"),
    }
}

/// The estimate's own tick.
const TICK: Duration = Duration::from_millis(100);
/// A reading costs some microseconds and is looked at once a second at most.
const PUBLISH: Duration = Duration::from_secs(1);
/// Ticks that were missed (a suspended machine) are made up for this long; what is older would be told of a world that is gone.
const CATCH_UP: Duration = Duration::from_secs(10);
/// A reading this old was left by a wheel that no longer turns.
const STOPPED: Duration = Duration::from_secs(10);
/// How often losses that go on are said again.
const REMIND: Duration = Duration::from_secs(60);

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
        told: Arc<Mutex<Vec<SaturationState>>>,
        waiting: VecDeque<Entry>,
        served: Vec<Entry>,
    }

    impl LoopRig {
        fn new(limits: impl Fn(BackendId) -> EngineLimits + Send + 'static) -> Self {
            let names = [BackendNames { name: "gpu-0".into(), model_name: None }];
            let ledger = Ledger::new(2, &names, Slo::default(), BucketSettings::default(), None);
            let (readings, told) = (PublishedReadings::new(1), Arc::new(Mutex::new(Vec::new())));
            let told_too = told.clone();
            let on_transition = move |backend, transition: &Transition| {
                assert_eq!(backend, A);
                told_too.lock().unwrap().push(transition.to);
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
            Self { ledger, readings, control_loop, told, waiting: VecDeque::new(), served: Vec::new() }
        }

        /// A second in ten turns: so many requests arrive in each, and so many get their first token.
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

        fn told(&self) -> Vec<SaturationState> {
            self.told.lock().unwrap().clone()
        }
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn work_that_arrives_faster_than_it_is_started_is_published_and_told() {
        let mut rig = LoopRig::new(|_| EngineLimits::default());
        (0..10).for_each(|second| rig.second(second, 2, 2));
        assert_eq!(rig.state(10), SaturationState::Healthy);
        let found = (10..25).find(|second| {
            rig.second(*second, 4, 2);
            rig.state(second + 1) == SaturationState::Saturated
        });
        assert!(found.is_some_and(|second| second < 15), "{found:?}");
        assert_eq!(rig.told().last(), Some(&SaturationState::Saturated));
    }

    #[test]
    fn work_that_is_started_as_it_arrives_is_never_saturated() {
        let mut rig = LoopRig::new(|_| EngineLimits::default());
        (0..60).for_each(|second| rig.second(second, 4, 4));
        assert_eq!(rig.told(), [SaturationState::Healthy]);
        let published = rig.readings.read(A, at(60_000)).unwrap();
        assert_eq!((published.lost, published.late), (0, 0));
    }

    #[test]
    fn a_board_that_nobody_writes_any_more_says_nothing() {
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
        assert_eq!(rig.control_loop.loops[0].as_ref().unwrap().limits.max_num_seqs, Some(8));
    }

    #[test]
    fn a_machine_that_slept_goes_on_from_now() {
        let mut rig = LoopRig::new(|_| EngineLimits::default());
        (0..5).for_each(|second| rig.second(second, 2, 2));
        rig.control_loop.tick(at(100_000_000));
        assert!(at(100_000_000).since(rig.control_loop.loops[0].as_ref().unwrap().next_tick) < Duration::from_secs(1));
        rig.second(100_001, 2, 2);
        assert_eq!(rig.state(100_002), SaturationState::Healthy);
    }
}
