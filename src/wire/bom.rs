//! The byte order mark that may stand at the very start of a body, cut anywhere.

/// How much of a mark was seen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    /// Its bytes so far; [`OVER`]: no mark is possible any more.
    seen: u8,
}

impl Mark {
    /// What of the next bytes is body. Bytes that looked like a mark and are none come first.
    pub fn strip<'a>(&mut self, bytes: &'a [u8]) -> (&'static [u8], &'a [u8]) {
        let mut rest = bytes;
        while self.seen < OVER {
            let Some((b, after)) = rest.split_first() else { return (&[], rest) };
            if *b != BYTE_ORDER_MARK[usize::from(self.seen)] {
                let seen = std::mem::replace(&mut self.seen, OVER);
                return (&BYTE_ORDER_MARK[..usize::from(seen)], rest);
            }
            self.seen += 1;
            rest = after;
        }
        (&[], rest)
    }
}

const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];
const OVER: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(pieces: &[&[u8]]) -> Vec<u8> {
        let mut mark = Mark::default();
        pieces.iter().flat_map(|piece| <[&[u8]; 2]>::from(mark.strip(piece)).concat()).collect()
    }

    #[test]
    fn one_whole_mark_at_the_start_is_dropped_and_nothing_else() {
        for (body, expected) in [
            (&b"\xef\xbb\xbfab"[..], &b"ab"[..]),
            (b"\xef\xbb\xbf\xef\xbb\xbf", b"\xef\xbb\xbf"),
            (b"\xef\xbbab", b"\xef\xbbab"),
            (b"\xef\xef\xbb\xbf", b"\xef\xef\xbb\xbf"),
            (b"ab\xef\xbb\xbf", b"ab\xef\xbb\xbf"),
            (b"", b""),
        ] {
            assert_eq!(stripped(&[body]), expected);
            assert_eq!(stripped(&body.chunks(1).collect::<Vec<_>>()), expected);
        }
    }
}
