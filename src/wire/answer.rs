//! The members of an answer that matter, and nothing else (dialects.md, 2).
//!
//! One grammar for all dialects, because their member names do not collide where they are looked for.

use super::count::{Count, TokenReport};
use super::event::{ChoiceEvent, Event, InBandError, kind};
use super::json::{Grammar, Node, ROOT, SKIP, Scalar};

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
const CACHE_READ: Node = 15;
const CACHE_WRITTEN: Node = 16;
const DETAILS: Node = 17;
const ERROR: Node = 18;
const ERROR_KIND: Node = 19;
const TYPE: Node = 20;
const ROOT_DELTA: Node = 21;
const ROOT_TEXT: Node = 22;
/// Ollama's `message` and `response` speak; Anthropic's `message` and `response` of the responses API hold usage.
const MESSAGE: Node = 23;
const BLOCK_TEXT: Node = 24;
const RUNNING: Node = 25;
const META: Node = 26;
const DONE: Node = 27;
const TOKEN: Node = 28;
const SPECIAL: Node = 29;
const GENERATED: Node = 30;
const TGI_DETAILS: Node = 31;
const IDS: Node = 32;
const ID: Node = 33;
const OWN_IDS: Node = 34;
const OWN_ID: Node = 35;
const OWN_INDEX: Node = 36;
const OWN_FINISH: Node = 37;
const TIMINGS: Node = 38;

impl Grammar for Event {
    fn member(&mut self, parent: Node, key: &[u8]) -> Node {
        member(parent, key)
    }

    fn element(&self, parent: Node) -> Node {
        match parent {
            ROOT => ROOT,
            CHOICES => CHOICE,
            TOOL_CALLS => TOOL_CALL,
            IDS => ID,
            OWN_IDS => OWN_ID,
            _ => SKIP,
        }
    }

    fn open(&mut self, node: Node, array: bool) {
        match node {
            ROOT if array => self.list = Some(self.list.unwrap_or_default()),
            CHOICE => self.choices.under_way = ChoiceEvent::default(),
            FINISH => self.choices.under_way.finished = true,
            OWN_FINISH => self.own.finished = true,
            TOKEN if !array => self.token = true,
            TIMINGS => self.timings = true,
            ERROR => {
                self.error.get_or_insert(InBandError::Error);
            }
            _ => {}
        }
    }

    fn close(&mut self, node: Node) {
        match (node, &mut self.list) {
            (CHOICE, _) => self.choices.close(),
            (ROOT, Some(list)) => {
                let report = std::mem::take(&mut self.report);
                list.add(TokenReport { output: report.output.or(self.running.take()), ..report });
            }
            _ => {}
        }
    }

    fn scalar(&mut self, node: Node, value: Scalar<'_>) {
        match (node, value) {
            (ID, Scalar::Number(_)) => {
                self.choices.under_way.ids = self.choices.under_way.ids.saturating_add(1);
            }
            (OWN_ID, Scalar::Number(_)) => self.own.ids = self.own.ids.saturating_add(1),
            (_, Scalar::Text { length, start }) => self.on_member_text(node, length, start),
            (_, Scalar::Number(Some(n))) => self.on_number(node, n),
            (DONE, Scalar::Bool(true)) => self.done = true,
            (SPECIAL, Scalar::Bool(special)) => self.special = special,
            (ERROR, Scalar::Bool(true)) => {
                self.error.get_or_insert(InBandError::Error);
            }
            _ => {}
        }
    }

    fn wants(&self, node: Node) -> usize {
        if matches!(node, TYPE | ERROR_KIND) { KIND_LIMIT } else { 0 }
    }
}

fn member(parent: Node, key: &[u8]) -> Node {
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
        FUNCTION if matches!(key, b"name" | b"arguments") => SPEECH,
        USAGE => match key {
            b"prompt_tokens" | b"input_tokens" => INPUT,
            b"completion_tokens" | b"output_tokens" => OUTPUT,
            b"cache_read_input_tokens" => CACHE_READ,
            b"cache_creation_input_tokens" => CACHE_WRITTEN,
            b"prompt_tokens_details" | b"input_tokens_details" => DETAILS,
            _ => SKIP,
        },
        DETAILS if key == b"cached_tokens" => CACHED,
        ERROR if key == b"type" => ERROR_KIND,
        MESSAGE => match key {
            b"usage" => USAGE,
            b"content" | b"thinking" => BLOCK_TEXT,
            b"tool_calls" => TOOL_CALLS,
            b"error" => ERROR,
            _ => SKIP,
        },
        ROOT_DELTA => match key {
            b"text" | b"thinking" | b"partial_json" => BLOCK_TEXT,
            b"stop_reason" => OWN_FINISH,
            _ => SKIP,
        },
        META => match key {
            b"completion_tokens" => RUNNING,
            b"prompt_tokens" => INPUT,
            b"cached_tokens" => CACHED,
            b"finish_reason" => OWN_FINISH,
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
        b"done_reason" | b"stop_type" => OWN_FINISH,
        b"token" => TOKEN,
        b"generated_text" => GENERATED,
        b"details" => TGI_DETAILS,
        b"output_ids" | b"tokens" => OWN_IDS,
        b"index" => OWN_INDEX,
        b"timings" => TIMINGS,
        _ => SKIP,
    }
}

impl Event {
    fn on_member_text(&mut self, node: Node, length: u64, start: &[u8]) {
        match node {
            SPEECH if length > 0 => {
                self.choices.under_way.content = true;
                self.own.content = true;
            }
            BLOCK_TEXT | MESSAGE if length > 0 => self.own.content = true,
            ROOT_TEXT | ROOT_DELTA => {
                self.text = self.text.saturating_add(u32::try_from(length).unwrap_or(u32::MAX));
            }
            FINISH if length > 0 => self.choices.under_way.finished = true,
            OWN_FINISH if length > 0 => self.own.finished = true,
            GENERATED => self.own.finished = true,
            ERROR if length > 0 => {
                self.error.get_or_insert(InBandError::Error);
            }
            ERROR_KIND if start.starts_with(b"overloaded") => self.error = Some(InBandError::Overloaded),
            TYPE => self.kind = kind(start),
            _ => {}
        }
    }

    fn on_number(&mut self, node: Node, n: u64) {
        match node {
            INDEX => self.choices.under_way.index = u32::try_from(n).unwrap_or(u32::MAX),
            OWN_INDEX => self.own.index = u32::try_from(n).unwrap_or(u32::MAX),
            INPUT => self.report.input = Some(Count::of(n)),
            OUTPUT => self.report.output = Some(Count::of(n)),
            CACHED => self.report.cached = Some(Count::of(n)),
            CACHE_READ => self.cache_read = Some(Count::of(n)),
            CACHE_WRITTEN => self.cache_written = Some(Count::of(n)),
            RUNNING => self.running = Some(Count::of(n)),
            _ => {}
        }
    }
}

/// Longer than every `type` that is looked for.
const KIND_LIMIT: usize = 64;
