//! The loop: arrivals, engine steps and weir's ticks in the order of virtual time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::enforcement::Retry;
use super::machine::{Lengths, Machine, submit};
use super::outcome::{Served, SimulationOutcome};
use super::scenario::{LimitsShown, Scenario, Subject};
use super::traffic::{self, DrawKind, SimulatedRequest};
use super::watch::ObservedEstimator;
use crate::admission::Shadow;
use crate::admission::policy::Control;
use crate::admission::{AdmissionRequest, BackendQueue, Dequeued, Limits, Mode, Offered, Slot};
use crate::engine::model::Engine;
use crate::estimate::{EngineLimits, Settings};
use crate::measure::{Class, RequestKey, Sample, What};
use crate::vocabulary::time::Timestamp;

/// One engine of a scenario.
#[derive(Clone, Copy, Debug)]
pub struct ReplicaStage<'a> {
    /// What is played.
    pub scenario: &'a Scenario,
    /// With which engine.
    pub subject: &'a Subject,
    /// What the level of each segment counts in, in requests per second.
    pub units: &'a [f64],
    /// Requests in flight at which the engine is at its best, for a policy that is told it.
    pub concurrency: f64,
}

/// Plays one scenario with one engine and one seed.
pub fn play(stage: ReplicaStage<'_>, seed: u64) -> SimulationOutcome {
    play_aloud(stage, seed, |_| {})
}

/// The same, with somebody who hears every sample that the estimator is told.
pub fn play_aloud(stage: ReplicaStage<'_>, seed: u64, hear: impl FnMut(&Sample)) -> SimulationOutcome {
    let requests = traffic::draw(stage.scenario, &stage.subject.machine, stage.units, seed);
    let mut rehearsal = Rehearsal::new(stage, requests, seed, hear);
    while let Some(event) = rehearsal.next() {
        rehearsal.on(event);
    }
    rehearsal.outcome()
}

/// What the configuration tells weir about an engine.
pub(super) fn settings(subject: &Subject, shown: LimitsShown) -> Settings {
    let params = subject.machine.setup.params;
    let slots = matches!(shown, LimitsShown::All | LimitsShown::Slots);
    let kv = matches!(shown, LimitsShown::All | LimitsShown::Kv);
    Settings {
        slo_ttft: subject.slo_ttft,
        engine: EngineLimits {
            max_num_seqs: slots.then(|| params.max_num_seqs.get()),
            kv_tokens: kv.then(|| params.kv_tokens.get()),
            max_num_batched_tokens: (shown == LimitsShown::All).then(|| params.max_num_batched_tokens.get()),
        },
    }
}

/// Something that happens. At one instant they happen in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SimulationEvent {
    /// A step of a replica ends.
    Step { replica: usize },
    /// A dispatched request reaches its replica.
    Delivery,
    /// The next request arrives.
    Arrival,
    /// A refused client comes back.
    Return,
    /// A dispatched request has not had its first token in time.
    Deadline,
    /// A tenth of a second is over.
    Tick,
}

struct Rehearsal<'a, H> {
    stage: ReplicaStage<'a>,
    now: Timestamp,
    /// Those drawn, and behind them those that came back.
    requests: Vec<SimulatedRequest>,
    drawn: usize,
    /// How many of the drawn have arrived.
    arrived: usize,
    returning: BinaryHeap<Reverse<(Timestamp, usize)>>,
    retries: ChaCha8Rng,
    line: BackendQueue<usize>,
    limits: Limits,
    /// Of each request that was dispatched and is not over.
    slots: Vec<Option<Slot>>,
    deadlines: BinaryHeap<Reverse<(Timestamp, usize)>>,
    fleet: Replicas,
    watch: ObservedEstimator,
    hear: H,
    /// The segment that `now` lies in.
    segment: usize,
}

impl<'a, H: FnMut(&Sample)> Rehearsal<'a, H> {
    fn new(stage: ReplicaStage<'a>, requests: Vec<SimulatedRequest>, seed: u64, hear: H) -> Self {
        let ReplicaStage { scenario, subject, .. } = stage;
        let enforcement = &scenario.control;
        let control = Control::new(enforcement.policy(stage.concurrency), subject.slo_ttft);
        let shadow =
            (enforcement.mode() == Mode::Observe).then(|| Shadow::new(enforcement.settings(), subject.slo_ttft));
        let settings = settings(subject, scenario.sight.limits);
        let mut rehearsal = Self {
            stage,
            now: Timestamp::ZERO,
            drawn: requests.len(),
            requests,
            arrived: 0,
            returning: BinaryHeap::new(),
            retries: traffic::dice(seed, DrawKind::Retries),
            line: BackendQueue::new(enforcement.settings()),
            limits: Limits::new(enforcement.mode()),
            slots: Vec::new(),
            deadlines: BinaryHeap::new(),
            fleet: Replicas::new(&subject.machine, scenario.replicas, scenario.delay, seed),
            watch: ObservedEstimator::new(settings, control, shadow, Timestamp::ZERO),
            hear,
            segment: 0,
        };
        rehearsal.watch.outcome.requests.reserve(rehearsal.drawn);
        rehearsal.enter_segment(0);
        rehearsal
    }

    /// What happens next, with `now` set to its time; `None` when the rehearsal is over.
    fn next(&mut self) -> Option<SimulationEvent> {
        let arrives =
            self.requests[..self.drawn].get(self.arrived).map(|request| (request.arrives, SimulationEvent::Arrival));
        let returns = self.returning.peek().map(|Reverse((at, _))| (*at, SimulationEvent::Return));
        let deadline = self.deadlines.peek().map(|Reverse((at, _))| (*at, SimulationEvent::Deadline));
        let tick = (Timestamp::ZERO + TICK * (self.watch.ticks() as u32 + 1), SimulationEvent::Tick);
        let earliest = [self.fleet.next_step(), self.fleet.next_delivery(), arrives, returns, deadline];
        let (at, event) = earliest.into_iter().flatten().fold(tick, Ord::min);
        if self.is_over(at) {
            return None;
        }
        self.now = at;
        Some(event)
    }

    fn is_over(&self, at: Timestamp) -> bool {
        let length = self.stage.scenario.length();
        if self.stage.scenario.drain {
            self.watch.completed() == self.drawn as u64 && self.now.since(Timestamp::ZERO) >= length
        } else {
            at.since(Timestamp::ZERO) > length
        }
    }

    fn on(&mut self, event: SimulationEvent) {
        while self.segment + 1 < self.stage.scenario.segments.len()
            && self.now.since(Timestamp::ZERO) >= self.stage.scenario.begins(self.segment + 1)
        {
            self.enter_segment(self.segment + 1);
        }
        match event {
            SimulationEvent::Step { replica } => self.on_step(replica),
            SimulationEvent::Delivery => self.fleet.deliver(self.now),
            SimulationEvent::Arrival => {
                self.arrived += 1;
                self.on_arrival(self.arrived - 1);
            }
            SimulationEvent::Return => {
                if let Some(Reverse((_, number))) = self.returning.pop() {
                    self.on_arrival(number);
                }
            }
            SimulationEvent::Deadline => self.on_deadline(),
            SimulationEvent::Tick => self.on_tick(),
        }
        self.advance();
    }

    fn enter_segment(&mut self, number: usize) {
        self.segment = number;
        let segment = &self.stage.scenario.segments[number];
        self.fleet.set(segment.slowdown, segment.replicas.unwrap_or(self.stage.scenario.replicas));
    }

    fn on_arrival(&mut self, number: usize) {
        let SimulatedRequest { lengths, seen, class, tenant, retry, .. } = self.requests[number];
        let served = Served {
            arrived: self.now,
            lengths,
            first_token: None,
            completed: None,
            class,
            tenant,
            dispatched: false,
            refused: false,
            retry,
        };
        // Retries are given numbers when they are planned and may arrive in another order.
        let requests = &mut self.watch.outcome.requests;
        if requests.len() <= number {
            requests.resize(number + 1, served);
        }
        requests[number] = served;
        self.tell(number, What::Offered { prompt: seen, stream: true, priority: Class::Default });
        let prompt = self.watch.prompt(seen) as f32;
        let slo = Some(self.stage.subject.slo_ttft);
        let ask = AdmissionRequest { arrived: self.now, prompt, bytes: 0, class, tenant, slo, streamed: true };
        match self.line.offer(&self.limits, ask, || number, self.now) {
            Offered::Dispatched(slot) => self.on_dispatch(number, slot),
            Offered::Queued(_) => {}
            Offered::Shed(shed) => self.on_shed(number, shed.retry_after),
        }
    }

    /// Dispatches who may go now, and refuses who would be late.
    fn advance(&mut self) {
        let mut calls = Vec::new();
        self.line.advance(&self.limits, self.now, &mut |number, call| calls.push((number, call)));
        for (number, call) in calls {
            match call {
                Dequeued::Dispatch(slot) => self.on_dispatch(number, slot),
                Dequeued::Shed(shed) => self.on_shed(number, shed.retry_after),
            }
        }
    }

    fn on_dispatch(&mut self, number: usize, slot: Slot) {
        self.tell(number, What::Admitted);
        self.watch.outcome.requests[number].dispatched = true;
        if self.slots.len() <= number {
            self.slots.resize(number + 1, None);
        }
        self.slots[number] = Some(slot);
        let Scenario { control, .. } = self.stage.scenario;
        if control.mode() == Mode::Enforce && control.late_abort {
            let deadline = self.watch.outcome.requests[number].arrived + self.stage.subject.slo_ttft;
            self.deadlines.push(Reverse((deadline, number)));
        }
        self.fleet.dispatch(number, self.requests[number].lengths, self.now);
    }

    fn on_shed(&mut self, number: usize, retry_after: Duration) {
        self.tell(number, What::Left { shed: true });
        self.watch.outcome.requests[number].refused = true;
        self.plan_return(number, retry_after);
    }

    /// A dispatched request without a first token is taken out of the engine.
    fn on_deadline(&mut self) {
        let Some(Reverse((_, number))) = self.deadlines.pop() else { return };
        if self.watch.outcome.requests[number].first_token.is_some() {
            return;
        }
        let Some(slot) = self.slots[number].take() else { return };
        self.fleet.cancel(number);
        self.line.on_end(slot);
        self.tell(number, What::Finished { completed: false, input: None, output: None, cached: None });
        self.watch.outcome.requests[number].refused = true;
        let retry_after = self.line.retry_after(&self.limits, self.now);
        self.plan_return(number, retry_after);
    }

    fn plan_return(&mut self, number: usize, retry_after: Duration) {
        let request = self.requests[number];
        let (first, tries) = request.retry.unwrap_or((number, 0));
        let wait = match self.stage.scenario.clients.retry {
            Retry::RetryAfter => retry_after.mul_f64(1.0 + 0.5 * self.retries.random::<f64>()),
            Retry::Immediately => Duration::from_secs_f64(0.02 + 0.05 * self.retries.random::<f64>()),
            Retry::Never => return,
        };
        if tries >= MOST_RETRIES || (self.now + wait).since(Timestamp::ZERO) > self.stage.scenario.length() {
            return;
        }
        let arrives = self.now + wait;
        self.requests.push(SimulatedRequest { arrives, retry: Some((first, tries + 1)), ..request });
        self.returning.push(Reverse((arrives, self.requests.len() - 1)));
    }

    fn on_tick(&mut self) {
        let gate_stats = self.line.gate_stats(self.now);
        let control = self.stage.scenario.control;
        self.limits = self.watch.on_tick(&gate_stats, control.mode(), self.now);
        if !control.kv_cap {
            self.limits.kv_cap = None;
        }
    }

    fn on_step(&mut self, replica: usize) {
        let Self { fleet, watch, hear, requests, line, slots, now, .. } = self;
        let at = *now;
        let usage = self.stage.scenario.sight.usage;
        for emission in fleet.finish_step(replica) {
            let number = emission.id as usize;
            let request = RequestKey(emission.id);
            let served = &mut watch.outcome.requests[number];
            let slot = slots[number];
            if emission.index == 0 {
                served.first_token = Some(at);
                slot.map(|slot| line.on_first_token(slot, at));
            }
            if let Some(slot) = slot {
                line.on_tokens(slot, emission.tokens);
            }
            if emission.finished {
                served.completed = Some(at);
                slots[number].take().map(|slot| line.on_end(slot));
            }
            let mut tell = |what| {
                let sample = Sample { at, request, what };
                hear(&sample);
                watch.on_sample(&sample);
            };
            tell(What::Emission { tokens: emission.tokens, limited: false });
            if emission.finished {
                tell(finished(requests[number].lengths, usage));
            }
        }
        fleet.begin_step(replica, at);
    }

    fn tell(&mut self, number: usize, what: What) {
        let sample = Sample { at: self.now, request: RequestKey(number as u64), what };
        (self.hear)(&sample);
        self.watch.on_sample(&sample);
    }

    fn outcome(mut self) -> SimulationOutcome {
        self.watch.outcome.ended = self.now;
        self.watch.outcome
    }
}

fn finished(lengths: Lengths, usage: bool) -> What {
    What::Finished {
        completed: true,
        input: usage.then_some(lengths.prompt),
        output: usage.then_some(lengths.output),
        cached: usage.then_some(lengths.cached),
    }
}

/// The replicas behind the one address, dealt to in turn, and what is on its way to them.
struct Replicas {
    replicas: Vec<Replica>,
    /// Replicas that are given requests: the first so many. The others finish what they have.
    live: usize,
    turn: usize,
    delay: Duration,
    on_the_way: VecDeque<(Timestamp, usize, Lengths)>,
}

struct Replica {
    engine: Engine,
    /// When the step it is in ends.
    due: Option<Timestamp>,
}

impl Replicas {
    fn new(machine: &Machine, replicas: u32, delay: Duration, seed: u64) -> Self {
        let replica = |number| Replica { engine: machine.engine(seed ^ u64::from(number) << 32), due: None };
        Self {
            replicas: (0..replicas).map(replica).collect(),
            live: replicas as usize,
            turn: 0,
            delay,
            on_the_way: VecDeque::new(),
        }
    }

    fn set(&mut self, slowdown: f64, live: u32) {
        self.replicas.iter_mut().for_each(|replica| replica.engine.set_slowdown(slowdown));
        self.live = live as usize;
    }

    /// Sends a request off. The whole delay, there and back, is spent on the way there: weir sees the same stamps, since
    /// the engine cannot tell when its clock was set.
    fn dispatch(&mut self, number: usize, lengths: Lengths, now: Timestamp) {
        self.on_the_way.push_back((now + self.delay, number, lengths));
        if self.delay.is_zero() {
            self.deliver(now);
        }
    }

    /// Takes a request out, wherever it is. It leaves the engine at once.
    fn cancel(&mut self, number: usize) {
        self.on_the_way.retain(|(_, other, _)| *other != number);
        for replica in &mut self.replicas {
            replica.engine.cancel(number as u64);
        }
    }

    fn deliver(&mut self, now: Timestamp) {
        let Some((_, number, lengths)) = self.on_the_way.pop_front() else { return };
        self.turn = (self.turn + 1) % self.live;
        let turn = self.turn;
        submit(&mut self.replicas[turn].engine, number as u64, lengths);
        if self.replicas[turn].due.is_none() {
            self.begin_step(turn, now);
        }
    }

    fn begin_step(&mut self, replica: usize, now: Timestamp) {
        let replica = &mut self.replicas[replica];
        replica.due = replica.engine.begin_step().map(|step| now + step.duration);
    }

    fn finish_step(&mut self, replica: usize) -> &[crate::engine::model::StepYield] {
        self.replicas[replica].engine.finish_step()
    }

    fn next_step(&self) -> Option<(Timestamp, SimulationEvent)> {
        let due = |(replica, state): (usize, &Replica)| Some((state.due?, SimulationEvent::Step { replica }));
        self.replicas.iter().enumerate().filter_map(due).min()
    }

    fn next_delivery(&self) -> Option<(Timestamp, SimulationEvent)> {
        self.on_the_way.front().map(|delivery| (delivery.0, SimulationEvent::Delivery))
    }
}

/// How often a refused client comes back.
const MOST_RETRIES: u32 = 3;

/// How often weir looks up.
pub(super) const TICK: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::scenario::{LevelUnit, Segment};

    fn outcome(head: &str, segments: &str, seed: u64) -> SimulationOutcome {
        let text = format!("about = \"x\"\nseeds = [1]\n{head}\n{segments}");
        let scenario = Scenario::parse("test", &text).unwrap();
        let unit = |segment: &Segment| if segment.unit == LevelUnit::Requests { 1.0 } else { 5.126 };
        let units: Vec<f64> = scenario.segments.iter().map(unit).collect();
        play(
            ReplicaStage { scenario: &scenario, subject: &scenario.engines[0], units: &units, concurrency: 16.0 },
            seed,
        )
    }

    const STEP: &str = "[[segment]]\nseconds = 20\nload = 0.3\n[[segment]]\nseconds = 30\nload = 2.0\n";
    const SLOTS16: &str = "engines = [\"slots16\"]";

    #[test]
    fn the_same_seed_gives_the_same_outcome_to_the_last_bit() {
        let first = outcome(SLOTS16, STEP, 4);
        assert_eq!(first, outcome(SLOTS16, STEP, 4));
        assert_ne!(first.requests, outcome(SLOTS16, STEP, 5).requests);
    }

    #[test]
    fn there_is_a_reading_a_second_and_the_loop_ends_with_the_last_segment() {
        let outcome = outcome(SLOTS16, STEP, 1);
        assert_eq!(outcome.moments.len(), 50);
        assert_eq!(outcome.at(Duration::from_millis(7_900)).unwrap().at, Timestamp::ZERO + Duration::from_secs(7));
        assert!(outcome.ended <= Timestamp::ZERO + Duration::from_secs(50));
        assert!(outcome.requests.iter().any(|request| request.completed.is_none()), "an overload leaves work");
    }

    #[test]
    fn an_overloaded_engine_completes_its_capacity_and_not_more() {
        let outcome = outcome(SLOTS16, "[[segment]]\nseconds = 400\nload = 2.0\n", 1);
        let last = outcome.moments.last().unwrap();
        let rate = last.completed as f64 / 400.0;
        assert!((rate / 5.126 - 1.0).abs() < 0.03, "{rate}");
        assert!(last.offered > 3_900 && last.admitted == last.offered, "observe admits everybody");
    }

    #[test]
    fn a_drained_rehearsal_ends_when_the_last_request_is_served() {
        let outcome = outcome("engines = [\"slots16\"]\ndrain = true", "[[segment]]\nrequests = 50\nrate = 20\n", 1);
        assert_eq!(outcome.requests.len(), 50);
        assert!(outcome.requests.iter().all(|request| request.completed.is_some()));
        let last = outcome.requests.iter().filter_map(|request| request.completed).max();
        assert_eq!(Some(outcome.ended), last);
    }

    #[test]
    fn a_delay_is_added_to_every_first_token() {
        let light = "[[segment]]\nseconds = 100\nrate = 0.2\ncv = 0.0\n";
        let near = outcome(SLOTS16, light, 1);
        let far = outcome("engines = [\"slots16\"]\ndelay = 0.08", light, 1);
        let pairs = near.requests.iter().zip(&far.requests);
        let extra = |(near, far): (&Served, &Served)| Some(far.ttft()?.as_secs_f64() - near.ttft()?.as_secs_f64());
        let extras: Vec<f64> = pairs.filter_map(extra).collect();
        assert!(extras.len() > 15 && extras.iter().all(|extra| (extra - 0.08).abs() < 1e-6), "{extras:?}");
    }

    #[test]
    fn two_replicas_serve_twice_as_much_and_a_slow_engine_less() {
        let completed = |head: &str, slowdown: f64| {
            let text = format!("[[segment]]\nseconds = 200\nrate = 30\nslowdown = {slowdown}\n");
            outcome(head, &text, 1).moments.last().unwrap().completed as f64
        };
        let one = completed(SLOTS16, 1.0);
        let two = completed("engines = [\"slots16\"]\nreplicas = 2", 1.0);
        assert!((two / one - 2.0).abs() < 0.1, "{one} {two}");
        let slow = completed(SLOTS16, 2.0);
        assert!((slow / one - 0.5).abs() < 0.05, "{one} {slow}");
    }
}
