//! The answer's head: what an engine may send, and what the client gets of it.

use std::ops::Range;

use super::field::{BadNomination, FieldKind, Nominated, content_length, kind};
use super::gate::Reject;
use super::relay::OutFraming;
use super::request::Version;
use super::{push_decimal, push_field};
use crate::vocabulary::bad_answer::BadAnswer;

/// One head from the backend.
#[derive(Clone, Debug)]
pub enum Response {
    /// A 1xx: another head follows.
    Informational(u16),
    /// The answer itself.
    Final(ResponseHead),
}

/// A valid final head. Ranges point into the head's bytes.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// Three digits, 200 or more.
    pub status: u16,
    /// The engine's connection may carry another request after this answer.
    pub keep_alive: bool,
    /// Where the body ends.
    pub body: BodyKind,
    /// The value as received.
    pub content_type: Option<Range<usize>>,
    /// The value as received.
    pub content_encoding: Option<Range<usize>>,
    /// The engine sent a `Date`, and it is passed on.
    pub has_date: bool,
    /// The engine sent an `x-request-id`, and it is passed on.
    pub has_request_id: bool,
}

/// Where the answer's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// No body: the answer to a HEAD, a 204 or a 304.
    None {
        /// The length that a HEAD's answer or a 304 speaks of.
        declared: Option<u64>,
    },
    /// This number of bytes.
    Length(u64),
    /// The chunked coding.
    Chunked,
    /// Everything until the engine closes.
    UntilClose,
}

/// What the answer belongs to.
#[derive(Clone, Copy, Debug)]
pub struct ResponseContext {
    /// The request was a HEAD: there is no body, whatever the fields say.
    pub head_request: bool,
    /// What the client speaks.
    pub client: Version,
}

/// Reads a head and writes into `out` the status line and the fields that the client gets. Framing and weir's own fields
/// are added by `finish_response_head`.
///
/// # Errors
/// Which rule the head breaks: syntax, framing or nominations that two readers could understand differently; an unasked 101.
// Long: a head is checked and written in one pass, and the parts borrow its bytes.
pub fn response_head(head: &[u8], context: &ResponseContext, out: &mut Vec<u8>) -> Result<Response, BadAnswer> {
    // The parser would skip empty lines, which only a request line may follow.
    if !head.starts_with(b"HTTP/1.") {
        return Err(BadAnswer::StatusLine);
    }
    let mut fields = [const { std::mem::MaybeUninit::uninit() }; FIELD_LIMIT];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut parsed, head, &mut fields) {
        Ok(httparse::Status::Complete(n)) if n == head.len() => {}
        Ok(_) => return Err(BadAnswer::HeadSyntax),
        Err(error) => return Err(cause(error)),
    }
    let status = parsed.code.filter(|code| (100..=999).contains(code)).ok_or(BadAnswer::StatusLine)?;
    if status == SWITCHING_PROTOCOLS {
        return Err(BadAnswer::Upgrade);
    }
    let reading = ResponseFields::of(parsed.headers)?;
    let one_one = parsed.version == Some(1);
    if reading.chunked && (reading.length.is_some() || !one_one) {
        return Err(BadAnswer::Framing);
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    push_decimal(out, u64::from(status));
    out.extend_from_slice(b" ");
    out.extend_from_slice(parsed.reason.unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    for (i, field) in parsed.headers.iter().enumerate() {
        let name = field.name.as_bytes();
        let passes = !matches!(
            reading.kinds[i],
            FieldKind::HopByHop
                | FieldKind::Connection
                | FieldKind::ContentLength
                | FieldKind::TransferEncoding
                | FieldKind::Upgrade
                | FieldKind::Claim(_)
        );
        if passes && !reading.nominated.has(name) {
            push_field(out, name, field.value);
        }
    }
    if status < 200 {
        return Ok(Response::Informational(status));
    }
    let body = match (reading.chunked, reading.length) {
        _ if status == 204 => BodyKind::None { declared: None },
        (_, declared) if context.head_request || status == 304 => BodyKind::None { declared },
        (true, _) => BodyKind::Chunked,
        (false, Some(n)) => BodyKind::Length(n),
        (false, None) => BodyKind::UntilClose,
    };
    let range = |part: &[u8]| {
        let from = part.as_ptr() as usize - head.as_ptr() as usize;
        from..from + part.len()
    };
    Ok(Response::Final(ResponseHead {
        status,
        keep_alive: one_one && !reading.nominated.close && ends_for_certain(&reading, body),
        body,
        content_type: reading.content_type.map(range),
        content_encoding: reading.content_encoding.map(range),
        has_date: reading.has_date && !reading.nominated.has(b"date"),
        has_request_id: reading.has_request_id,
    }))
}

/// Whether the engine cannot disagree about where this answer ends. An answer that has no body by status or method, and all
/// the same announces one, may be followed by it: on a connection that is used again it would be read as the answer to another request.
fn ends_for_certain(reading: &ResponseFields<'_>, body: BodyKind) -> bool {
    match body {
        BodyKind::None { .. } => !reading.chunked && reading.length.is_none_or(|n| n == 0),
        BodyKind::Length(_) | BodyKind::Chunked => true,
        BodyKind::UntilClose => false,
    }
}

/// Completes a head for the client: weir's own fields, a `Date` when the engine sent none (`date` is not empty), framing.
pub fn finish_response_head(out: &mut Vec<u8>, framing: OutFraming, close: bool, date: &[u8], extra: &[(&str, &[u8])]) {
    if !date.is_empty() {
        push_field(out, b"date", date);
    }
    out.extend_from_slice(b"via: 1.1 weir\r\n");
    for (name, value) in extra {
        push_field(out, name.as_bytes(), value);
    }
    match framing {
        OutFraming::Length(n) => {
            out.extend_from_slice(b"content-length: ");
            push_decimal(out, n);
            out.extend_from_slice(b"\r\n");
        }
        OutFraming::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        OutFraming::None | OutFraming::Close => {}
    }
    out.extend_from_slice(if close { b"connection: close\r\n\r\n" } else { b"\r\n" });
}

struct ResponseFields<'a> {
    kinds: [FieldKind; FIELD_LIMIT],
    nominated: Nominated<'a>,
    length: Option<u64>,
    chunked: bool,
    content_type: Option<&'a [u8]>,
    content_encoding: Option<&'a [u8]>,
    has_date: bool,
    has_request_id: bool,
}

impl<'a> ResponseFields<'a> {
    fn of(fields: &[httparse::Header<'a>]) -> Result<Self, BadAnswer> {
        let mut reading = Self {
            kinds: [FieldKind::Pass; FIELD_LIMIT],
            nominated: Nominated::default(),
            length: None,
            chunked: false,
            content_type: None,
            content_encoding: None,
            has_date: false,
            has_request_id: false,
        };
        for (i, field) in fields.iter().enumerate() {
            reading.kinds[i] = kind(field.name.as_bytes());
            match reading.kinds[i] {
                FieldKind::Connection => {
                    reading.nominated.read(field.value).map_err(|BadNomination| BadAnswer::Nomination)?;
                }
                FieldKind::ContentLength => {
                    let n = content_length(field.value).ok_or(BadAnswer::Framing)?;
                    if reading.length.replace(n).is_some() {
                        return Err(BadAnswer::Framing);
                    }
                }
                FieldKind::TransferEncoding => {
                    let repeated = std::mem::replace(&mut reading.chunked, true);
                    if repeated || !field.value.eq_ignore_ascii_case(b"chunked") {
                        return Err(BadAnswer::Framing);
                    }
                }
                FieldKind::ContentType => reading.content_type = Some(field.value),
                FieldKind::ContentEncoding => reading.content_encoding = Some(field.value),
                FieldKind::Date => reading.has_date = true,
                FieldKind::RequestId => reading.has_request_id = true,
                _ => {}
            }
        }
        Ok(reading)
    }
}

impl From<Reject> for BadAnswer {
    /// Of a head whose end was looked for.
    fn from(reject: Reject) -> Self {
        match reject {
            Reject::HeadTooLong | Reject::RequestLineTooLong => Self::HeadTooLong,
            Reject::RequestLine => Self::StatusLine,
            _ => Self::HeadSyntax,
        }
    }
}

fn cause(error: httparse::Error) -> BadAnswer {
    match error {
        httparse::Error::Status | httparse::Error::Version => BadAnswer::StatusLine,
        httparse::Error::TooManyHeaders => BadAnswer::TooManyFields,
        _ => BadAnswer::HeadSyntax,
    }
}

const FIELD_LIMIT: usize = 100;
/// An upgrade, which weir never asks for.
const SWITCHING_PROTOCOLS: u16 = 101;

#[cfg(test)]
mod tests {
    use super::*;

    fn read_for(head_request: bool, lines: &str) -> Result<(Response, String), BadAnswer> {
        let head = format!("{}\r\n\r\n", lines.replace('\n', "\r\n"));
        let mut out = Vec::new();
        let context = ResponseContext { head_request, client: Version::V11 };
        let read = response_head(head.as_bytes(), &context, &mut out)?;
        Ok((read, String::from_utf8(out).unwrap()))
    }

    fn last(lines: &str) -> (ResponseHead, String) {
        match read_for(false, lines).unwrap() {
            (Response::Final(head), out) => (head, out),
            (Response::Informational(status), _) => panic!("{status}"),
        }
    }

    #[test]
    fn the_client_gets_the_fields_without_those_between_neighbours() {
        let (head, out) = last(
            "HTTP/1.1 200 OK\nServer: llama.cpp\nKeep-Alive: timeout=5\nTransfer-Encoding: chunked\nX-Weir-Backend: me\n\
             Content-Type: text/event-stream\nConnection: x-gone\nX-Gone: 1",
        );
        assert_eq!(out, "HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nContent-Type: text/event-stream\r\n");
        assert_eq!(head.body, BodyKind::Chunked);
        assert!(head.keep_alive && !head.has_date && head.content_type.is_some());
    }

    #[test]
    fn a_head_that_breaks_a_rule_names_the_rule() {
        for (bad, cause) in [
            ("Content-Length: 1\nContent-Length: 1", BadAnswer::Framing),
            ("Content-Length: 1\nTransfer-Encoding: chunked", BadAnswer::Framing),
            ("Transfer-Encoding: gzip", BadAnswer::Framing),
            ("Transfer-Encoding: chunked\nTransfer-Encoding: chunked", BadAnswer::Framing),
            ("Content-Length: 1, 1", BadAnswer::Framing),
            ("Connection: content-length", BadAnswer::Nomination),
            ("A: b\u{1}", BadAnswer::HeadSyntax),
            (&"A: b\n".repeat(101), BadAnswer::TooManyFields),
        ] {
            let read = read_for(false, &format!("HTTP/1.1 200 OK\n{}", bad.trim_end()));
            assert_eq!(read.map(|_| ()), Err(cause), "{bad}");
        }
        for (head, cause) in [
            ("HTTP/1.0 200 OK\nTransfer-Encoding: chunked", BadAnswer::Framing),
            ("HTTP/1.1 101 Switching Protocols", BadAnswer::Upgrade),
            ("HTTP/1.1 20 OK", BadAnswer::StatusLine),
            ("\nHTTP/1.1 200 OK", BadAnswer::StatusLine),
        ] {
            assert_eq!(read_for(false, head).map(|_| ()), Err(cause), "{head}");
        }
    }

    #[test]
    fn bodies_end_where_status_method_and_fields_say() {
        assert_eq!(last("HTTP/1.1 200 OK\nContent-Length: 7").0.body, BodyKind::Length(7));
        assert_eq!(last("HTTP/1.1 204 No Content\nContent-Length: 7").0.body, BodyKind::None { declared: None });
        assert_eq!(last("HTTP/1.1 304 Not Modified\nContent-Length: 7").0.body, BodyKind::None { declared: Some(7) });
        let until_close = last("HTTP/1.1 200 OK").0;
        assert_eq!((until_close.body, until_close.keep_alive), (BodyKind::UntilClose, false));
        let (Response::Final(head), _) = read_for(true, "HTTP/1.1 200 OK\nContent-Length: 7").unwrap() else {
            panic!()
        };
        assert_eq!(head.body, BodyKind::None { declared: Some(7) });
    }

    #[test]
    fn an_engine_of_http_1_0_or_one_that_closes_is_not_used_again() {
        assert!(!last("HTTP/1.0 200 OK\nContent-Length: 1").0.keep_alive);
        assert!(!last("HTTP/1.1 200 OK\nContent-Length: 1\nConnection: close").0.keep_alive);
    }

    #[test]
    fn an_announced_body_that_must_not_be_ends_the_connection() {
        for lines in
            ["204 No Content\nTransfer-Encoding: chunked", "204 x\nContent-Length: 1", "304 x\nContent-Length: 7"]
        {
            assert!(!last(&format!("HTTP/1.1 {lines}")).0.keep_alive, "{lines}");
        }
        for lines in ["204 No Content", "204 x\nContent-Length: 0", "304 x", "200 OK\nContent-Length: 0"] {
            assert!(last(&format!("HTTP/1.1 {lines}")).0.keep_alive, "{lines}");
        }
    }

    #[test]
    fn a_nominated_date_is_removed_and_counts_as_absent() {
        let (head, out) = last("HTTP/1.1 200 OK\nConnection: date\nDate: never");
        assert!(!head.has_date && !out.contains("never"));
        assert!(last("HTTP/1.1 200 OK\nDate: now").0.has_date);
    }

    #[test]
    fn an_informational_head_is_not_the_final_one() {
        assert!(matches!(
            read_for(false, "HTTP/1.1 103 Early Hints\nLink: x").unwrap().0,
            Response::Informational(103)
        ));
    }
}
