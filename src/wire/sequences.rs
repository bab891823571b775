//! What a stream says of each of its sequences: how much was generated and emitted, what was reported, whether it has ended.
//!
//! A request may ask for several (`n`, several prompts), and their events interleave. Memory is bounded: beyond
//! [`CHOICES_LIMIT`] a sequence is not followed, and each of its content events counts as one token.

use super::count::{Count, TokenReport};
use super::event::{CHOICES_LIMIT, ChoiceEvent};

/// All sequences of one stream. The first one costs no allocation.
#[derive(Debug, Default)]
pub(super) struct Sequences {
    first: Option<AnswerSequence>,
    more: Vec<AnswerSequence>,
}

/// One sequence.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AnswerSequence {
    index: u32,
    pub finished: bool,
    /// Tokens generated, by the largest running count or by the identifiers that came.
    generated: u32,
    /// Tokens in emissions.
    emitted: u32,
    /// Length of the text, of the identifiers and of the running count that came last, where they are cumulative.
    last: Cumulative,
    pub report: TokenReport,
}

/// What SGLang repeats from the beginning in each event.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cumulative {
    pub text: u32,
    pub ids: u32,
    pub running: Option<Count>,
}

impl Sequences {
    /// The sequence with this index; `None`: there are too many already.
    pub fn of(&mut self, index: u32) -> Option<&mut AnswerSequence> {
        let room = self.count() < CHOICES_LIMIT;
        let first = self.first.get_or_insert(AnswerSequence { index, ..AnswerSequence::default() });
        if first.index == index {
            return Some(first);
        }
        match self.more.iter().position(|sequence| sequence.index == index) {
            Some(at) => self.more.get_mut(at),
            None if room => {
                self.more.push(AnswerSequence { index, ..AnswerSequence::default() });
                self.more.last_mut()
            }
            None => None,
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &AnswerSequence> {
        self.first.iter().chain(&self.more)
    }

    pub fn count(&self) -> u32 {
        u32::from(self.first.is_some()) + u32::try_from(self.more.len()).unwrap_or(u32::MAX)
    }

    /// There are some, and each of them has ended.
    pub fn have_finished(&self) -> bool {
        self.first.is_some() && self.iter().all(|sequence| sequence.finished)
    }
}

impl AnswerSequence {
    /// Takes in what an event says of it; tokens of that event, if it had content. They are the growth since the last
    /// content event of a running count, or the identifiers since then, and at least one.
    pub fn hear(&mut self, choice: &ChoiceEvent, running: Option<u32>) -> Option<u32> {
        self.finished |= choice.finished;
        self.generated = match running {
            Some(running) => self.generated.max(running),
            None => self.generated.saturating_add(choice.ids),
        };
        if !choice.content {
            return None;
        }
        let tokens = self.generated.saturating_sub(self.emitted).max(1);
        self.emitted = self.emitted.saturating_add(tokens);
        Some(tokens)
    }

    /// Whether something was generated since the last event of a stream whose events may repeat all that came before.
    ///
    /// The running count decides where there is one: it holds whether text and identifiers are cumulative or not.
    pub fn has_grown(&mut self, now: Cumulative) -> bool {
        let before = std::mem::replace(&mut self.last, now);
        let grown = match now.running {
            Some(_) => now.running > before.running,
            None => now.text > before.text || now.ids > before.ids,
        };
        grown && (now.text > 0 || now.ids > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(ids: u32) -> ChoiceEvent {
        ChoiceEvent { content: true, ids, ..ChoiceEvent::default() }
    }

    #[test]
    fn tokens_are_the_growth_of_a_running_count_and_one_at_least() {
        let mut sequence = AnswerSequence::default();
        let tokens = [1, 4, 4, 5, 9].map(|running| sequence.hear(&content(0), Some(running)).unwrap());
        assert_eq!(tokens, [1, 3, 1, 1, 3], "what was emitted too much is made up for");
    }

    #[test]
    fn what_came_without_content_is_emitted_with_the_next() {
        let mut sequence = AnswerSequence::default();
        assert_eq!(sequence.hear(&ChoiceEvent { ids: 2, ..ChoiceEvent::default() }, None), None);
        assert_eq!(sequence.hear(&content(1), None), Some(3));
        assert_eq!(sequence.hear(&content(0), None), Some(1), "without any count it is one");
    }

    #[test]
    fn sequences_are_distinguished_up_to_a_bound() {
        let mut sequences = Sequences::default();
        for index in (0..1_000).rev() {
            if let Some(sequence) = sequences.of(index) {
                sequence.finished = true;
            }
        }
        assert_eq!(sequences.count(), CHOICES_LIMIT);
        assert!(sequences.have_finished() && sequences.of(999).is_some() && sequences.of(0).is_none());
        assert!(!Sequences::default().have_finished());
    }

    #[test]
    fn growth_is_seen_in_cumulative_and_in_incremental_streams() {
        let grown = |steps: &[(u32, u32, Option<u64>)]| {
            let mut sequence = AnswerSequence::default();
            let grown = |&(text, ids, running): &(u32, u32, Option<u64>)| {
                sequence.has_grown(Cumulative { text, ids, running: running.map(Count::of) })
            };
            steps.iter().map(grown).collect::<Vec<_>>()
        };
        assert_eq!(
            grown(&[(0, 0, None), (5, 0, None), (5, 0, None), (5, 3, None), (6, 3, None)]),
            [false, true, false, true, true]
        );
        assert_eq!(
            grown(&[(5, 1, Some(1)), (3, 1, Some(2)), (3, 1, Some(2)), (0, 0, Some(3))]),
            [true, true, false, false]
        );
    }
}
