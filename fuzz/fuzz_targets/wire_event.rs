//! One event of a stream: for every valid object, what serde_json reads in it, by the tables of the wire
//! formats. Objects with a key twice are left out: there a parsed object has forgotten what the scanner saw. Half of the inputs are
//! payloads as they are; in the other half each byte stands for a word of one.

#![no_main]

use std::collections::HashSet;
use std::fmt;

use libfuzzer_sys::fuzz_target;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use weir::wire::{BodyFormat, Dialect, InBandError, StreamScanner};

fuzz_target!(|data: &[u8]| {
    let [kind, payload @ ..] = data else { return };
    if *kind < 128 {
        check(*kind, payload);
    } else {
        let words = payload.iter().map(|b| WORDS[usize::from(*b) % WORDS.len()]);
        check(*kind, format!("{{{}}}", words.collect::<String>()).as_bytes());
    }
});

fn check(kind: u8, payload: &[u8]) {
    let dialect = DIALECTS[usize::from(kind) % DIALECTS.len()];
    let payload: Vec<u8> = payload.iter().map(|b| if matches!(b, b'\r' | b'\n') { b' ' } else { *b }).collect();
    let (mut scanner, mut tokens) = (StreamScanner::new(dialect, BodyFormat::Sse), Vec::new());
    for part in [b"data: ", &payload[..], b"\n\n"] {
        scanner.feed(part, |emission| tokens.push(emission.tokens));
    }
    assert!(scanner.at_event_boundary() && tokens.len() <= 1);
    let reading = scanner.reading();
    let Ok(Plain(value)) = serde_json::from_slice(&payload) else { return };
    if !value.is_object() {
        assert!(tokens.is_empty() && reading.usage.is_none() && reading.error.is_none() && !reading.finished);
        return;
    }
    assert_eq!(!tokens.is_empty(), has_content(dialect, &value), "content");
    assert_eq!(reading.error, error(dialect, &value), "error");
    assert_eq!(reading.terminated, terminates(dialect, &value), "terminator");
    assert_eq!(reading.finished, finishes(dialect, &value), "finish");
    if let Some(expected) = tokens_of(dialect, &value) {
        assert_eq!(tokens, expected, "tokens");
    }
    let usage = reading.usage.unwrap_or_default();
    if let Some([input, output]) = usage_of(dialect, &value) {
        let events = tokens.len() as u64;
        assert_eq!(usage.input, input.filter(|n| *n <= 1 << 24), "input");
        assert_eq!(usage.output, output.filter(|n| (events..=1 << 24).contains(n)), "output");
    }
}

const WORDS: &[&str] = &[
    ",",
    ":",
    "\"",
    "{",
    "}",
    "[",
    "]",
    " ",
    "\\u0041",
    "\\ud83d",
    "null",
    "true",
    "false",
    "0",
    "3",
    "-1",
    "16777217",
    "\"x\"",
    "\"\"",
    "\"overloaded_error\"",
    "\"stop\"",
    "\"choices\":[",
    "\"choices\":",
    "\"delta\":",
    "\"delta\":{",
    "\"content\":",
    "\"reasoning\":",
    "\"reasoning_content\":",
    "\"refusal\":",
    "\"tool_calls\":[{\"function\":{\"name\":",
    "\"function_call\":{\"arguments\":",
    "\"text\":",
    "\"token_ids\":",
    "\"index\":",
    "\"finish_reason\":",
    "\"usage\":{",
    "\"prompt_tokens\":",
    "\"input_tokens\":",
    "\"completion_tokens\":",
    "\"output_tokens\":",
    "\"cache_read_input_tokens\":",
    "\"type\":",
    "\"type\":\"message_delta\"",
    "\"type\":\"message_stop\"",
    "\"type\":\"content_block_delta\"",
    "\"type\":\"response.output_text.delta\"",
    "\"type\":\"response.reasoning_text.delta\"",
    "\"type\":\"response.completed\"",
    "\"type\":\"response.failed\"",
    "\"type\":\"error\"",
    "\"stop_reason\":",
    "\"partial_json\":",
    "\"thinking\":",
    "\"message\":{",
    "\"response\":",
    "\"response\":{",
    "\"done\":",
    "\"stop\":",
    "\"done_reason\":",
    "\"stop_type\":",
    "\"eval_count\":",
    "\"tokens_predicted\":",
    "\"tokens_evaluated\":",
    "\"prompt_eval_count\":",
    "\"meta_info\":{",
    "\"output_ids\":[",
    "\"tokens\":[",
    "\"token\":{",
    "\"special\":",
    "\"generated_text\":",
    "\"details\":{",
    "\"generated_tokens\":",
    "\"input_length\":",
    "\"error\":",
    "\"error\":{",
    "\"error_type\":",
    "\"timings\":{}",
    "{\"index\":1,",
    "},",
    "],",
    "\"x\":",
];

const DIALECTS: [Dialect; 9] = [
    Dialect::OpenAiChat,
    Dialect::OpenAiCompletions,
    Dialect::OpenAiResponses,
    Dialect::AnthropicMessages,
    Dialect::OllamaChat,
    Dialect::OllamaGenerate,
    Dialect::Tgi,
    Dialect::SglangNative,
    Dialect::LlamacppNative,
];

fn is_openai(dialect: Dialect) -> bool {
    matches!(dialect, Dialect::OpenAiChat | Dialect::OpenAiCompletions)
}

fn filled(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.is_empty())
}

fn any(value: &Value, names: &[&str]) -> bool {
    names.iter().any(|name| filled(&value[*name]))
}

/// A string that is not empty, or a container: it shows that something is there.
fn stands(value: &Value) -> bool {
    filled(value) || value.is_object() || value.is_array()
}

fn calls(value: &Value) -> bool {
    let calls = value.as_array().map_or(&[][..], Vec::as_slice);
    calls.iter().any(|call| any(&call["function"], &["name", "arguments"]))
}

/// Elements of `choices` that can be one.
fn choices(value: &Value) -> Vec<&Value> {
    let choices = value["choices"].as_array().map_or(&[][..], Vec::as_slice);
    choices.iter().filter(|choice| choice.is_object() || choice.is_array()).collect()
}

fn speaks(choice: &Value) -> bool {
    let delta = &choice["delta"];
    filled(&choice["text"])
        || any(delta, &["content", "reasoning_content", "reasoning", "refusal"])
        || any(&delta["function_call"], &["name", "arguments"])
        || calls(&delta["tool_calls"])
}

fn has_content(dialect: Dialect, value: &Value) -> bool {
    let kind = value["type"].as_str().unwrap_or("");
    let root_text = any(value, &["text", "content", "thinking", "delta"]);
    match dialect {
        Dialect::OpenAiResponses => {
            let delta = matches!(
                kind,
                "response.output_text.delta" | "response.refusal.delta" | "response.function_call_arguments.delta"
            ) || kind.len() <= 64 && kind.starts_with("response.reasoning") && kind.ends_with(".delta");
            // The wire knows one text; what is beside the delta in such an event has no meaning.
            delta && root_text
        }
        Dialect::AnthropicMessages => {
            kind == "content_block_delta"
                && (any(&value["delta"], &["text", "thinking", "partial_json"]) || message(value))
        }
        Dialect::OllamaChat | Dialect::OllamaGenerate => {
            message(value)
                || root_text
                || any(&value["delta"], &["text", "thinking", "partial_json"])
                || choices(value).into_iter().any(speaks)
        }
        Dialect::Tgi => value["token"].is_object() && value["token"]["special"] != true,
        // The first event: every text has grown, unless the running count shows no token.
        Dialect::SglangNative => root_text || ids(value) > 0,
        Dialect::LlamacppNative => root_text,
        _ => choices(value).into_iter().any(speaks),
    }
}

fn message(value: &Value) -> bool {
    ["message", "response"].iter().any(|name| {
        let message = &value[*name];
        filled(message) || any(message, &["content", "thinking"]) || calls(&message["tool_calls"])
    })
}

/// Tokens of the event, where one reading is possible.
fn tokens_of(dialect: Dialect, value: &Value) -> Option<Vec<u32>> {
    if !has_content(dialect, value) {
        return Some(Vec::new());
    }
    match dialect {
        Dialect::OpenAiChat | Dialect::OpenAiCompletions => {
            let choices = choices(value);
            let [choice] = choices[..] else { return None };
            if value.get("usage").is_some() {
                return None;
            }
            let ids = choice["token_ids"].as_array().map_or(0, |ids| ids.iter().filter(|id| id.is_number()).count());
            Some(vec![u32::try_from(ids).ok()?.clamp(1, 1 << 16)])
        }
        Dialect::SglangNative | Dialect::LlamacppNative => None,
        _ => Some(vec![1]),
    }
}

fn ids(value: &Value) -> usize {
    ["output_ids", "tokens"]
        .iter()
        .filter_map(|name| value[*name].as_array())
        .map(|ids| ids.iter().filter(|id| id.is_number()).count())
        .sum()
}

fn error(dialect: Dialect, value: &Value) -> Option<InBandError> {
    let errors = [&value["error"], &value["message"]["error"], &value["response"]["error"]];
    let overloaded = |kind: &Value| kind.as_str().is_some_and(|kind| kind.starts_with("overloaded"));
    if overloaded(&value["error_type"]) || errors.iter().any(|error| overloaded(&error["type"])) {
        return Some(InBandError::Overloaded);
    }
    let failed = value["type"] == "error" || dialect == Dialect::OpenAiResponses && value["type"] == "response.failed";
    (failed || errors.into_iter().any(|error| stands(error) || *error == true)).then_some(InBandError::Error)
}

fn is_done(value: &Value) -> bool {
    value["done"] == true || value["stop"] == true
}

fn ends_responses(value: &Value) -> bool {
    ["response.completed", "response.incomplete", "response.failed"].iter().any(|kind| value["type"] == *kind)
}

/// The members by which one of the dialects without choices marks its end.
fn own_finish(value: &Value) -> bool {
    value["generated_text"].is_string()
        || [
            &value["done_reason"],
            &value["stop_type"],
            &value["delta"]["stop_reason"],
            &value["meta_info"]["finish_reason"],
        ]
        .into_iter()
        .any(stands)
}

fn terminates(dialect: Dialect, value: &Value) -> bool {
    match dialect {
        Dialect::OpenAiResponses => ends_responses(value),
        Dialect::AnthropicMessages => value["type"] == "message_stop",
        Dialect::OllamaChat | Dialect::OllamaGenerate | Dialect::LlamacppNative => is_done(value),
        Dialect::Tgi => own_finish(value),
        _ => false,
    }
}

fn finishes(dialect: Dialect, value: &Value) -> bool {
    match dialect {
        Dialect::OpenAiChat | Dialect::OpenAiCompletions => {
            let choices = choices(value);
            // With one index twice, one of the two is enough.
            let all = |index: u64| {
                choices
                    .iter()
                    .filter(|choice| choice["index"].as_u64().unwrap_or(0) == index)
                    .any(|choice| stands(&choice["finish_reason"]))
            };
            !choices.is_empty() && choices.iter().take(128).all(|choice| all(choice["index"].as_u64().unwrap_or(0)))
        }
        Dialect::OpenAiResponses => ends_responses(value),
        Dialect::AnthropicMessages => {
            value["type"] == "message_stop" || value["type"] == "message_delta" && own_finish(value)
        }
        _ => own_finish(value) || is_done(value),
    }
}

/// Input and output tokens, where each has one member only and no choices share it.
fn usage_of(dialect: Dialect, value: &Value) -> Option<[Option<u64>; 2]> {
    let at = |path: &[&str]| path.iter().fold(value, |value, name| &value[*name]).as_u64();
    let one = |places: &[&[&str]]| {
        let found: Vec<u64> = places.iter().filter_map(|place| at(place)).collect();
        match found[..] {
            [] => Some(None),
            [n] => Some(Some(n)),
            _ => None,
        }
    };
    let input = one(&[
        &["usage", "prompt_tokens"],
        &["usage", "input_tokens"],
        &["message", "usage", "prompt_tokens"],
        &["message", "usage", "input_tokens"],
        &["response", "usage", "prompt_tokens"],
        &["response", "usage", "input_tokens"],
        &["tokens_evaluated"],
        &["prompt_eval_count"],
        &["meta_info", "prompt_tokens"],
        &["details", "input_length"],
    ])?;
    let output = one(&[
        &["usage", "completion_tokens"],
        &["usage", "output_tokens"],
        &["message", "usage", "completion_tokens"],
        &["message", "usage", "output_tokens"],
        &["response", "usage", "completion_tokens"],
        &["response", "usage", "output_tokens"],
        &["details", "generated_tokens"],
    ])?;
    let running = one(&[&["tokens_predicted"], &["eval_count"], &["meta_info", "completion_tokens"]])?;
    match dialect {
        _ if is_openai(dialect) => Some([input, output]),
        Dialect::OpenAiResponses | Dialect::Tgi => Some([input, output]),
        Dialect::AnthropicMessages => {
            let caches = ["cache_read_input_tokens", "cache_creation_input_tokens"];
            let apart = caches.iter().any(|cache| {
                ["message", "response"].iter().any(|name| value[*name]["usage"].get(*cache).is_some())
                    || value["usage"].get(*cache).is_some()
            });
            (!apart).then_some([input, output.filter(|_| value["type"] == "message_delta")])
        }
        _ => Some([input, running]),
    }
}

/// A document in which no object has a key twice.
struct Plain(Value);

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PlainVisitor).map(Plain)
    }
}

struct PlainVisitor;

impl<'de> Visitor<'de> for PlainVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(Plain(value)) = elements.next_element()? {
            array.push(value);
        }
        Ok(array.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let (mut object, mut keys) = (serde_json::Map::new(), HashSet::new());
        while let Some((key, Plain(value))) = members.next_entry::<String, Plain>()? {
            if !keys.insert(key.clone()) {
                return Err(A::Error::custom("a key twice"));
            }
            object.insert(key, value);
        }
        Ok(object.into())
    }
}
