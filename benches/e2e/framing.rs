//! Where a message body ends, for both ends of the bench: a length that is counted down, or chunks that are taken apart.
//! Deliberately not weir's own codec: a fault there must show up here as an error and not cancel itself out.
//! Holds no socket.

use std::io;

/// The unfinished part of one body.
#[derive(Debug)]
pub enum Body {
    /// Bytes left.
    Length(usize),
    /// Chunked transfer coding (RFC 9112 section 7.1), and the position in it.
    Chunked(Position),
}

/// A position in the chunked coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// In a size line, with the digits read so far and whether a `;` or CR has ended them.
    Size { value: usize, digits: u8, closed: bool },
    /// In chunk data, bytes left.
    Data(usize),
    /// In the line end behind chunk data, bytes of it left.
    DataEnd(u8),
    /// In the trailer section, bytes seen on this line.
    Trailer(usize),
    /// Behind the terminator.
    Over,
}

impl Body {
    /// A body in chunked coding, from its first byte.
    pub fn chunked() -> Self {
        Body::Chunked(SIZE)
    }

    /// Reads the framing of a parsed head's fields; a message without either field has no body here.
    pub fn of(headers: &[httparse::Header<'_>]) -> io::Result<Self> {
        let field = |name: &str| headers.iter().find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value);
        if let Some(coding) = field("transfer-encoding") {
            return if coding.eq_ignore_ascii_case(b"chunked") { Ok(Body::chunked()) } else { Err(wrong("coding")) };
        }
        let Some(length) = field("content-length") else { return Ok(Body::Length(0)) };
        let length = std::str::from_utf8(length).ok().and_then(|text| text.parse().ok());
        length.map(Body::Length).ok_or_else(|| wrong("content-length"))
    }

    /// Takes from `read` what belongs to this body, appends the payload to `payload`, and returns how many bytes it used.
    pub fn feed(&mut self, read: &[u8], payload: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Body::Length(left) => {
                let taken = read.len().min(*left);
                payload.extend_from_slice(&read[..taken]);
                *left -= taken;
                Ok(taken)
            }
            Body::Chunked(position) => {
                let mut used = 0;
                while used < read.len() && *position != Position::Over {
                    used += position.step(&read[used..], payload)?;
                }
                Ok(used)
            }
        }
    }

    /// Whether the last byte of the body has been fed.
    pub fn ended(&self) -> bool {
        matches!(self, Body::Length(0) | Body::Chunked(Position::Over))
    }
}

impl Position {
    /// Moves over at least one byte of `read`, which is not empty.
    fn step(&mut self, read: &[u8], payload: &mut Vec<u8>) -> io::Result<usize> {
        let byte = read[0];
        *self = match *self {
            Position::Data(left) => {
                let taken = read.len().min(left);
                payload.extend_from_slice(&read[..taken]);
                *self = if taken == left { Position::DataEnd(2) } else { Position::Data(left - taken) };
                return Ok(taken);
            }
            Position::Size { value, digits, closed } => match byte {
                b'\n' if digits == 0 => return Err(wrong("empty size line")),
                b'\n' if value == 0 => Position::Trailer(0),
                b'\n' => Position::Data(value),
                _ if closed || matches!(byte, b'\r' | b';') => Position::Size { value, digits, closed: true },
                _ => Position::Size { value: value * 16 + digit(byte, digits)?, digits: digits + 1, closed },
            },
            Position::DataEnd(2) if byte == b'\r' => Position::DataEnd(1),
            Position::DataEnd(1) if byte == b'\n' => SIZE,
            Position::DataEnd(_) => return Err(wrong("chunk data is longer than its size")),
            Position::Trailer(0) if byte == b'\n' => Position::Over,
            Position::Trailer(_) if byte == b'\n' => Position::Trailer(0),
            Position::Trailer(seen) => Position::Trailer(seen + usize::from(byte != b'\r')),
            Position::Over => Position::Over,
        };
        Ok(1)
    }
}

fn digit(byte: u8, seen: u8) -> io::Result<usize> {
    let value = (byte as char).to_digit(16).filter(|_| seen < LONGEST_SIZE);
    value.map(|v| v as usize).ok_or_else(|| wrong("chunk size"))
}

/// An error that says what is wrong with the framing.
pub fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("bad framing: {what}"))
}

const SIZE: Position = Position::Size { value: 0, digits: 0, closed: false };

/// Eight digits are 4 GiB, far above any chunk of the bench.
const LONGEST_SIZE: u8 = 8;
