//! Reads an answer along: SSE, NDJSON or one JSON document, in pieces cut anywhere.
//!
//! Lines are framed and payload is walked as it comes, so nothing of a stream is held and memory is constant, whatever
//! its lines measure. What an event said counts only once the event is whole and was a JSON object; else it was a sign of
//! life. Rules: dialects.md 2 and 3, WHATWG's event stream for the framing.

use super::dialect::{Dialect, Format};
use super::event::{ErrorKind, Event, Kind};
use super::json::Walker;

/// One content event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Emission {
    /// Tokens in it: the growth of a running count where the stream carries one, else one a choice.
    pub tokens: u32,
}

/// Token counts as reported, where they can be believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub input: Option<u64>,
    pub output: Option<u64>,
    pub cached: Option<u64>,
}

/// What was read so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    pub content_events: u64,
    /// Sum of the emissions' tokens.
    pub counted_tokens: u64,
    /// Running counts were seen.
    pub running: bool,
    pub usage: Option<Usage>,
    /// The dialect's terminator was seen.
    pub terminated: bool,
    /// Every choice that was seen has finished.
    pub finished: bool,
    pub error: Option<ErrorKind>,
    /// The body cannot be read.
    pub opaque: bool,
    /// The last event is whole.
    pub at_event_boundary: bool,
}

/// Listens to one answer.
#[derive(Debug)]
pub struct StreamScanner {
    dialect: Dialect,
    format: Format,
    line: Line,
    /// The byte before was a CR, whose LF may follow.
    after_cr: bool,
    /// Bytes of a byte order mark matched at the very start; past 3: none is possible.
    mark: u8,
    has_data: bool,
    /// The payload's first bytes, to know `[DONE]`.
    start: [u8; 8],
    payload: u32,
    walker: Walker,
    event: Event,
    totals: Totals,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// In the field's name, which so far is this many bytes of `data`; `None`: it is another field.
    Name(Option<u8>),
    /// Behind the colon of `data`: one space is dropped.
    Space,
    Data,
    /// Comment or unknown field.
    Ignored,
}

#[derive(Debug, Default)]
struct Totals {
    content_events: u64,
    counted: u64,
    running_seen: bool,
    terminated: bool,
    seen: u64,
    finished: u64,
    error: Option<ErrorKind>,
    input: Option<u64>,
    cached: Option<u64>,
    /// Output reported by events of their own, summed; or the last cumulative one.
    output: Option<u64>,
    last: u64,
    text: u64,
    /// Largest report per choice, beyond the first choice.
    choices: Vec<PerChoice>,
}

#[derive(Clone, Copy, Debug, Default)]
struct PerChoice {
    index: u32,
    input: u64,
    output: u64,
}

impl StreamScanner {
    /// A scanner for an answer in `dialect`, framed as `format`.
    pub fn new(dialect: Dialect, format: Format) -> Self {
        Self {
            dialect,
            format,
            line: Line::Name(Some(0)),
            after_cr: false,
            mark: 0,
            has_data: false,
            start: [0; 8],
            payload: 0,
            walker: Walker::default(),
            event: Event::default(),
            totals: Totals::default(),
        }
    }

    /// The next piece; each content event that it completes is told.
    pub fn feed(&mut self, mut bytes: &[u8], mut on_event: impl FnMut(Emission)) {
        while self.mark < 3 && !bytes.is_empty() {
            if bytes[0] != BYTE_ORDER_MARK[usize::from(self.mark)] {
                let held = std::mem::replace(&mut self.mark, 4);
                self.frame(&BYTE_ORDER_MARK[..usize::from(held)], &mut on_event);
                break;
            }
            self.mark += 1;
            bytes = &bytes[1..];
        }
        self.frame(bytes, &mut on_event);
    }

    /// The answer has ended: an unfinished event is looked at all the same, it may decide the outcome.
    pub fn finish(&mut self) {
        match self.format {
            Format::Opaque => {}
            Format::Json => self.end_event(&mut |_| {}),
            Format::Ndjson | Format::Sse if self.payload > 0 => {
                // A bare number or word ends with its document.
                self.walker.feed(b" ", &mut self.event);
                self.end_event(&mut |_| {});
            }
            Format::Ndjson | Format::Sse => {}
        }
    }

    /// What was read so far.
    pub fn reading(&self) -> Reading {
        let totals = &self.totals;
        Reading {
            content_events: totals.content_events,
            counted_tokens: totals.counted,
            running: totals.running_seen,
            usage: totals.usage(),
            terminated: totals.terminated,
            finished: totals.seen != 0 && totals.seen & !totals.finished == 0,
            error: totals.error,
            opaque: self.format == Format::Opaque,
            at_event_boundary: self.at_event_boundary(),
        }
    }

    /// The dialect's terminator was seen.
    pub fn has_terminated(&self) -> bool {
        self.totals.terminated
    }

    /// Nothing of an event is under way.
    pub fn at_event_boundary(&self) -> bool {
        self.line == Line::Name(Some(0)) && !self.has_data && self.payload == 0
    }

    fn frame(&mut self, bytes: &[u8], on_event: &mut impl FnMut(Emission)) {
        match self.format {
            Format::Sse => self.lines(bytes, on_event),
            Format::Ndjson => self.records(bytes, on_event),
            Format::Json => self.walker.feed(bytes, &mut self.event),
            Format::Opaque => {}
        }
    }

    /// NDJSON: a payload a line.
    fn records(&mut self, mut bytes: &[u8], on_event: &mut impl FnMut(Emission)) {
        while let Some(at) = memchr::memchr(b'\n', bytes) {
            self.pay(&bytes[..at]);
            self.walker.feed(b"\n", &mut self.event);
            if self.payload > 0 {
                self.end_event(on_event);
            }
            bytes = &bytes[at + 1..];
        }
        self.pay(bytes);
    }

    /// SSE: fields a line, a payload an event.
    fn lines(&mut self, mut bytes: &[u8], on_event: &mut impl FnMut(Emission)) {
        while let Some(b) = bytes.first() {
            if std::mem::take(&mut self.after_cr) && *b == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            match self.line {
                Line::Data | Line::Ignored => {
                    let end = memchr::memchr2(b'\n', b'\r', bytes);
                    let part = &bytes[..end.unwrap_or(bytes.len())];
                    if self.line == Line::Data {
                        self.pay(part);
                    }
                    let Some(end) = end else { return };
                    self.end_line(bytes[end], on_event);
                    bytes = &bytes[end + 1..];
                }
                Line::Space => {
                    self.line = Line::Data;
                    bytes = if *b == b' ' { &bytes[1..] } else { bytes };
                }
                Line::Name(known) => {
                    match (known, b) {
                        (_, b'\n' | b'\r') => self.end_line(*b, on_event),
                        (Some(0), b':') => self.line = Line::Ignored,
                        (Some(4), b':') => self.begin_data(Line::Space),
                        (Some(n), b) if DATA.get(usize::from(n)) == Some(b) => self.line = Line::Name(Some(n + 1)),
                        (_, b':') => self.line = Line::Ignored,
                        _ => self.line = Line::Name(None),
                    }
                    bytes = &bytes[1..];
                }
            }
        }
    }

    fn begin_data(&mut self, line: Line) {
        if std::mem::replace(&mut self.has_data, true) {
            self.pay(b"\n");
        }
        self.line = line;
    }

    fn end_line(&mut self, b: u8, on_event: &mut impl FnMut(Emission)) {
        self.after_cr = b == b'\r';
        match self.line {
            Line::Name(Some(0)) if self.has_data => self.end_event(on_event),
            // `data` without a colon is the field with an empty value.
            Line::Name(Some(4)) => self.begin_data(Line::Data),
            _ => {}
        }
        self.line = Line::Name(Some(0));
    }

    fn pay(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if (self.payload as usize) < self.start.len() {
            let from = self.payload as usize;
            for (slot, b) in self.start[from..].iter_mut().zip(bytes) {
                *slot = *b;
            }
        }
        self.payload = self.payload.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.walker.feed(bytes, &mut self.event);
    }

    fn end_event(&mut self, on_event: &mut impl FnMut(Emission)) {
        let whole = self.walker.ended();
        let event = std::mem::take(&mut self.event);
        let start = self.start;
        let length = std::mem::take(&mut self.payload) as usize;
        self.walker.reset();
        self.has_data = false;
        if self.format == Format::Sse && is_done(&start, length) {
            self.totals.terminated |= self.says_done();
            return;
        }
        if !whole {
            return;
        }
        let streamed = self.format != Format::Json;
        if let Some(emission) = self.totals.add(self.dialect, event, streamed) {
            on_event(emission);
        }
    }

    fn says_done(&self) -> bool {
        matches!(self.dialect, Dialect::OpenAiChat | Dialect::OpenAiCompletions | Dialect::SglangNative)
    }
}

impl Totals {
    /// Takes one whole object in; a content event comes back as an emission.
    fn add(&mut self, dialect: Dialect, event: Event, streamed: bool) -> Option<Emission> {
        if event.error.is_some()
            || (dialect == Dialect::OpenAiResponses && matches!(event.kind, Kind::Error | Kind::Failed))
        {
            self.error = self.error.or(event.error).or(Some(ErrorKind::Error));
        }
        self.seen |= event.seen;
        self.finished |= event.finished;
        self.input = event.input.map(|n| n.saturating_add(event.cache_apart)).or(self.input);
        self.cached = event.cached.or(self.cached);
        match dialect {
            Dialect::OpenAiChat | Dialect::OpenAiCompletions | Dialect::OpenAiEmbeddings => {
                return self.add_choices(dialect, event, streamed);
            }
            Dialect::OpenAiResponses => self.output = event.output.or(self.output),
            Dialect::AnthropicMessages => self.output = event.output.or(self.output),
            Dialect::OllamaChat | Dialect::OllamaGenerate | Dialect::OllamaEmbed => {
                self.output = event.running.or(self.output);
            }
            Dialect::Tgi => self.output = event.output.or(self.output),
            Dialect::SglangNative | Dialect::LlamacppNative => self.output = event.running.or(self.output),
        }
        if !streamed {
            return None;
        }
        let (content, terminated) = match dialect {
            Dialect::OpenAiResponses => {
                (event.kind == Kind::Delta && event.text > 0, matches!(event.kind, Kind::Completed | Kind::Failed))
            }
            Dialect::AnthropicMessages => {
                (event.kind == Kind::BlockDelta && event.delta, event.kind == Kind::MessageStop)
            }
            Dialect::Tgi => (event.token && !event.special, event.generated),
            Dialect::SglangNative => {
                self.seen |= 1;
                (event.text > self.text || u64::from(event.ids) > self.last.max(self.counted), false)
            }
            Dialect::LlamacppNative => (event.text > 0, event.done),
            _ => (event.delta || event.text > 0, event.done),
        };
        self.terminated |= terminated;
        self.text = self.text.max(event.text);
        let running = match dialect {
            Dialect::SglangNative | Dialect::LlamacppNative => event.running,
            _ => None,
        };
        let ids = if dialect == Dialect::SglangNative { 0 } else { event.ids };
        content.then(|| self.emit(running, ids, 1))
    }

    /// OpenAI's chat and completions: usage in events of its own is summed, usage beside choices is cumulative per choice.
    fn add_choices(&mut self, dialect: Dialect, event: Event, streamed: bool) -> Option<Emission> {
        let mut running = None;
        if event.usage && (event.input.is_some() || event.output.is_some()) {
            let output = event.output.unwrap_or(0);
            if !streamed || event.choices.is_none_or(|n| n == 0) {
                if event.output.is_some() {
                    self.output = Some(self.output.unwrap_or(0).saturating_add(output));
                }
            } else {
                self.report(event.index, event.input.unwrap_or(0), output);
                running = (event.choices == Some(1)).then_some(output);
                if dialect == Dialect::OpenAiCompletions {
                    self.input = None;
                }
            }
        }
        if !event.content || !streamed {
            return None;
        }
        let ids = if event.choices == Some(1) { event.ids } else { 0 };
        Some(match running {
            Some(output) => {
                let before = self.spoken(event.index, output);
                self.running_seen = true;
                self.count(u32::try_from(output.saturating_sub(before)).unwrap_or(u32::MAX).max(1))
            }
            None => self.emit(None, ids, event.spoke),
        })
    }

    fn emit(&mut self, running: Option<u64>, ids: u32, one_each: u32) -> Emission {
        let tokens = match running {
            Some(total) => {
                self.running_seen = true;
                let grown = total.saturating_sub(std::mem::replace(&mut self.last, total));
                u32::try_from(grown).unwrap_or(u32::MAX).max(1)
            }
            None if ids > 0 => {
                self.running_seen = true;
                ids
            }
            None => one_each.max(1),
        };
        self.count(tokens)
    }

    fn count(&mut self, tokens: u32) -> Emission {
        let tokens = tokens.min(EMISSION_LIMIT);
        self.content_events += 1;
        self.counted = self.counted.saturating_add(u64::from(tokens));
        Emission { tokens }
    }

    /// Keeps the largest report of a choice.
    fn report(&mut self, index: u32, input: u64, output: u64) {
        if let Some(choice) = self.choices.iter_mut().find(|choice| choice.index == index) {
            choice.input = choice.input.max(input);
            choice.output = choice.output.max(output);
        } else if self.choices.len() < CHOICE_LIMIT {
            self.choices.push(PerChoice { index, input, output });
        }
    }

    /// The running count of a choice at its last content event, replaced by `now`.
    fn spoken(&mut self, index: u32, now: u64) -> u64 {
        if index == 0 {
            let before = self.last;
            self.last = before.max(now);
            return before;
        }
        // Beyond the first choice the growth is not followed: its events count one token each, and usage corrects them.
        now.saturating_sub(1)
    }

    fn usage(&self) -> Option<Usage> {
        let per_choice: u64 = self.choices.iter().fold(0, |sum, choice| sum.saturating_add(choice.output));
        let output = self.output.or((!self.choices.is_empty()).then_some(per_choice));
        let input = self.input.or_else(|| {
            let sum = self.choices.iter().fold(0_u64, |sum, choice| sum.saturating_add(choice.input));
            (sum > 0).then_some(sum)
        });
        let believed = |n: &u64| *n <= USAGE_LIMIT;
        let usage = Usage {
            input: input.filter(believed),
            output: output.filter(|n| believed(n) && *n >= self.content_events),
            cached: self.cached.filter(believed),
        };
        (usage != Usage::default()).then_some(usage)
    }
}

/// `[DONE]` and nothing else, but for white space around it.
fn is_done(start: &[u8; 8], length: usize) -> bool {
    length <= start.len() && start[..length].trim_ascii() == b"[DONE]"
}

const DATA: &[u8] = b"data";
const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];
/// No engine generates that many tokens for one request; a larger report is not believed.
const USAGE_LIMIT: u64 = 1 << 24;
/// Nor that many in one event.
const EMISSION_LIMIT: u32 = 1 << 16;
const CHOICE_LIMIT: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    struct Golden {
        file: &'static str,
        dialect: Dialect,
        events: u64,
        tokens: u64,
        input: Option<u64>,
        output: Option<u64>,
        terminated: bool,
        error: Option<ErrorKind>,
    }

    const fn golden(
        file: &'static str,
        dialect: Dialect,
        events: u64,
        tokens: u64,
        input: Option<u64>,
        output: Option<u64>,
        terminated: bool,
    ) -> Golden {
        Golden { file, dialect, events, tokens, input, output, terminated, error: None }
    }

    /// Counted by hand in the files.
    const GOLDEN: &[Golden] = &[
        golden("vllm_chat.derived.sse", Dialect::OpenAiChat, 2, 2, Some(7), Some(2), true),
        golden("vllm_reasoning_tool.derived.sse", Dialect::OpenAiChat, 4, 4, None, None, true),
        golden("sglang_chat.derived.sse", Dialect::OpenAiChat, 1, 1, Some(7), Some(1), true),
        golden("trtllm_chat.derived.sse", Dialect::OpenAiChat, 2, 2, Some(7), Some(3), true),
        golden("torture_bom_crlf_comment_multiline.derived.sse", Dialect::OpenAiChat, 2, 2, None, None, true),
        golden("sglang_native_generate.derived.sse", Dialect::SglangNative, 2, 2, Some(5), Some(2), true),
        golden("tgi_generate_stream_v1_nospace.derived.sse", Dialect::Tgi, 1, 1, Some(5), Some(2), true),
        golden("tgi_generate_stream_v3.derived.sse", Dialect::Tgi, 1, 1, Some(5), Some(2), true),
        golden("anthropic_messages.derived.sse", Dialect::AnthropicMessages, 4, 4, Some(12), None, true),
        golden("llamacpp_anthropic_messages.real.http", Dialect::AnthropicMessages, 3, 3, Some(29), Some(3), true),
        golden("llamacpp_chat_n2_usage.real.http", Dialect::OpenAiChat, 6, 6, Some(26), Some(6), true),
        golden("llamacpp_completions_two_prompts.real.http", Dialect::OpenAiCompletions, 6, 6, Some(6), Some(6), true),
        golden("llamacpp_native_completion.real.http", Dialect::LlamacppNative, 3, 3, Some(7), Some(3), true),
        golden("llamacpp_responses.real.http", Dialect::OpenAiResponses, 3, 3, Some(29), Some(3), true),
        golden("ollama_api_chat.derived.ndjson", Dialect::OllamaChat, 3, 3, Some(7), Some(3), true),
        golden("ollama_api_generate.derived.ndjson", Dialect::OllamaGenerate, 1, 1, Some(7), Some(2), true),
        golden("llamacpp_chat_nonstream.real.http", Dialect::OpenAiChat, 0, 0, Some(29), Some(3), false),
        golden("llamacpp_anthropic_nonstream.real.http", Dialect::AnthropicMessages, 0, 0, Some(26), Some(2), false),
        golden("llamacpp_responses_nonstream.real.http", Dialect::OpenAiResponses, 0, 0, Some(26), Some(2), false),
        Golden {
            error: Some(ErrorKind::Error),
            ..golden("vllm_error_midstream.derived.sse", Dialect::OpenAiChat, 1, 1, None, None, true)
        },
        Golden {
            error: Some(ErrorKind::Overloaded),
            ..golden(
                "anthropic_error_midstream.derived.sse",
                Dialect::AnthropicMessages,
                0,
                0,
                Some(12),
                Some(1),
                false,
            )
        },
        Golden {
            error: Some(ErrorKind::Error),
            ..golden("ollama_error_midstream_HTTP200.derived.ndjson", Dialect::OllamaGenerate, 1, 1, None, None, false)
        },
        Golden {
            error: Some(ErrorKind::Overloaded),
            ..golden("tgi_generate_stream_overloaded_HTTP200.derived.sse", Dialect::Tgi, 0, 0, None, None, false)
        },
        Golden {
            error: Some(ErrorKind::Error),
            ..golden("openai_responses_error.derived.sse", Dialect::OpenAiResponses, 0, 0, None, None, false)
        },
    ];

    fn body(file: &str) -> (Format, Vec<u8>) {
        let bytes = std::fs::read(format!("{}/tests/data/sse/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        if !file.ends_with(".http") {
            return (if file.ends_with(".ndjson") { Format::Ndjson } else { Format::Sse }, bytes);
        }
        let end = memchr::memmem::find(&bytes, b"\r\n\r\n").unwrap();
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let format = if head.contains("event-stream") { Format::Sse } else { Format::Json };
        let mut rest = &bytes[end + 4..];
        if !head.contains("chunked") {
            return (format, rest.to_vec());
        }
        let mut out = Vec::new();
        while let Some(line) = memchr::memmem::find(rest, b"\r\n") {
            let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap().trim(), 16).unwrap_or(0);
            if size == 0 {
                break;
            }
            out.extend_from_slice(&rest[line + 2..line + 2 + size]);
            rest = &rest[line + 4 + size..];
        }
        (format, out)
    }

    fn read(dialect: Dialect, format: Format, pieces: &[&[u8]]) -> (Reading, Vec<u32>) {
        let (mut scanner, mut emissions) = (StreamScanner::new(dialect, format), Vec::new());
        pieces.iter().for_each(|piece| scanner.feed(piece, |emission| emissions.push(emission.tokens)));
        scanner.finish();
        (scanner.reading(), emissions)
    }

    #[test]
    fn every_dialect_is_counted_exactly_and_alike_for_every_cut() {
        for golden in GOLDEN {
            let (format, bytes) = body(golden.file);
            let whole = read(golden.dialect, format, &[&bytes]);
            let reading = whole.0;
            let usage = reading.usage.unwrap_or_default();
            assert_eq!(reading.content_events, golden.events, "{}", golden.file);
            assert_eq!(reading.counted_tokens, golden.tokens, "{}", golden.file);
            assert_eq!(usage.input, golden.input, "{}", golden.file);
            if golden.output.is_some() {
                assert_eq!(usage.output, golden.output, "{}", golden.file);
            }
            assert_eq!(reading.terminated, golden.terminated, "{}", golden.file);
            assert_eq!(reading.error, golden.error, "{}", golden.file);
            for cut in 0..bytes.len() {
                let cut = read(golden.dialect, format, &[&bytes[..cut], &bytes[cut..]]);
                assert_eq!(cut, whole, "{}", golden.file);
            }
            assert_eq!(read(golden.dialect, format, &bytes.chunks(1).collect::<Vec<_>>()), whole, "{}", golden.file);
        }
    }

    #[test]
    fn a_hundred_events_in_one_read_are_a_hundred_events() {
        let one = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"},\"logprobs\":{\"content\":[{\"text\":\"]\"}]}}]}\n\n";
        let (reading, emissions) = read(Dialect::OpenAiChat, Format::Sse, &[one.repeat(100).as_bytes()]);
        assert_eq!((reading.content_events, emissions.len()), (100, 100));
    }

    #[test]
    fn running_counts_give_the_tokens_of_each_event() {
        let event = |n: u32, total: u32| {
            format!(
                "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{}\"}}}}],\"usage\":{{\"completion_tokens\":{total}}}}}\n\n",
                "x".repeat(n as usize)
            )
        };
        let stream = [event(1, 1), event(1, 4), event(1, 5)].concat();
        let (reading, emissions) = read(Dialect::OpenAiChat, Format::Sse, &[stream.as_bytes()]);
        assert_eq!((emissions, reading.running), (vec![1, 3, 1], true));
        assert_eq!(reading.usage.unwrap().output, Some(5));
    }

    #[test]
    fn usage_that_lies_is_not_believed() {
        let event = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n".repeat(3);
        for lie in ["1", "18446744073709551615", "99999999999"] {
            let stream = format!("{event}data: {{\"choices\":[],\"usage\":{{\"completion_tokens\":{lie}}}}}\n\n");
            assert_eq!(read(Dialect::OpenAiChat, Format::Sse, &[stream.as_bytes()]).0.usage, None, "{lie}");
        }
    }

    #[test]
    fn a_terminator_inside_a_text_is_text_and_comments_are_signs_of_life() {
        let stream =
            b": ping\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"data: [DONE]\"}}]}\n\ndata: nonsense\n\n";
        let (reading, _) = read(Dialect::OpenAiChat, Format::Sse, &[stream]);
        assert_eq!((reading.content_events, reading.terminated, reading.at_event_boundary), (1, false, true));
        let (reading, _) = read(Dialect::OpenAiChat, Format::Sse, &[b"data: [DONE]"]);
        assert!(reading.terminated, "an unfinished event at the end is looked at");
    }

    #[test]
    fn a_scanner_is_small_and_holds_nothing_between_events() {
        assert!(size_of::<StreamScanner>() <= 512, "{}", size_of::<StreamScanner>());
    }
}
