//! What one JSON object of an answer says: an event of a stream, a line of NDJSON, or a whole answer. Where it says so: the
//! grammar of `answer`. What it means in a dialect is decided at the end of the object, in `totals`.

use super::count::{Count, TokenReport};

/// An error inside an answer of status 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InBandError {
    Error,
    /// The engine refuses for load.
    Overloaded,
}

/// What one object said.
#[derive(Debug, Default)]
pub(super) struct Event {
    pub kind: EventKind,
    pub error: Option<InBandError>,
    pub choices: Choices,
    /// What the object itself says, in dialects without `choices`: they speak for one sequence an object.
    pub own: ChoiceEvent,
    /// A running count of generated tokens, at the root or in `meta_info`.
    pub running: Option<Count>,
    pub report: TokenReport,
    /// Parts of the prompt that Anthropic's `input_tokens` leaves out.
    pub cache_read: Option<Count>,
    pub cache_written: Option<Count>,
    /// Text at the root (`text`, `content`, `thinking`, `delta`), its unescaped length.
    pub text: u32,
    /// `done` or `stop` is true.
    pub done: bool,
    /// A token of TGI, and whether it is one of the model's own marks.
    pub token: bool,
    pub special: bool,
    /// llama.cpp's `timings` are there.
    pub timings: bool,
    /// The document is an array: the sum of what its objects report.
    pub list: Option<TokenReport>,
}

/// What is said of one sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ChoiceEvent {
    pub index: u32,
    /// A content member that is not empty.
    pub content: bool,
    pub finished: bool,
    /// Length of `token_ids`, `tokens`, `output_ids`.
    pub ids: u32,
}

/// The elements of `choices`. One is the rule, and costs no allocation.
#[derive(Debug, Default)]
pub(super) struct Choices {
    count: u32,
    first: ChoiceEvent,
    more: Vec<ChoiceEvent>,
    /// The one that is being read.
    pub under_way: ChoiceEvent,
}

/// The `type` member, where a dialect has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum EventKind {
    #[default]
    Other,
    /// A delta of text, reasoning, refusal or arguments in the responses API.
    Delta,
    BlockDelta,
    MessageDelta,
    MessageStop,
    Completed,
    Failed,
    Error,
}

impl Event {
    /// Ready for another object. What was allocated for choices is kept.
    pub fn reset(&mut self) {
        let mut more = std::mem::take(&mut self.choices.more);
        more.clear();
        *self = Self { choices: Choices { more, ..Choices::default() }, ..Self::default() };
    }
}

impl Choices {
    /// How many there are, even beyond those that are kept.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Those that are kept.
    pub fn iter(&self) -> impl Iterator<Item = &ChoiceEvent> {
        std::iter::once(&self.first).take(self.count.min(1) as usize).chain(&self.more)
    }

    /// The one that was being read is whole.
    pub fn close(&mut self) {
        match self.count {
            0 => self.first = self.under_way,
            1..CHOICES_LIMIT => self.more.push(self.under_way),
            _ => {}
        }
        self.count = self.count.saturating_add(1);
    }
}

/// What a `type` stands for.
pub(super) fn kind(name: &[u8]) -> EventKind {
    match name {
        b"content_block_delta" => EventKind::BlockDelta,
        b"message_delta" => EventKind::MessageDelta,
        b"message_stop" => EventKind::MessageStop,
        b"response.completed" | b"response.incomplete" => EventKind::Completed,
        b"response.failed" => EventKind::Failed,
        b"error" => EventKind::Error,
        b"response.output_text.delta" | b"response.refusal.delta" | b"response.function_call_arguments.delta" => {
            EventKind::Delta
        }
        _ if name.starts_with(b"response.reasoning") && name.ends_with(b".delta") => EventKind::Delta,
        _ => EventKind::Other,
    }
}

/// More sequences than this are not distinguished.
pub(super) const CHOICES_LIMIT: u32 = 128;
