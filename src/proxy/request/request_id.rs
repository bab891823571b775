//! What a request is called in `x-request-id`, by its client or by us.

use std::fmt;

/// A valid request id: 1 to 128 token characters.
#[derive(Clone, PartialEq, Eq)]
pub enum RequestId {
    /// The client's own.
    Given(Box<[u8]>),
    /// Made here.
    Made(MadeId),
}

/// `weir-`, 16 digits that differ between processes and workers, `-`, and the worker's count, all hexadecimal; in place, because
/// one is made for nearly every request.
#[derive(Clone, PartialEq, Eq)]
pub struct MadeId {
    text: [u8; MADE],
    length: u8,
}

impl RequestId {
    /// Number `n` of the worker whose seed is `seed`.
    pub fn make(seed: u64, n: u64) -> Self {
        let mut text = [b'-'; MADE];
        text[..5].copy_from_slice(b"weir-");
        put_hex(&mut text[5..21], seed);
        let digits = (u64::BITS - n.leading_zeros()).div_ceil(4).max(1) as usize;
        put_hex(&mut text[22..22 + digits], n);
        Self::Made(MadeId { text, length: (22 + digits) as u8 })
    }

    /// The id as it is sent.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Given(text) => text,
            Self::Made(MadeId { text, length }) => &text[..usize::from(*length)],
        }
    }

    /// The id that weir adds to the request, because the client sent none.
    pub fn made(&self) -> Option<&[u8]> {
        matches!(self, Self::Made(_)).then(|| self.as_bytes())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Token characters are ASCII.
        f.write_str(std::str::from_utf8(self.as_bytes()).unwrap_or_default())
    }
}

/// The low digits of `n`, as many as there are places.
fn put_hex(places: &mut [u8], mut n: u64) {
    for place in places.iter_mut().rev() {
        *place = b"0123456789abcdef"[(n & 15) as usize];
        n >>= 4;
    }
}

const MADE: usize = 5 + 16 + 1 + 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_id_is_what_formatting_would_make_of_it() {
        for (seed, n) in [(0, 0), (1, 0xf), (u64::MAX, 0x10), (0x0123_4567_89ab_cdef, u64::MAX), (7, 1 << 63)] {
            let id = RequestId::make(seed, n);
            assert_eq!(id.to_string(), format!("weir-{seed:016x}-{n:x}"));
            assert_eq!(id.made(), Some(id.as_bytes()));
        }
        assert_eq!(RequestId::Given(b"r-1".as_slice().into()).made(), None);
    }
}
