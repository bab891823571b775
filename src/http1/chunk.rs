//! The chunked coding as a state machine over reads: what each byte is, and whether it may be there.
//!
//! `Chunks` names the parts of a read; `ChunkedBody` takes a request's body out of them, `Relay` carries an answer's body
//! through. Both see the same parts for every cut of the same bytes. Extensions and trailers are checked and left behind.

use std::ops::Range;

use memchr::memchr3;

use super::field::is_token_char;
use super::gate::Reject;
use crate::vocabulary::bad_answer::BadAnswer;

/// One part of a read, as ranges into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ChunkPart {
    /// Bytes of the body.
    Payload(Range<usize>),
    /// Bytes of the CRLF behind a chunk's data.
    Separator(Range<usize>),
    /// A size line is complete. `whole`: it lies in this read from its first byte, and has no extension.
    Size { line: Range<usize>, size: u32, whole: bool },
    /// The last chunk and the trailer section are complete. `whole`: as above, and there is no trailer.
    End { line: Range<usize>, whole: bool },
}

/// Why a coding is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    Syntax,
    Extension,
    Trailer,
}

/// The state between two reads.
#[derive(Clone, Debug)]
pub(super) struct Chunks {
    state: State,
    /// Value of the size line under way.
    size: u32,
    /// Bytes of extensions, in this chunk and in the whole body.
    extension: u32,
    extensions: u32,
    trailer: u32,
    /// The line under way began in an earlier read, or carries something that is left behind.
    held: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the digits of a size line; how many were read.
    Digits(u8),
    Extension,
    SizeLf,
    Data(u32),
    DataCr,
    DataLf,
    /// At the first byte of a trailer line.
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Ended,
}

impl Chunks {
    pub fn new() -> Self {
        Self { state: State::Digits(0), size: 0, extension: 0, extensions: 0, trailer: 0, held: false }
    }

    pub fn ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Between two chunks: a chunk of weir's own may stand here.
    pub fn at_boundary(&self) -> bool {
        self.state == State::Digits(0)
    }

    /// The next part of `read` from `*at` on; `None` when the read is used up or the body has ended.
    pub fn next(&mut self, read: &[u8], at: &mut usize) -> Result<Option<ChunkPart>, Malformed> {
        match self.state {
            State::Data(left) => {
                let n = (left as usize).min(read.len() - *at);
                if n == 0 {
                    return Ok(None);
                }
                let part = *at..*at + n;
                *at = part.end;
                let left = left - n as u32;
                self.state = if left == 0 { State::DataCr } else { State::Data(left) };
                Ok(Some(ChunkPart::Payload(part)))
            }
            State::DataCr | State::DataLf => self.separator(read, at),
            State::Ended => Ok(None),
            _ => self.line(read, at),
        }
    }

    fn separator(&mut self, read: &[u8], at: &mut usize) -> Result<Option<ChunkPart>, Malformed> {
        let from = *at;
        while let Some(b) = read.get(*at) {
            let next = match (self.state, b) {
                (State::DataCr, b'\r') => State::DataLf,
                (State::DataLf, b'\n') => State::Digits(0),
                (State::Digits(_), _) => break,
                _ => return Err(Malformed::Syntax),
            };
            self.state = next;
            *at += 1;
        }
        if self.at_boundary() {
            self.begin_line();
        }
        Ok((from < *at).then_some(ChunkPart::Separator(from..*at)))
    }

    fn begin_line(&mut self) {
        (self.size, self.extension, self.held) = (0, 0, false);
    }

    /// A size line, or the last chunk with its trailer section. Nothing of it is a part before all of it is checked.
    fn line(&mut self, read: &[u8], at: &mut usize) -> Result<Option<ChunkPart>, Malformed> {
        let from = *at;
        while let Some(&b) = read.get(*at) {
            *at += 1;
            match (self.state, b) {
                (State::Digits(n), _) if n < SIZE_DIGITS && b.is_ascii_hexdigit() => {
                    self.size = self.size << 4 | hex(b);
                    self.state = State::Digits(n + 1);
                }
                (State::Digits(1..), b'\r') => self.state = State::SizeLf,
                (State::Digits(1..), b';') => self.extend(State::Extension)?,
                (State::Extension, b'\r') => self.state = State::SizeLf,
                (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => self.extend(State::Extension)?,
                (State::SizeLf, b'\n') if self.size == 0 => self.state = State::TrailerStart,
                (State::SizeLf, b'\n') => {
                    let whole = !std::mem::take(&mut self.held);
                    self.state = State::Data(self.size);
                    return Ok(Some(ChunkPart::Size { line: from..*at, size: self.size, whole }));
                }
                (State::TrailerStart, b'\r') => self.state = State::EndLf,
                (State::TrailerStart, _) if is_token_char(b) => self.trail(State::TrailerName, 1)?,
                (State::TrailerName, b':') => self.trail(State::TrailerValue, 1)?,
                (State::TrailerName, _) if is_token_char(b) => self.trail(State::TrailerName, 1)?,
                (State::TrailerValue, b'\r') => self.trail(State::TrailerLf, 1)?,
                (State::TrailerValue, b'\t' | b' '..=b'~' | 0x80..) => self.trailer_value(read, at)?,
                (State::TrailerLf, b'\n') => self.trail(State::TrailerStart, 1)?,
                (State::EndLf, b'\n') => {
                    self.state = State::Ended;
                    return Ok(Some(ChunkPart::End { line: from..*at, whole: !self.held }));
                }
                (State::TrailerStart | State::TrailerName | State::TrailerValue | State::TrailerLf, _) => {
                    return Err(Malformed::Trailer);
                }
                _ => return Err(Malformed::Syntax),
            }
        }
        self.held |= !self.at_boundary();
        Ok(None)
    }

    fn extend(&mut self, state: State) -> Result<(), Malformed> {
        (self.state, self.held) = (state, true);
        self.extension += 1;
        self.extensions += 1;
        let fits = self.extension <= EXTENSION_LIMIT && self.extensions <= EXTENSIONS_LIMIT;
        if fits { Ok(()) } else { Err(Malformed::Extension) }
    }

    fn trail(&mut self, state: State, bytes: usize) -> Result<(), Malformed> {
        (self.state, self.held) = (state, true);
        self.trailer = self.trailer.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        if self.trailer <= TRAILER_LIMIT { Ok(()) } else { Err(Malformed::Trailer) }
    }

    /// The rest of a value that lies in this read, in one go. One byte of it is consumed already.
    fn trailer_value(&mut self, read: &[u8], at: &mut usize) -> Result<(), Malformed> {
        let rest = &read[*at..];
        let n = memchr3(b'\r', b'\n', 0, rest).unwrap_or(rest.len());
        if rest[..n].iter().any(|b| *b < b' ' && *b != b'\t' || *b == 0x7f) {
            return Err(Malformed::Trailer);
        }
        *at += n;
        self.trail(State::TrailerValue, n + 1)
    }
}

/// A chunked request body on its way into memory.
#[derive(Clone, Debug)]
pub struct ChunkedBody(Chunks);

impl Default for ChunkedBody {
    fn default() -> Self {
        Self(Chunks::new())
    }
}

impl ChunkedBody {
    /// Passes payload to `on_payload` and returns how many bytes of `read` belonged to the body.
    ///
    /// # Errors
    /// Bytes that the coding does not allow, or extensions and trailers beyond their limits.
    pub fn feed(&mut self, read: &[u8], mut on_payload: impl FnMut(&[u8])) -> Result<usize, Reject> {
        let mut at = 0;
        while let Some(part) = self.0.next(read, &mut at).map_err(reject)? {
            if let ChunkPart::Payload(range) = part {
                on_payload(&read[range]);
            }
        }
        Ok(at)
    }

    /// The last chunk and its trailer section were seen.
    pub fn ended(&self) -> bool {
        self.0.ended()
    }
}

fn reject(malformed: Malformed) -> Reject {
    match malformed {
        Malformed::Syntax => Reject::ChunkSyntax,
        Malformed::Extension => Reject::ChunkExtension,
        Malformed::Trailer => Reject::TrailerTooLong,
    }
}

impl From<Malformed> for BadAnswer {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::Syntax => Self::ChunkSyntax,
            Malformed::Extension => Self::ChunkExtension,
            Malformed::Trailer => Self::Trailer,
        }
    }
}

fn hex(b: u8) -> u32 {
    char::from(b).to_digit(16).unwrap_or(0)
}

/// 4 GiB a chunk; more digits are either an attack or a mistake.
const SIZE_DIGITS: u8 = 8;
const EXTENSION_LIMIT: u32 = 256;
const EXTENSIONS_LIMIT: u32 = 4 * 1024;
const TRAILER_LIMIT: u32 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn body(pieces: &[&[u8]]) -> Result<(Vec<u8>, usize, bool), Reject> {
        let (mut chunked, mut out, mut used) = (ChunkedBody::default(), Vec::new(), 0);
        for piece in pieces {
            used += chunked.feed(piece, |payload| out.extend_from_slice(payload))?;
        }
        Ok((out, used, chunked.ended()))
    }

    #[test]
    fn payload_is_the_same_for_every_cut() {
        let coded = b"5\r\nhello\r\n1;ext=\"v\"\r\n!\r\n00A\r\n0123456789\r\n0\r\nx-t: v\r\n\r\nNEXT";
        let whole = body(&[coded]).unwrap();
        assert_eq!(whole, (b"hello!0123456789".to_vec(), coded.len() - 4, true));
        for cut in 0..coded.len() {
            assert_eq!(body(&[&coded[..cut], &coded[cut..]]).unwrap(), whole, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = coded.chunks(1).collect();
        assert_eq!(body(&bytes).unwrap(), whole);
    }

    #[test]
    fn malformed_codings_are_refused() {
        for bad in [
            &b"\r\n"[..],
            b"x\r\n",
            b"5\nhello",
            b"5\r\nhello!",
            b"5\r\nhello\n",
            b"123456789\r\n",
            b"-1\r\n",
            b"0x5\r\n",
            b"5;\n",
            b"5;a\0\r\n",
            b"0\r\n x: folded\r\n",
            b"0\r\nx y: v\r\n",
            b"0\r\nx: a\nb\r\n",
            b"0\r\n\n",
            b" 5\r\n",
            b"5 \r\n",
        ] {
            assert!(body(&[bad]).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let coded = |n: usize| [b"1;".to_vec(), vec![b'e'; n], b"\r\nx\r\n0\r\n\r\n".to_vec()].concat();
        assert!(body(&[&coded(255)]).unwrap().2);
        assert_eq!(body(&[&coded(256)]), Err(Reject::ChunkExtension));
        let many = [b"1;".to_vec(), vec![b'e'; 200], b"\r\nx\r\n".to_vec()].concat().repeat(21);
        assert_eq!(body(&[&many]), Err(Reject::ChunkExtension));
        let trailer = |n: usize| [b"0\r\nx:".to_vec(), vec![b'v'; n], b"\r\n\r\n".to_vec()].concat();
        assert!(body(&[&trailer(65_000)]).unwrap().2);
        assert_eq!(body(&[&trailer(66_000)]), Err(Reject::TrailerTooLong));
    }
}
