//! The loop: arrivals, engine steps and weir's ticks in the order of virtual time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::enforcement::Retry;
use super::machine::Lengths;
use super::observed_estimator::ObservedEstimator;
use super::outcome::{Served, SimulationOutcome};
use super::replicas::Replicas;
use super::scenario::{LimitsShown, Scenario, Subject};
use super::traffic::{self, DrawKind, SimulatedRequest};
use crate::admission::Shadow;
use crate::admission::policy::Control;
use crate::admission::{AdmissionRequest, BackendQueue, Dequeued, Limits, Mode, Offered, Slot};
use crate::estimate::{EngineLimits, Settings};
use crate::measure::{Class, RequestKey, Sample, What};
use crate::vocabulary::time::Timestamp;

/// One engine of a scenario.
#[derive(Clone, Copy, Debug)]
pub struct ReplicaStage<'a> {
    /// The scenario.
    pub scenario: &'a Scenario,
    /// The engine.
    pub subject: &'a Subject,
    /// What the level of each segment counts in, in requests per second.
    pub units: &'a [f64],
    /// Requests in flight at which the engine is at its best, for a policy with a static limit.
    pub concurrency: f64,
}

/// Runs one scenario with one engine and one seed.
pub fn play(stage: ReplicaStage<'_>, seed: u64) -> SimulationOutcome {
    play_observed(stage, seed, |_| {})
}

/// The same; `on_sample` is called with every sample that the estimator receives.
pub fn play_observed(stage: ReplicaStage<'_>, seed: u64, on_sample: impl FnMut(&Sample)) -> SimulationOutcome {
    let requests = traffic::draw(stage.scenario, &stage.subject.machine, stage.units, seed);
    let mut simulation = SimulationLoop::new(stage, requests, seed, on_sample);
    while let Some(event) = simulation.next() {
        simulation.on(event);
    }
    simulation.outcome()
}

/// What weir's configuration has of an engine.
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

/// An event of the loop. Events of one instant happen in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SimulationEvent {
    /// A step of a replica ends.
    Step { replica: usize },
    /// A dispatched request reaches its replica.
    Delivery,
    /// The next request arrives.
    Arrival,
    /// A refused client tries again.
    Return,
    /// A dispatched request has not had its first token in time.
    Deadline,
    /// A tenth of a second is over.
    Tick,
}

struct SimulationLoop<'a, H> {
    stage: ReplicaStage<'a>,
    now: Timestamp,
    /// Those drawn, followed by the retries.
    requests: Vec<SimulatedRequest>,
    drawn: usize,
    /// How many of the drawn have arrived.
    arrived: usize,
    returning: BinaryHeap<Reverse<(Timestamp, usize)>>,
    retries: ChaCha8Rng,
    queue: BackendQueue<usize>,
    limits: Limits,
    /// Of each request that was dispatched and is not over.
    slots: Vec<Option<Slot>>,
    deadlines: BinaryHeap<Reverse<(Timestamp, usize)>>,
    replicas: Replicas,
    observed: ObservedEstimator,
    on_sample: H,
    /// The segment that `now` lies in.
    segment: usize,
}

impl<'a, H: FnMut(&Sample)> SimulationLoop<'a, H> {
    fn new(stage: ReplicaStage<'a>, requests: Vec<SimulatedRequest>, seed: u64, on_sample: H) -> Self {
        let ReplicaStage { scenario, subject, .. } = stage;
        let enforcement = &scenario.control;
        let control = Control::new(enforcement.policy(stage.concurrency), subject.slo_ttft);
        let shadow =
            (enforcement.mode() == Mode::Observe).then(|| Shadow::new(enforcement.settings(), subject.slo_ttft));
        let settings = settings(subject, scenario.sight.limits);
        let mut simulation = Self {
            stage,
            now: Timestamp::ZERO,
            drawn: requests.len(),
            requests,
            arrived: 0,
            returning: BinaryHeap::new(),
            retries: traffic::rng(seed, DrawKind::Retries),
            queue: BackendQueue::new(enforcement.settings()),
            limits: Limits::new(enforcement.mode()),
            slots: Vec::new(),
            deadlines: BinaryHeap::new(),
            replicas: Replicas::new(&subject.machine, scenario.replicas, scenario.delay, seed),
            observed: ObservedEstimator::new(settings, control, shadow, Timestamp::ZERO),
            on_sample,
            segment: 0,
        };
        simulation.observed.outcome.requests.reserve(simulation.drawn);
        simulation.enter_segment(0);
        simulation
    }

    /// What happens next, with `now` set to its time; `None` when the run is over.
    fn next(&mut self) -> Option<SimulationEvent> {
        let arrives =
            self.requests[..self.drawn].get(self.arrived).map(|request| (request.arrives, SimulationEvent::Arrival));
        let returns = self.returning.peek().map(|Reverse((at, _))| (*at, SimulationEvent::Return));
        let deadline = self.deadlines.peek().map(|Reverse((at, _))| (*at, SimulationEvent::Deadline));
        let tick = (Timestamp::ZERO + TICK * (self.observed.ticks() as u32 + 1), SimulationEvent::Tick);
        let step = self.replicas.next_step().map(|(at, replica)| (at, SimulationEvent::Step { replica }));
        let delivery = self.replicas.next_delivery().map(|at| (at, SimulationEvent::Delivery));
        let earliest = [step, delivery, arrives, returns, deadline];
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
            self.observed.completed() == self.drawn as u64 && self.now.since(Timestamp::ZERO) >= length
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
            SimulationEvent::Delivery => self.replicas.deliver(self.now),
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
        self.replicas.set(segment.slowdown, segment.replicas.unwrap_or(self.stage.scenario.replicas));
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
        // A retry has its number from when it was planned; retries may arrive in another order.
        let requests = &mut self.observed.outcome.requests;
        if requests.len() <= number {
            requests.resize(number + 1, served);
        }
        requests[number] = served;
        self.observe(number, What::Offered { prompt: seen, stream: true, priority: Class::Default });
        let prompt = self.observed.prompt(seen) as f32;
        let slo = Some(self.stage.subject.slo_ttft);
        let request = AdmissionRequest { arrived: self.now, prompt, bytes: 0, class, tenant, slo, streamed: true };
        match self.queue.offer(&self.limits, request, || number, self.now) {
            Offered::Dispatched(slot) => self.on_dispatch(number, slot),
            Offered::Queued(_) => {}
            Offered::Shed(shed) => self.on_shed(number, shed.retry_after),
        }
    }

    /// Dispatches the requests that may be dispatched now, and refuses those that would be late.
    fn advance(&mut self) {
        let mut dequeued = Vec::new();
        self.queue.advance(&self.limits, self.now, &mut |number, how| dequeued.push((number, how)));
        for (number, how) in dequeued {
            match how {
                Dequeued::Dispatch(slot) => self.on_dispatch(number, slot),
                Dequeued::Shed(shed) => self.on_shed(number, shed.retry_after),
            }
        }
    }

    fn on_dispatch(&mut self, number: usize, slot: Slot) {
        self.observe(number, What::Admitted);
        self.observed.outcome.requests[number].dispatched = true;
        if self.slots.len() <= number {
            self.slots.resize(number + 1, None);
        }
        self.slots[number] = Some(slot);
        let Scenario { control, .. } = self.stage.scenario;
        if control.mode() == Mode::Enforce && control.late_abort {
            let deadline = self.observed.outcome.requests[number].arrived + self.stage.subject.slo_ttft;
            self.deadlines.push(Reverse((deadline, number)));
        }
        self.replicas.dispatch(number, self.requests[number].lengths, self.now);
    }

    fn on_shed(&mut self, number: usize, retry_after: Duration) {
        self.observe(number, What::Left { shed: true });
        self.observed.outcome.requests[number].refused = true;
        self.plan_return(number, retry_after);
    }

    /// A dispatched request without a first token is taken out of the engine.
    fn on_deadline(&mut self) {
        let Some(Reverse((_, number))) = self.deadlines.pop() else { return };
        if self.observed.outcome.requests[number].first_token.is_some() {
            return;
        }
        let Some(slot) = self.slots[number].take() else { return };
        self.replicas.cancel(number);
        self.queue.on_end(slot);
        self.observe(number, What::Finished { completed: false, input: None, output: None, cached: None });
        self.observed.outcome.requests[number].refused = true;
        let retry_after = self.queue.retry_after(&self.limits, self.now);
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
        let gate_stats = self.queue.gate_stats(self.now);
        let control = self.stage.scenario.control;
        self.limits = self.observed.on_tick(&gate_stats, control.mode(), self.now);
        if !control.kv_cap {
            self.limits.kv_cap = None;
        }
    }

    fn on_step(&mut self, replica: usize) {
        let Self { replicas, observed, on_sample, requests, queue, slots, now, .. } = self;
        let at = *now;
        let usage = self.stage.scenario.sight.usage;
        for emission in replicas.finish_step(replica) {
            let number = emission.id as usize;
            let request = RequestKey(emission.id);
            let served = &mut observed.outcome.requests[number];
            let slot = slots[number];
            if emission.index == 0 {
                served.first_token = Some(at);
                slot.map(|slot| queue.on_first_token(slot, at));
            }
            if let Some(slot) = slot {
                queue.on_tokens(slot, emission.tokens);
            }
            if emission.finished {
                served.completed = Some(at);
                slots[number].take().map(|slot| queue.on_end(slot));
            }
            let mut observe = |what| {
                let sample = Sample { at, request, what };
                on_sample(&sample);
                observed.on_sample(&sample);
            };
            observe(What::Emission { tokens: emission.tokens, limited: false });
            if emission.finished {
                observe(finished(requests[number].lengths, usage));
            }
        }
        replicas.begin_step(replica, at);
    }

    fn observe(&mut self, number: usize, what: What) {
        let sample = Sample { at: self.now, request: RequestKey(number as u64), what };
        (self.on_sample)(&sample);
        self.observed.on_sample(&sample);
    }

    fn outcome(mut self) -> SimulationOutcome {
        self.observed.outcome.ended = self.now;
        self.observed.outcome
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

/// How often a refused client tries again.
const MOST_RETRIES: u32 = 3;

/// Time between two ticks of the control loop.
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
    fn a_reading_a_second_until_the_last_segment_ends() {
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
        assert!(last.offered > 3_900 && last.admitted == last.offered, "observe admits every request");
    }

    #[test]
    fn a_drained_run_ends_when_the_last_request_is_served() {
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
