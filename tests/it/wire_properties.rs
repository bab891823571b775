//! What holds of every answer and every request, whatever they hold and however the network cuts them.

use proptest::prelude::*;
use serde_json::Value;
use weir::wire::{BodyFormat, Dialect, Endpoint, RequestScanner, RequestShape, StreamReading, StreamScanner};

use crate::support::time;
use crate::wire_samples::{dialect, folders, read, samples as samples_of};

/// Dialects whose answers are emitted token by token.
fn generating() -> impl Iterator<Item = Dialect> {
    Dialect::ALL.into_iter().filter(|dialect| !matches!(dialect, Dialect::OpenAiEmbeddings | Dialect::OllamaEmbed))
}

/// An event with one token, in each dialect.
fn token(dialect: Dialect, n: usize) -> String {
    match dialect {
        Dialect::OpenAiCompletions => r#"{"choices":[{"index":0,"text":"x"}]}"#.into(),
        Dialect::OpenAiResponses => r#"{"type":"response.output_text.delta","delta":"x"}"#.into(),
        Dialect::AnthropicMessages => r#"{"type":"content_block_delta","delta":{"text":"x"}}"#.into(),
        Dialect::OllamaChat => r#"{"message":{"content":"x"},"done":false}"#.into(),
        Dialect::OllamaGenerate => r#"{"response":"x","done":false}"#.into(),
        Dialect::Tgi => r#"{"token":{"text":"x","special":false},"generated_text":null}"#.into(),
        Dialect::SglangNative => format!(r#"{{"text":"{}","meta_info":{{}}}}"#, "x".repeat(n + 1)),
        Dialect::LlamacppNative => format!(r#"{{"content":"x","tokens_predicted":{},"stop":false}}"#, n + 1),
        _ => r#"{"choices":[{"index":0,"delta":{"content":"x"}}]}"#.into(),
    }
}

fn format_of(dialect: Dialect) -> BodyFormat {
    if matches!(dialect, Dialect::OllamaChat | Dialect::OllamaGenerate) { BodyFormat::Ndjson } else { BodyFormat::Sse }
}

#[test]
fn every_single_cut_of_every_sample_reads_the_same() {
    for (folder, chat) in [("sse", false), ("corpora/own/sse", true)] {
        for sample in folders(folder, folder).iter().flat_map(|folder| samples_of(folder)) {
            let dialect = if chat { Dialect::OpenAiChat } else { dialect(&sample.name) };
            let whole = read(StreamScanner::new(dialect, sample.format), [&sample.body[..]]);
            let again = |pieces: Vec<&[u8]>| read(StreamScanner::new(dialect, sample.format), pieces);
            // A long one is cut in all its pieces at once, at every phase of its events.
            let cuts = if sample.body.len() <= 2048 { sample.body.len() } else { 300 };
            for cut in 0..cuts {
                let (head, tail) = sample.body.split_at(cut);
                let pieces = if cuts == sample.body.len() {
                    vec![head, tail]
                } else {
                    std::iter::once(head).chain(tail.chunks(cuts)).collect()
                };
                assert_eq!(again(pieces), whole, "{} cut at {cut}", sample.name);
            }
            assert_eq!(again(sample.body.chunks(1).collect()), whole, "{} byte by byte", sample.name);
        }
    }
}

#[test]
fn a_hundred_events_in_one_read_are_a_hundred_events() {
    for dialect in generating() {
        let line = |n| match format_of(dialect) {
            BodyFormat::Ndjson => format!("{}\n", token(dialect, n)),
            _ => format!("data: {}\n\n", token(dialect, n)),
        };
        let stream: String = (0..100).map(line).collect();
        let (reading, tokens) = read(StreamScanner::new(dialect, format_of(dialect)), [stream.as_bytes()]);
        assert_eq!(tokens, [1; 100], "{dialect:?}");
        assert_eq!((reading.content_events, reading.counted_tokens), (100, 100), "{dialect:?}");
    }
}

/// Parts that streams are made of, and parts that break them.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let whole = (
        prop::sample::select(generating().collect::<Vec<_>>()),
        0_usize..5,
        prop::sample::select(&["\n", "\r\n", "\r"][..]),
    )
        .prop_map(|(dialect, n, end)| format!("data: {}{end}{end}", token(dialect, n)).into_bytes());
    let known = prop::sample::select(&[
        "data: [DONE]\n\n", "data:[DONE] \r\r", "[DONE]", "data", ":", " ", "\n", "\r", "\r\n", "\n\n", "event: error\n", "event:", "error",
        "id: 1\n", ": ping\n\n", "\u{feff}", "null", "[", "]", "{", "}", ",", "\"", "\\", "\\u00", "\\ud83d", "e9", "\u{20ac}", "-1", "18446744073709551616", "1e5",
        r#"data: {"choices":[{"index":1,"delta":{"content":"\"}]"},"finish_reason":"stop","token_ids":[1,2]},{"index":7,"text":"y"}],"#,
        r#""usage":{"prompt_tokens":3,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":2}}"#,
        r#"{"error":{"type":"overloaded_error"}}"#, r#""type":"message_delta","delta":{"stop_reason":"x"}"#, r#"{"done":true,"eval_count":4}"#,
        r#"{"index":2,"text":"ab","output_ids":[1,2],"meta_info":{"completion_tokens":2,"finish_reason":{}}}"#,
        r#"{"type":"response.completed","response":{"usage":{"output_tokens":2}}}"#, r#""timings":{}"#, r#""logprobs":[[{"a":"]"}]]"#,
    ][..]).prop_map(|text| text.as_bytes().to_vec());
    prop_oneof![3 => whole, 4 => known, 1 => prop::collection::vec(any::<u8>(), 0..8)]
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(fragment(), 0..40).prop_map(|parts| parts.concat())
}

fn partition<'a>(bytes: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
    let (mut rest, mut pieces) = (bytes, Vec::new());
    for length in lengths {
        let (piece, after) = rest.split_at((*length).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    pieces
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_partition_of_any_stream_reads_the_same(
        bytes in stream(),
        dialect in prop::sample::select(generating().collect::<Vec<_>>()),
        format in prop::sample::select(&[BodyFormat::Sse, BodyFormat::Sse, BodyFormat::Ndjson, BodyFormat::Json, BodyFormat::Opaque][..]),
        lengths in prop::collection::vec(0_usize..60, 0..30),
    ) {
        let scanner = || StreamScanner::new(dialect, format);
        let whole = read(scanner(), [&bytes[..]]);
        prop_assert_eq!(&read(scanner(), partition(&bytes, &lengths)), &whole);
        prop_assert_eq!(&read(scanner(), bytes.chunks(1)), &whole);
        let StreamReading { content_events, counted_tokens, .. } = whole.0;
        prop_assert_eq!(content_events, whole.1.len() as u64);
        prop_assert_eq!(counted_tokens, whole.1.iter().map(|n| u64::from(*n)).sum::<u64>());
        prop_assert!(whole.1.iter().all(|n| *n > 0));
    }

    #[test]
    fn a_request_is_read_as_serde_json_reads_it(
        members in prop::collection::vec((key(), value()), 0..12),
        style in prop::collection::vec(any::<u8>(), 1..64),
        lengths in prop::collection::vec(0_usize..60, 0..30),
    ) {
        let text = Writer { style: &style, at: 0 }.object(&members);
        let Ok(expected) = serde_json::from_str::<Value>(&text) else { return Ok(()) };
        let shape = scan(CHAT, partition(text.as_bytes(), &lengths));
        prop_assert_eq!(&shape, &scan(CHAT, [text.as_bytes()]));
        agree(&shape, &expected, &text)?;
    }

    #[test]
    fn no_body_is_too_strange(bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&b"{}[]\",:\\u019ntfe-."[..])], 0..200), cut in 0_usize..200) {
        for endpoint in [CHAT, Endpoint::Generate, Endpoint::TgiStream, Endpoint::Known(Dialect::OllamaChat)] {
            let (head, tail) = bytes.split_at(cut.min(bytes.len()));
            prop_assert_eq!(scan(endpoint, [head, tail]), scan(endpoint, [&bytes[..]]));
            if let Ok(value @ Value::Object(_)) = serde_json::from_slice(&bytes) && endpoint == CHAT {
                agree(&scan(endpoint, [&bytes[..]]), &value, &String::from_utf8_lossy(&bytes))?;
            }
        }
    }
}

const MUCH: usize = 2_000_000;
const CHAT: Endpoint = Endpoint::Known(Dialect::OpenAiChat);

fn scan<'a>(endpoint: Endpoint, pieces: impl IntoIterator<Item = &'a [u8]>) -> RequestShape {
    let mut scanner = RequestScanner::new(endpoint);
    pieces.into_iter().for_each(|piece| scanner.feed(piece));
    scanner.finish()
}

/// What a chat request's shape must be, by serde_json's reading of the body.
fn agree(shape: &RequestShape, body: &Value, text: &str) -> Result<(), TestCaseError> {
    let model = body["model"].as_str().map(|model| {
        let end = (0..=model.len().min(256)).rfind(|end| model.is_char_boundary(*end)).unwrap();
        &model[..end]
    });
    prop_assert_eq!(shape.model.as_deref(), model, "{}", text);
    prop_assert_eq!(shape.stream, body["stream"].as_bool().unwrap_or(false), "{}", text);
    let cap = |name: &str| body[name].as_u64().filter(|cap| (1..=1 << 32).contains(cap));
    prop_assert_eq!(shape.max_output, cap("max_completion_tokens").or(cap("max_tokens")), "{}", text);
    let n = body["n"].as_u64().unwrap_or(1).clamp(1, 1024);
    prop_assert_eq!(u64::from(shape.choices), n, "{}", text);
    let usage = body["stream_options"]["include_usage"].as_bool().unwrap_or(false);
    prop_assert_eq!(shape.include_usage, usage, "{}", text);
    Ok(())
}

fn key() -> impl Strategy<Value = String> {
    const KNOWN: &[&str] = &[
        "model",
        "stream",
        "max_tokens",
        "max_completion_tokens",
        "n",
        "messages",
        "stream_options",
        "tools",
        "model ",
        "Model",
        "modem",
    ];
    prop_oneof![8 => prop::sample::select(KNOWN).prop_map(str::to_owned), 1 => ".{0,3}", 1 => "[a-z\"\\\\\u{20ac}\u{1f600}]{300}"]
        .prop_filter("other dialects' names for the same", |key| !matches!(key.as_str(), "best_of" | "prompt" | "input"))
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (0_u64..3000).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        "[\\PC\n\"\\\\]{250,300}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(
                (prop::sample::select(&["include_usage", "content", "type", "model", "a\"b"][..]), inner),
                0..4
            )
            .prop_map(|members| members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Value>()),
        ]
    })
}

/// Writes JSON as other programs may: any white space, any characters escaped. Keys may stand twice.
struct Writer<'a> {
    style: &'a [u8],
    at: usize,
}

impl Writer<'_> {
    fn next(&mut self) -> u8 {
        self.at += 1;
        self.style[self.at % self.style.len()]
    }

    fn space(&mut self) -> &'static str {
        ["", "", "", " ", "\n\t", "\r\n"][usize::from(self.next() % 6)]
    }

    fn object(&mut self, members: &[(String, Value)]) -> String {
        let members: Vec<String> = members
            .iter()
            .map(|(key, value)| {
                format!("{}{}{}:{}{}", self.space(), self.string(key), self.space(), self.space(), self.value(value))
            })
            .collect();
        format!("{}{{{}}}{}", self.space(), members.join(","), self.space())
    }

    fn value(&mut self, value: &Value) -> String {
        let text = match value {
            Value::String(text) => self.string(text),
            Value::Array(elements) => {
                let elements: Vec<String> = elements.iter().map(|element| self.value(element)).collect();
                format!("[{}{}]", self.space(), elements.join(","))
            }
            Value::Object(members) => {
                self.object(&members.iter().map(|(key, value)| (key.clone(), value.clone())).collect::<Vec<_>>())
            }
            scalar => scalar.to_string(),
        };
        format!("{text}{}", self.space())
    }

    fn string(&mut self, text: &str) -> String {
        let mut out = String::from("\"");
        for c in text.chars() {
            let escaped = self.next().is_multiple_of(4) || u32::from(c) < 0x20;
            match c {
                '"' | '\\' => out.extend(['\\', c]),
                _ if escaped => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out += &format!("\\u{unit:04x}")),
                _ => out.push(c),
            }
        }
        out + "\""
    }
}

#[test]
fn own_and_fetched_bodies_are_read_as_serde_json_reads_them() {
    let mut judged = 0;
    for folder in ["corpora/own/body", "corpora/JSONTestSuite/test_parsing"] {
        for path in folders(folder, folder).iter().flat_map(|folder| std::fs::read_dir(folder).unwrap()) {
            let path = path.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            let whole = scan(CHAT, [&bytes[..]]);
            assert_eq!(scan(CHAT, bytes.chunks(1)), whole, "{}", path.display());
            // Every valid document of the suite stands for a value before and behind which fields must be found.
            if let Ok(text) = std::str::from_utf8(&bytes)
                && serde_json::from_str::<Value>(text).is_ok()
            {
                let body = format!(r#"{{"model":"a","x":{text},"n":3,"tools":{text},"model":"b","stream":true}}"#);
                let shape = scan(CHAT, [body.as_bytes()]);
                assert_eq!((shape.model.as_deref(), shape.choices, shape.stream), (Some("b"), 3, true), "{body}");
                judged += 1;
            }
        }
    }
    assert!(judged >= 5, "{judged} documents were valid");
}

#[test]
fn own_bodies_say_what_was_written_down() {
    let shape = |file: &str| {
        let path = format!("{}/tests/data/corpora/own/body/{file}", env!("CARGO_MANIFEST_DIR"));
        scan(CHAT, [&std::fs::read(path).unwrap()[..]])
    };
    for (file, model) in [
        ("bad-utf8.json", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
        ("bom.json", "m"),
        ("dup-model.json", "expensive"),
        ("lone-surrogate.json", "\u{fffd}"),
        ("model-escapes.json", "cheap"),
        ("model-newline-label.json", "a\n} 1\nup{x=\"y"),
        ("model-nul.json", "a\0b"),
        ("neg-max-tokens.json", "m"),
        ("trailing-garbage.json", "m"),
    ] {
        assert_eq!(shape(file).model.as_deref(), Some(model), "{file}");
    }
    assert!(!shape("dup-model.json").stream, "the last one counts");
    assert_eq!((shape("neg-max-tokens.json").max_output, shape("neg-max-tokens.json").choices), (None, 1024));
    assert_eq!((shape("number-bomb.json").max_output, shape("number-bomb.json").choices), (None, 1));
}

/// Bodies made to cost more than their size. The same number of bytes is read in forty small bodies and in one that is forty
/// times as long: were the scan quadratic, the long one would cost forty times as much. The best of three runs counts, since
/// neighbours disturb.
#[test]
fn the_request_scan_is_linear() {
    let bombs: [fn(usize) -> String; 7] = [
        |n| "[".repeat(n),
        |n| format!("{{\"model\":\"{}\"}}", "m".repeat(n)),
        |n| format!("{{\"messages\":[{{\"content\":\"{}\"}}]}}", "\\\"".repeat(n / 2)),
        |n| format!("{{\"x\":\"{}", "\\\\".repeat(n / 2)),
        |n| format!("{{{}\"model\":\"m\"}}", "\"k\":1,".repeat(n / 6)),
        |n| format!("{{\"n\":{}}}", "9".repeat(n)),
        |n| format!("{{\"a\":{}1{}}}", "{\"a\":[\"".repeat(n / 14), "\"]}".repeat(n / 14)),
    ];
    for (i, bomb) in bombs.iter().enumerate() {
        let cost = |size: usize| {
            let body = bomb(size);
            let run = || {
                let start = time::now();
                for _ in 0..MUCH / size {
                    scan(CHAT, body.as_bytes().chunks(64));
                }
                start.elapsed().as_secs_f64()
            };
            (0..3).map(|_| run()).fold(f64::INFINITY, f64::min)
        };
        let ratio = cost(MUCH) / cost(MUCH / 40);
        assert!(ratio < 8.0, "body {i}: in one piece it costs {ratio:.1} times as much as in forty");
    }
}

/// What a scanner holds, as far as its Debug form shows it, does not grow with what it reads.
#[test]
fn a_scanner_does_not_grow_with_what_it_reads() {
    let floods: [fn(usize) -> String; 8] = [
        |n| "x".repeat(n),
        |n| format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}", "x".repeat(n)),
        |n| format!("data: {{\"{}", "k".repeat(n)),
        |n| format!("data: {{\"type\":\"{}", "t".repeat(n)),
        |n| format!("data: {{\"usage\":{{\"prompt_tokens\":{}", "1".repeat(n)),
        |n| format!("data: {}", "{\"a\":[".repeat(n / 6)),
        |n| format!("data: {{\"choices\":[{}", "{\"index\":1,\"text\":\"x\",\"token_ids\":[1]},".repeat(n / 40)),
        |n| (0..n / 50).map(|i| format!("data: {{\"choices\":[{{\"index\":{i},\"text\":\"x\"}}]}}\n\n")).collect(),
    ];
    for (i, flood) in floods.iter().enumerate() {
        let held = |size: usize| {
            let mut scanner = StreamScanner::new(Dialect::OpenAiChat, BodyFormat::Sse);
            flood(size).as_bytes().chunks(1000).for_each(|piece| scanner.feed(piece, |_| {}));
            format!("{scanner:?}").len()
        };
        let (some, much) = (held(20_000), held(1_000_000));
        assert!(much <= some + 512 && much < 64 * 1024, "flood {i}: {some} grew to {much}");
    }
    assert!(size_of::<StreamScanner>() <= 640 && size_of::<RequestScanner>() <= 512);
}
