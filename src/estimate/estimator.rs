//! One backend's estimator: takes samples and ticks, keeps the parts in step with each other, says what is known.
//!
//! Each part knows one thing; what couples them is here: which event concerns whom, and what a change of the engine or of
//! the traffic makes worthless. About 10 KB of state and 80 bytes a request under way.
//!
//! Limitations: answers that are not streamed count as in flight and nothing else. The gate's own waiting is not seen here:
//! who holds requests back for want of memory says so with [`Estimator::on_held_back`].

use std::time::Duration;

use super::blocks::{BlockTick, Blocks};
use super::capacity::{Capacity, FEWEST_BLOCKS};
use super::costs::Costs;
use super::detector::Detector;
use super::drift::DriftTest;
use super::first_token::FirstTokens;
use super::in_flight::{InFlightTable, RequestPhase, TrackedRequest};
use super::mix::Mix;
use super::prediction::{EngineBounds, predict, upper_bound};
use super::prompts::PromptCorrection;
use super::reading::{
    Knee, Missing, NotEnoughEvidence, Prediction, Reading, SaturationState, Shift, ShiftKind, SpeedChanges, Transition,
};
use super::saturation::Saturation;
use super::speed::{SpeedChange, SpeedTest};
use super::step_visibility::StepVisibility;
use super::steps::{EmissionSeen, FinishedStep, Steps, WorkInterval};
use super::throughput::BestStartRate;
use super::{EngineLimits, Settings};
use crate::measure::{RequestKey, Sample, What};
use crate::vocabulary::average::DecayingRate;
use crate::vocabulary::signals::Signals;
use crate::vocabulary::time::Timestamp;

/// One backend's estimator.
#[derive(Debug)]
pub struct Estimator {
    engine: EngineLimits,
    started: Timestamp,
    live: InFlightTable,
    prompts: PromptCorrection,
    stage: FirstTokens,
    steps: Steps,
    visibility: StepVisibility,
    costs: Costs,
    speed: SpeedTest,
    mix: Mix,
    detector: Detector,
    saturation: Saturation,
    blocks: Blocks,
    capacity: Capacity,
    drift: DriftTest,
    best_start_rate: BestStartRate,
    offered: DecayingRate,
    /// Seconds lost to recomputation, per second.
    wasted: DecayingRate,
    wasted_lately: DecayingRate,
    /// Streams that emit again in this step after a preemption, and seconds that cost.
    resumed: u32,
    resumed_work: f64,
    counts: EstimatorCounts,
    /// Since the last tick.
    held_back: bool,
    last_tick: f64,
    last_second: f64,
    now: f64,
    knee: Option<Knee>,
    transitions: Vec<Transition>,
}

/// Plain counts.
#[derive(Clone, Copy, Debug, Default)]
struct EstimatorCounts {
    queued: u64,
    in_flight: u64,
    /// Streams without a first token.
    pending: u64,
    /// Context of the decoding streams, in tokens.
    context: f64,
    /// Tokens ever delivered.
    delivered: u64,
    /// First tokens ever.
    starts: u64,
    /// Streams served to their end ever.
    completions: u64,
    stalls: u64,
    drifts: u64,
    speed: SpeedChanges,
    shift: Option<Shift>,
}

impl Estimator {
    /// Knows nothing yet.
    pub fn new(settings: Settings, now: Timestamp) -> Self {
        Self {
            engine: settings.engine,
            started: now,
            live: InFlightTable::default(),
            prompts: PromptCorrection::new(),
            stage: FirstTokens::new(settings.slo_ttft.as_secs_f64()),
            steps: Steps::new(),
            visibility: StepVisibility::new(),
            costs: Costs::default(),
            speed: SpeedTest::default(),
            mix: Mix::new(),
            detector: Detector::new(),
            saturation: Saturation::new(now),
            blocks: Blocks::default(),
            capacity: Capacity::new(settings.engine.max_num_batched_tokens.map(f64::from)),
            drift: DriftTest::new(),
            best_start_rate: BestStartRate::default(),
            offered: DecayingRate::new(10.0),
            wasted: DecayingRate::new(6.0),
            wasted_lately: DecayingRate::new(1.5),
            resumed: 0,
            resumed_work: 0.0,
            counts: EstimatorCounts::default(),
            held_back: false,
            last_tick: 0.0,
            last_second: 0.0,
            now: 0.0,
            knee: None,
            transitions: Vec::new(),
        }
    }

    /// Takes one sample in, in the order of their stamps. O(1) amortised; no allocation for an emission.
    pub fn on_sample(&mut self, sample: &Sample) {
        let now = self.seconds(sample.at);
        match sample.what {
            What::Emission { tokens, limited } => self.on_emission(sample, now, tokens.max(1), limited),
            What::Offered { prompt, stream, .. } => self.on_offered(sample.request, now, prompt, stream),
            What::Admitted => self.on_admitted(sample.request, now),
            What::Finished { completed, input, output, .. } => {
                self.on_finished(sample.request, now, completed, input, output);
            }
            What::Left { shed } => self.on_left(sample.request, now, shed),
        }
    }

    /// The engine's own limits became known, or changed.
    pub fn set_limits(&mut self, limits: EngineLimits) {
        self.engine = limits;
        self.capacity.set_batched(limits.max_num_batched_tokens.map(f64::from));
    }

    /// The objective for the first token is another one from now on. What is known of the engine stays.
    pub fn set_slo(&mut self, ttft: Duration) {
        self.stage.set_slo(ttft.as_secs_f64());
    }

    /// Emissions around now were lost on their way here: what is being gathered proves nothing.
    pub fn on_loss(&mut self) {
        self.steps.on_loss();
        self.blocks.on_loss();
    }

    /// The gate held requests back although their first tokens would come at once: the engine's memory is the limit.
    pub fn on_held_back(&mut self) {
        self.held_back = true;
    }

    /// Time has passed; call it every 100 ms.
    pub fn on_tick(&mut self, at: Timestamp) {
        let now = self.seconds(at);
        // A process that stood still has seen nothing of the time in between.
        let elapsed = (now - self.last_tick).clamp(0.0, LONGEST_TICK);
        self.last_tick = now;
        self.mix.refresh();
        self.judge(at, now, elapsed);
        self.gather(at, now);
        if now - self.last_second >= 1.0 - 1e-9 {
            self.last_second = now;
            self.best_start_rate.on_second(self.counts.starts, self.counts.completions);
            self.knee = self.compute_knee();
        }
    }

    /// The changes of state since the last call.
    pub fn transitions(&mut self) -> impl Iterator<Item = Transition> {
        self.transitions.drain(..)
    }

    /// What is known now. Costs a few microseconds: for once a second, not for every tick.
    pub fn reading(&self) -> Reading {
        let EstimatorCounts { queued, in_flight, pending, stalls, drifts, speed, shift, .. } = self.counts;
        let figures = self.mix.figures();
        let solution = self.costs.solution();
        let knee = self.knee.ok_or_else(|| self.missing_for_knee());
        let there = (in_flight + queued) as f64;
        Reading {
            state: self.saturation.state(),
            since: self.saturation.since(),
            reason: self.saturation.reason().to_owned(),
            ratio: self.knee.map(|knee| there / knee.in_flight.value.max(1.0)),
            demand_ratio: self.knee.map(|knee| self.offered.at(self.now) / knee.requests_per_second.value),
            knee,
            prediction: self.prediction(),
            upper_bound: figures.as_ref().zip(solution).and_then(|(mix, costs)| upper_bound(mix, costs)),
            lower_bound: self.best_start_rate.best(),
            costs: self.costs.step_costs().filter(|_| !self.visibility.is_blurred()),
            several_engines: self.visibility.is_blurred(),
            speed_changes: speed,
            mix_changes: self.mix.changes(),
            drifts,
            shift,
            stalls,
            blocks: self.blocks.counts(),
            in_flight,
            pending,
            queued,
        }
    }

    /// What admission reads at every tick.
    pub fn signals(&self) -> Signals {
        let (stage, now) = (&self.stage, self.now);
        let (excess_ttft, excess_ttft_deviation) = stage.excess();
        let mix = self.mix.figures();
        let decoding = self.counts.in_flight.saturating_sub(self.counts.pending) as f64;
        let per_prompt_token = mix.as_ref().zip(self.costs.solution()).filter(|_| self.mix.prompts_are_known());
        Signals {
            unloaded_ttft: stage.baselines(),
            excess_ttft,
            excess_ttft_deviation,
            busy_start_rate: stage.busy_start_rate(now),
            start_rate: stage.start_rate(now),
            recent_ttft: stage.recent(),
            typical_ttft: stage.typical(),
            step_time: stage.step_time(),
            ttft_target: stage.ttft_target(),
            mean_answer: mix.as_ref().map_or(0.0, |mix| mix.output * mix.tokens_per_emission),
            knee_in_flight: self.knee.map(|knee| knee.in_flight.value),
            per_prompt_token: per_prompt_token
                .and_then(|(mix, costs)| self.capacity.per_prompt_token(mix, costs, decoding)),
            kv_tokens: self.engine.kv_tokens.map(f64::from),
            wasted: self.wasted.at(now),
            wasted_lately: self.wasted_lately.at(now),
        }
    }

    /// First tokens ever.
    pub fn starts(&self) -> u64 {
        self.counts.starts
    }

    /// Requests before their first token, dispatched or not.
    pub fn waiting(&self) -> u64 {
        self.counts.pending + self.counts.queued
    }

    /// Prompt tokens, from what the request told of them.
    pub fn prompt(&self, told: Option<u32>) -> f64 {
        self.prompts.expected(told).tokens()
    }

    fn seconds(&mut self, at: Timestamp) -> f64 {
        // Never backwards: shards are drained one after the other, and a late stamp must not make a negative span.
        // By hand, because a `Duration` costs two divisions, and this is asked for every emission.
        self.now = self.now.max(at.as_nanos().saturating_sub(self.started.as_nanos()) as f64 * 1e-9);
        self.now
    }

    fn on_offered(&mut self, key: RequestKey, now: f64, told: Option<u32>, stream: bool) {
        let length = self.prompts.length(told);
        // A name that is used again: whoever bore it is gone.
        self.on_finished(key, now, false, None, None);
        if !self.live.insert(key, now, length.tokens(), told, stream) {
            return;
        }
        self.counts.queued += 1;
        self.detector.on_step(self.counts.queued + self.counts.in_flight);
        self.offered.add(now);
        if !stream {
            return;
        }
        self.detector.on_arrival();
        self.mix.on_offered(length);
    }

    fn on_admitted(&mut self, key: RequestKey, now: f64) {
        let Some(request) = self.live.get_mut(key).filter(|request| request.phase == RequestPhase::Queued) else {
            return;
        };
        request.phase = RequestPhase::Pending;
        request.admitted = now;
        request.alone = self.counts.pending == 0;
        let stream = request.stream;
        if self.counts.in_flight == 0 {
            self.steps.on_busy(now);
        }
        self.counts.queued = self.counts.queued.saturating_sub(1);
        self.counts.in_flight += 1;
        if stream {
            if self.counts.pending == 0 {
                self.stage.on_busy(now);
            }
            self.counts.pending += 1;
            self.live.await_first_token(key);
        }
    }

    fn on_emission(&mut self, sample: &Sample, now: f64, tokens: u32, limited: bool) {
        let Some(request) = self.live.get_mut(sample.request) else { return };
        if request.phase == RequestPhase::Queued || !request.stream {
            return;
        }
        let first = request.phase == RequestPhase::Pending;
        let pending = self.counts.pending - u64::from(first);
        let over = self.steps.on_emission(&EmissionSeen {
            at: now,
            last_step: request.last_step,
            last: request.last,
            prompt: first.then_some(request.prompt),
            settled: pending == 0,
            limited,
        });
        let step = self.steps.id();
        request.emissions += 1;
        request.tokens = request.tokens.saturating_add(tokens);
        self.counts.delivered += u64::from(tokens);
        if first {
            request.epoch = self.mix.epoch();
        }
        self.mix.on_emission(request.emissions, request.epoch);
        let overtaken = !first
            && !limited
            && step.wrapping_sub(request.last_step) > STALL_STEPS + (tokens - 1)
            && self.counts.delivered - request.delivered > STALL_TOKENS;
        (request.last_step, request.last) = (step, now);
        request.delivered = self.counts.delivered;
        request.phase = RequestPhase::Decoding;
        let TrackedRequest { prompt, alone, admitted, .. } = *request;
        let context = prompt + f64::from(request.tokens);
        self.blocks.on_emission(tokens, context);
        self.counts.context += f64::from(tokens);
        if first {
            self.counts.context += prompt;
            self.on_first_token(now, now - admitted, prompt, alone);
        }
        if let Some(step) = &over {
            self.count_waste(step.streams);
        }
        if overtaken {
            self.on_stall(context);
        }
        if let Some(step) = over {
            self.on_step(sample.at, &step);
        }
    }

    fn on_first_token(&mut self, now: f64, ttft: f64, prompt: f64, alone: bool) {
        self.counts.pending -= 1;
        self.counts.starts += 1;
        if self.counts.pending == 0 {
            self.stage.on_idle(now);
        }
        let calm = matches!(self.saturation.state(), SaturationState::Unknown | SaturationState::Healthy);
        self.stage.on_first_token(now, ttft, prompt, alone && calm);
        self.detector.on_first_token();
        self.blocks.on_first_token(prompt);
    }

    /// A stream was overtaken by many steps of the others: it was preempted, and its context computed again.
    fn on_stall(&mut self, context: f64) {
        if !self.visibility.on_overtaken() {
            return;
        }
        self.counts.stalls += 1;
        self.resumed += 1;
        self.resumed_work += (self.stage.baseline(context) - self.stage.step_time()).max(0.0);
        self.steps.on_recomputed(context);
        self.blocks.on_recomputed(context);
    }

    /// What streams lost that emit again in a step of `streams`. Most of a step's streams were not preempted together: that
    /// is the long step of another engine behind the same address.
    fn count_waste(&mut self, streams: u32) {
        let (resumed, work) = (std::mem::take(&mut self.resumed), std::mem::take(&mut self.resumed_work));
        if resumed > 0 && f64::from(resumed) <= (RESUMED_TOGETHER * f64::from(streams)).max(1.0) {
            self.wasted.add_many(self.now, work);
            self.wasted_lately.add_many(self.now, work);
        }
    }

    fn on_step(&mut self, at: Timestamp, step: &FinishedStep) {
        self.blocks.on_step(step.streams);
        let decoding = self.counts.in_flight - self.counts.pending;
        let few_pending = FEW * self.counts.pending <= decoding.max(FEW);
        let calm = self.saturation.state() == SaturationState::Healthy && few_pending;
        self.visibility.on_step(step.streams, decoding, calm);
        if step.decodes > 0 {
            self.stage.on_step(step.duration);
        }
        if let Some(row) = self.steps.take_row() {
            self.on_row(at, &row);
        }
    }

    fn on_row(&mut self, at: Timestamp, row: &WorkInterval) {
        let known = self.costs.solution().filter(|_| self.costs.rows() > ROWS_TO_TEST);
        if let Some(change) = known.and_then(|known| self.speed.on_row(row, known)) {
            let kind = match change {
                SpeedChange::Slower => {
                    self.counts.speed.slower += 1;
                    ShiftKind::Slower
                }
                SpeedChange::Faster => {
                    self.counts.speed.faster += 1;
                    ShiftKind::Faster
                }
            };
            self.counts.shift = Some(Shift { at, kind });
            self.costs.doubt();
            self.costs.add(row);
            self.clear_capacity(at, SINCE_SPEED_CHANGE);
            self.drift.reset();
        } else {
            self.costs.add(row);
        }
    }

    /// Forgets the saturated time, but for the last blocks not older than `fresh`.
    fn clear_capacity(&mut self, at: Timestamp, fresh: Duration) {
        if let Some(costs) = self.costs.solution() {
            self.capacity.clear(at, costs, fresh);
        }
    }

    fn on_finished(&mut self, key: RequestKey, now: f64, completed: bool, input: Option<u32>, output: Option<u32>) {
        let Some(request) = self.live.remove(key) else { return };
        match request.phase {
            RequestPhase::Queued => self.counts.queued = self.counts.queued.saturating_sub(1),
            RequestPhase::Pending => {
                self.counts.in_flight -= 1;
                if request.stream {
                    self.counts.pending -= 1;
                    if self.counts.pending == 0 {
                        self.stage.on_idle(now);
                    }
                    if completed {
                        // Served without content: it was started all the same.
                        self.detector.on_first_token();
                    }
                }
            }
            RequestPhase::Decoding => {
                self.counts.in_flight -= 1;
                self.counts.context -= request.prompt + f64::from(request.tokens);
                if completed {
                    // Events may hold more tokens than they tell; the report counts them all.
                    let tokens = output.unwrap_or(0).max(request.tokens);
                    self.on_completion(now, &request, tokens);
                }
            }
        }
        self.detector.on_step(self.counts.queued + self.counts.in_flight);
        if let Some(factor) = input.and_then(|input| self.prompts.on_report(request.told, input)) {
            self.costs.rescale_prompts(factor);
            self.mix.rescale_prompts(factor);
            self.capacity.rescale_prompts(factor);
        }
    }

    fn on_completion(&mut self, now: f64, request: &TrackedRequest, tokens: u32) {
        self.counts.completions += 1;
        let TrackedRequest { prompt, emissions, epoch, .. } = *request;
        if self.mix.on_completion(now, prompt, emissions, tokens, epoch) {
            self.capacity.doubt(AFTER_MIX_CHANGE);
        }
    }

    fn on_left(&mut self, key: RequestKey, now: f64, shed: bool) {
        self.on_finished(key, now, false, None, None);
        if shed {
            self.detector.on_shed();
        }
    }

    /// Saturated or not.
    fn judge(&mut self, at: Timestamp, now: f64, elapsed: f64) {
        let heads = [self.live.head_of_queue(), self.live.head_of_pending()];
        let waits = heads.into_iter().flatten().filter(|head| head.stream);
        let head = waits.map(|head| now - head.arrived - self.stage.baseline(head.prompt)).fold(0.0, f64::max);
        let findings = self.detector.on_tick(elapsed, head, self.stage.allowed_wait());
        let change = self.saturation.on_tick(at, now, &findings, self.counts.starts);
        self.transitions.extend(change);
        // Nobody drains them: the oldest are of no use any more.
        if self.transitions.len() > MOST_TRANSITIONS {
            self.transitions.remove(0);
        }
    }

    /// Saturated time becomes blocks, blocks become capacity.
    fn gather(&mut self, at: Timestamp, now: f64) {
        let oldest = self.live.head_of_pending().map_or(0.0, |head| now - head.admitted);
        let queueing = self.counts.pending >= 1 && self.stage.is_queueing(oldest);
        let moment = BlockTick {
            now,
            waiting: self.held_back || self.counts.pending + self.counts.queued > 0,
            saturated: queueing || std::mem::take(&mut self.held_back),
            decoding: (self.counts.in_flight - self.counts.pending) as f64,
            context: self.counts.context,
            first_token_clock: self.stage.busy(now),
            start_rate: self.stage.start_rate(now),
        };
        let Some(block) = self.blocks.on_tick(&moment) else { return };
        let Some(costs) = self.costs.solution() else { return };
        self.capacity.on_block(at, &block, costs);
        if self.drift.on_block(block.tokens / block.time) {
            self.counts.drifts += 1;
            self.counts.shift = Some(Shift { at, kind: ShiftKind::Drift });
            self.clear_capacity(at, SINCE_DRIFT);
        }
    }

    fn compute_knee(&self) -> Option<Knee> {
        let (mix, costs) = (self.mix.figures()?, self.costs.solution()?);
        self.capacity.knee(&mix, self.mix.served(), costs, self.mix.prompts_are_known())
    }

    fn prediction(&self) -> Result<Prediction, NotEnoughEvidence> {
        let mut why = Vec::new();
        if self.costs.solution().is_none() || self.costs.rows() < ROWS_TO_PREDICT {
            why.push(Missing::StepCosts { rows: self.costs.rows() as u64, need: ROWS_TO_PREDICT as u64 });
        }
        let figures = self.mix.figures();
        let completions = figures.map_or(0.0, |mix| mix.completions);
        if completions < COMPLETIONS_TO_PREDICT {
            why.push(Missing::Completions { have: completions as u64, need: COMPLETIONS_TO_PREDICT as u64 });
        }
        if !self.mix.prompts_are_known() {
            why.push(Missing::PromptLengths);
        }
        if self.visibility.is_blurred() {
            why.push(Missing::SingleEngine);
        }
        let limits = self.limits();
        let predicted = figures.zip(self.costs.solution());
        let predicted = predicted.and_then(|(mix, costs)| predict(&limits, &mix, self.mix.served(), costs));
        if limits.slots.is_none() && limits.kv.is_none() {
            why.push(Missing::EngineLimits);
        }
        predicted.filter(|_| why.is_empty()).ok_or(NotEnoughEvidence { why })
    }

    /// What is told about the engine, completed by what saturation has shown of it.
    fn limits(&self) -> EngineBounds {
        let told = |limit: Option<u32>| limit.map(f64::from).filter(|limit| *limit > 0.0);
        let learnt = self.capacity.learnt();
        EngineBounds {
            slots: told(self.engine.max_num_seqs).or(learnt.and_then(|learnt| learnt.slots)),
            kv: told(self.engine.kv_tokens).or(learnt.and_then(|learnt| learnt.kv)),
            batched: told(self.engine.max_num_batched_tokens),
            bound_is_known: learnt.is_some(),
        }
    }

    fn missing_for_knee(&self) -> NotEnoughEvidence {
        let mut why = Vec::new();
        if self.costs.solution().is_none() {
            why.push(Missing::StepCosts { rows: self.costs.rows() as u64, need: 5 });
        }
        if self.mix.figures().is_none() {
            why.push(Missing::Completions { have: self.mix.completions() as u64, need: 5 });
        }
        if self.capacity.blocks() < FEWEST_BLOCKS || why.is_empty() {
            why.push(Missing::SaturatedBlocks { have: self.capacity.blocks(), need: FEWEST_BLOCKS });
        }
        NotEnoughEvidence { why }
    }
}

/// Saturated blocks so young have seen the engine's new speed; the change is found after five seconds at the earliest.
const SINCE_SPEED_CHANGE: Duration = Duration::from_secs(5);
/// A drift is found from the last three blocks, of five seconds at most.
const SINCE_DRIFT: Duration = Duration::from_secs(15);
/// Seconds a tick can speak for.
const LONGEST_TICK: f64 = 1.0;
/// A stream that others overtook by more than so many steps, those not counted whose tokens came late but together ...
///
/// A stream that runs emits in every step, so two missing ones are a preemption; one may be jitter. Eight would miss a fifth of
/// the preemptions of an engine with short steps and nearly all of one whose steps are long.
const STALL_STEPS: u32 = 2;
/// ... and so many tokens was preempted.
const STALL_TOKENS: u64 = 24;
/// Share of a step's streams that a preemption can have held up.
const RESUMED_TOGETHER: f64 = 0.25;
/// Fewer than one pending request in so many decoding ones: nobody is held up.
const FEW: u64 = 8;
/// Rows before the engine's speed is tested, and before a capacity is predicted.
const ROWS_TO_TEST: f64 = 15.0;
const ROWS_TO_PREDICT: f64 = 15.0;
const COMPLETIONS_TO_PREDICT: f64 = 10.0;
/// What saturated blocks count for after the mix changed.
const AFTER_MIX_CHANGE: f64 = 0.2;
const MOST_TRANSITIONS: usize = 64;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::estimate::Regime;
    use crate::measure::Class;

    const STEP: f64 = 0.02;

    fn at(seconds: f64) -> Timestamp {
        Timestamp::from_nanos((seconds * 1e9) as u64)
    }

    /// An engine of four slots and 20 ms a step, whose answers have 50 tokens, fed with `rate` requests per second.
    struct EstimatorRig {
        estimator: Estimator,
        now: f64,
        next: u64,
        arrival: f64,
        tick: f64,
        step: f64,
        waiting: std::collections::VecDeque<u64>,
        running: Vec<(u64, u32)>,
        prompt: Option<u32>,
        seen: Vec<Transition>,
    }

    impl EstimatorRig {
        fn new(engine: EngineLimits, prompt: Option<u32>) -> Self {
            let settings = Settings { slo_ttft: Duration::from_secs(1), engine };
            Self {
                estimator: Estimator::new(settings, Timestamp::ZERO),
                now: 0.0,
                next: 0,
                arrival: 0.0,
                tick: 0.1,
                step: STEP,
                waiting: std::collections::VecDeque::new(),
                running: Vec::new(),
                prompt,
                seen: Vec::new(),
            }
        }

        fn tell(&mut self, request: u64, what: What) {
            self.estimator.on_sample(&Sample { at: at(self.now), request: RequestKey(request), what });
        }

        /// Runs until `until`; the step that is under way takes in nobody.
        fn run(&mut self, until: f64, rate: f64) {
            self.arrival = self.arrival.max(self.now);
            while self.now < until {
                let end = self.now + self.step;
                while self.arrival < end {
                    self.now = self.now.max(self.arrival);
                    let request = self.next;
                    self.next += 1;
                    self.tell(request, What::Offered { prompt: self.prompt, stream: true, priority: Class::Default });
                    self.tell(request, What::Admitted);
                    self.waiting.push_back(request);
                    // Uneven, so that arrivals and steps do not march in time.
                    self.arrival += (0.5 + (request * 7 % 11) as f64 / 10.0) / rate;
                }
                self.now = end;
                for place in (0..self.running.len()).rev() {
                    let (request, emitted) = self.running[place];
                    self.tell(request, What::Emission { tokens: 1, limited: false });
                    self.running[place].1 = emitted + 1;
                    if emitted + 1 >= 40 + (request % 21) as u32 {
                        self.running.swap_remove(place);
                        let ended = What::Finished { completed: true, input: None, output: None, cached: None };
                        self.tell(request, ended);
                    }
                }
                while self.running.len() < 4
                    && let Some(request) = self.waiting.pop_front()
                {
                    self.running.push((request, 0));
                }
                if self.now >= self.tick {
                    self.estimator.on_tick(at(self.now));
                    self.tick += 0.1;
                }
            }
            self.seen.extend(self.estimator.transitions());
        }
    }

    fn limits() -> EngineLimits {
        EngineLimits { max_num_seqs: Some(4), kv_tokens: Some(100_000), max_num_batched_tokens: Some(2048) }
    }

    #[test]
    fn nothing_is_known_at_the_start_and_it_says_what_is_missing() {
        let reading = EstimatorRig::new(limits(), Some(100)).estimator.reading();
        assert_eq!(reading.state, SaturationState::Unknown);
        let why = reading.knee.unwrap_err().why;
        assert!(matches!(why[0], Missing::StepCosts { rows: 0, .. }), "{why:?}");
        assert!(why.contains(&Missing::SaturatedBlocks { have: 0, need: 3 }));
        assert!(reading.prediction.is_err());
        assert_eq!((reading.ratio, reading.upper_bound, reading.lower_bound), (None, None, None));
    }

    /// Four slots, 50 steps of 20 ms an answer: 4 requests per second.
    #[test]
    fn an_overload_is_seen_and_its_knee_is_the_engines() {
        let mut rig = EstimatorRig::new(limits(), Some(100));
        rig.run(60.0, 2.0);
        assert_eq!(rig.estimator.reading().state, SaturationState::Healthy);
        let predicted = rig.estimator.reading().prediction.unwrap();
        assert!((predicted.requests_per_second.value / 4.0 - 1.0).abs() < 0.1, "{predicted:?}");
        rig.run(120.0, 8.0);
        let reading = rig.estimator.reading();
        assert_eq!(reading.state, SaturationState::Saturated, "{}", reading.reason);
        let knee = reading.knee.unwrap();
        assert!((knee.requests_per_second.value / 4.0 - 1.0).abs() < 0.03, "{knee:?}");
        assert!((knee.in_flight.value / 4.0 - 1.0).abs() < 0.05, "{knee:?}");
        assert_eq!(knee.regime, Regime::Slots);
        assert!(reading.ratio.unwrap() > 10.0 && (reading.demand_ratio.unwrap() / 2.0 - 1.0).abs() < 0.2);
        let words: Vec<SaturationState> = rig.seen.iter().map(|change| change.to).collect();
        assert_eq!(words, [SaturationState::Healthy, SaturationState::Approaching, SaturationState::Saturated]);
        assert!(rig.seen[2].reason.contains("arrived than could be started"), "{}", rig.seen[2].reason);
        assert_eq!((reading.stalls, reading.speed_changes), (0, SpeedChanges::default()));
    }

    #[test]
    fn prompts_of_unknown_length_leave_the_prediction_unknown() {
        let mut rig = EstimatorRig::new(limits(), None);
        rig.run(60.0, 2.0);
        let why = rig.estimator.reading().prediction.unwrap_err().why;
        assert_eq!(why, [Missing::PromptLengths]);
        rig.run(120.0, 8.0);
        let knee = rig.estimator.reading().knee.unwrap();
        assert_eq!(knee.regime, Regime::Unknown);
        assert!((knee.requests_per_second.value / 4.0 - 1.0).abs() < 0.03, "{knee:?}");
    }

    #[test]
    fn without_limits_there_are_bounds_and_no_prediction() {
        let mut rig = EstimatorRig::new(EngineLimits::default(), Some(100));
        rig.run(60.0, 2.0);
        let reading = rig.estimator.reading();
        assert_eq!(reading.prediction.unwrap_err().why, [Missing::EngineLimits]);
        assert!(reading.lower_bound.unwrap() < 4.0 && reading.lower_bound.unwrap() > 1.5);
    }

    #[test]
    fn an_engine_that_slows_down_is_told_from_more_traffic() {
        let mut rig = EstimatorRig::new(limits(), Some(100));
        rig.run(60.0, 1.0);
        rig.run(120.0, 3.0);
        assert_eq!(rig.estimator.reading().speed_changes, SpeedChanges::default());
    }

    #[test]
    fn a_shift_says_what_moved_and_when_it_was_found_out() {
        let mut rig = EstimatorRig::new(limits(), Some(100));
        rig.run(120.0, 1.0);
        assert_eq!(rig.estimator.reading().shift, None);
        rig.step = 2.0 * STEP;
        rig.run(180.0, 1.0);
        let shift = rig.estimator.reading().shift.unwrap();
        assert_eq!(shift.kind, ShiftKind::Slower);
        assert!(shift.at > at(120.0) && shift.at < at(150.0), "{shift:?}");
    }

    fn what() -> impl Strategy<Value = What> {
        prop_oneof![
            (proptest::option::of(0_u32..5000), any::<bool>()).prop_map(|(prompt, stream)| What::Offered {
                prompt,
                stream,
                priority: Class::Default
            }),
            Just(What::Admitted),
            (0_u32..6, any::<bool>()).prop_map(|(tokens, limited)| What::Emission { tokens, limited }),
            (any::<bool>(), proptest::option::of(0_u32..5000), proptest::option::of(any::<u32>()))
                .prop_map(|(completed, input, output)| What::Finished { completed, input, output, cached: None }),
            any::<bool>().prop_map(|shed| What::Left { shed }),
        ]
    }

    proptest! {
        /// Whatever is told, in whatever order, of whatever requests: it never panics, its counts are those of the requests
        /// that are there, and no figure is a NaN.
        #[test]
        fn any_telling_is_survived(events in proptest::collection::vec((0_u64..12, what(), 0_u64..300), 0..400)) {
            let settings = Settings { slo_ttft: Duration::from_secs(1), engine: limits() };
            let mut estimator = Estimator::new(settings, Timestamp::ZERO);
            let mut now = 0;
            for (request, what, later) in events {
                now += later;
                let at = Timestamp::from_nanos(now * 1_000_000);
                estimator.on_sample(&Sample { at, request: RequestKey(request), what });
                if later % 3 == 0 {
                    estimator.on_tick(at);
                }
            }
            let reading = estimator.reading();
            prop_assert!(reading.pending <= reading.in_flight && reading.in_flight + reading.queued <= 12);
            let EstimatorCounts { context, .. } = estimator.counts;
            prop_assert!(context > -1e-3);
            if let Ok(knee) = reading.knee {
                prop_assert!(knee.requests_per_second.value.is_finite() && knee.in_flight.value.is_finite());
            }
            for request in 0..12 {
                let at = Timestamp::from_nanos(now * 1_000_000);
                let what = What::Finished { completed: false, input: None, output: None, cached: None };
                estimator.on_sample(&Sample { at, request: RequestKey(request), what });
            }
            let reading = estimator.reading();
            prop_assert_eq!((reading.in_flight, reading.pending, reading.queued), (0, 0, 0));
        }
    }
}
