//! Where a message body ends, for both ends of the bench: a length that is counted down, or chunks that are taken apart.
//! Deliberately not weir's own codec: a fault there must show up here as an error and not cancel itself out.
//! Holds no socket.

use std::io;

/// The unfinished part of one body.
#[derive(Debug)]
pub enum Body {
    /// So many bytes are still to come.
    Length(usize),
    /// Chunked transfer coding (RFC 9112 section 7.1), and the place in it.
    Chunked(Place),
}

/// A place in the chunked coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
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

    /// Takes from `read` what belongs to this body, appends the payload to `payload`, and says how many bytes it used.
    pub fn feed(&mut self, read: &[u8], payload: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Body::Length(left) => {
                let taken = read.len().min(*left);
                payload.extend_from_slice(&read[..taken]);
                *left -= taken;
                Ok(taken)
            }
            Body::Chunked(place) => {
                let mut used = 0;
                while used < read.len() && *place != Place::Over {
                    used += place.step(&read[used..], payload)?;
                }
                Ok(used)
            }
        }
    }

    /// Whether the last byte of the body has been fed.
    pub fn ended(&self) -> bool {
        matches!(self, Body::Length(0) | Body::Chunked(Place::Over))
    }
}

impl Place {
    /// Moves over at least one byte of `read`, which is not empty.
    fn step(&mut self, read: &[u8], payload: &mut Vec<u8>) -> io::Result<usize> {
        let byte = read[0];
        *self = match *self {
            Place::Data(left) => {
                let taken = read.len().min(left);
                payload.extend_from_slice(&read[..taken]);
                *self = if taken == left { Place::DataEnd(2) } else { Place::Data(left - taken) };
                return Ok(taken);
            }
            Place::Size { value, digits, closed } => match byte {
                b'\n' if digits == 0 => return Err(wrong("empty size line")),
                b'\n' if value == 0 => Place::Trailer(0),
                b'\n' => Place::Data(value),
                _ if closed || matches!(byte, b'\r' | b';') => Place::Size { value, digits, closed: true },
                _ => Place::Size { value: value * 16 + digit(byte, digits)?, digits: digits + 1, closed },
            },
            Place::DataEnd(2) if byte == b'\r' => Place::DataEnd(1),
            Place::DataEnd(1) if byte == b'\n' => SIZE,
            Place::DataEnd(_) => return Err(wrong("chunk data is longer than its size")),
            Place::Trailer(0) if byte == b'\n' => Place::Over,
            Place::Trailer(_) if byte == b'\n' => Place::Trailer(0),
            Place::Trailer(seen) => Place::Trailer(seen + usize::from(byte != b'\r')),
            Place::Over => Place::Over,
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

const SIZE: Place = Place::Size { value: 0, digits: 0, closed: false };

/// Eight digits are 4 GiB, far above any chunk of the bench.
const LONGEST_SIZE: u8 = 8;
