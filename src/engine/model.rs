//! Continuous batching, one step at a time, in virtual time.
//!
//! The model holds what an inference engine's scheduler holds: a FIFO of waiting sequences, the running batch in order of
//! admission, and a count of the KV tokens in use. It is asked for the next step, says how long that step takes, and
//! says at its end which sequences emitted. It holds no clock, no dice and no text: the server plays it in real time,
//! the rehearsal in virtual time, and the same calls give the same answers to both.
//!
//! Source of the rules: vLLM's V1 scheduler, reduced to what decides timing. Step time in seconds is
//! `a + b*decodes + c*prefill_tokens + d*kv_tokens_in_use` ([`Params`] names the four). Not modelled: prefix caching,
//! CUDA-graph batch sizes, attention that grows with the square of the context, more than one token a decode.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a step costs and where the engine's hard limits are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// `a`: seconds every step takes, however empty. Must be above zero, or an engine could step without time passing.
    pub base: f64,
    /// `b`: seconds per sequence that decodes in the step.
    pub per_decode: f64,
    /// `c`: seconds per prompt token processed in the step, recomputed ones included.
    pub per_prefill_token: f64,
    /// `d`: seconds per KV token in use when the step starts.
    #[serde(default)]
    pub per_kv_token: f64,
    /// Most sequences in the running batch (vLLM's `max_num_seqs`).
    pub max_num_seqs: NonZeroU32,
    /// Most tokens processed in one step, decodes counting one each (vLLM's `max_num_batched_tokens`).
    pub max_num_batched_tokens: NonZeroU32,
    /// KV memory, in tokens. Also the longest prompt plus output the engine accepts.
    pub kv_tokens: NonZeroU32,
}

impl Params {
    /// How long a step takes that does this much work.
    pub fn step_time(&self, decodes: u32, prefill_tokens: u32, kv_tokens_in_use: u32) -> Duration {
        Duration::from_secs_f64(
            self.base
                + self.per_decode * f64::from(decodes)
                + self.per_prefill_token * f64::from(prefill_tokens)
                + self.per_kv_token * f64::from(kv_tokens_in_use),
        )
    }

    /// The most output tokens a prompt of this length leaves KV memory for; 0 when the prompt itself does not fit.
    pub fn room_after(&self, prompt_tokens: u32) -> u32 {
        self.kv_tokens.get().saturating_sub(prompt_tokens)
    }
}

/// The caller's name for a sequence; unique among those not yet finished or cancelled.
pub type SequenceId = u64;

/// A sequence whose prompt and output together would never fit into KV memory, or with nothing to generate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a prompt of {prompt_tokens} and an output of {output_tokens} tokens do not fit into {kv_tokens} KV tokens")]
pub struct NeverFits {
    /// Length of the prompt.
    pub prompt_tokens: u32,
    /// Length of the output.
    pub output_tokens: u32,
    /// [`Params::kv_tokens`].
    pub kv_tokens: u32,
}

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

/// One token of one sequence, at the end of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Emission {
    /// Whose token.
    pub id: SequenceId,
    /// Which token of the output, from 0.
    pub index: u32,
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
    slowdown: f64,
    sequences: Vec<Sequence>,
    vacant: Vec<Place>,
    places: HashMap<SequenceId, Place>,
    waiting: VecDeque<Place>,
    withdrawn: usize,
    running: Vec<Place>,
    scheduled: Vec<Share>,
    emissions: Vec<Emission>,
    stepping: bool,
    kv_in_use: u32,
    preemptions: u64,
}

impl Engine {
    /// An idle engine.
    pub fn new(params: Params) -> Self {
        Self {
            params,
            slowdown: 1.0,
            sequences: Vec::new(),
            vacant: Vec::new(),
            places: HashMap::new(),
            waiting: VecDeque::new(),
            withdrawn: 0,
            running: Vec::new(),
            scheduled: Vec::new(),
            emissions: Vec::new(),
            stepping: false,
            kv_in_use: 0,
            preemptions: 0,
        }
    }

    /// Puts a sequence at the end of the waiting queue. It takes part from the next [`Engine::begin_step`] on.
    ///
    /// An id that is still in use replaces its former sequence, which is cancelled.
    ///
    /// # Errors
    /// [`NeverFits`] when the sequence could never finish; nothing is queued then.
    pub fn submit(&mut self, id: SequenceId, prompt_tokens: u32, output_tokens: u32) -> Result<(), NeverFits> {
        if output_tokens == 0 || output_tokens > self.params.room_after(prompt_tokens) {
            return Err(NeverFits { prompt_tokens, output_tokens, kv_tokens: self.params.kv_tokens.get() });
        }
        self.cancel(id);
        let sequence = Sequence::new(id, prompt_tokens.max(1), output_tokens);
        let place = match self.vacant.pop() {
            Some(place) => {
                self.sequences[place] = sequence;
                place
            }
            None => {
                self.sequences.push(sequence);
                self.sequences.len() - 1
            }
        };
        self.places.insert(id, place);
        self.waiting.push_back(place);
        Ok(())
    }

    /// Takes a sequence out, wherever it is; its slot and its KV tokens are free at once, also in the middle of a step.
    /// The step's duration stays what it was. Returns whether there was one.
    pub fn cancel(&mut self, id: SequenceId) -> bool {
        let Some(place) = self.places.remove(&id) else { return false };
        match self.running.iter().position(|&running| running == place) {
            Some(position) => {
                self.running.remove(position);
                self.scheduled.retain(|share| share.place != place);
                self.release(place);
            }
            None => {
                self.sequences[place].state = State::Withdrawn;
                self.withdrawn += 1;
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
        let recalled = self.schedule_running(&mut budget);
        if !recalled {
            self.admit(&mut budget);
        }
        if self.scheduled.is_empty() {
            return None;
        }
        self.stepping = true;
        let decodes = self.scheduled.iter().filter(|share| share.prefill == 0).count() as u32;
        let prefill_tokens = self.scheduled.iter().map(|share| share.prefill).sum();
        let duration = self.params.step_time(decodes, prefill_tokens, self.kv_in_use).mul_f64(self.slowdown);
        Some(Step { duration, decodes, prefill_tokens })
    }

    /// Ends the step: who emitted, in scheduling order. Empty when no step had begun or when it only prefilled.
    pub fn finish_step(&mut self) -> &[Emission] {
        self.emissions.clear();
        if !std::mem::take(&mut self.stepping) {
            return &self.emissions;
        }
        for share in &self.scheduled {
            let sequence = &mut self.sequences[share.place];
            sequence.computed += share.prefill;
            if sequence.is_prefilling() {
                continue;
            }
            let index = sequence.generated;
            sequence.generated += 1;
            let finished = sequence.generated == sequence.output_tokens;
            if finished {
                sequence.state = State::Finished;
            }
            self.emissions.push(Emission { id: sequence.id, index, finished });
        }
        self.retire_finished();
        &self.emissions
    }

    /// [`Engine::begin_step`] and [`Engine::finish_step`] in one: for virtual time, when nothing arrives in between.
    pub fn step(&mut self) -> Option<(Step, &[Emission])> {
        let step = self.begin_step()?;
        Some((step, self.finish_step()))
    }

    /// Sequences in the batch.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Sequences that wait for admission, preempted ones included.
    pub fn waiting(&self) -> usize {
        self.waiting.len() - self.withdrawn
    }

    /// KV tokens held by the running sequences.
    pub fn kv_tokens_in_use(&self) -> u32 {
        self.kv_in_use
    }

    /// Share of KV memory in use, 0 to 1.
    pub fn kv_usage(&self) -> f64 {
        f64::from(self.kv_in_use) / f64::from(self.params.kv_tokens.get())
    }

    /// Sequences thrown out of the batch for want of KV memory, ever.
    pub fn preemptions(&self) -> u64 {
        self.preemptions
    }

    /// The parameters it was made with.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Gives the running sequences their share of the step, oldest first; says whether one of them was preempted.
    ///
    /// Order of admission already is "decodes first": a sequence that prefills takes the rest of the budget, so nobody
    /// behind it can have finished its prompt.
    fn schedule_running(&mut self, budget: &mut u32) -> bool {
        let mut recalled = false;
        let mut position = 0;
        while position < self.running.len() && *budget > 0 {
            let place = self.running[position];
            let prefill = self.sequences[place].left_to_prefill().min(*budget);
            if prefill == 0 {
                recalled |= self.make_room_for_one();
                if position >= self.running.len() {
                    break;
                }
                self.sequences[place].held += 1;
                self.kv_in_use += 1;
            }
            self.scheduled.push(Share { place, prefill });
            *budget -= prefill.max(1);
            position += 1;
        }
        recalled
    }

    /// Preempts from the end of the batch until one KV token is free; says whether anyone had to go.
    fn make_room_for_one(&mut self) -> bool {
        let mut recalled = false;
        while self.kv_in_use >= self.params.kv_tokens.get() {
            let Some(place) = self.running.pop() else { break };
            let sequence = &mut self.sequences[place];
            self.kv_in_use -= sequence.held;
            sequence.recall();
            self.waiting.push_front(place);
            self.preemptions += 1;
            recalled = true;
        }
        recalled
    }

    /// Admits from the front of the queue while a slot, KV memory for the prompt and budget are left. Never skips the
    /// front: a long prompt holds up the short ones behind it, as in vLLM.
    fn admit(&mut self, budget: &mut u32) {
        while *budget > 0 && self.running.len() < self.params.max_num_seqs.get() as usize {
            let Some(&place) = self.waiting.front() else { return };
            let sequence = &mut self.sequences[place];
            if sequence.state == State::Withdrawn {
                self.waiting.pop_front();
                self.withdrawn -= 1;
                self.vacant.push(place);
                continue;
            }
            // The one beyond the prompt is the KV entry of its first decode.
            if self.kv_in_use + sequence.to_compute + 1 > self.params.kv_tokens.get() {
                return;
            }
            sequence.held = sequence.to_compute;
            self.kv_in_use += sequence.held;
            let prefill = sequence.left_to_prefill().min(*budget);
            *budget -= prefill;
            self.waiting.pop_front();
            self.running.push(place);
            self.scheduled.push(Share { place, prefill });
        }
    }

    fn retire_finished(&mut self) {
        if !self.emissions.iter().any(|emission| emission.finished) {
            return;
        }
        for emission in self.emissions.iter().filter(|emission| emission.finished) {
            self.places.remove(&emission.id);
        }
        let (sequences, vacant, kv_in_use) = (&self.sequences, &mut self.vacant, &mut self.kv_in_use);
        self.running.retain(|&place| {
            let finished = sequences[place].state == State::Finished;
            if finished {
                *kv_in_use -= sequences[place].held;
                vacant.push(place);
            }
            !finished
        });
    }

    fn release(&mut self, place: Place) {
        self.kv_in_use -= self.sequences[place].held;
        self.vacant.push(place);
    }
}

/// Index into the table of sequences.
type Place = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Alive,
    /// Cancelled while it waited; still in the queue.
    Withdrawn,
    Finished,
}

#[derive(Debug)]
struct Sequence {
    id: SequenceId,
    state: State,
    prompt_tokens: u32,
    output_tokens: u32,
    generated: u32,
    /// Tokens to run through prefill before it emits: the prompt, and after a preemption what it had generated too.
    to_compute: u32,
    /// How many of them have been.
    computed: u32,
    /// KV tokens it holds; 0 while it waits.
    held: u32,
}

impl Sequence {
    fn new(id: SequenceId, prompt_tokens: u32, output_tokens: u32) -> Self {
        let to_compute = prompt_tokens;
        Self { id, state: State::Alive, prompt_tokens, output_tokens, generated: 0, to_compute, computed: 0, held: 0 }
    }

    fn recall(&mut self) {
        self.to_compute = self.prompt_tokens + self.generated;
        self.computed = 0;
        self.held = 0;
    }

    fn left_to_prefill(&self) -> u32 {
        self.to_compute - self.computed
    }

    fn is_prefilling(&self) -> bool {
        self.left_to_prefill() > 0
    }
}

/// What one sequence does in the current step: a prefill chunk, or a decode when `prefill` is 0.
#[derive(Clone, Copy, Debug)]
struct Share {
    place: Place,
    prefill: u32,
}
