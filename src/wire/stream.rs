//! Reads an answer along: SSE, NDJSON or one JSON document, in pieces cut anywhere.
//!
//! Lines are framed and payload is walked as it comes, so nothing of a stream is held and memory is constant, whatever
//! its lines measure: no line is too long to be read along. What an event said counts only once the event is whole and was
//! a JSON object; else it was a sign of life. Framing: `sse`; what an object says: `event`; what it adds up to: `totals`.

use super::bom::Mark;
use super::dialect::{BodyFormat, Dialect};
use super::event::{Event, InBandError};
use super::json::Walker;
use super::sse::{Sse, SsePiece};
use super::totals::AnswerTotals;
use crate::vocabulary::usage::Usage;

/// One content event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Emission {
    /// Tokens in it: the growth of a running count where the stream carries one, else one a choice.
    pub tokens: u32,
}

/// What was read so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamReading {
    pub content_events: u64,
    /// Sum of the emissions' tokens.
    pub counted_tokens: u64,
    /// Running counts were seen.
    pub running: bool,
    pub usage: Option<Usage>,
    /// The dialect's terminator was seen.
    pub terminated: bool,
    /// Every choice that was seen has finished, or a whole answer was read.
    pub finished: bool,
    pub error: Option<InBandError>,
    /// The body cannot be read.
    pub opaque: bool,
    /// The last event is whole.
    pub at_event_boundary: bool,
}

/// Listens to one answer.
#[derive(Debug)]
pub struct StreamScanner {
    mark: Mark,
    framed: Framed,
    /// The object of a stream whose reads cut events, from the first cut on: one allocation a stream at most. Most streams
    /// have none, as their reads end where an event does: then the object lives on the stack, which is in the cache, while
    /// the memory of a thousand streams is not.
    cut: Option<Box<Object>>,
}

/// What is known between two events.
#[derive(Debug)]
struct Framed {
    dialect: Dialect,
    format: BodyFormat,
    sse: Sse,
    /// The event under way has payload.
    has_payload: bool,
    done: DoneMatcher,
    totals: AnswerTotals,
}

/// A payload on its way, and what it said so far.
#[derive(Debug, Default)]
struct Object {
    walker: Walker<HELD>,
    event: Event,
}

impl StreamScanner {
    /// A scanner for an answer in `dialect`, framed as `format`.
    pub fn new(dialect: Dialect, format: BodyFormat) -> Self {
        let framed = Framed {
            dialect,
            format,
            sse: Sse::default(),
            has_payload: false,
            done: DoneMatcher::default(),
            totals: AnswerTotals::default(),
        };
        Self { mark: Mark::default(), framed, cut: None }
    }

    /// The request has `prompts` prompts, each of which may have several choices.
    pub fn with_prompts(mut self, prompts: u32) -> Self {
        self.framed.totals.reports.prompts = Some(prompts);
        self
    }

    /// The next piece; each content event that it completes is reported.
    pub fn feed(&mut self, bytes: &[u8], mut on_event: impl FnMut(Emission)) {
        let (before, bytes) = self.mark.strip(bytes);
        let mut framed = |object: &mut Object, framed: &mut Framed| {
            if !before.is_empty() {
                framed.frame(before, object, &mut on_event);
            }
            framed.frame(bytes, object, &mut on_event);
        };
        if let Some(object) = &mut self.cut {
            return framed(object, &mut self.framed);
        }
        let mut object = Object::default();
        framed(&mut object, &mut self.framed);
        if self.framed.has_payload {
            self.cut = Some(Box::new(object));
        }
    }

    /// The answer has ended. The last line of NDJSON may lack its line end. An unfinished event of SSE is dropped by every
    /// client, so it has no content; but its usage, its finish, its error or its terminator decide the outcome.
    pub fn finish(&mut self, mut on_event: impl FnMut(Emission)) {
        let mut object = self.cut.take().unwrap_or_default();
        let framed = &mut self.framed;
        match framed.format {
            BodyFormat::Opaque => {}
            BodyFormat::Json => framed.end_answer(&object),
            BodyFormat::Ndjson => framed.end_event(false, true, &mut object, &mut on_event),
            BodyFormat::Sse => framed.end_event(framed.sse.is_error(), false, &mut object, &mut on_event),
        }
    }

    /// What was read so far.
    pub fn reading(&self) -> StreamReading {
        StreamReading {
            opaque: self.framed.format == BodyFormat::Opaque,
            at_event_boundary: self.at_event_boundary(),
            ..self.framed.totals.reading(self.framed.dialect)
        }
    }

    /// The dialect's terminator was seen.
    pub fn has_terminated(&self) -> bool {
        self.framed.totals.terminated
    }

    /// Nothing of an event is under way.
    pub fn at_event_boundary(&self) -> bool {
        self.framed.sse.at_event_boundary() && !self.framed.has_payload
    }
}

impl Framed {
    fn frame(&mut self, bytes: &[u8], object: &mut Object, on_event: &mut impl FnMut(Emission)) {
        match self.format {
            BodyFormat::Sse => self.events(bytes, object, on_event),
            BodyFormat::Ndjson => self.records(bytes, object, on_event),
            BodyFormat::Json => self.pay(bytes, object),
            BodyFormat::Opaque => {}
        }
    }

    /// SSE: a payload an event.
    fn events(&mut self, mut bytes: &[u8], object: &mut Object, on_event: &mut impl FnMut(Emission)) {
        while let Some(piece) = self.sse.next(&mut bytes) {
            match piece {
                SsePiece::Data(part) => {
                    self.done.feed(part);
                    self.pay(part, object);
                }
                SsePiece::Join => {
                    self.done.feed(b"\n");
                    self.pay(b"\n", object);
                }
                SsePiece::End { error } => self.end_event(error, true, object, on_event),
            }
        }
    }

    /// NDJSON: a payload a line.
    fn records(&mut self, mut bytes: &[u8], object: &mut Object, on_event: &mut impl FnMut(Emission)) {
        while let Some(at) = memchr::memchr(b'\n', bytes) {
            self.pay(&bytes[..at], object);
            self.end_event(false, true, object, on_event);
            bytes = &bytes[at + 1..];
        }
        self.pay(bytes, object);
    }

    fn pay(&mut self, bytes: &[u8], object: &mut Object) {
        self.has_payload |= !bytes.is_empty();
        object.walker.feed(bytes, &mut object.event);
    }

    /// The payload under way is over. `is_error`: its event has that name. `complete`: a client would get it.
    fn end_event(&mut self, is_error: bool, complete: bool, object: &mut Object, on_event: &mut impl FnMut(Emission)) {
        if is_error {
            self.totals.on_error(InBandError::Error);
        }
        let is_object = object.walker.ended() && object.event.list.is_none();
        let tokens = if is_object { self.totals.on_event(self.dialect, &object.event) } else { None };
        if let Some(tokens) = tokens.filter(|_| complete) {
            self.totals.count(tokens);
            on_event(Emission { tokens });
        }
        self.totals.terminated |= self.done.is_whole() && says_done(self.dialect);
        self.has_payload = false;
        self.done = DoneMatcher::default();
        object.walker.reset();
        object.event.reset();
    }

    fn end_answer(&mut self, object: &Object) {
        if object.walker.ended() {
            self.totals.on_answer(self.dialect, &object.event);
        }
    }
}

/// Whether a payload is `[DONE]` and nothing else, but for white space around it.
#[derive(Clone, Copy, Debug, Default)]
struct DoneMatcher {
    /// How many of its bytes were seen; [`OTHER`]: it is something else.
    matched: u8,
}

impl DoneMatcher {
    fn feed(&mut self, bytes: &[u8]) {
        let mut rest = bytes.iter();
        while self.matched != OTHER
            && let Some(b) = rest.next()
        {
            self.matched = match DONE.get(usize::from(self.matched)) {
                Some(expected) if expected == b => self.matched + 1,
                Some(_) if self.matched > 0 => OTHER,
                _ if b.is_ascii_whitespace() => self.matched,
                _ => OTHER,
            };
        }
    }

    fn is_whole(self) -> bool {
        usize::from(self.matched) == DONE.len()
    }
}

/// Dialects that end with `data: [DONE]`.
fn says_done(dialect: Dialect) -> bool {
    matches!(dialect, Dialect::OpenAiChat | Dialect::OpenAiCompletions | Dialect::SglangNative)
}

const DONE: &[u8] = b"[DONE]";
const OTHER: u8 = u8::MAX;
/// What the walker can hold of a token that a read cuts: the longest `type` of the responses API, and some.
const HELD: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(dialect: Dialect, format: BodyFormat, pieces: &[&[u8]]) -> (StreamReading, Vec<u32>) {
        let (mut scanner, mut emissions) = (StreamScanner::new(dialect, format), Vec::new());
        pieces.iter().for_each(|piece| scanner.feed(piece, |emission| emissions.push(emission.tokens)));
        scanner.finish(|emission| emissions.push(emission.tokens));
        (scanner.reading(), emissions)
    }

    #[test]
    fn a_hundred_events_in_one_read_are_a_hundred_events() {
        let one = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"},\"logprobs\":{\"content\":[{\"text\":\"]\"}]}}]}\n\n";
        let (reading, emissions) = read(Dialect::OpenAiChat, BodyFormat::Sse, &[one.repeat(100).as_bytes()]);
        assert_eq!((reading.content_events, emissions.len()), (100, 100));
    }

    #[test]
    fn a_terminator_inside_a_text_is_text() {
        let stream =
            b": ping\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"data: [DONE]\"}}]}\n\ndata: nonsense\n\n";
        let (reading, _) = read(Dialect::OpenAiChat, BodyFormat::Sse, &[stream]);
        assert_eq!((reading.content_events, reading.terminated, reading.at_event_boundary), (1, false, true));
        let (reading, _) = read(Dialect::OpenAiChat, BodyFormat::Sse, &[b"data: [DONE]"]);
        assert!(reading.terminated, "an unfinished event at the end is looked at");
    }

    #[test]
    fn done_is_a_terminator_only_alone_and_only_where_it_is_one() {
        let terminated = |dialect, stream: &str| {
            let whole = read(dialect, BodyFormat::Sse, &[stream.as_bytes()]).0.terminated;
            assert_eq!(
                read(dialect, BodyFormat::Sse, &stream.as_bytes().chunks(1).collect::<Vec<_>>()).0.terminated,
                whole
            );
            whole
        };
        for stream in ["data: [DONE]\n\n", "data:[DONE]   \t   \n\n", "data: [DONE]", "data:   [DONE]\ndata:\n\n"] {
            assert!(terminated(Dialect::OpenAiChat, stream), "{stream:?}");
            assert!(!terminated(Dialect::AnthropicMessages, stream), "{stream:?}");
        }
        for stream in [
            "data: [DONE]x\n\n",
            "data: [DO NE]\n\n",
            "data: [DONE\n\n",
            "data: [DO\ndata: NE]\n\n",
            "[DONE]\n\n",
            "event: [DONE]\n\n",
            "data: [DONE][DONE]\n\n",
        ] {
            assert!(!terminated(Dialect::OpenAiChat, stream), "{stream:?}");
        }
    }

    #[test]
    fn an_event_named_error_is_an_error_whatever_its_payload() {
        for (dialect, stream, error) in [
            (Dialect::OpenAiChat, "event: error\ndata: boom\n\n", Some(InBandError::Error)),
            (Dialect::Tgi, "data: {\"message\":\"x\"}\nevent: error\n\n", Some(InBandError::Error)),
            (
                Dialect::AnthropicMessages,
                "event: error\ndata: {\"error\":{\"type\":\"overloaded_error\"}}\n\n",
                Some(InBandError::Overloaded),
            ),
            (Dialect::AnthropicMessages, "event: error\ndata: {\"type\":", Some(InBandError::Error)),
            (Dialect::AnthropicMessages, "event: error\n\n", None),
            (Dialect::OpenAiChat, "event: errors\ndata: {}\n\nevent: ping\ndata: error\n\n", None),
            (Dialect::OpenAiChat, "data: {\"error\":null,\"choices\":[]}\n\n", None),
            (Dialect::OpenAiChat, "data: {\"object\":\"x\",\"error\":\"no\"}\n\n", Some(InBandError::Error)),
            (Dialect::OpenAiChat, "data: [DONE]\n\nevent: error\ndata: late\n\n", None),
        ] {
            assert_eq!(read(dialect, BodyFormat::Sse, &[stream.as_bytes()]).0.error, error, "{stream:?}");
        }
    }

    #[test]
    fn a_payload_that_is_no_object_is_a_sign_of_life() {
        let object = r#"{"choices":[{"delta":{"content":"x"}}]}"#;
        for payload in [
            "null",
            "1",
            "\"x\"",
            "[]",
            &format!("[{object}]"),
            &format!("{object}]"),
            &object[1..],
            &format!("{object}{object}"),
        ] {
            let (reading, emissions) =
                read(Dialect::OpenAiChat, BodyFormat::Sse, &[format!("data: {payload}\n\n").as_bytes()]);
            assert!(emissions.is_empty() && reading.at_event_boundary, "{payload}");
        }
        assert_eq!(read(Dialect::OpenAiChat, BodyFormat::Sse, &[format!("data: {object} \n\n").as_bytes()]).1, [1]);
    }

    #[test]
    fn the_last_line_of_ndjson_may_lack_its_line_break() {
        let lines = "\r\n{\"response\":\"a\"}\r\n\n{\"response\":\"b\",\"done\":true}";
        let (reading, emissions) = read(Dialect::OllamaGenerate, BodyFormat::Ndjson, &[lines.as_bytes()]);
        assert_eq!((emissions, reading.terminated), (vec![1, 1], true));
        let (reading, emissions) =
            read(Dialect::OllamaGenerate, BodyFormat::Ndjson, &[&lines.as_bytes()[..lines.len() - 1]]);
        assert_eq!((emissions, reading.terminated), (vec![1], false));
    }

    #[test]
    fn a_scanner_is_small() {
        assert!(size_of::<StreamScanner>() <= 640, "{}", size_of::<StreamScanner>());
    }
}
