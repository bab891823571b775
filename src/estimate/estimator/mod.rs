//! One backend's estimator: which sample goes to which part, in which order.
//!
//! Each part of `estimate` knows one thing; what couples them is here. `tick` has what time does, `engine_change` what a change
//! of the engine makes worthless, `report` what is published.
//!
//! Limitations: answers that are not streamed count as in flight and nothing else. A request that the gate holds back for want
//! of memory is not seen here; the gate's owner reports it with [`Estimator::on_held_back`].

mod engine_change;
mod preemption;
mod report;
mod state;
mod tick;

use std::time::Duration;

use preemption::Preemptions;
pub use state::Estimator;

use super::in_flight::{RequestPhase, TrackedRequest};
use super::reading::{SaturationState, Transition};
use super::settings::EngineLimits;
use super::steps::{EmissionSeen, FinishedStep};
use crate::measure::{RequestKey, Sample, What};
use crate::vocabulary::quantities::Tokens;
use crate::vocabulary::time::Timestamp;

impl Estimator {
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

    /// Changes the objective for the first token. What is known of the engine stays.
    pub fn set_slo(&mut self, ttft: Duration) {
        self.first_tokens.set_slo(ttft.as_secs_f64());
    }

    /// Samples of emissions were lost around now: the row and the block that are being collected prove nothing.
    pub fn on_loss(&mut self) {
        self.steps.on_loss();
        self.blocks.on_loss();
    }

    /// The gate held requests back although their first tokens would come at once: the engine's memory is the limit.
    pub fn on_held_back(&mut self) {
        self.held_back = true;
    }

    /// The changes of state since the last call.
    pub fn transitions(&mut self) -> impl Iterator<Item = Transition> {
        self.transitions.drain(..)
    }

    /// First tokens since the start.
    pub fn starts(&self) -> u64 {
        self.counts.starts
    }

    /// Requests before their first token, dispatched or not.
    pub fn waiting(&self) -> u64 {
        self.counts.pending + self.counts.queued
    }

    /// Prompt length of a request whose body suggests `estimated` tokens, corrected by what the engine reported so far.
    pub fn prompt(&self, estimated: Option<u32>) -> Tokens {
        self.prompts.expected(estimated).tokens()
    }

    fn seconds(&mut self, at: Timestamp) -> f64 {
        // Never backwards: shards are drained one after the other, and a late stamp must not make a negative span.
        // By hand, because a `Duration` costs two divisions, and every emission comes here.
        self.now = self.now.max(at.as_nanos().saturating_sub(self.started.as_nanos()) as f64 * 1e-9);
        self.now
    }

    fn on_offered(&mut self, key: RequestKey, now: f64, estimated: Option<u32>, stream: bool) {
        let length = self.prompts.length(estimated);
        // A key that is used again: the request that had it is gone.
        self.on_finished(key, now, false, None, None);
        if !self.requests.insert(key, now, length.tokens(), estimated, stream) {
            return;
        }
        self.counts.queued += 1;
        self.detector.on_change(self.counts.queued + self.counts.in_flight);
        self.offered.add(now);
        if !stream {
            return;
        }
        self.detector.on_arrival();
        self.mix.on_offered(length);
    }

    fn on_admitted(&mut self, key: RequestKey, now: f64) {
        let Some(request) = self.requests.get_mut(key).filter(|request| request.phase == RequestPhase::Queued) else {
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
                self.first_tokens.on_busy(now);
            }
            self.counts.pending += 1;
            self.requests.await_first_token(key);
        }
    }

    fn on_emission(&mut self, sample: &Sample, now: f64, tokens: u32, limited: bool) {
        let Some(request) = self.requests.get_mut(sample.request) else { return };
        if request.phase == RequestPhase::Queued || !request.stream {
            return;
        }
        let first = request.phase == RequestPhase::Pending;
        let pending = self.counts.pending - u64::from(first);
        let finished = self.steps.on_emission(&EmissionSeen {
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
        let (steps, delivered) = (step.wrapping_sub(request.last_step), self.counts.delivered - request.delivered);
        let is_overtaken = !first && !limited && Preemptions::is_overtaken(steps, tokens, delivered);
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
        if let Some(step) = &finished {
            self.preemptions.on_step(now, step.streams);
        }
        if is_overtaken {
            self.on_overtaken(context);
        }
        if let Some(step) = finished {
            self.on_step(sample.at, &step);
        }
    }

    fn on_first_token(&mut self, now: f64, ttft: f64, prompt: f64, alone: bool) {
        self.counts.pending -= 1;
        self.counts.starts += 1;
        if self.counts.pending == 0 {
            self.first_tokens.on_idle(now);
        }
        let calm = matches!(self.saturation.state(), SaturationState::Unknown | SaturationState::Healthy);
        self.first_tokens.on_first_token(now, ttft, prompt, alone && calm);
        self.detector.on_first_token();
        self.blocks.on_first_token(prompt);
    }

    /// A stream was overtaken by several steps of the others: it was preempted, and its context computed again.
    fn on_overtaken(&mut self, context: f64) {
        if !self.visibility.on_overtaken() {
            return;
        }
        self.preemptions.on_resumed(self.first_tokens.baseline(context) - self.first_tokens.step_time());
        self.steps.on_recomputed(context);
        self.blocks.on_recomputed(context);
    }

    fn on_step(&mut self, at: Timestamp, step: &FinishedStep) {
        self.blocks.on_step(step.streams);
        let decoding = self.counts.in_flight - self.counts.pending;
        let few_pending = FEW * self.counts.pending <= decoding.max(FEW);
        let calm = self.saturation.state() == SaturationState::Healthy && few_pending;
        self.visibility.on_step(step.streams, decoding, calm);
        if step.decodes > 0 {
            self.first_tokens.on_step(step.duration);
        }
        if let Some(row) = self.steps.take_row() {
            self.on_row(at, &row);
        }
    }

    fn on_finished(&mut self, key: RequestKey, now: f64, completed: bool, input: Option<u32>, output: Option<u32>) {
        let Some(request) = self.requests.remove(key) else { return };
        match request.phase {
            RequestPhase::Queued => self.counts.queued = self.counts.queued.saturating_sub(1),
            RequestPhase::Pending => self.on_end_before_first_token(now, request.stream, completed),
            RequestPhase::Decoding => {
                self.counts.in_flight -= 1;
                self.counts.context -= request.prompt + f64::from(request.tokens);
                if completed {
                    // Events may hold more tokens than were counted in them; the engine's report counts them all.
                    let tokens = output.unwrap_or(0).max(request.tokens);
                    self.on_completion(now, &request, tokens);
                }
            }
        }
        self.detector.on_change(self.counts.queued + self.counts.in_flight);
        if let Some(factor) = input.and_then(|input| self.prompts.on_report(request.estimated, input)) {
            self.costs.rescale_prompts(factor);
            self.mix.rescale_prompts(factor);
            self.capacity.rescale_prompts(factor);
        }
    }

    fn on_end_before_first_token(&mut self, now: f64, stream: bool, completed: bool) {
        self.counts.in_flight -= 1;
        if !stream {
            return;
        }
        self.counts.pending -= 1;
        if self.counts.pending == 0 {
            self.first_tokens.on_idle(now);
        }
        if completed {
            // Served without content: it was started all the same.
            self.detector.on_first_token();
        }
    }

    fn on_completion(&mut self, now: f64, request: &TrackedRequest, tokens: u32) {
        self.counts.completions += 1;
        let TrackedRequest { prompt, emissions, epoch, .. } = *request;
        if self.mix.on_completion(now, prompt, emissions, tokens, epoch) {
            self.capacity.discount(AFTER_MIX_CHANGE);
        }
    }

    fn on_left(&mut self, key: RequestKey, now: f64, shed: bool) {
        self.on_finished(key, now, false, None, None);
        if shed {
            self.detector.on_shed();
        }
    }
}

/// With fewer than one pending request in this many decoding ones, no step is delayed.
const FEW: u64 = 8;
/// Weight of the saturated blocks after the mix changed.
const AFTER_MIX_CHANGE: f64 = 0.2;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::estimate::estimator::state::EstimatorCounts;
    use crate::estimate::{Missing, Regime, Settings, ShiftKind, SpeedChanges};
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

        fn sample(&mut self, request: u64, what: What) {
            self.estimator.on_sample(&Sample { at: at(self.now), request: RequestKey(request), what });
        }

        /// Runs until `until`; a request joins the batch between two steps.
        fn run(&mut self, until: f64, rate: f64) {
            self.arrival = self.arrival.max(self.now);
            while self.now < until {
                let end = self.now + self.step;
                while self.arrival < end {
                    self.now = self.now.max(self.arrival);
                    let request = self.next;
                    self.next += 1;
                    self.sample(request, What::Offered { prompt: self.prompt, stream: true, priority: Class::Default });
                    self.sample(request, What::Admitted);
                    self.waiting.push_back(request);
                    // Uneven, so that arrivals and steps do not fall into one rhythm.
                    self.arrival += (0.5 + (request * 7 % 11) as f64 / 10.0) / rate;
                }
                self.now = end;
                for index in (0..self.running.len()).rev() {
                    let (request, emitted) = self.running[index];
                    self.sample(request, What::Emission { tokens: 1, limited: false });
                    self.running[index].1 = emitted + 1;
                    if emitted + 1 >= 40 + (request % 21) as u32 {
                        self.running.swap_remove(index);
                        let ended = What::Finished { completed: true, input: None, output: None, cached: None };
                        self.sample(request, ended);
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
    fn the_first_reading_names_what_is_missing() {
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
    fn more_traffic_is_no_change_of_the_engines_speed() {
        let mut rig = EstimatorRig::new(limits(), Some(100));
        rig.run(60.0, 1.0);
        rig.run(120.0, 3.0);
        assert_eq!(rig.estimator.reading().speed_changes, SpeedChanges::default());
    }

    #[test]
    fn a_shift_names_the_change_and_when_it_was_detected() {
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
        /// Any samples in any order: it never panics, its counts are those of the requests in the system, and no figure is
        /// a NaN.
        #[test]
        fn any_order_of_samples_is_survived(events in proptest::collection::vec((0_u64..12, what(), 0_u64..300), 0..400)) {
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
