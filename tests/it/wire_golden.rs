//! What the scanner must read in each recorded or hand-written answer. The expectations were written down while reading the
//! files, not by running the scanner; the rules are those of `wire/totals.rs`.

use std::collections::BTreeSet;

use weir::wire::{BodyFormat, Dialect, InBandError, StreamReading, StreamScanner, Usage};

use crate::wire_samples::{dialect, folders, read, samples as samples_of};

/// How an answer ends, by its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// With the dialect's terminator.
    Terminated,
    /// All choices finished, or a whole answer that does not stream.
    Finished,
    /// In the middle.
    Cut,
}

use End::{Cut, Finished, Terminated};

struct Golden {
    file: &'static str,
    /// Tokens of each content event.
    tokens: &'static [u32],
    usage: Option<[Option<u64>; 3]>,
    end: End,
    error: Option<InBandError>,
}

/// Input, output and cached tokens as reported.
const fn usage(input: u64, output: u64, cached: u64) -> Option<[Option<u64>; 3]> {
    Some([Some(input), Some(output), Some(cached)])
}

const fn uncached(input: u64, output: u64) -> Option<[Option<u64>; 3]> {
    Some([Some(input), Some(output), None])
}

const fn golden(
    file: &'static str,
    tokens: &'static [u32],
    usage: Option<[Option<u64>; 3]>,
    end: End,
    error: Option<InBandError>,
) -> Golden {
    Golden { file, tokens, usage, end, error }
}

const ERROR: Option<InBandError> = Some(InBandError::Error);
const OVERLOADED: Option<InBandError> = Some(InBandError::Overloaded);

/// Engines and services.
const STREAMS: &[Golden] = &[
    golden("anthropic_error_midstream.derived.sse", &[], Some([Some(12), None, None]), Cut, OVERLOADED),
    golden("anthropic_messages.derived.sse", &[1; 4], uncached(12, 15), Terminated, None),
    golden("llamacpp_anthropic_messages.real.http", &[1; 3], usage(14 + 15, 3, 15), Terminated, None),
    golden("llamacpp_anthropic_nonstream.real.http", &[], usage(26, 2, 0), Finished, None),
    golden("llamacpp_badjson.real.http", &[], None, Finished, ERROR),
    golden("llamacpp_chat_n2_logprobs.real.http", &[1; 6], None, Terminated, None),
    // Two choices of three tokens each; the answer reports one of them.
    golden("llamacpp_chat_n2_nonstream.real.http", &[], usage(26, 3 * 2, 25), Finished, None),
    // Two reports of 26, 3 and 25: one prompt, shared by both choices.
    golden("llamacpp_chat_n2_usage.real.http", &[1; 6], usage(26, 3 + 3, 25), Terminated, None),
    golden("llamacpp_chat_nonstream.real.http", &[], usage(29, 3, 28), Finished, None),
    golden("llamacpp_chat_progress.real.http", &[1; 3], None, Terminated, None),
    golden("llamacpp_chat_queued.real.http", &[1; 3], None, Terminated, None),
    golden("llamacpp_chat_toolcall.real.http", &[1; 60], usage(32, 60, 10), Terminated, None),
    golden("llamacpp_chat_usage.real.http", &[1; 5], usage(26, 5, 0), Terminated, None),
    golden("llamacpp_completions.real.http", &[1; 3], usage(7, 3, 2), Terminated, None),
    golden("llamacpp_completions_two_prompts.real.http", &[1; 6], usage(3 + 3, 3 + 3, 2 + 2), Terminated, None),
    golden("llamacpp_completions_two_prompts_nonstream.real.http", &[], usage(3 * 2, 3 * 2, 2 * 2), Finished, None),
    golden("llamacpp_ctx_exhaust_midstream.real.http", &[1; 999], None, Terminated, None),
    golden("llamacpp_ctx_overflow_400.real.http", &[], None, Finished, ERROR),
    golden("llamacpp_embeddings.real.http", &[], Some([Some(14), None, None]), Finished, None),
    golden("llamacpp_embeddings_off_501.real.http", &[], None, Finished, ERROR),
    golden("llamacpp_native_completion.real.http", &[1; 3], uncached(7, 3), Terminated, None),
    golden("llamacpp_responses.real.http", &[1; 3], usage(29, 3, 28), Terminated, None),
    golden("llamacpp_responses_nonstream.real.http", &[], usage(26, 2, 25), Finished, None),
    golden("ollama_api_chat.derived.ndjson", &[1; 3], uncached(7, 3), Terminated, None),
    golden("ollama_api_generate.derived.ndjson", &[1], uncached(7, 2), Terminated, None),
    golden("ollama_error_midstream_HTTP200.derived.ndjson", &[1], None, Cut, ERROR),
    golden("openai_responses.derived.sse", &[1], usage(7, 1, 0), Terminated, None),
    golden("openai_responses_error.derived.sse", &[], None, Cut, ERROR),
    golden("sglang_chat.derived.sse", &[1], uncached(7, 1), Terminated, None),
    golden("sglang_native_generate.derived.sse", &[1, 1], usage(5, 2, 0), Terminated, None),
    golden("tgi_generate_stream_overloaded_HTTP200.derived.sse", &[], None, Cut, OVERLOADED),
    golden("tgi_generate_stream_v1_nospace.derived.sse", &[1], uncached(5, 2), Terminated, None),
    golden("tgi_generate_stream_v3.derived.sse", &[1], uncached(5, 2), Terminated, None),
    golden("torture_bom_crlf_comment_multiline.derived.sse", &[1, 1], None, Terminated, None),
    golden("trtllm_chat.derived.sse", &[1, 1], usage(7, 3, 0), Terminated, None),
    golden("vllm_chat.derived.sse", &[1, 1], uncached(7, 2), Terminated, None),
    golden("vllm_error_midstream.derived.sse", &[1], None, Terminated, ERROR),
    golden("vllm_reasoning_tool.derived.sse", &[1; 4], None, Terminated, None),
];

/// Edge cases of framing; chat.
const EDGES: &[Golden] = &[
    golden("bom.txt", &[1], None, Terminated, None),
    golden("comments.txt", &[1], None, Terminated, None),
    golden("cr.txt", &[1; 3], None, Terminated, None),
    golden("crlf.txt", &[1; 3], None, Terminated, None),
    golden("done-in-content.txt", &[1; 2], None, Terminated, None),
    golden("error-event.txt", &[], None, Cut, ERROR),
    golden("garbage.txt", &[], None, Cut, None),
    golden("multi-data.txt", &[1], None, Terminated, None),
    golden("no-done.txt", &[1; 3], None, Cut, None),
    // The third event is unfinished: every client drops it.
    golden("no-final-blank.txt", &[1; 2], None, Cut, None),
    golden("normal.txt", &[1; 5], uncached(3, 5), Terminated, None),
    golden("nospace.txt", &[1], None, Terminated, None),
    golden("split-utf8.txt", &[1; 3], None, Terminated, None),
    golden("usage-lies.txt", &[1; 5], None, Terminated, None),
    // Of corpora/own/make_big.py.
    golden("line-10MiB.txt", &[], None, Terminated, None),
    golden("no-newline-4MiB.txt", &[], None, Cut, None),
];

#[test]
fn every_recorded_answer_reads_as_it_was_written_down() {
    for folder in folders("sse", "sse") {
        check_folder(&folder, STREAMS, dialect);
    }
}

/// The answers of Ollama's `/api/embed` have no event and no token: there is nothing to read in them.
#[test]
fn every_dialect_has_an_answer_in_the_table() {
    let known: Vec<Dialect> = STREAMS.iter().map(|golden| dialect(golden.file)).collect();
    let without = Dialect::ALL.into_iter().filter(|own| *own != Dialect::OllamaEmbed && !known.contains(own));
    assert_eq!(without.collect::<Vec<_>>(), [], "each needs a file in tests/data/sse and a row here");
}

#[test]
fn every_edge_case_reads_as_it_was_written_down() {
    for folder in folders("corpora/own/sse", "corpora/own/sse") {
        check_folder(&folder, EDGES, |_| Dialect::OpenAiChat);
    }
}

#[test]
fn long_lines_are_read_along() {
    let line = [&b"data: "[..], &vec![b'x'; 10 << 20], b"\n\ndata: [DONE]\n\n"].concat();
    check(&EDGES[14], Dialect::OpenAiChat, BodyFormat::Sse, &line);
    check(&EDGES[15], Dialect::OpenAiChat, BodyFormat::Sse, &vec![b'x'; 4 << 20]);
}

/// Without their terminator these have finished all the same; cut before their finish they have not.
#[test]
fn a_stream_is_finished_once_its_choices_are() {
    for (file, terminator, finish) in [
        ("anthropic_messages.derived.sse", "event: message_stop", "event: message_delta"),
        ("llamacpp_anthropic_messages.real.http", "event: message_stop", "event: message_delta"),
        (
            "llamacpp_chat_n2_usage.real.http",
            "data: [DONE]",
            r#"data: {"choices":[{"finish_reason":"length","index":1"#,
        ),
        ("llamacpp_completions.real.http", "data: [DONE]", r#"data: {"choices":[{"text":"","index":0"#),
        ("sglang_native_generate.derived.sse", "data: [DONE]", r#"data: {"text":"Hello world""#),
        (
            "vllm_chat.derived.sse",
            "data: [DONE]",
            r#"data: {"id":"chatcmpl-a1","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":[{"index":0,"delta":{"content":" world"}"#,
        ),
        (
            "trtllm_chat.derived.sse",
            "data: [DONE]",
            r#"data: {"id":"chatcmpl-77","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":[{"index":0,"delta":{"content":" world""#,
        ),
    ] {
        let folder = folders("sse", "sse").remove(0);
        let sample = samples_of(&folder).into_iter().find(|sample| sample.name == file).unwrap();
        let body = String::from_utf8(sample.body).unwrap();
        for (mark, expected) in [(terminator, Finished), (finish, Cut)] {
            let at = body.find(mark).unwrap_or_else(|| panic!("{file} has no {mark}"));
            let (reading, _) = read(StreamScanner::new(dialect(file), sample.format), [&body.as_bytes()[..at]]);
            assert_eq!(end(&reading), expected, "{file} before {mark}");
        }
    }
}

/// In these the finish is the terminator: with it they are whole, without it they are not.
#[test]
fn a_stream_whose_finish_is_its_terminator_is_cut_without_it() {
    for (file, finish) in [
        ("llamacpp_native_completion.real.http", r#"data: {"index":0,"content":"","tokens":[]"#),
        ("llamacpp_responses.real.http", "event: response.completed"),
        ("ollama_api_chat.derived.ndjson", r#"{"model":"g","created_at":"2026-11-24T00:00:00.4Z""#),
        ("ollama_api_generate.derived.ndjson", r#"{"model":"g","created_at":"2026-11-24T00:00:00.4Z""#),
        ("openai_responses.derived.sse", "event: response.completed"),
        ("tgi_generate_stream_v3.derived.sse", r#"data: {"index":2"#),
    ] {
        let folder = folders("sse", "sse").remove(0);
        let sample = samples_of(&folder).into_iter().find(|sample| sample.name == file).unwrap();
        let body = String::from_utf8(sample.body).unwrap();
        let at = body.find(finish).unwrap_or_else(|| panic!("{file} has no {finish}"));
        let (reading, _) = read(StreamScanner::new(dialect(file), sample.format), [&body.as_bytes()[..at]]);
        assert_eq!(end(&reading), Cut, "{file}");
        // The last line end may be missing.
        let (reading, _) = read(StreamScanner::new(dialect(file), sample.format), [body.trim_end().as_bytes()]);
        assert_eq!((end(&reading), reading.finished), (Terminated, true), "{file}");
    }
}

fn check_folder(folder: &std::path::Path, table: &[Golden], dialect: impl Fn(&str) -> Dialect) {
    let mut seen = BTreeSet::new();
    for sample in samples_of(folder) {
        let golden = table.iter().find(|golden| golden.file == sample.name);
        let golden = golden.unwrap_or_else(|| panic!("{} is not written down", sample.name));
        check(golden, dialect(&sample.name), sample.format, &sample.body);
        seen.insert(sample.name);
    }
    assert!(seen.len() >= 14, "{}: {} samples", folder.display(), seen.len());
}

fn check(golden: &Golden, dialect: Dialect, format: BodyFormat, body: &[u8]) {
    let (reading, tokens) = read(StreamScanner::new(dialect, format), [body]);
    let file = golden.file;
    assert_eq!(tokens, golden.tokens, "{file}");
    assert_eq!(reading.content_events, golden.tokens.len() as u64, "{file}");
    assert_eq!(reading.counted_tokens, golden.tokens.iter().map(|n| u64::from(*n)).sum::<u64>(), "{file}");
    let usage = golden.usage.map(|[input, output, cached]| Usage { input, output, cached });
    assert_eq!(reading.usage, usage, "{file}");
    assert_eq!(end(&reading), golden.end, "{file}");
    assert_eq!(reading.error, golden.error, "{file}");
    assert!(!reading.opaque, "{file}");
}

fn end(reading: &StreamReading) -> End {
    match reading {
        StreamReading { terminated: true, .. } => Terminated,
        StreamReading { finished: true, .. } => Finished,
        _ => Cut,
    }
}
