//! A body through the request scanner: the same shape however it is cut, and for every valid document what serde_json reads
//! in it. Half of the inputs are bodies as they are; in the other half each byte stands for a word of a body.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use weir::wire::{Dialect, Endpoint, PromptLength, RequestScanner, RequestShape};

fuzz_target!(|data: &[u8]| {
    let [kind, first, step, bytes @ ..] = data else { return };
    if *kind < 128 {
        check(*kind, *first, *step, bytes);
    } else {
        let words = bytes.iter().map(|b| WORDS[usize::from(*b) % WORDS.len()]);
        check(*kind, *first, *step, format!("{{{}\"x\":0}}", words.collect::<String>()).as_bytes());
    }
});

fn check(kind: u8, first: u8, step: u8, bytes: &[u8]) {
    let endpoint = match kind % 8 {
        0 => Endpoint::Generate,
        1 => Endpoint::TgiStream,
        2 => Endpoint::Known(Dialect::OllamaChat),
        _ => Endpoint::Known(Dialect::OpenAiChat),
    };
    let whole = scan(endpoint, std::iter::once(bytes));
    let (head, rest) = bytes.split_at(usize::from(first).min(bytes.len()));
    let pieces = std::iter::once(head).chain(rest.chunks(usize::from(step % 32) + 1));
    assert_eq!(scan(endpoint, pieces), whole);
    assert!(whole.model.as_ref().is_none_or(|model| model.len() <= 256));
    assert!(whole.choices > 0 && whole.prompts > 0);

    let document = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if let Ok(body @ Value::Object(_)) = serde_json::from_slice(document) {
        agree(endpoint, &whole, &body);
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
    "\\",
    "\\u0041",
    "\\ud83d",
    "\\ude00",
    "null",
    "true",
    "false",
    "0",
    "7",
    "-1",
    "1.5",
    "1e3",
    "4294967297",
    "x",
    "\u{20ac}",
    "\"model\":",
    "\"mod\\u0065l\":",
    "\"stream\":",
    "\"max_tokens\":",
    "\"max_completion_tokens\":",
    "\"n_predict\":",
    "\"n\":",
    "\"best_of\":",
    "\"stream_options\":",
    "\"include_usage\":",
    "\"continuous_usage_stats\":",
    "\"prompt\":",
    "\"inputs\":",
    "\"text\":",
    "\"input_ids\":",
    "\"messages\":",
    "\"content\":",
    "\"options\":",
    "\"x\":",
    "\"a\",",
    "\"a\"",
    "{\"a\":1},",
    "[1],",
    "1,",
    "true,",
    "null,",
    "\"n\":7,",
    "\"n\":null,",
    "\"best_of\":5,",
    "\"model\":\"b\",",
    "\"model\":0,",
    "\"stream\":true,",
    "\"max_tokens\":5,",
    "\"max_completion_tokens\":6,",
    "\"stream_options\":{\"include_usage\":true},",
    "\"prompt\":[\"ab\",[1]],",
    "\"prompt\":\"c\",",
];

fn scan<'a>(endpoint: Endpoint, pieces: impl Iterator<Item = &'a [u8]>) -> RequestShape {
    let mut scanner = RequestScanner::new(endpoint);
    pieces.for_each(|piece| scanner.feed(piece));
    scanner.finish()
}

fn agree(endpoint: Endpoint, shape: &RequestShape, body: &Value) {
    let model = body["model"].as_str();
    assert_eq!(shape.model.is_some(), model.is_some());
    if let (Some(read), Some(model)) = (&shape.model, model) {
        assert!(model.starts_with(&**read) && (read.len() == model.len() || read.len() > 256 - 4));
    }
    let asked = body["stream"].as_bool();
    let unasked = matches!(endpoint, Endpoint::Known(Dialect::OllamaChat));
    assert_eq!(shape.stream, endpoint == Endpoint::TgiStream || asked.unwrap_or(unasked));
    let is = |name: &str| body["stream_options"][name].as_bool().unwrap_or(false);
    assert_eq!((shape.include_usage, shape.continuous_usage), (is("include_usage"), is("continuous_usage_stats")));
    if endpoint == Endpoint::Generate {
        let sglang = body.get("inputs").is_none() && (body.get("text").is_some() || body.get("input_ids").is_some());
        assert_eq!(shape.dialect, if sglang { Dialect::SglangNative } else { Dialect::Tgi });
    }
    caps(shape, body);
    prompts(shape, body);
}

fn caps(shape: &RequestShape, body: &Value) {
    let cap = |value: &Value| value.as_u64().filter(|cap| (1..=1 << 32).contains(cap));
    // Where two names mean the same, the later one counts; a parsed object has forgotten which one that is.
    let several = |names: &[&str]| names.iter().filter(|name| body.get(**name).is_some()).count() > 1;
    let preferred = cap(&body["max_completion_tokens"]);
    if preferred.is_some() {
        return assert_eq!(shape.max_output, preferred);
    }
    let names = ["max_tokens", "max_output_tokens"];
    let usual = names.iter().find_map(|name| cap(&body[*name]));
    if several(&names) {
        return;
    }
    if usual.is_some() {
        return assert_eq!(shape.max_output, usual);
    }
    let folders = ["options", "parameters", "sampling_params"];
    if folders.iter().all(|folder| body.get(*folder).is_none()) {
        assert_eq!(shape.max_output, cap(&body["n_predict"]));
    }
}

fn prompts(shape: &RequestShape, body: &Value) {
    let named: Vec<&Value> =
        ["prompt", "input", "inputs", "text", "input_ids"].iter().filter_map(|name| body.get(*name)).collect();
    if named.len() > 1 {
        return;
    }
    let elements = named.first().and_then(|prompt| prompt.as_array()).map_or(&[][..], Vec::as_slice);
    let prompts = elements.iter().filter(|element| element.is_string() || element.is_array()).count().max(1) as u64;
    assert_eq!(u64::from(shape.prompts), prompts);
    let n = ["n", "best_of"].iter().filter_map(|name| body[*name].as_u64()).max().unwrap_or(1).clamp(1, 1024);
    assert_eq!(u64::from(shape.choices), n * prompts);
    let only_a_text =
        body.as_object().is_some_and(|body| body.len() == 1) && named.first().is_some_and(|prompt| prompt.is_string());
    if only_a_text {
        let bytes = named[0].as_str().map_or(0, str::len) as u64;
        assert_eq!(shape.prompt, PromptLength::Text { bytes });
    }
}
