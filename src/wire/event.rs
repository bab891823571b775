//! What one JSON object of an answer says: an event of a stream, a line of NDJSON, or a whole answer.
//!
//! One grammar for all dialects, because their member names do not collide where they are looked for; what a member means
//! in a dialect is decided at the end of the object, in `stream`.

use super::json::{Grammar, Node, ROOT, SKIP, Scalar};

/// An error inside an answer of status 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    Error,
    /// The engine refuses for load.
    Overloaded,
}

/// What one object said.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Event {
    /// Content members that were not empty, of OpenAI's choices or of the root.
    pub content: bool,
    /// Elements of `choices`; `None` without that member.
    pub choices: Option<u32>,
    /// Choices that had content.
    pub spoke: u32,
    /// Index of the last choice in the object.
    pub index: u32,
    /// Bit per choice index below 64: seen, finished.
    pub seen: u64,
    pub finished: u64,
    /// `token_ids`, `tokens`, `output_ids`: how many.
    pub ids: u32,
    pub kind: Kind,
    /// Text of the root (`text`, `content`, `response`, `delta`), unescaped length.
    pub text: u64,
    /// The delta of Anthropic or of the responses API was not empty.
    pub delta: bool,
    pub usage: bool,
    pub input: Option<u64>,
    pub output: Option<u64>,
    pub cached: Option<u64>,
    /// Cache reads and writes that `input` leaves out.
    pub cache_apart: u64,
    /// A running count of generated tokens at the root or in `meta_info`.
    pub running: Option<u64>,
    pub done: bool,
    pub token: bool,
    pub special: bool,
    pub generated: bool,
    pub error: Option<ErrorKind>,
    choice: Choice,
}

#[derive(Clone, Copy, Debug, Default)]
struct Choice {
    index: u32,
    content: bool,
    finished: bool,
}

/// The `type` member, where a dialect has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    Other,
    /// A delta of text, reasoning, refusal or arguments in the responses API.
    Delta,
    BlockDelta,
    MessageStart,
    MessageDelta,
    MessageStop,
    Completed,
    Failed,
    Error,
}

const CHOICES: Node = 2;
const CHOICE: Node = 3;
const INDEX: Node = 4;
const FINISH: Node = 5;
const DELTA: Node = 6;
const SPEECH: Node = 7;
const TOOL_CALLS: Node = 8;
const TOOL_CALL: Node = 9;
const FUNCTION: Node = 10;
const USAGE: Node = 11;
const INPUT: Node = 12;
const OUTPUT: Node = 13;
const CACHED: Node = 14;
const CACHE_APART: Node = 15;
const DETAILS: Node = 16;
const ERROR: Node = 17;
const ERROR_KIND: Node = 18;
const TYPE: Node = 19;
const ROOT_DELTA: Node = 20;
const ROOT_TEXT: Node = 21;
const MESSAGE: Node = 22;
const RUNNING: Node = 23;
const META: Node = 24;
const DONE: Node = 25;
const TOKEN: Node = 26;
const SPECIAL: Node = 27;
const GENERATED: Node = 28;
const IDS: Node = 29;
const ID: Node = 30;
const BLOCK_TEXT: Node = 31;
const TGI_DETAILS: Node = 32;
const ROOT_FINISH: Node = 33;

impl Grammar for Event {
    fn member(&self, parent: Node, key: &[u8]) -> Node {
        match parent {
            ROOT => root(key),
            CHOICE => match key {
                b"index" => INDEX,
                b"finish_reason" => FINISH,
                b"delta" => DELTA,
                b"text" => SPEECH,
                b"token_ids" => IDS,
                _ => SKIP,
            },
            DELTA => match key {
                b"content" | b"reasoning_content" | b"reasoning" | b"refusal" => SPEECH,
                b"tool_calls" => TOOL_CALLS,
                b"function_call" => FUNCTION,
                _ => SKIP,
            },
            TOOL_CALL if key == b"function" => FUNCTION,
            FUNCTION if key == b"name" || key == b"arguments" => SPEECH,
            USAGE => match key {
                b"prompt_tokens" | b"input_tokens" => INPUT,
                b"completion_tokens" | b"output_tokens" => OUTPUT,
                b"cache_read_input_tokens" | b"cache_creation_input_tokens" => CACHE_APART,
                b"prompt_tokens_details" | b"input_tokens_details" => DETAILS,
                _ => SKIP,
            },
            DETAILS if key == b"cached_tokens" => CACHED,
            ERROR if key == b"type" => ERROR_KIND,
            // Anthropic's `message_start.message` and `response` of the responses API hold usage; Ollama's message speaks.
            MESSAGE => match key {
                b"usage" => USAGE,
                b"content" | b"thinking" => BLOCK_TEXT,
                b"tool_calls" => TOOL_CALLS,
                b"error" => ERROR,
                _ => SKIP,
            },
            ROOT_DELTA => match key {
                b"text" | b"thinking" | b"partial_json" => BLOCK_TEXT,
                _ => SKIP,
            },
            META => match key {
                b"completion_tokens" => RUNNING,
                b"prompt_tokens" => INPUT,
                b"cached_tokens" => CACHED,
                b"finish_reason" => ROOT_FINISH,
                _ => SKIP,
            },
            TOKEN if key == b"special" => SPECIAL,
            TGI_DETAILS => match key {
                b"generated_tokens" => OUTPUT,
                b"input_length" => INPUT,
                _ => SKIP,
            },
            _ => SKIP,
        }
    }

    fn element(&self, parent: Node) -> Node {
        match parent {
            ROOT => ROOT,
            CHOICES => CHOICE,
            TOOL_CALLS => TOOL_CALL,
            IDS => ID,
            _ => SKIP,
        }
    }

    fn open(&mut self, node: Node, array: bool) {
        match node {
            CHOICES => self.choices = Some(0),
            CHOICE => self.choice = Choice::default(),
            USAGE => self.usage = true,
            ERROR => {
                self.error.get_or_insert(ErrorKind::Error);
            }
            TOKEN if !array => self.token = true,
            FINISH => self.choice.finished = true,
            ROOT_FINISH => self.finished = 1,
            _ => {}
        }
    }

    fn close(&mut self, node: Node) {
        if node != CHOICE {
            return;
        }
        self.choices = Some(self.choices.unwrap_or(0).saturating_add(1));
        let choice = self.choice;
        let bit = 1_u64.checked_shl(choice.index).unwrap_or(0);
        self.index = choice.index;
        self.seen |= bit;
        self.finished |= if choice.finished { bit } else { 0 };
        if choice.content {
            self.content = true;
            self.spoke += 1;
        }
    }

    fn scalar(&mut self, node: Node, value: Scalar<'_>) {
        match (node, value) {
            (SPEECH, Scalar::Text { length: 1.., .. }) => {
                self.choice.content = true;
                self.delta = true;
            }
            (BLOCK_TEXT | MESSAGE, Scalar::Text { length: 1.., .. }) => self.delta = true,
            (INDEX, Scalar::Number(Some(n))) => self.choice.index = u32::try_from(n).unwrap_or(u32::MAX),
            (FINISH, Scalar::Text { .. }) => self.choice.finished = true,
            (ROOT_FINISH, Scalar::Text { .. }) => self.finished = 1,
            (ROOT_TEXT | ROOT_DELTA, Scalar::Text { length, .. }) => self.text += length as u64,
            (INPUT, Scalar::Number(Some(n))) => self.input = Some(n),
            (OUTPUT, Scalar::Number(Some(n))) => self.output = Some(n),
            (CACHED, Scalar::Number(Some(n))) => self.cached = Some(n),
            (CACHE_APART, Scalar::Number(Some(n))) => self.cache_apart = self.cache_apart.saturating_add(n),
            (RUNNING, Scalar::Number(n)) => self.running = n,
            (DONE, Scalar::Bool(true)) => self.done = true,
            (SPECIAL, Scalar::Bool(special)) => self.special = special,
            (GENERATED, Scalar::Text { .. }) => self.generated = true,
            (ID, Scalar::Number(_)) => self.ids = self.ids.saturating_add(1),
            (ERROR, Scalar::Text { .. } | Scalar::Bool(true)) => {
                self.error.get_or_insert(ErrorKind::Error);
            }
            (ERROR_KIND, Scalar::Text { raw: Some(raw), .. }) => self.on_error_kind(raw),
            (TYPE, Scalar::Text { raw: Some(raw), .. }) => self.kind = kind(raw),
            _ => {}
        }
    }

    fn wants(&self, node: Node) -> usize {
        if matches!(node, TYPE | ERROR_KIND) { 64 } else { 0 }
    }
}

impl Event {
    fn on_error_kind(&mut self, raw: &[u8]) {
        if raw.starts_with(b"overloaded") {
            self.error = Some(ErrorKind::Overloaded);
        }
    }
}

fn root(key: &[u8]) -> Node {
    match key {
        b"choices" => CHOICES,
        b"usage" => USAGE,
        b"error" => ERROR,
        b"error_type" => ERROR_KIND,
        b"type" => TYPE,
        b"delta" => ROOT_DELTA,
        b"text" | b"content" | b"thinking" => ROOT_TEXT,
        b"response" | b"message" => MESSAGE,
        b"tokens_predicted" | b"eval_count" => RUNNING,
        b"tokens_evaluated" | b"prompt_eval_count" => INPUT,
        b"meta_info" => META,
        b"done" | b"stop" => DONE,
        b"token" => TOKEN,
        b"generated_text" => GENERATED,
        b"details" => TGI_DETAILS,
        b"output_ids" | b"tokens" => IDS,
        _ => SKIP,
    }
}

fn kind(raw: &[u8]) -> Kind {
    match raw {
        b"content_block_delta" => Kind::BlockDelta,
        b"message_start" => Kind::MessageStart,
        b"message_delta" => Kind::MessageDelta,
        b"message_stop" => Kind::MessageStop,
        b"response.completed" | b"response.incomplete" => Kind::Completed,
        b"response.failed" => Kind::Failed,
        b"error" => Kind::Error,
        b"response.output_text.delta" | b"response.refusal.delta" | b"response.function_call_arguments.delta" => {
            Kind::Delta
        }
        _ if raw.starts_with(b"response.reasoning") && raw.ends_with(b".delta") => Kind::Delta,
        _ => Kind::Other,
    }
}
