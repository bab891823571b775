//! Server-sent events taken apart (WHATWG HTML, 9.2.6): which bytes are payload, and where an event ends.
//!
//! Line ends are LF, CRLF and lone CR, mixed. A CR ends its line at once and an LF that follows is swallowed, also in the
//! next read: waiting for it would delay the event. Nothing is held; a line may have any length. What a payload means is
//! not known here, and the only field beside `data` that is read is the event's name, and only for being `error`.

use memchr::memchr2;

/// Where in a stream of events the bytes stand.
#[derive(Debug, Default)]
pub(super) struct Sse {
    line: SseLine,
    /// The byte before was a CR, whose LF may follow.
    after_cr: bool,
    /// The event under way has a field.
    open: bool,
    has_data: bool,
    error: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum SseLine {
    #[default]
    Start,
    /// In the name of a field, which so far is this many bytes of it.
    Name(Field, u8),
    /// Behind the colon, where one space is dropped.
    Space(Field),
    Data,
    /// In the event's name, which so far is this many bytes of `error`; `None`: it is another one.
    Event(Option<u8>),
    /// A comment, or a field that means nothing here.
    Ignored,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Data,
    Event,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SsePiece<'a> {
    /// Some payload, not empty.
    Data(&'a [u8]),
    /// A line feed of the payload: it has several lines.
    Join,
    /// The event is whole. One without data is not reported.
    End {
        /// It is named `error`.
        error: bool,
    },
}

impl Sse {
    /// Nothing of an event is under way.
    pub fn at_event_boundary(&self) -> bool {
        matches!(self.line, SseLine::Start) && !self.open
    }

    /// The event under way has data and is named `error`.
    pub fn is_error(&self) -> bool {
        self.has_data && self.error
    }

    /// The next piece of `bytes`, which is shortened by it. `None` once nothing is left.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<SsePiece<'a>> {
        loop {
            let (b, rest) = bytes.split_first()?;
            if std::mem::take(&mut self.after_cr) && *b == b'\n' {
                *bytes = rest;
                continue;
            }
            let piece = match self.line {
                SseLine::Start => self.start(*b, bytes),
                SseLine::Name(field, matched) => self.name(field, matched, *b, bytes),
                SseLine::Space(field) => {
                    *bytes = if *b == b' ' { rest } else { bytes };
                    self.line = match field {
                        Field::Data => SseLine::Data,
                        Field::Event => SseLine::Event(Some(0)),
                    };
                    None
                }
                SseLine::Data | SseLine::Event(_) | SseLine::Ignored => self.value(bytes),
            };
            if piece.is_some() {
                return piece;
            }
        }
    }

    fn start<'a>(&mut self, b: u8, bytes: &mut &'a [u8]) -> Option<SsePiece<'a>> {
        if let Some(rest) = bytes.strip_prefix(b"data:") {
            *bytes = rest;
            return self.begin(Field::Data);
        }
        match b {
            b'\n' | b'\r' => {
                *bytes = &bytes[1..];
                self.after_cr = b == b'\r';
                self.blank()
            }
            b':' => self.to(SseLine::Ignored),
            b'd' => self.to(SseLine::Name(Field::Data, 0)),
            b'e' => self.to(SseLine::Name(Field::Event, 0)),
            _ => {
                self.open = true;
                self.to(SseLine::Ignored)
            }
        }
    }

    /// A blank line ends the event.
    fn blank<'a>(&mut self) -> Option<SsePiece<'a>> {
        self.open = false;
        let error = std::mem::take(&mut self.error);
        std::mem::take(&mut self.has_data).then_some(SsePiece::End { error })
    }

    fn name<'a>(&mut self, field: Field, matched: u8, b: u8, bytes: &mut &'a [u8]) -> Option<SsePiece<'a>> {
        self.open = true;
        let name = field.name();
        match (name.get(usize::from(matched)), b) {
            (Some(expected), b) if *expected == b => {
                *bytes = &bytes[1..];
                self.to(SseLine::Name(field, matched + 1))
            }
            (None, b':') => {
                *bytes = &bytes[1..];
                self.begin(field)
            }
            // A name without a colon is the field with an empty value.
            (None, b'\n' | b'\r') => {
                let piece = self.begin(field);
                self.line = field.value();
                piece
            }
            _ => self.to(SseLine::Ignored),
        }
    }

    fn begin<'a>(&mut self, field: Field) -> Option<SsePiece<'a>> {
        self.open = true;
        self.line = SseLine::Space(field);
        match field {
            Field::Data => std::mem::replace(&mut self.has_data, true).then_some(SsePiece::Join),
            // The last name counts.
            Field::Event => {
                self.error = false;
                None
            }
        }
    }

    /// The value of a field, or a comment, up to and with the end of its line.
    fn value<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<SsePiece<'a>> {
        let (part, rest) = bytes.split_at(memchr2(b'\n', b'\r', bytes).unwrap_or(bytes.len()));
        let line = self.line;
        if let SseLine::Event(matched) = line {
            self.line = SseLine::Event(matched.and_then(|matched| matches_on(ERROR, matched, part)));
        }
        match rest.split_first() {
            None => *bytes = rest,
            Some((b, rest)) => {
                self.after_cr = *b == b'\r';
                if let SseLine::Event(matched) = self.line {
                    self.error = matched.map(usize::from) == Some(ERROR.len());
                }
                self.line = SseLine::Start;
                *bytes = rest;
            }
        }
        (line == SseLine::Data && !part.is_empty()).then_some(SsePiece::Data(part))
    }

    fn to<'a>(&mut self, line: SseLine) -> Option<SsePiece<'a>> {
        self.line = line;
        None
    }
}

impl Field {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Data => b"data",
            Self::Event => b"event",
        }
    }

    fn value(self) -> SseLine {
        match self {
            Self::Data => SseLine::Data,
            Self::Event => SseLine::Event(Some(0)),
        }
    }
}

/// How many bytes of `expected` match once `part` follows the first `matched`; `None`: it is something else.
fn matches_on(expected: &[u8], matched: u8, part: &[u8]) -> Option<u8> {
    expected[usize::from(matched)..].starts_with(part).then(|| matched + u8::try_from(part.len()).unwrap_or(0))
}

const ERROR: &[u8] = b"error";

#[cfg(test)]
mod tests {
    use super::*;

    /// Payloads and whether their event is named `error`; and how the stream stands then.
    fn events(pieces: &[&[u8]]) -> (Vec<(String, bool)>, bool) {
        let (mut sse, mut events, mut payload) = (Sse::default(), Vec::new(), Vec::new());
        for piece in pieces {
            let mut bytes = *piece;
            while let Some(piece) = sse.next(&mut bytes) {
                match piece {
                    SsePiece::Data(part) => payload.extend_from_slice(part),
                    SsePiece::Join => payload.push(b'\n'),
                    SsePiece::End { error } => {
                        events.push((String::from_utf8(std::mem::take(&mut payload)).unwrap(), error));
                    }
                }
            }
            assert!(bytes.is_empty());
        }
        (events, sse.at_event_boundary())
    }

    fn check(stream: &str, expected: &[(&str, bool)], boundary: bool) {
        let expected = (expected.iter().map(|(text, error)| ((*text).to_owned(), *error)).collect(), boundary);
        assert_eq!(events(&[stream.as_bytes()]), expected, "{stream:?}");
        assert_eq!(events(&stream.as_bytes().chunks(1).collect::<Vec<_>>()), expected, "{stream:?} byte by byte");
        for cut in 0..stream.len() {
            let (head, tail) = stream.as_bytes().split_at(cut);
            assert_eq!(events(&[head, tail]), expected, "{stream:?} cut at {cut}");
        }
    }

    #[test]
    fn lines_end_in_three_ways() {
        check(
            "data: a\n\ndata: b\r\n\r\ndata: c\r\rdata: d\r\n\n",
            &["a", "b", "c", "d"].map(|text| (text, false)),
            true,
        );
    }

    #[test]
    fn one_space_is_dropped_and_lines_are_joined() {
        check("data:  a\ndata:b\ndata\ndata:\n\n", &[(" a\nb\n\n", false)], true);
        check("data\n\n", &[("", false)], true);
    }

    #[test]
    fn other_fields_and_comments_are_no_payload() {
        check(": data: x\nid: 1\nretry: 5\ndatax: y\ndat: z\n data: q\nevent\nd\ne\n\n", &[], true);
        check("id: 1\ndata: a\nfoo\n\n", &[("a", false)], true);
    }

    #[test]
    fn an_event_named_error_says_so_and_others_do_not() {
        check("event: error\ndata: x\n\n", &[("x", true)], true);
        check("data: x\nevent:error\n\ndata: y\n\n", &[("x", true), ("y", false)], true);
        check("event: error\n\ndata: y\n\n", &[("y", false)], true);
        for name in ["errors", "err", "Error", " error", "", "message"] {
            check(&format!("event: {name}\ndata: x\n\n"), &[("x", false)], true);
        }
        check("event: error\nevent: ping\ndata: x\n\n", &[("x", false)], true);
        check("event: error\nevent\ndata: x\n\n", &[("x", false)], true);
    }

    #[test]
    fn a_boundary_is_behind_a_blank_line_or_a_comment() {
        check("data: a\n\n: ping\n", &[("a", false)], true);
        for open in ["d", "data: a", "data: a\n", "event: x\n", "id: 1\n", ": pi", "data: a\n: c\n"] {
            check(open, &[], false);
        }
    }
}
