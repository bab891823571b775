//! The text of a token: a pseudo word of one to three syllables, the same for the same request, choice and position.
//!
//! Lower-case ASCII only, so it needs no escaping in JSON and every token has at least one visible character.

use bytes::{BufMut, BytesMut};

/// Writes the word of one token; all but the first of a choice begin with a space.
pub fn put_word(out: &mut BytesMut, request: u64, choice: u32, index: u32) {
    let mut bits = scramble(request ^ (u64::from(choice) << 48) ^ (u64::from(index) << 24));
    if index > 0 {
        out.put_u8(b' ');
    }
    let syllables = 1 + bits % 3;
    bits /= 3;
    for _ in 0..syllables {
        out.put_u8(CONSONANTS[(bits % 16) as usize]);
        out.put_u8(VOWELS[(bits / 16 % 4) as usize]);
        bits /= 64;
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): neighbouring inputs give unrelated outputs.
fn scramble(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

const CONSONANTS: [u8; 16] = *b"bdfghklmnprstvwz";
const VOWELS: [u8; 4] = *b"aeio";

#[cfg(test)]
mod tests {
    use super::*;

    fn word(request: u64, choice: u32, index: u32) -> String {
        let mut out = BytesMut::new();
        put_word(&mut out, request, choice, index);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn the_same_token_has_the_same_word() {
        assert_eq!(word(3, 0, 7), word(3, 0, 7));
        let distinct: std::collections::HashSet<_> = (0..50).map(|index| word(3, 0, index)).collect();
        assert!(distinct.len() > 40, "{distinct:?}");
    }

    #[test]
    fn words_are_plain_and_separated() {
        assert!(!word(1, 0, 0).starts_with(' '));
        assert!((1..100).all(|index| word(1, 2, index).starts_with(' ')));
        assert!((0..100).all(|index| (2..=7).contains(&word(9, 1, index).len())));
    }
}
