//! JSON's escapes, a byte at a time (RFC 8259, 7): `\n`, `\u20ac`, and the pairs of `\u` that make one character.

/// Where in an escape the text stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Escape {
    progress: EscapeProgress,
    /// The first half of a pair, whose second half may follow; 0: none.
    high: u16,
}

#[derive(Clone, Copy, Debug, Default)]
enum EscapeProgress {
    #[default]
    Closed,
    /// Behind the backslash.
    Open,
    /// Behind `\u`: digits still to come, and what they make so far.
    Hex { left: u8, value: u16 },
}

/// What stands behind a backslash is no escape.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoEscape;

impl Escape {
    /// A backslash came.
    pub fn begin(&mut self) {
        self.progress = EscapeProgress::Open;
    }

    /// The next byte belongs to an escape.
    pub fn is_open(self) -> bool {
        !matches!(self.progress, EscapeProgress::Closed)
    }

    /// The next byte of an escape; the character that it ends, if any, goes to `out`.
    pub fn push(&mut self, b: u8, mut out: impl FnMut(char)) -> Result<(), NoEscape> {
        match self.progress {
            EscapeProgress::Open if b == b'u' => self.progress = EscapeProgress::Hex { left: 4, value: 0 },
            EscapeProgress::Open | EscapeProgress::Closed => {
                self.progress = EscapeProgress::Closed;
                let c = simple(b).ok_or(NoEscape)?;
                self.settle(&mut out);
                out(c);
            }
            EscapeProgress::Hex { left, value } => {
                let digit = char::from(b).to_digit(16).and_then(|digit| u16::try_from(digit).ok()).ok_or(NoEscape)?;
                let value = value << 4 | digit;
                if left > 1 {
                    self.progress = EscapeProgress::Hex { left: left - 1, value };
                } else {
                    self.progress = EscapeProgress::Closed;
                    self.unit(value, out);
                }
            }
        }
        Ok(())
    }

    /// Something else than the second half of a pair follows: a first half alone is U+FFFD.
    pub fn settle(&mut self, mut out: impl FnMut(char)) {
        if std::mem::take(&mut self.high) != 0 {
            out(char::REPLACEMENT_CHARACTER);
        }
    }

    /// A UTF-16 code unit.
    fn unit(&mut self, unit: u16, mut out: impl FnMut(char)) {
        match (self.high, unit) {
            (1.., 0xdc00..=0xdfff) => {
                let high = std::mem::take(&mut self.high);
                let code = 0x1_0000 + (u32::from(high - 0xd800) << 10) + u32::from(unit - 0xdc00);
                out(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            (_, 0xd800..=0xdbff) => {
                self.settle(out);
                self.high = unit;
            }
            _ => {
                self.settle(&mut out);
                out(char::from_u32(u32::from(unit)).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
        }
    }
}

/// The character that one byte behind the backslash names.
fn simple(b: u8) -> Option<char> {
    Some(match b {
        b'n' => '\n',
        b't' => '\t',
        b'r' => '\r',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'"' | b'\\' | b'/' => char::from(b),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unescaped(text: &str) -> Result<String, NoEscape> {
        let (mut escape, mut out) = (Escape::default(), String::new());
        for b in text.bytes() {
            match b {
                _ if escape.is_open() => escape.push(b, |c| out.push(c))?,
                b'\\' => escape.begin(),
                _ => {
                    escape.settle(|c| out.push(c));
                    out.push(char::from(b));
                }
            }
        }
        escape.settle(|c| out.push(c));
        Ok(out)
    }

    #[test]
    fn escapes_become_what_they_name() {
        assert_eq!(unescaped(r#"a\n\t\r\b\f\"\\\/b"#).unwrap(), "a\n\t\r\u{8}\u{c}\"\\/b");
        assert_eq!(unescaped(r"\u0041\u20ac\ud83d\ude00x").unwrap(), "A\u{20ac}\u{1f600}x");
    }

    #[test]
    fn half_a_pair_is_the_replacement_and_what_follows_it_stays() {
        assert_eq!(unescaped(r"\ud83dx").unwrap(), "\u{fffd}x");
        assert_eq!(unescaped(r"\ude00x").unwrap(), "\u{fffd}x");
        assert_eq!(unescaped(r"\ud83d\ud83d\ude00").unwrap(), "\u{fffd}\u{1f600}");
        assert_eq!(unescaped(r"\ud83d\n\ud83d").unwrap(), "\u{fffd}\n\u{fffd}");
        assert_eq!(unescaped(r"\ud83d\u0041").unwrap(), "\u{fffd}A");
    }

    #[test]
    fn what_is_no_escape_is_refused() {
        for text in [r"\q", r"\u12g4", r"\x41", r"\U0041"] {
            assert_eq!(unescaped(text), Err(NoEscape), "{text}");
        }
    }
}
