//! Where a head ends, and what no head may contain.
//!
//! The search looks at raw bytes before any parser does: bare CR, bare LF and NUL are refused at the first sight of them,
//! which is what makes the parser behind it strict. It resumes where it stopped, so a head that arrives byte by byte
//! costs no more than one that arrives whole.

use memchr::memchr3;

/// Why a request is refused before anything of it is forwarded. A closed list without payload: nothing that a client
/// sent can reach a log or an answer through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// A CR without LF or an LF without CR, in the head.
    BareLineBreak,
    /// A NUL in the head.
    NulByte,
    /// More before the empty line than is accepted: 64 KiB, or what is configured below that.
    HeadTooLong,
    /// More than 8 KiB before the first CRLF.
    RequestLineTooLong,
    /// More than 100 fields.
    TooManyFields,
    /// Not method, target and version with one space between; or empty lines before it.
    RequestLine,
    /// A name that is no token, a folded line, a space before the colon, a control character in a value.
    FieldSyntax,
    /// Neither HTTP/1.1 nor HTTP/1.0.
    Version,
    /// TRACE or CONNECT.
    MethodRefused,
    /// A method outside the list.
    MethodUnknown,
    /// Neither an absolute path nor an http or https URL with one; or bytes that no target may have.
    Target,
    /// None on HTTP/1.1, more than one, or not a host and port.
    Host,
    /// The target names another authority than the Host field.
    AuthorityMismatch,
    /// Not 1 to 18 digits, or more than one.
    ContentLength,
    /// Anything but one `chunked`; or any, on HTTP/1.0.
    TransferEncoding,
    /// Two framings at once.
    LengthAndEncoding,
    /// A body that is not empty, on GET or HEAD: servers disagree on whether it is read.
    BodyNotAllowed,
    /// An `Expect` other than `100-continue`.
    Expectation,
    /// `Connection` nominates what must not be removed, more than 10 names, or what is no token.
    Nomination,
    /// A handshake for a protocol that is not relayed.
    WebSocket,
    /// A `Via` element is this process's own.
    Loop,
    /// A size line or the end of a chunk's data is malformed.
    ChunkSyntax,
    /// Extensions of more than 256 bytes in a chunk or 4 KiB in a body.
    ChunkExtension,
    /// A trailer section of more than 64 KiB, or one that breaks the rules of fields.
    TrailerTooLong,
}

impl Reject {
    /// The status of the answer.
    pub const fn status(self) -> u16 {
        match self {
            Self::HeadTooLong | Self::RequestLineTooLong | Self::TooManyFields => 431,
            Self::Version => 505,
            Self::MethodRefused => 405,
            Self::MethodUnknown | Self::WebSocket => 501,
            Self::Expectation => 417,
            Self::Loop => 508,
            _ => 400,
        }
    }

    /// What is wrong, where, and what was expected.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::BareLineBreak => "a line of the request head ends in a bare CR or LF; expected CRLF",
            Self::NulByte => "the request head contains a NUL byte",
            Self::HeadTooLong => "the request head is longer than this server accepts (limits.max_header)",
            Self::RequestLineTooLong => "the request line is longer than 8 KiB",
            Self::TooManyFields => "the request head has more than 100 fields",
            Self::RequestLine => "the request line is malformed; expected METHOD TARGET HTTP/1.1",
            Self::FieldSyntax => "a header field is malformed; expected NAME: VALUE on one line",
            Self::Version => "the HTTP version is not supported; expected HTTP/1.1 or HTTP/1.0",
            Self::MethodRefused => "TRACE and CONNECT are not accepted",
            Self::MethodUnknown => "the method is unknown; expected GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS",
            Self::Target => "the request target is malformed; expected an absolute path",
            Self::Host => "expected exactly one valid Host field",
            Self::AuthorityMismatch => "the authority of the request target differs from the Host field",
            Self::ContentLength => "Content-Length is malformed or repeated; expected one decimal number",
            Self::TransferEncoding => "Transfer-Encoding must be exactly one `chunked`, on HTTP/1.1",
            Self::LengthAndEncoding => "Content-Length and Transfer-Encoding must not appear together",
            Self::BodyNotAllowed => "a GET or HEAD request must not have a body",
            Self::Expectation => "the only expectation understood is 100-continue",
            Self::Nomination => "the Connection field nominates a field that must not be removed",
            Self::WebSocket => "WebSocket is not supported by this proxy",
            Self::Loop => "the request has already passed through this proxy",
            Self::ChunkSyntax => "the chunked request body is malformed; expected a hexadecimal size, CRLF, data, CRLF",
            Self::ChunkExtension => "the chunk extensions of the request body are too long",
            Self::TrailerTooLong => "the trailer section of the request body is too long or malformed",
        }
    }
}

/// An incremental search for the end of one head.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadEnd {
    /// Everything before is checked.
    checked: usize,
    /// Where the line under way begins.
    line: usize,
    /// Complete lines so far, the one empty line before a request line not counted.
    lines: u32,
    led: bool,
}

impl HeadEnd {
    /// A search that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at what has been received since the head began; `Some(n)`: the head is the first `n` bytes, its empty line
    /// included.
    ///
    /// # Errors
    /// A byte that no head may contain, or more bytes than a head may have.
    pub fn find(&mut self, received: &[u8]) -> Result<Option<usize>, Reject> {
        while let Some(found) = memchr3(b'\r', b'\n', 0, &received[self.checked..]) {
            let at = self.checked + found;
            match received[at] {
                0 => return Err(Reject::NulByte),
                b'\n' => return Err(Reject::BareLineBreak),
                _ => {}
            }
            let Some(next) = received.get(at + 1) else {
                self.checked = at;
                return self.within_limits(received.len()).map(|()| None);
            };
            if *next != b'\n' {
                return Err(Reject::BareLineBreak);
            }
            self.checked = at + 2;
            if at == self.line {
                if self.lines > 0 {
                    self.within_limits(self.checked)?;
                    return Ok(Some(self.checked));
                }
                if std::mem::replace(&mut self.led, true) {
                    return Err(Reject::RequestLine);
                }
            } else {
                self.lines += 1;
                if self.lines == 1 && at - self.line > REQUEST_LINE_LIMIT {
                    return Err(Reject::RequestLineTooLong);
                }
            }
            self.line = self.checked;
        }
        self.checked = received.len();
        self.within_limits(received.len()).map(|()| None)
    }

    fn within_limits(&self, received: usize) -> Result<(), Reject> {
        if self.lines == 0 && received - self.line > REQUEST_LINE_LIMIT + 2 {
            return Err(Reject::RequestLineTooLong);
        }
        if received > HEAD_LIMIT { Err(Reject::HeadTooLong) } else { Ok(()) }
    }
}

/// A typical client sends about 1 KiB; long cookies and bearer tokens fit many times.
const HEAD_LIMIT: usize = 64 * 1024;
const REQUEST_LINE_LIMIT: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\nx: y\r\n\r\n";

    #[test]
    fn a_head_is_found_whole_and_byte_by_byte() {
        assert_eq!(HeadEnd::new().find(GOOD), Ok(Some(GOOD.len())));
        let mut end = HeadEnd::new();
        for n in 0..GOOD.len() {
            assert_eq!(end.find(&GOOD[..n]), Ok(None), "{n}");
        }
        assert_eq!(end.find(GOOD), Ok(Some(GOOD.len())));
    }

    #[test]
    fn what_follows_the_head_is_not_looked_at() {
        let with_body = [GOOD, b"\n\0bare"].concat();
        assert_eq!(HeadEnd::new().find(&with_body), Ok(Some(GOOD.len())));
    }

    #[test]
    fn bare_line_breaks_and_nul_are_refused_at_once() {
        assert_eq!(HeadEnd::new().find(b"GET / HTTP/1.1\n"), Err(Reject::BareLineBreak));
        assert_eq!(HeadEnd::new().find(b"GET / HTTP/1.1\r\nA: b\rc"), Err(Reject::BareLineBreak));
        assert_eq!(HeadEnd::new().find(b"GET /\0"), Err(Reject::NulByte));
    }

    #[test]
    fn one_empty_line_may_precede_a_request_line_and_two_not() {
        let led = [b"\r\n", GOOD].concat();
        assert_eq!(HeadEnd::new().find(&led), Ok(Some(led.len())));
        assert_eq!(HeadEnd::new().find(b"\r\n\r\nGET"), Err(Reject::RequestLine));
    }

    #[test]
    fn long_heads_are_refused_before_they_end() {
        assert_eq!(HeadEnd::new().find(&vec![b'a'; 8 * 1024 + 3]), Err(Reject::RequestLineTooLong));
        let line = |n: usize| ["a".repeat(n).as_bytes(), &GOOD[14..]].concat();
        assert_eq!(HeadEnd::new().find(&line(8 * 1024 + 1)), Err(Reject::RequestLineTooLong), "in one read");
        assert!(HeadEnd::new().find(&line(8 * 1024)).is_ok());
        let mut long = b"GET / HTTP/1.1\r\nx: ".to_vec();
        long.resize(64 * 1024, b'a');
        assert_eq!(HeadEnd::new().find(&long), Ok(None));
        long.push(b'a');
        assert_eq!(HeadEnd::new().find(&long), Err(Reject::HeadTooLong));
    }
}
