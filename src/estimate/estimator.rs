//! One backend's estimator: takes samples and ticks, keeps the parts in step with each other, says what is known.
//!
//! Each part knows one thing; what couples them is here: which event concerns whom, and what a change of the engine or of
//! the traffic makes worthless. About 10 KB of state and 80 bytes a request under way.
//!
//! Limitations: answers that are not streamed count as in flight and nothing else. The gate's own waiting is not seen here:
//! who holds requests back for want of memory says so with [`Estimator::on_held_back`].

use super::average::Rate;
use super::blocks::{Blocks, Moment};
use super::capacity::{Capacity, FEWEST_BLOCKS};
use super::costs::Costs;
use super::detector::Detector;
use super::drift::DriftTest;
use super::first_token::FirstTokens;
use super::live::{Live, Phase, Request};
use super::mix::Mix;
use super::prediction::{Limits, predict, upper_bound};
use super::prompts::Prompts;
use super::reading::{Knee, Missing, NotEnoughEvidence, Prediction, Reading, SpeedChanges, State, Transition};
use super::saturation::Saturation;
use super::speed::{SpeedChange, SpeedTest};
use super::steps::{Row, Seen, Steps};
use super::throughput::BestStartRate;
use super::{EngineLimits, Settings};
use crate::measure::{RequestKey, Sample, What};
use crate::time::Timestamp;

/// One backend's estimator.
#[derive(Debug)]
pub struct Estimator {
    engine: EngineLimits,
    started: Timestamp,
    live: Live,
    prompts: Prompts,
    stage: FirstTokens,
    steps: Steps,
    costs: Costs,
    speed: SpeedTest,
    mix: Mix,
    detector: Detector,
    saturation: Saturation,
    blocks: Blocks,
    capacity: Capacity,
    drift: DriftTest,
    best_start_rate: BestStartRate,
    offered: Rate,
    counts: Counts,
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
struct Counts {
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
}

impl Estimator {
    /// Knows nothing yet.
    pub fn new(settings: Settings, now: Timestamp) -> Self {
        Self {
            engine: settings.engine,
            started: now,
            live: Live::default(),
            prompts: Prompts::new(),
            stage: FirstTokens::new(settings.slo_ttft.as_secs_f64()),
            steps: Steps::default(),
            costs: Costs::default(),
            speed: SpeedTest::default(),
            mix: Mix::new(),
            detector: Detector::new(),
            saturation: Saturation::new(now),
            blocks: Blocks::default(),
            capacity: Capacity::new(),
            drift: DriftTest::new(),
            best_start_rate: BestStartRate::default(),
            offered: Rate::new(10.0),
            counts: Counts::default(),
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
            What::Emission { tokens, limited } => self.on_emission(sample.request, now, tokens.max(1), limited),
            What::Offered { prompt, stream } => self.on_offered(sample.request, now, prompt, stream),
            What::Admitted => self.on_admitted(sample.request, now),
            What::Finished { completed, input, output, .. } => {
                self.on_finished(sample.request, now, completed, input, output);
            }
            What::Left { shed } => self.on_left(sample.request, shed),
        }
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
        let Counts { queued, in_flight, pending, stalls, drifts, speed, .. } = self.counts;
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
            costs: self.costs.step_costs(),
            speed_changes: speed,
            mix_changes: self.mix.changes(),
            drifts,
            stalls,
            blocks: self.blocks.counts(),
            in_flight,
            pending,
            queued,
        }
    }

    fn seconds(&mut self, at: Timestamp) -> f64 {
        // Never backwards: shards are drained one after the other, and a late stamp must not make a negative span.
        self.now = self.now.max(at.since(self.started).as_secs_f64());
        self.now
    }

    fn on_offered(&mut self, key: RequestKey, now: f64, told: Option<u32>, stream: bool) {
        let (prompt, known) = self.prompts.length(told);
        if !self.live.insert(key, now, prompt, told, stream) {
            return;
        }
        self.counts.queued += 1;
        self.offered.add(now);
        if !stream {
            return;
        }
        self.detector.on_arrival();
        self.mix.on_offered(prompt, known);
    }

    fn on_admitted(&mut self, key: RequestKey, now: f64) {
        let Some(request) = self.live.get_mut(key).filter(|request| request.phase == Phase::Queued) else { return };
        request.phase = Phase::Pending;
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

    fn on_emission(&mut self, key: RequestKey, now: f64, tokens: u32, limited: bool) {
        let Some(request) = self.live.get_mut(key) else { return };
        if request.phase == Phase::Queued || !request.stream {
            return;
        }
        let first = request.phase == Phase::Pending;
        let pending = self.counts.pending - u64::from(first);
        let outcome = self.steps.on_emission(Seen {
            at: now,
            last_step: request.last_step,
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
        request.last_step = step;
        request.delivered = self.counts.delivered;
        request.phase = Phase::Decoding;
        let Request { prompt, alone, admitted, .. } = *request;
        let context = prompt + f64::from(request.tokens);
        self.blocks.on_emission(tokens, context);
        self.counts.context += f64::from(tokens);
        if first {
            self.counts.context += prompt;
            self.on_first_token(now, now - admitted, prompt, alone);
        }
        if overtaken {
            self.on_stall(context);
        }
        if let Some((duration, decodes)) = outcome.step
            && decodes > 0
        {
            self.stage.on_step(duration);
        }
        if let Some(row) = outcome.row {
            self.on_row(&row);
        }
    }

    fn on_first_token(&mut self, now: f64, ttft: f64, prompt: f64, alone: bool) {
        self.counts.pending -= 1;
        self.counts.starts += 1;
        if self.counts.pending == 0 {
            self.stage.on_idle(now);
        }
        let calm = matches!(self.saturation.state(), State::Unknown | State::Healthy);
        self.stage.on_first_token(now, ttft, prompt, alone && calm);
        self.detector.on_first_token();
        self.blocks.on_first_token(prompt);
    }

    /// A stream was overtaken by many steps of the others: it was preempted, and its context computed again.
    fn on_stall(&mut self, context: f64) {
        self.counts.stalls += 1;
        self.steps.on_recomputed(context);
        self.blocks.on_recomputed(context);
    }

    fn on_row(&mut self, row: &Row) {
        let known = self.costs.solution().filter(|_| self.costs.rows() > ROWS_TO_TEST);
        if let Some(change) = known.and_then(|known| self.speed.on_row(row, known)) {
            match change {
                SpeedChange::Slower => self.counts.speed.slower += 1,
                SpeedChange::Faster => self.counts.speed.faster += 1,
            }
            self.costs.doubt();
            self.capacity.clear();
            self.drift.reset();
        }
        self.costs.add(row);
    }

    fn on_finished(&mut self, key: RequestKey, now: f64, completed: bool, input: Option<u32>, output: Option<u32>) {
        let Some(request) = self.live.remove(key) else { return };
        match request.phase {
            Phase::Queued => self.counts.queued = self.counts.queued.saturating_sub(1),
            Phase::Pending => {
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
            Phase::Decoding => {
                self.counts.in_flight -= 1;
                self.counts.context -= request.prompt + f64::from(request.tokens);
                self.steps.on_end(request.last_step);
                if completed {
                    // Events may hold more tokens than they tell; the report counts them all.
                    let tokens = output.unwrap_or(0).max(request.tokens);
                    self.on_completion(now, &request, tokens);
                }
            }
        }
        if let Some(factor) = input.and_then(|input| self.prompts.on_report(request.told, input)) {
            self.costs.rescale_prompts(factor);
            self.mix.rescale_prompts(factor);
            self.capacity.rescale_prompts(factor);
        }
    }

    fn on_completion(&mut self, now: f64, request: &Request, tokens: u32) {
        self.counts.completions += 1;
        let Request { prompt, emissions, epoch, .. } = *request;
        if self.mix.on_completion(now, prompt, emissions, tokens, epoch) {
            self.capacity.doubt(AFTER_MIX_CHANGE);
        }
    }

    fn on_left(&mut self, key: RequestKey, shed: bool) {
        let Some(request) = self.live.remove(key) else { return };
        if request.phase == Phase::Queued {
            self.counts.queued = self.counts.queued.saturating_sub(1);
        }
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
        let moment = Moment {
            now,
            waiting: self.held_back || self.counts.pending + self.counts.queued > 0,
            saturated: queueing || std::mem::take(&mut self.held_back),
            decoding: (self.counts.in_flight - self.counts.pending) as f64,
            context: self.counts.context,
            first_token_clock: self.stage.busy(now),
            start_rate: self.stage.start_rate(now),
            step: self.steps.id(),
        };
        let Some(block) = self.blocks.on_tick(&moment) else { return };
        let Some(costs) = self.costs.solution() else { return };
        self.capacity.on_block(at, &block, costs);
        if self.drift.on_block(block.tokens / block.time) {
            self.counts.drifts += 1;
            self.capacity.clear();
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
        let limits = self.limits();
        let predicted = figures.zip(self.costs.solution());
        let predicted = predicted.and_then(|(mix, costs)| predict(&limits, &mix, self.mix.served(), costs));
        if limits.slots.is_none() && limits.kv.is_none() {
            why.push(Missing::EngineLimits);
        }
        predicted.filter(|_| why.is_empty()).ok_or(NotEnoughEvidence { why })
    }

    /// What is told about the engine, completed by what saturation has shown of it.
    fn limits(&self) -> Limits {
        let told = |limit: Option<u32>| limit.map(f64::from).filter(|limit| *limit > 0.0);
        let learnt = self.capacity.learnt();
        Limits {
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
            let (have, need) = (self.capacity.blocks() as u64, FEWEST_BLOCKS as u64);
            why.push(Missing::SaturatedBlocks { have, need });
        }
        NotEnoughEvidence { why }
    }
}

/// Seconds a tick can speak for.
const LONGEST_TICK: f64 = 1.0;
/// A stream that others overtook by more than so many steps, those not counted whose tokens came late but together ...
///
/// A stream that runs emits in every step, so two missing ones are a preemption; one may be jitter. Eight would miss a fifth of
/// the preemptions of an engine with short steps and nearly all of one whose steps are long.
const STALL_STEPS: u32 = 2;
/// ... and so many tokens was preempted.
const STALL_TOKENS: u64 = 24;
/// Rows before the engine's speed is tested, and before a capacity is predicted.
const ROWS_TO_TEST: f64 = 15.0;
const ROWS_TO_PREDICT: f64 = 15.0;
const COMPLETIONS_TO_PREDICT: f64 = 10.0;
/// What saturated blocks count for after the mix changed.
const AFTER_MIX_CHANGE: f64 = 0.2;
const MOST_TRANSITIONS: usize = 64;
