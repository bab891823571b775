//! Continuous batching, one step at a time, in virtual time.
//!
//! The model holds what an inference engine's scheduler holds: a FIFO of waiting sequences, the running batch in
//! order of admission, and a count of the KV tokens in use. A caller begins a step, learns how long it takes, and learns at its
//! end which sequences emitted. It holds no clock, no randomness and no text: the server runs it in real time, the simulation
//! in virtual time, and the same calls give the same answers to both.
//!
//! Source of the rules: vLLM's V1 scheduler, reduced to what decides timing. Step time in seconds is
//! `a + b*decodes + c*prefill_tokens + d*kv_tokens_in_use` ([`Params`] names the four). [`Quirks`] adds what those four leave
//! out: attention that grows with the square of the prompt, padded batch sizes, speculative decoding.

mod params;
mod quirks;
mod sequence;

use std::collections::VecDeque;
use std::time::Duration;

use sequence::{SequenceIndex, SequenceState, SequenceTable, SimSequence};

pub use params::{NeverFits, Params};
pub use quirks::{Padding, Quirks, Speculation};
pub use sequence::SequenceId;

/// A step that has begun: its work, and how long it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// From the step's start to its end.
    pub duration: Duration,
    /// Sequences that decode in it.
    pub decodes: u32,
    /// Prompt tokens processed in it.
    pub prefill_tokens: u32,
}

/// What one sequence yields at the end of a step: one token, or several when the engine speculates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepYield {
    /// The sequence.
    pub id: SequenceId,
    /// Which token of the output is the first of them, from 0.
    pub index: u32,
    /// How many tokens.
    pub tokens: u32,
    /// Whether it is the last: the sequence has left the engine.
    pub finished: bool,
}

/// The engine: submit and cancel at any time; begin a step, let its duration pass, finish it.
///
/// O(running) a step; allocates only while its tables grow. A cancelled waiting sequence keeps its few words in the
/// queue until it reaches the front.
#[derive(Debug)]
pub struct Engine {
    params: Params,
    quirks: Quirks,
    slowdown: f64,
    sequences: SequenceTable,
    waiting: VecDeque<SequenceIndex>,
    /// How many of those waiting are cancelled.
    cancelled: usize,
    running: Vec<SequenceIndex>,
    scheduled: Vec<StepShare>,
    emissions: Vec<StepYield>,
    stepping: bool,
    kv_in_use: u32,
    preemptions: u64,
}

impl Engine {
    /// An idle engine.
    pub fn new(params: Params) -> Self {
        Self::with_quirks(params, Quirks::default())
    }

    /// An idle engine that departs from the plain one.
    pub fn with_quirks(params: Params, quirks: Quirks) -> Self {
        Self {
            params,
            quirks,
            slowdown: 1.0,
            sequences: SequenceTable::default(),
            waiting: VecDeque::new(),
            cancelled: 0,
            running: Vec::new(),
            scheduled: Vec::new(),
            emissions: Vec::new(),
            stepping: false,
            kv_in_use: 0,
            preemptions: 0,
        }
    }

    /// Puts a sequence at the end of the waiting queue; a prompt of 0 tokens counts as 1. It takes part from the next
    /// [`Engine::begin_step`] on.
    ///
    /// An id that is still in use replaces its former sequence, which is cancelled.
    ///
    /// # Errors
    /// [`NeverFits`] when the sequence could never finish; nothing is queued then.
    pub fn submit(&mut self, id: SequenceId, prompt_tokens: u32, output_tokens: u32) -> Result<(), NeverFits> {
        self.submit_cached(id, prompt_tokens, 0, output_tokens)
    }

    /// [`Engine::submit`] of a prompt whose first `cached_tokens` need no prefill, as a prefix cache would have it: they
    /// hold KV memory like the others and cost no time, also when the sequence is recomputed. At least one token of the
    /// prompt is always processed.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub fn submit_cached(
        &mut self,
        id: SequenceId,
        prompt_tokens: u32,
        cached_tokens: u32,
        output_tokens: u32,
    ) -> Result<(), NeverFits> {
        let prompt_tokens = prompt_tokens.max(1);
        if output_tokens == 0 || output_tokens > self.params.kv_left_after(prompt_tokens) {
            return Err(NeverFits { prompt_tokens, output_tokens, kv_tokens: self.params.kv_tokens.get() });
        }
        self.cancel(id);
        let sequence = SimSequence::new(id, prompt_tokens, cached_tokens.min(prompt_tokens - 1), output_tokens);
        self.waiting.push_back(self.sequences.insert(sequence));
        Ok(())
    }

    /// Takes a sequence out, wherever it is; its slot and its KV tokens are free at once, also in the middle of a step.
    /// The step's duration stays what it was. Returns whether there was one.
    pub fn cancel(&mut self, id: SequenceId) -> bool {
        let Some(index) = self.sequences.forget(id) else { return false };
        match self.running.iter().position(|&running| running == index) {
            Some(position) => {
                self.running.remove(position);
                self.scheduled.retain(|share| share.sequence != index);
                self.kv_in_use -= self.sequences[index].held;
                self.sequences.free(index);
            }
            None => {
                self.sequences[index].state = SequenceState::Cancelled;
                self.cancelled += 1;
            }
        }
        true
    }

    /// Multiplies the duration of the steps that begin from now on: 1 is the engine as described, 2 half as fast.
    pub fn set_slowdown(&mut self, factor: f64) {
        self.slowdown = factor;
    }

    /// Schedules the next step: decodes, then prefill chunks, then admissions, within the token budget.
    ///
    /// `None` when there is nothing to do. A step that was begun and not finished is finished first and its emissions
    /// are lost.
    pub fn begin_step(&mut self) -> Option<Step> {
        if self.stepping {
            self.finish_step();
        }
        self.scheduled.clear();
        let mut budget = self.params.max_num_batched_tokens.get();
        let preempted = self.schedule_running(&mut budget);
        if !preempted {
            self.admit(&mut budget);
        }
        if self.scheduled.is_empty() {
            return None;
        }
        self.stepping = true;
        let decodes = self.scheduled.iter().filter(|share| share.prefill == 0).count() as u32;
        let prefill_tokens = self.scheduled.iter().map(|share| share.prefill).sum();
        let padded = self.quirks.padding.padded(decodes);
        let linear = self.params.step_time(padded, prefill_tokens, self.kv_in_use);
        let duration = (linear + self.attention_time()).mul_f64(self.slowdown);
        Some(Step { duration, decodes, prefill_tokens })
    }

    /// Ends the step and returns what was emitted, in scheduling order. Empty when no step had begun or when it only prefilled.
    pub fn finish_step(&mut self) -> &[StepYield] {
        self.emissions.clear();
        if !std::mem::take(&mut self.stepping) {
            return &self.emissions;
        }
        for share in &self.scheduled {
            let sequence = &mut self.sequences[share.sequence];
            sequence.computed += share.prefill;
            if sequence.is_prefilling() {
                continue;
            }
            let index = sequence.generated;
            let tokens = match &self.quirks.speculation {
                Some(law) if index > 0 => law.tokens(sequence.id, index).min(sequence.output_tokens - index),
                _ => 1,
            };
            // The decode's own KV token was taken when it was scheduled.
            sequence.held += tokens - 1;
            self.kv_in_use += tokens - 1;
            sequence.generated += tokens;
            let finished = sequence.generated == sequence.output_tokens;
            if finished {
                sequence.state = SequenceState::Finished;
            }
            self.emissions.push(StepYield { id: sequence.id, index, tokens, finished });
        }
        self.remove_finished();
        &self.emissions
    }

    /// [`Engine::begin_step`] and [`Engine::finish_step`] in one: for virtual time, when nothing arrives in between.
    pub fn step(&mut self) -> Option<(Step, &[StepYield])> {
        let step = self.begin_step()?;
        Some((step, self.finish_step()))
    }

    /// Sequences in the batch.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Sequences that wait for admission, preempted ones included.
    pub fn waiting(&self) -> usize {
        self.waiting.len() - self.cancelled
    }

    /// KV tokens held by the running sequences.
    pub fn kv_tokens_in_use(&self) -> u32 {
        self.kv_in_use
    }

    /// Share of KV memory in use, 0 to 1.
    pub fn kv_usage(&self) -> f64 {
        f64::from(self.kv_in_use) / f64::from(self.params.kv_tokens.get())
    }

    /// Sequences preempted for want of KV memory since the engine was made.
    pub fn preemptions(&self) -> u64 {
        self.preemptions
    }

    /// The parameters it was made with.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Gives the running sequences their share of the step, oldest first; returns whether one of them was preempted.
    ///
    /// Order of admission already is "decodes first": a sequence that prefills takes the rest of the budget, so no sequence
    /// behind it can have finished its prompt.
    fn schedule_running(&mut self, budget: &mut u32) -> bool {
        let mut preempted = false;
        let mut position = 0;
        while position < self.running.len() && *budget > 0 {
            let sequence = self.running[position];
            let prefill = self.sequences[sequence].left_to_prefill().min(*budget);
            if prefill == 0 {
                preempted |= self.preempt_for_a_decode();
                if position >= self.running.len() {
                    break;
                }
                self.sequences[sequence].held += 1;
                self.kv_in_use += 1;
            }
            self.scheduled.push(StepShare { sequence, prefill });
            *budget -= prefill.max(1);
            position += 1;
        }
        preempted
    }

    /// Time that attention takes beyond what [`Params`] counts: `e * n * (x + n/2)` for a chunk of `n` tokens behind `x`.
    fn attention_time(&self) -> Duration {
        if self.quirks.per_attended_token <= 0.0 {
            return Duration::ZERO;
        }
        let attended = self.scheduled.iter().map(|share| {
            let (before, chunk) = (f64::from(self.sequences[share.sequence].computed), f64::from(share.prefill));
            chunk * (before + chunk / 2.0)
        });
        Duration::from_secs_f64(self.quirks.per_attended_token * attended.sum::<f64>())
    }

    /// Preempts from the end of the batch until a decode has the KV tokens it may take; returns whether it preempted any.
    fn preempt_for_a_decode(&mut self) -> bool {
        let most = self.quirks.speculation.map_or(1, |law| law.most.max(1));
        let mut preempted = false;
        while self.kv_in_use + most > self.params.kv_tokens.get() {
            let Some(index) = self.running.pop() else { break };
            let sequence = &mut self.sequences[index];
            self.kv_in_use -= sequence.held;
            sequence.preempt();
            self.waiting.push_front(index);
            self.preemptions += 1;
            preempted = true;
        }
        preempted
    }

    /// Admits from the front of the queue while a slot, KV memory for the prompt and budget are left. Never skips the
    /// front: a long prompt holds up the short ones behind it, as in vLLM.
    fn admit(&mut self, budget: &mut u32) {
        while *budget > 0 && self.running.len() < self.params.max_num_seqs.get() as usize {
            let Some(&index) = self.waiting.front() else { return };
            let sequence = &mut self.sequences[index];
            if sequence.state == SequenceState::Cancelled {
                self.waiting.pop_front();
                self.cancelled -= 1;
                self.sequences.free(index);
                continue;
            }
            // One more than the prompt has to be free: the KV entry of its first decode.
            if self.params.kv_tokens.get() - self.kv_in_use <= sequence.to_compute {
                return;
            }
            sequence.held = sequence.to_compute;
            self.kv_in_use += sequence.held;
            let prefill = sequence.left_to_prefill().min(*budget);
            *budget -= prefill;
            self.waiting.pop_front();
            self.running.push(index);
            self.scheduled.push(StepShare { sequence: index, prefill });
        }
    }

    fn remove_finished(&mut self) {
        if !self.emissions.iter().any(|emission| emission.finished) {
            return;
        }
        for emission in self.emissions.iter().filter(|emission| emission.finished) {
            self.sequences.forget(emission.id);
        }
        let (sequences, kv_in_use) = (&mut self.sequences, &mut self.kv_in_use);
        self.running.retain(|&index| {
            let finished = sequences[index].state == SequenceState::Finished;
            if finished {
                *kv_in_use -= sequences[index].held;
                sequences.free(index);
            }
            !finished
        });
    }
}

/// What one sequence does in the current step: a prefill chunk, or a decode when `prefill` is 0.
#[derive(Clone, Copy, Debug)]
struct StepShare {
    sequence: SequenceIndex,
    prefill: u32,
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn params() -> Params {
        let some = |count| NonZeroU32::new(count).unwrap();
        Params {
            base: 0.010,
            per_decode: 0.001,
            per_prefill_token: 0.0001,
            per_kv_token: 0.0,
            max_num_seqs: some(4),
            max_num_batched_tokens: some(100),
            kv_tokens: some(1000),
        }
    }

    fn with_limits(max_num_seqs: u32, max_num_batched_tokens: u32, kv_tokens: u32) -> Engine {
        let some = |count| NonZeroU32::new(count).unwrap();
        Engine::new(Params {
            max_num_seqs: some(max_num_seqs),
            max_num_batched_tokens: some(max_num_batched_tokens),
            kv_tokens: some(kv_tokens),
            ..params()
        })
    }

    fn millis(step: Step) -> f64 {
        step.duration.as_secs_f64() * 1e3
    }

    fn emitted(engine: &mut Engine) -> Vec<(SequenceId, u32, bool)> {
        engine.step().unwrap().1.iter().map(|emission| (emission.id, emission.index, emission.finished)).collect()
    }

    /// Runs until idle and returns the sequences in the order in which they finished.
    fn finishers(engine: &mut Engine) -> Vec<SequenceId> {
        let mut order = Vec::new();
        while let Some((_, emissions)) = engine.step() {
            order.extend(emissions.iter().filter(|emission| emission.finished).map(|emission| emission.id));
        }
        order
    }

    #[test]
    fn step_times_match_the_formula_by_hand() {
        let mut engine = Engine::new(params());
        engine.submit(1, 30, 3).unwrap();
        let (step, emissions) = engine.step().unwrap();
        assert!((millis(step) - 13.0).abs() < 1e-6, "10 + 30 * 0.1");
        assert_eq!(emissions, [StepYield { id: 1, index: 0, tokens: 1, finished: false }]);

        engine.submit(2, 50, 1).unwrap();
        let (step, emissions) = engine.step().unwrap();
        assert!((millis(step) - 16.0).abs() < 1e-6, "10 + 1 decode + 50 * 0.1");
        assert_eq!((step.decodes, step.prefill_tokens), (1, 50));
        assert_eq!(emissions.len(), 2);

        let (step, emissions) = engine.step().unwrap();
        assert!((millis(step) - 11.0).abs() < 1e-6, "sequence 2 has left");
        assert_eq!(emissions, [StepYield { id: 1, index: 2, tokens: 1, finished: true }]);
        assert_eq!(engine.step(), None);
    }

    #[test]
    fn kv_tokens_in_use_lengthen_the_step() {
        let mut engine = Engine::new(Params { per_kv_token: 0.00001, ..params() });
        engine.submit(1, 100, 2).unwrap();
        assert!((millis(engine.step().unwrap().0) - 21.0).abs() < 1e-6, "10 + 100 * 0.1 + 100 * 0.01");
        assert!((millis(engine.step().unwrap().0) - 12.01).abs() < 1e-6, "10 + 1 + 101 * 0.01");
    }

    #[test]
    fn attention_costs_the_square_of_the_prompt() {
        let quirks = Quirks { per_attended_token: 1e-6, ..Quirks::default() };
        let mut engine = Engine::with_quirks(params(), quirks);
        engine.submit(1, 150, 1).unwrap();
        let times: Vec<f64> = std::iter::from_fn(|| engine.step().map(|(step, _)| millis(step))).collect();
        assert!((times[0] - (20.0 + 5.0)).abs() < 1e-6, "100 * (0 + 50) pairs: {times:?}");
        assert!((times[1] - (15.0 + 6.25)).abs() < 1e-6, "50 * (100 + 25) pairs: {times:?}");
    }

    #[test]
    fn a_padded_batch_costs_what_the_next_size_costs() {
        let quirks = Quirks { padding: Padding::Doubling, ..Quirks::default() };
        let mut engine = Engine::with_quirks(params(), quirks);
        (0..3).for_each(|id| engine.submit(id, 10, 5).unwrap());
        engine.step();
        let (step, _) = engine.step().unwrap();
        assert_eq!(step.decodes, 3);
        assert!((millis(step) - 14.0).abs() < 1e-6, "three pay for four");
    }

    #[test]
    fn speculation_yields_several_tokens_and_never_too_many() {
        let quirks =
            Quirks { speculation: Some(Speculation { acceptance: 0.9, most: 4, seed: 1 }), ..Quirks::default() };
        let mut engine = Engine::with_quirks(params(), quirks);
        engine.submit(1, 10, 30).unwrap();
        let emissions: Vec<StepYield> = std::iter::from_fn(|| Some(engine.step()?.1[0])).collect();
        assert_eq!(emissions[0].tokens, 1, "the prefill yields one");
        assert_eq!(emissions.iter().map(|emission| emission.tokens).sum::<u32>(), 30);
        assert!(emissions.len() < 20, "{} emissions", emissions.len());
        assert!(emissions.windows(2).all(|pair| pair[1].index == pair[0].index + pair[0].tokens));
        assert_eq!(engine.kv_tokens_in_use(), 0);
    }

    #[test]
    fn cached_prompt_tokens_hold_memory_and_cost_no_time() {
        let mut engine = Engine::new(params());
        engine.submit_cached(1, 50, 40, 2).unwrap();
        let (step, _) = engine.step().unwrap();
        assert_eq!(step.prefill_tokens, 10);
        assert_eq!(engine.kv_tokens_in_use(), 50);
        engine.submit_cached(2, 50, 50, 1).unwrap();
        assert_eq!(engine.step().unwrap().0.prefill_tokens, 1, "one is always processed");
    }

    #[test]
    fn a_slowdown_stretches_the_steps_that_follow() {
        let mut engine = Engine::new(params());
        engine.submit(1, 30, 1).unwrap();
        engine.set_slowdown(2.0);
        assert!((millis(engine.step().unwrap().0) - 26.0).abs() < 1e-6);
    }

    #[test]
    fn a_long_prompt_is_prefilled_in_chunks() {
        let mut engine = Engine::new(params());
        engine.submit(1, 250, 1).unwrap();
        let works: Vec<_> =
            std::iter::from_fn(|| engine.step().map(|(step, out)| (step.prefill_tokens, out.len()))).collect();
        assert_eq!(works, [(100, 0), (100, 0), (50, 1)]);
    }

    #[test]
    fn decodes_come_before_prefill_chunks() {
        let mut engine = Engine::new(params());
        engine.submit(1, 10, 10).unwrap();
        engine.step();
        engine.submit(2, 300, 1).unwrap();
        let step = engine.begin_step().unwrap();
        assert_eq!((step.decodes, step.prefill_tokens), (1, 99), "the chunk gets what the decode leaves");
    }

    #[test]
    fn admission_is_first_come_first_served() {
        let mut engine = with_limits(1, 100, 1000);
        for id in [7, 3, 5] {
            engine.submit(id, 10, 2).unwrap();
        }
        engine.begin_step();
        assert_eq!((engine.running(), engine.waiting()), (1, 2));
        assert_eq!(finishers(&mut engine), [7, 3, 5]);
    }

    #[test]
    fn a_prompt_that_does_not_fit_yet_holds_up_shorter_ones() {
        let mut engine = with_limits(4, 1000, 100);
        engine.submit(1, 60, 5).unwrap();
        engine.submit(2, 60, 5).unwrap();
        engine.submit(3, 5, 1).unwrap();
        assert_eq!(finishers(&mut engine), [1, 3, 2], "3 enters beside 2, once 2 could enter");
    }

    #[test]
    fn the_last_admitted_is_preempted_when_kv_runs_out() {
        let mut engine = with_limits(4, 100, 25);
        engine.submit(1, 10, 8).unwrap();
        engine.submit(2, 10, 4).unwrap();
        assert_eq!(emitted(&mut engine), [(1, 0, false), (2, 0, false)]);
        assert_eq!(engine.kv_tokens_in_use(), 20);
        assert_eq!(emitted(&mut engine), [(1, 1, false), (2, 1, false)]);
        assert_eq!(emitted(&mut engine), [(1, 2, false), (2, 2, false)], "24 of 25 held");
        assert_eq!(emitted(&mut engine), [(1, 3, false)], "1 takes the last token, 2 is preempted");
        assert_eq!((engine.preemptions(), engine.running(), engine.waiting()), (1, 1, 1));
        let mut last = Vec::new();
        while let Some((step, emissions)) = engine.step() {
            last.push((step.prefill_tokens, emissions.to_vec()));
        }
        let resumed = last.iter().find(|(prefill, _)| *prefill > 0).unwrap();
        assert_eq!(resumed.0, 13, "prompt and what had been generated");
        assert!(resumed.1.contains(&StepYield { id: 2, index: 3, tokens: 1, finished: true }), "goes on where it was");
        assert_eq!((engine.kv_tokens_in_use(), engine.preemptions()), (0, 1));
    }

    #[test]
    fn no_sequence_is_preempted_while_kv_is_left() {
        let mut engine = with_limits(4, 100, 26);
        engine.submit(1, 10, 4).unwrap();
        engine.submit(2, 10, 4).unwrap();
        assert_eq!(finishers(&mut engine), [1, 2]);
        assert_eq!(engine.preemptions(), 0);
    }

    #[test]
    fn cancel_frees_slot_and_kv_at_once() {
        let mut engine = with_limits(1, 100, 1000);
        engine.submit(1, 10, 100).unwrap();
        engine.submit(2, 20, 1).unwrap();
        engine.begin_step();
        assert!(engine.cancel(1), "in the middle of its step");
        assert_eq!((engine.running(), engine.kv_tokens_in_use()), (0, 0));
        assert_eq!(engine.finish_step(), [], "its token is not emitted");
        assert_eq!(emitted(&mut engine), [(2, 0, true)]);
    }

    #[test]
    fn a_slot_reused_in_mid_step_does_not_emit_for_the_former() {
        let mut engine = with_limits(2, 100, 1000);
        engine.submit(1, 10, 100).unwrap();
        engine.begin_step();
        engine.cancel(1);
        engine.submit(2, 10, 2).unwrap();
        assert_eq!(engine.finish_step(), []);
        assert_eq!(emitted(&mut engine), [(2, 0, false)]);
    }

    #[test]
    fn cancel_in_the_queue_leaves_the_others_in_order() {
        let mut engine = with_limits(1, 100, 1000);
        for id in 1..=4 {
            engine.submit(id, 10, 1).unwrap();
        }
        assert!(engine.cancel(2));
        assert_eq!(engine.waiting(), 3);
        assert!(!engine.cancel(2), "once only");
        assert!(!engine.cancel(99));
        assert_eq!(finishers(&mut engine), [1, 3, 4]);
        assert_eq!(engine.waiting(), 0);
    }

    #[test]
    fn what_can_never_finish_is_refused() {
        let mut engine = with_limits(4, 100, 50);
        assert!(engine.submit(1, 45, 6).is_err());
        assert!(engine.submit(1, 50, 1).is_err());
        assert!(engine.submit(1, 5, 0).is_err());
        assert!(engine.submit(1, 45, 5).is_ok());
        assert_eq!(finishers(&mut engine), [1]);
    }

    #[test]
    fn the_same_calls_give_the_same_steps() {
        let play = || {
            let mut engine = with_limits(3, 64, 90);
            let mut log = Vec::new();
            for round in 0..200_u64 {
                engine.submit(round, 5 + (round * 7 % 30) as u32, 1 + (round * 13 % 20) as u32).unwrap();
                if round % 5 == 0 {
                    engine.cancel(round / 2);
                }
                if let Some((step, emissions)) = engine.step() {
                    log.push((step, emissions.to_vec()));
                }
            }
            (log, engine.preemptions())
        };
        assert_eq!(play(), play());
    }

    #[test]
    fn tables_do_not_grow_when_sequences_come_and_go() {
        let mut engine = Engine::new(params());
        for id in 0..10_000 {
            engine.submit(id, 10, 2).unwrap();
            engine.step();
            if id % 3 == 0 {
                engine.cancel(id);
            }
            engine.step();
        }
        let slots = engine.sequences.slots.len();
        assert!(slots <= 8, "{slots} slots");
        assert_eq!(engine.kv_tokens_in_use(), 0);
    }
}
