//! Where the next byte of interest is. Keys and tokens are short, so eight bytes are tried at a time before memchr's wider
//! registers, whose set-up costs more than a short text.

use memchr::memchr2;

/// The next quote or backslash.
#[inline(always)]
pub(super) fn quote(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < SHORT
        && let Some(word) = bytes[at..].first_chunk::<8>()
    {
        let word = u64::from_le_bytes(*word);
        let hits = zero_bytes(word ^ repeat(b'"')) | zero_bytes(word ^ repeat(b'\\'));
        if hits != 0 {
            return Some(at + first(hits));
        }
        at += 8;
    }
    memchr2(b'"', b'\\', &bytes[at..]).map(|n| at + n)
}

/// The next quote, brace or bracket.
#[inline]
pub(super) fn structure(bytes: &[u8]) -> Option<usize> {
    let of_interest = |b: &u8| matches!(b, b'"' | b'{' | b'}' | b'[' | b']');
    let mut at = 0;
    while let Some(word) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*word);
        // `[`, `]`, `{` and `}` differ in the bits 0x26 only; so do a few letters, which are looked at and passed over.
        let hits = zero_bytes(word ^ repeat(b'"')) | zero_bytes((word | repeat(0x26)) ^ repeat(0x7f));
        if hits != 0 {
            let candidate = at + first(hits);
            if of_interest(&bytes[candidate]) {
                return Some(candidate);
            }
            at = candidate + 1;
        } else {
            at += 8;
        }
    }
    bytes[at..].iter().position(of_interest).map(|n| at + n)
}

/// The high bit of every byte that is zero, exact up to and with the first one ("Bit Twiddling Hacks", haszero).
fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(repeat(0x01)) & !word & repeat(0x80)
}

/// The index of the first byte whose high bit is set; `hits` is not zero.
fn first(hits: u64) -> usize {
    hits.trailing_zeros() as usize / 8
}

const fn repeat(b: u8) -> u64 {
    u64::from_le_bytes([b; 8])
}

/// Beyond this memchr is cheaper.
const SHORT: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_searches_agree_with_a_plain_loop() {
        let mut state = 1_u64;
        for length in 0..200 {
            for _ in 0..20 {
                let mut bytes = Vec::new();
                for _ in 0..length {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let b = (state >> 56) as u8;
                    bytes.push(if state >> 40 & 7 == 0 { b"\"\\{}[]yY"[usize::from(b) % 8] } else { b | 0x01 });
                }
                assert_eq!(quote(&bytes), bytes.iter().position(|b| matches!(b, b'"' | b'\\')));
                let plain = bytes.iter().position(|b| matches!(b, b'"' | b'{' | b'}' | b'[' | b']'));
                assert_eq!(structure(&bytes), plain);
            }
        }
    }
}
