//! The sequences in the engine, and what is known of each.

use std::collections::HashMap;
use std::ops::{Index, IndexMut};

/// The caller's name for a sequence; unique among those not yet finished or cancelled.
pub type SequenceId = u64;

/// Where a sequence is in the table, as long as it is in the engine.
pub(super) type SequenceIndex = usize;

/// Every sequence in the engine. The slot of one that has left is used again.
#[derive(Debug, Default)]
pub(super) struct SequenceTable {
    pub slots: Vec<SimSequence>,
    vacant: Vec<SequenceIndex>,
    by_id: HashMap<SequenceId, SequenceIndex>,
}

/// One sequence.
#[derive(Debug)]
pub(super) struct SimSequence {
    pub id: SequenceId,
    pub state: SequenceState,
    pub prompt_tokens: u32,
    /// Prompt tokens that need no prefill.
    pub cached: u32,
    pub output_tokens: u32,
    pub generated: u32,
    /// Tokens to run through prefill before it emits: the prompt, and after a preemption what it had generated too.
    pub to_compute: u32,
    /// How many of them have been.
    pub computed: u32,
    /// KV tokens it holds; 0 while it waits.
    pub held: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SequenceState {
    Alive,
    /// Cancelled while it waited; still in the queue.
    Cancelled,
    Finished,
}

impl SequenceTable {
    pub fn insert(&mut self, sequence: SimSequence) -> SequenceIndex {
        let id = sequence.id;
        let index = match self.vacant.pop() {
            Some(index) => {
                self.slots[index] = sequence;
                index
            }
            None => {
                self.slots.push(sequence);
                self.slots.len() - 1
            }
        };
        self.by_id.insert(id, index);
        index
    }

    /// Takes the id back. The slot is kept until it is [freed](Self::free).
    pub fn forget(&mut self, id: SequenceId) -> Option<SequenceIndex> {
        self.by_id.remove(&id)
    }

    pub fn free(&mut self, index: SequenceIndex) {
        self.vacant.push(index);
    }
}

impl Index<SequenceIndex> for SequenceTable {
    type Output = SimSequence;

    fn index(&self, index: SequenceIndex) -> &SimSequence {
        &self.slots[index]
    }
}

impl IndexMut<SequenceIndex> for SequenceTable {
    fn index_mut(&mut self, index: SequenceIndex) -> &mut SimSequence {
        &mut self.slots[index]
    }
}

impl SimSequence {
    pub fn new(id: SequenceId, prompt_tokens: u32, cached: u32, output_tokens: u32) -> Self {
        Self {
            id,
            state: SequenceState::Alive,
            prompt_tokens,
            cached,
            output_tokens,
            generated: 0,
            to_compute: prompt_tokens,
            computed: cached,
            held: 0,
        }
    }

    /// Out of the batch, with its KV memory lost: it is computed from the beginning when it is admitted again.
    pub fn preempt(&mut self) {
        self.to_compute = self.prompt_tokens + self.generated;
        self.computed = self.cached;
        self.held = 0;
    }

    pub fn left_to_prefill(&self) -> u32 {
        self.to_compute - self.computed
    }

    pub fn is_prefilling(&self) -> bool {
        self.left_to_prefill() > 0
    }
}
