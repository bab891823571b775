//! Over a value that means nothing: its end is searched, nothing of it is judged. Brackets are counted, not matched.

use super::search;

/// How far into such a value the bytes are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Skip {
    /// Open brackets; none where the value is a text.
    open: u32,
    in_text: bool,
    /// The last byte was a backslash.
    escaped: bool,
}

impl Skip {
    /// Behind the first quote of a text.
    pub fn text() -> Self {
        Self { in_text: true, ..Self::default() }
    }

    /// Behind the first bracket of a container.
    pub fn container() -> Self {
        Self { open: 1, ..Self::default() }
    }

    /// What follows the value; `None`: the value goes on.
    #[inline(always)]
    pub fn over<'a>(&mut self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        if self.open > 0 { self.over_container(bytes) } else { self.over_text(bytes) }
    }

    fn over_container<'a>(&mut self, mut bytes: &'a [u8]) -> Option<&'a [u8]> {
        loop {
            if self.in_text {
                bytes = self.over_text(bytes)?;
            }
            let at = search::structure(bytes)?;
            let b = bytes[at];
            bytes = &bytes[at + 1..];
            match b {
                b'"' => self.in_text = true,
                b'{' | b'[' => self.open = self.open.saturating_add(1),
                _ => {
                    self.open -= 1;
                    if self.open == 0 {
                        return Some(bytes);
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn over_text<'a>(&mut self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let mut at = usize::from(!bytes.is_empty() && std::mem::take(&mut self.escaped));
        while let Some(n) = search::quote(&bytes[at..]) {
            at += n + 1;
            if bytes[at - 1] == b'"' {
                self.in_text = false;
                return Some(&bytes[at..]);
            }
            self.escaped = at == bytes.len();
            at = (at + 1).min(bytes.len());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest<'a>(mut skip: Skip, pieces: &[&'a str]) -> Option<&'a str> {
        pieces.iter().find_map(|piece| skip.over(piece.as_bytes())).map(|rest| std::str::from_utf8(rest).unwrap())
    }

    #[test]
    fn a_text_ends_at_its_quote_a_container_at_its_bracket() {
        assert_eq!(rest(Skip::text(), &[r#"a\"b\\",1"#]), Some(",1"));
        assert_eq!(rest(Skip::text(), &[r#"","a""#]), Some(r#","a""#));
        assert_eq!(rest(Skip::container(), &[r#""]}\"[",{"a":[1,"x"]}],2"#]), Some(",2"));
        assert_eq!(rest(Skip::text(), &[r#"a\""#]), None);
        assert_eq!(rest(Skip::container(), &[r#"{"]"}"#]), None);
    }

    #[test]
    fn the_end_is_the_same_for_every_cut() {
        let text = r#""]}\"[",{"a":[1,"x\\"]}]"#;
        for cut in 0..text.len() {
            assert_eq!(
                rest(Skip::container(), &[&text[..cut], &text[cut..], "|"]).map(str::len),
                Some(if cut == text.len() { 1 } else { 0 }),
                "{cut}"
            );
        }
        let bytes: Vec<&str> = (0..text.len()).map(|at| &text[at..=at]).collect();
        assert_eq!(rest(Skip::container(), &bytes), Some(""));
    }
}
