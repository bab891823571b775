//! The walk over one document.

use super::escape::Escape;
use super::held::TokenBuffer;
use super::number::{bare, end_of_bare};
use super::skip::Skip;
use super::{Grammar, Node, ROOT, SKIP, Scalar, search};

/// The state of one walk. `N` is how many bytes of a cut token it can hold, and so of a text it can hand on; no shorter
/// than the longest key that a grammar knows.
#[derive(Debug, Default)]
pub(in crate::wire) struct Walker<const N: usize> {
    state: State,
    depth: u8,
    /// Bit per depth: it is an array.
    arrays: u16,
    nodes: [Node; DEPTH],
    /// The innermost container: what it is, and whether it is an array.
    parent: Node,
    in_array: bool,
    /// What the value under way is.
    node: Node,
    skip: Skip,
    escape: Escape,
    held: TokenBuffer<N>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before a value.
    #[default]
    Value,
    /// After `[`: a value or `]`.
    FirstElement,
    /// After `{`: a key or `}`.
    FirstKey,
    /// After `,` in an object.
    Key,
    Colon,
    /// After a value: `,` or a closing bracket.
    After,
    InKey,
    InText,
    InBare,
    /// In a text or a container that means nothing.
    Skipping,
    Ended,
    Broken,
}

// What is forced inline here is one loop over a document in all but name: called, it costs a sixth more instructions an event.
impl<const N: usize> Walker<N> {
    /// Ready for another document.
    pub fn reset(&mut self) {
        self.state = State::Value;
        self.depth = 0;
        self.recall();
        self.escape = Escape::default();
    }

    /// A whole array or object was seen, and nothing but white space behind it.
    pub fn ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Walks over `bytes`.
    pub fn feed<G: Grammar>(&mut self, mut bytes: &[u8], grammar: &mut G) {
        while let Some((b, rest)) = bytes.split_first() {
            bytes = match (self.state, *b) {
                (State::FirstKey | State::Key, b'"') => self.key(rest, grammar),
                (State::InKey | State::InText, _) => self.text(bytes, grammar),
                (State::InBare, _) => self.bare(bytes, grammar),
                (State::Skipping, _) => self.skip(bytes, grammar),
                (State::Broken, _) => return,
                (state, b) => self.mark(state, b, bytes, rest, grammar),
            };
        }
    }

    /// A byte between tokens.
    fn mark<'a, G: Grammar>(
        &mut self,
        state: State,
        b: u8,
        bytes: &'a [u8],
        rest: &'a [u8],
        grammar: &mut G,
    ) -> &'a [u8] {
        match (state, b) {
            (_, b) if is_white(b) => rest,
            (State::Value | State::FirstElement, b) => self.value(b, bytes, rest, grammar),
            (State::Colon, b':') => self.to(State::Value, rest),
            (State::After, b',') => self.next(rest, grammar),
            (State::FirstKey, b'}') => self.close(false, rest, grammar),
            (State::After, b'}' | b']') => self.close(b == b']', rest, grammar),
            _ => self.to(State::Broken, &[]),
        }
    }

    #[inline(always)]
    fn to<'a>(&mut self, state: State, rest: &'a [u8]) -> &'a [u8] {
        self.state = state;
        rest
    }

    /// A value's first byte, which `bytes` begins with and `rest` follows.
    #[inline(always)]
    fn value<'a, G: Grammar>(&mut self, b: u8, bytes: &'a [u8], rest: &'a [u8], grammar: &mut G) -> &'a [u8] {
        match b {
            // A document that is a lone text, number or word says nothing to anybody.
            _ if self.depth == 0 && !matches!(b, b'{' | b'[') => self.to(State::Broken, &[]),
            b'"' => self.begin_text(rest, grammar),
            b'{' | b'[' => self.open(b == b'[', rest, grammar),
            b']' if self.state == State::FirstElement => self.close(true, rest, grammar),
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => {
                self.state = State::InBare;
                self.held.begin(N);
                self.bare(bytes, grammar)
            }
            _ => self.to(State::Broken, &[]),
        }
    }

    #[inline(always)]
    fn next<'a, G: Grammar>(&mut self, rest: &'a [u8], grammar: &G) -> &'a [u8] {
        if self.in_array {
            self.node = grammar.element(self.parent);
            self.to(State::Value, rest)
        } else {
            self.to(State::Key, rest)
        }
    }

    fn open<'a, G: Grammar>(&mut self, array: bool, rest: &'a [u8], grammar: &mut G) -> &'a [u8] {
        let node = if self.depth == 0 { ROOT } else { self.node };
        if node == SKIP || usize::from(self.depth) == DEPTH {
            self.skip = Skip::container();
            return self.skip(rest, grammar);
        }
        let bit = 1 << self.depth;
        self.arrays = if array { self.arrays | bit } else { self.arrays & !bit };
        self.nodes[usize::from(self.depth)] = node;
        self.depth += 1;
        (self.parent, self.in_array) = (node, array);
        grammar.open(node, array);
        if array {
            self.node = grammar.element(node);
            self.to(State::FirstElement, rest)
        } else {
            self.to(State::FirstKey, rest)
        }
    }

    fn close<'a, G: Grammar>(&mut self, array: bool, rest: &'a [u8], grammar: &mut G) -> &'a [u8] {
        if self.in_array != array {
            return self.to(State::Broken, &[]);
        }
        let node = self.parent;
        self.depth -= 1;
        self.recall();
        grammar.close(node);
        self.after(rest, grammar)
    }

    /// Behind a value; mostly a comma follows at once.
    #[inline(always)]
    fn after<'a, G: Grammar>(&mut self, rest: &'a [u8], grammar: &G) -> &'a [u8] {
        match rest {
            _ if self.depth == 0 => self.to(State::Ended, rest),
            [b',', rest @ ..] => self.next(rest, grammar),
            _ => self.to(State::After, rest),
        }
    }

    /// A key, behind its quote. Most are whole and without escapes: they are looked up where they stand.
    #[inline(always)]
    fn key<'a, G: Grammar>(&mut self, bytes: &'a [u8], grammar: &mut G) -> &'a [u8] {
        match search::quote(bytes) {
            Some(n) if bytes[n] == b'"' => {
                self.node = if n <= N { grammar.member(self.parent, &bytes[..n]) } else { SKIP };
                match &bytes[n + 1..] {
                    [b':', value @ ..] => {
                        self.state = State::Value;
                        match value {
                            [b, rest @ ..] if !is_white(*b) => self.value(*b, value, rest, grammar),
                            _ => value,
                        }
                    }
                    rest => self.to(State::Colon, rest),
                }
            }
            _ => {
                self.held.begin(N);
                self.to(State::InKey, bytes)
            }
        }
    }

    /// A text, behind its quote.
    #[inline(always)]
    fn begin_text<'a, G: Grammar>(&mut self, bytes: &'a [u8], grammar: &mut G) -> &'a [u8] {
        if self.node == SKIP {
            self.skip = Skip::text();
            return self.skip(bytes, grammar);
        }
        let wanted = grammar.wants(self.node).min(N);
        match search::quote(bytes) {
            Some(n) if bytes[n] == b'"' => {
                self.report(Scalar::Text { length: n as u64, start: &bytes[..n.min(wanted)] }, grammar);
                self.after(&bytes[n + 1..], grammar)
            }
            _ => {
                self.held.begin(wanted);
                self.to(State::InText, bytes)
            }
        }
    }

    /// A key or a text that is cut or holds escapes.
    fn text<'a, G: Grammar>(&mut self, mut bytes: &'a [u8], grammar: &mut G) -> &'a [u8] {
        let held = &mut self.held;
        while let Some((b, rest)) = bytes.split_first() {
            if self.escape.is_open() {
                if self.escape.push(*b, |c| held.push_char(c)).is_err() {
                    return self.to(State::Broken, &[]);
                }
                bytes = rest;
                continue;
            }
            let (plain, rest) = bytes.split_at(search::quote(bytes).unwrap_or(bytes.len()));
            if !plain.is_empty() {
                self.escape.settle(|c| held.push_char(c));
                held.push(plain);
            }
            match rest.split_first() {
                Some((b'"', rest)) => {
                    self.escape.settle(|c| held.push_char(c));
                    return self.end_text(rest, grammar);
                }
                Some((_, rest)) => {
                    self.escape.begin();
                    bytes = rest;
                }
                None => bytes = rest,
            }
        }
        bytes
    }

    fn end_text<'a, G: Grammar>(&mut self, rest: &'a [u8], grammar: &mut G) -> &'a [u8] {
        if self.state == State::InKey {
            self.node = self.held.whole().map_or(SKIP, |key| grammar.member(self.parent, key));
            return self.to(State::Colon, rest);
        }
        self.report(Scalar::Text { length: self.held.length(), start: self.held.start() }, grammar);
        self.after(rest, grammar)
    }

    /// A number or a word. It ends with the byte behind it.
    fn bare<'a, G: Grammar>(&mut self, bytes: &'a [u8], grammar: &mut G) -> &'a [u8] {
        let Some(end) = end_of_bare(bytes) else {
            self.held.push(bytes);
            return &[];
        };
        let (token, rest) = bytes.split_at(end);
        if self.node == SKIP {
            return self.after(rest, grammar);
        }
        let value = if self.held.length() == 0 && end <= N {
            bare(token)
        } else {
            self.held.push(token);
            // Too long for a whole number of 64 bits, if not whole.
            self.held.whole().map_or(Some(Scalar::Number(None)), bare)
        };
        let Some(value) = value else { return self.to(State::Broken, &[]) };
        self.report(value, grammar);
        self.after(rest, grammar)
    }

    #[inline(always)]
    fn report<G: Grammar>(&self, value: Scalar<'_>, grammar: &mut G) {
        grammar.scalar(self.node, value);
    }

    #[inline(always)]
    fn skip<'a, G: Grammar>(&mut self, bytes: &'a [u8], grammar: &G) -> &'a [u8] {
        match self.skip.over(bytes) {
            Some(rest) => self.after(rest, grammar),
            None => self.to(State::Skipping, &[]),
        }
    }

    /// The container that `depth` stands for was opened or closed.
    fn recall(&mut self) {
        let top = self.depth.checked_sub(1);
        self.parent = top.map_or(SKIP, |top| self.nodes[usize::from(top)]);
        self.in_array = top.is_some_and(|top| self.arrays & (1 << top) != 0);
    }
}

fn is_white(b: u8) -> bool {
    matches!(b, b' ' | b'\n' | b'\t' | b'\r')
}

/// Containers that a grammar knows nest no deeper; below this everything is skipped.
const DEPTH: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// Knows members `a` (a container or scalar) and `t` (wanted text) everywhere.
    #[derive(Default)]
    struct SeenMembers(Vec<String>);

    impl Grammar for SeenMembers {
        fn member(&mut self, _: Node, key: &[u8]) -> Node {
            match key {
                b"a" => 2,
                b"t" => 3,
                _ => SKIP,
            }
        }
        fn element(&self, _: Node) -> Node {
            2
        }
        fn open(&mut self, node: Node, array: bool) {
            self.0.push(format!("open {node} {array}"));
        }
        fn close(&mut self, node: Node) {
            self.0.push(format!("close {node}"));
        }
        fn scalar(&mut self, node: Node, value: Scalar<'_>) {
            self.0.push(match value {
                Scalar::Text { length, start } => format!("{node} {length} {:?}", String::from_utf8_lossy(start)),
                other => format!("{node} {other:?}"),
            });
        }
        fn wants(&self, node: Node) -> usize {
            if node == 3 { 16 } else { 0 }
        }
    }

    fn walk(pieces: &[&[u8]]) -> (Vec<String>, bool) {
        let (mut walker, mut seen) = (Walker::<64>::default(), SeenMembers::default());
        pieces.iter().for_each(|piece| walker.feed(piece, &mut seen));
        (seen.0, walker.ended())
    }

    #[test]
    fn known_members_are_heard_and_the_rest_is_skipped() {
        let (seen, ended) = walk(&[
            br#" {"x":[{"a":"no\"","]":"}"}],"a":{"a":12},"t":"hi\n","a":[true,null,-1.5e3],"y":"\\","z":"\u12\"" } "#,
        ]);
        assert!(ended);
        assert_eq!(
            seen,
            [
                "open 1 false",
                "open 2 false",
                "2 Number(Some(12))",
                "close 2",
                "3 3 \"hi\\n\"",
                "open 2 true",
                "2 Bool(true)",
                "2 Null",
                "2 Number(None)",
                "close 2",
                "close 1"
            ]
        );
    }

    #[test]
    fn what_is_heard_is_the_same_for_every_cut() {
        let text = r#"{"\u0061":"x\"\\\u20ac","skip":{"k":["\"]\\"]},"k":"\\\"","t":"abc\ud83d\ude00\ud83d","a":[1,22,{"a":false}],"q":12}"#;
        let whole = walk(&[text.as_bytes()]);
        assert!(
            whole.1
                && whole.0.contains(&"2 6 \"\"".to_owned())
                && whole.0.contains(&"3 10 \"abc\u{1f600}\u{fffd}\"".to_owned()),
            "{whole:?}"
        );
        for cut in 0..text.len() {
            let (head, tail) = text.as_bytes().split_at(cut);
            assert_eq!(walk(&[head, tail]), whole, "cut at {cut}");
        }
        assert_eq!(walk(&text.as_bytes().chunks(1).collect::<Vec<_>>()), whole);
    }

    #[test]
    fn broken_documents_do_not_end() {
        for bad in [
            "{",
            "{\"a\"}",
            "{\"a\":tru}",
            "{\"a\":01}",
            "[1,]",
            "{,}",
            "{\"a\":1,}",
            "}",
            "nul ",
            "{\"a\":1}}",
            "1 ",
            "\"a\"",
            "{\"a\":1]",
            "[1}",
            "{\"a\":\"\\q\"}",
            "{\"t\":\"\\u12\"}",
            "{\"a\" 1}",
            "[1 2]",
            "{}{}",
            "",
        ] {
            assert!(!walk(&[bad.as_bytes(), b" "]).1, "{bad}");
        }
    }

    #[test]
    fn a_document_cut_in_the_middle_leaves_no_state() {
        let text = br#"{"k":"","x":[["]"]],"a":[1],"t":"\u0041"}"#;
        let fresh = walk(&text.chunks(1).collect::<Vec<_>>());
        for left in [
            r#"{"t":"\"#,
            r#"{"t":"\ud83d"#,
            r#"{"a":[{"t":"\ud83d\u0"#,
            r#"{"k":"\"#,
            r#"{"k":[["\"#,
            "{\"k\":[[{",
            "[[[1",
            "{\"a\":12",
        ] {
            let (mut walker, mut seen) = (Walker::<64>::default(), SeenMembers::default());
            walker.feed(left.as_bytes(), &mut seen);
            walker.reset();
            seen.0.clear();
            text.chunks(1).for_each(|piece| walker.feed(piece, &mut seen));
            assert_eq!((seen.0, walker.ended()), fresh, "after {left}");
        }
    }

    #[test]
    fn depth_and_length_are_bounded() {
        let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
        assert!(walk(&[&deep]).1);
        let number = [b"{\"a\":".to_vec(), vec![b'9'; 100_000], b"}".to_vec()].concat();
        assert_eq!(walk(&[&number]).0[1], "2 Number(None)");
        let long = [b"{\"t\":\"".to_vec(), vec![b'x'; 100_000], b"\"}".to_vec()].concat();
        assert_eq!(walk(&[&long]).0[1], format!("3 100000 {:?}", "x".repeat(16)));
        let key = [b"{\"".to_vec(), vec![b'a'; 100_000], b"\":1}".to_vec()].concat();
        assert_eq!(walk(&key.chunks(1_000).collect::<Vec<_>>()), (vec!["open 1 false".into(), "close 1".into()], true));
    }
}
