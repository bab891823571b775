//! A pull-less JSON walker: bytes are pushed in as they come, cut anywhere, and a `Grammar` hears the few members it knows.
//!
//! No recursion and no tree. Containers that the grammar does not know are skipped by counting brackets, strings by
//! searching for their end, so bulk (prompts, log-probabilities, repeated texts) costs no more than a search. Memory is
//! constant: only a key or a wanted value that a read cuts is held, up to a bound. A document that breaks the syntax
//! breaks the walk, and whoever asked finds out; it is never an error for the relay.

use memchr::memchr2;

/// A place in a grammar: what a member means. `SKIP` is everything that means nothing.
pub(super) type Node = u8;

/// Nothing below is looked at.
pub(super) const SKIP: Node = 0;
/// The document's own object.
pub(super) const ROOT: Node = 1;

/// A value that is not a container.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scalar<'a> {
    Null,
    Bool(bool),
    /// A whole number that fits; every other number is `None`.
    Number(Option<u64>),
    /// A string: its length in bytes once unescaped, and its bytes as written (escapes included), if they were wanted and
    /// did not exceed the bound.
    Text {
        length: usize,
        raw: Option<&'a [u8]>,
    },
}

/// Who hears what was found.
pub(super) trait Grammar {
    /// What member `key` of an object at `parent` is. The key is unescaped.
    fn member(&self, parent: Node, key: &[u8]) -> Node;
    /// What an element of an array at `parent` is.
    fn element(&self, parent: Node) -> Node;
    /// A container opens at `node`.
    fn open(&mut self, node: Node, array: bool);
    /// The container at `node` closes.
    fn close(&mut self, node: Node);
    /// A scalar at `node`.
    fn scalar(&mut self, node: Node, value: Scalar<'_>);
    /// The text at `node` is wanted, up to this many bytes as written.
    fn wants(&self, node: Node) -> usize;
    /// Scalars that are elements of the array at `node` are counted one by one, whatever they are.
    fn counts(&self, _node: Node) -> bool {
        false
    }
}

/// The state of one walk.
#[derive(Debug, Default)]
pub(super) struct Walker {
    state: State,
    depth: u8,
    arrays: u32,
    nodes: [Node; DEPTH],
    /// What the value under way is.
    node: Node,
    /// Open brackets of a container that is skipped.
    skipped: u32,
    escape: Escape,
    /// The string under way is skipped over inside a skipped container.
    in_skipped: bool,
    /// Unescaped bytes of the string under way.
    length: usize,
    /// What of a token earlier reads held.
    held: Vec<u8>,
    overlong: bool,
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
    InKey,
    Colon,
    InText,
    InBare,
    /// After a value: `,` or a closing bracket.
    After,
    Skipping,
    Ended,
    Broken,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    /// After a backslash.
    Open,
}

impl Walker {
    /// Ready for another document.
    pub fn reset(&mut self) {
        self.state = State::Value;
        self.depth = 0;
        self.escape = Escape::None;
        self.length = 0;
        self.overlong = false;
        self.release();
    }

    /// A whole document was seen, and nothing but white space behind it.
    pub fn ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Walks over `bytes`.
    pub fn feed<G: Grammar>(&mut self, mut bytes: &[u8], grammar: &mut G) {
        while !bytes.is_empty() && self.state != State::Broken {
            let used = match self.state {
                State::InKey => self.text(bytes, KEY_LIMIT, grammar, true),
                State::InText => {
                    let wanted = if self.in_skipped { 0 } else { grammar.wants(self.node) };
                    self.text(bytes, wanted, grammar, false)
                }
                State::InBare => self.bare(bytes, grammar),
                State::Skipping => self.skip(bytes),
                _ => self.mark(bytes, grammar),
            };
            bytes = &bytes[used..];
        }
    }

    /// One structural byte, white space before it included.
    fn mark<G: Grammar>(&mut self, bytes: &[u8], grammar: &mut G) -> usize {
        let Some(at) = bytes.iter().position(|b| !matches!(b, b' ' | b'\n' | b'\t' | b'\r')) else {
            return bytes.len();
        };
        let b = bytes[at];
        match (self.state, b) {
            (State::FirstKey | State::Key, b'"') => self.begin(State::InKey),
            (State::FirstKey, b'}') | (State::FirstElement, b']') => self.close(grammar),
            (State::Colon, b':') => self.state = State::Value,
            (State::After, b',') if self.depth > 0 => {
                self.state = if self.in_array() { State::Value } else { State::Key };
                if self.in_array() {
                    self.node = grammar.element(self.parent());
                }
            }
            (State::After, b'}') if self.depth > 0 && !self.in_array() => self.close(grammar),
            (State::After, b']') if self.depth > 0 && self.in_array() => self.close(grammar),
            (State::Value | State::FirstElement, b'{' | b'[') => self.open(b == b'[', grammar),
            (State::Value | State::FirstElement, b'"') => self.begin(State::InText),
            (State::Value | State::FirstElement, b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
                self.begin(State::InBare);
                return at;
            }
            _ => self.state = State::Broken,
        }
        at + 1
    }

    fn begin(&mut self, state: State) {
        self.state = state;
        self.length = 0;
        self.escape = Escape::None;
        self.overlong = false;
    }

    fn open<G: Grammar>(&mut self, array: bool, grammar: &mut G) {
        let node = if self.depth == 0 { ROOT } else { self.node };
        if node == SKIP || usize::from(self.depth) == DEPTH {
            self.skipped = 1;
            self.state = State::Skipping;
            return;
        }
        let bit = 1 << self.depth;
        self.arrays = if array { self.arrays | bit } else { self.arrays & !bit };
        self.nodes[usize::from(self.depth)] = node;
        self.depth += 1;
        grammar.open(node, array);
        if array {
            self.node = grammar.element(node);
            self.state = State::FirstElement;
        } else {
            self.state = State::FirstKey;
        }
    }

    fn close<G: Grammar>(&mut self, grammar: &mut G) {
        let node = self.parent();
        self.depth -= 1;
        grammar.close(node);
        self.after();
    }

    fn after(&mut self) {
        self.state = if self.depth == 0 { State::Ended } else { State::After };
    }

    /// A string's bytes, up to and with its closing quote.
    fn text<G: Grammar>(&mut self, bytes: &[u8], wanted: usize, grammar: &mut G, key: bool) -> usize {
        let mut at = 0;
        loop {
            if self.escape == Escape::Open {
                let Some(b) = bytes.get(at) else { break };
                // `\uXXXX` is six bytes for at most three; every other escape is two for one.
                self.length += if *b == b'u' { 0 } else { 1 };
                self.length -= if *b == b'u' { self.length.min(1) } else { 0 };
                self.escape = Escape::None;
                at += 1;
                continue;
            }
            match memchr2(b'"', b'\\', &bytes[at..]) {
                None => {
                    self.length += bytes.len() - at;
                    at = bytes.len();
                    break;
                }
                Some(n) if bytes[at + n] == b'\\' => {
                    self.length += n;
                    self.escape = Escape::Open;
                    at += n + 1;
                }
                Some(n) => {
                    self.length += n;
                    at += n;
                    self.end_text(&bytes[..at], wanted, grammar, key);
                    return at + 1;
                }
            }
        }
        self.hold(bytes, wanted);
        at
    }

    fn end_text<G: Grammar>(&mut self, last: &[u8], wanted: usize, grammar: &mut G, key: bool) {
        if self.in_skipped {
            self.in_skipped = false;
            self.state = State::Skipping;
            return;
        }
        let whole = self.held.len() + last.len();
        let known = !self.overlong && whole <= wanted;
        if !self.held.is_empty() && known {
            self.held.extend_from_slice(last);
        }
        let held = std::mem::take(&mut self.held);
        let raw = if held.is_empty() { last } else { &held[..] };
        if key {
            self.node = if known { self.member(raw, grammar) } else { SKIP };
            self.state = State::Colon;
        } else {
            let raw = known.then_some(raw);
            self.tell(Scalar::Text { length: self.length, raw }, grammar);
        }
    }

    fn member<G: Grammar>(&self, raw: &[u8], grammar: &G) -> Node {
        let parent = self.parent();
        if !raw.contains(&b'\\') {
            return grammar.member(parent, raw);
        }
        let mut unescaped = Vec::new();
        unescape(raw, &mut unescaped, KEY_LIMIT);
        grammar.member(parent, &unescaped)
    }

    /// A number or a word.
    fn bare<G: Grammar>(&mut self, bytes: &[u8], grammar: &mut G) -> usize {
        let end = bytes.iter().position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')));
        let Some(end) = end else {
            self.hold(bytes, BARE_LIMIT);
            return bytes.len();
        };
        if self.held.is_empty() && !self.overlong {
            self.end_bare(&bytes[..end], grammar);
        } else {
            self.hold(&bytes[..end], BARE_LIMIT);
            let held = std::mem::take(&mut self.held);
            self.end_bare(&held, grammar);
        }
        end
    }

    fn end_bare<G: Grammar>(&mut self, token: &[u8], grammar: &mut G) {
        let value = match token {
            b"null" => Scalar::Null,
            b"true" => Scalar::Bool(true),
            b"false" => Scalar::Bool(false),
            _ if self.overlong => Scalar::Number(None),
            [b'-' | b'0'..=b'9', ..] if is_number(token) => {
                Scalar::Number(std::str::from_utf8(token).ok().and_then(|digits| digits.parse().ok()))
            }
            _ => {
                self.state = State::Broken;
                return;
            }
        };
        self.tell(value, grammar);
    }

    fn tell<G: Grammar>(&mut self, value: Scalar<'_>, grammar: &mut G) {
        if self.depth > 0 && (self.node != SKIP || grammar.counts(self.parent())) {
            grammar.scalar(self.node, value);
        }
        self.after();
    }

    /// Inside a container that means nothing: brackets are counted, strings searched through.
    fn skip(&mut self, bytes: &[u8]) -> usize {
        for (at, b) in bytes.iter().enumerate() {
            match b {
                b'"' => {
                    self.begin(State::InText);
                    self.in_skipped = true;
                    return at + 1;
                }
                b'{' | b'[' => self.skipped = self.skipped.saturating_add(1),
                b'}' | b']' => {
                    self.skipped -= 1;
                    if self.skipped == 0 {
                        self.after();
                        return at + 1;
                    }
                }
                _ => {}
            }
        }
        bytes.len()
    }

    /// Keeps a token that a read cut, up to `limit` bytes.
    fn hold(&mut self, bytes: &[u8], limit: usize) {
        if self.overlong || self.held.len() + bytes.len() > limit {
            self.overlong = true;
            self.release();
        } else {
            self.held.extend_from_slice(bytes);
        }
    }

    fn release(&mut self) {
        if self.held.capacity() > 0 {
            self.held = Vec::new();
        }
    }

    fn parent(&self) -> Node {
        self.depth.checked_sub(1).map_or(SKIP, |top| self.nodes[usize::from(top)])
    }

    fn in_array(&self) -> bool {
        self.depth > 0 && self.arrays & (1 << (self.depth - 1)) != 0
    }
}

/// Appends the unescaped text of `raw` to `out`, at most `limit` bytes of it. What cannot be unescaped (a lone surrogate,
/// a cut or unknown escape, bytes that are not UTF-8) becomes U+FFFD.
pub(super) fn unescape(raw: &[u8], out: &mut Vec<u8>, limit: usize) {
    let mut rest = raw;
    while let Some((b, after)) = rest.split_first() {
        rest = after;
        if *b != b'\\' {
            out.push(*b);
        } else {
            let (c, used) = escaped(rest);
            rest = &rest[used..];
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        if out.len() >= limit {
            break;
        }
    }
}

/// The character behind a backslash, and how many bytes name it.
fn escaped(rest: &[u8]) -> (char, usize) {
    match rest.first() {
        Some(b'n') => ('\n', 1),
        Some(b't') => ('\t', 1),
        Some(b'r') => ('\r', 1),
        Some(b'b') => ('\u{8}', 1),
        Some(b'f') => ('\u{c}', 1),
        Some(b @ (b'"' | b'\\' | b'/')) => (char::from(*b), 1),
        Some(b'u') => match (unit(&rest[1..]), rest.get(5..7), rest.get(7..).and_then(unit)) {
            (Some(high @ 0xd800..=0xdbff), Some(b"\\u"), Some(low @ 0xdc00..=0xdfff)) => {
                let code = 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 11)
            }
            (Some(code), ..) => (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 5),
            (None, ..) => (char::REPLACEMENT_CHARACTER, 1),
        },
        Some(_) => (char::REPLACEMENT_CHARACTER, 1),
        None => (char::REPLACEMENT_CHARACTER, 0),
    }
}

fn unit(digits: &[u8]) -> Option<u32> {
    let digits = digits.get(..4)?;
    digits.iter().try_fold(0, |sum, b| Some(sum << 4 | char::from(*b).to_digit(16)?))
}

/// The number grammar of RFC 8259, 6.
fn is_number(token: &[u8]) -> bool {
    let digits = |bytes: &[u8]| bytes.iter().take_while(|b| b.is_ascii_digit()).count();
    let rest = token.strip_prefix(b"-").unwrap_or(token);
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest[0] == b'0') {
        return false;
    }
    let mut rest = &rest[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let n = digits(fraction);
        if n == 0 {
            return false;
        }
        rest = &fraction[n..];
    }
    match rest.split_first() {
        None => true,
        Some((b'e' | b'E', exponent)) => {
            let exponent = exponent.strip_prefix(b"+").or(exponent.strip_prefix(b"-")).unwrap_or(exponent);
            !exponent.is_empty() && digits(exponent) == exponent.len()
        }
        Some(_) => false,
    }
}

/// Containers that a grammar knows nest no deeper; below this everything is skipped.
const DEPTH: usize = 10;
/// The longest key that any grammar knows, written as `\uXXXX` throughout, and some.
const KEY_LIMIT: usize = 192;
/// The longest number that can still be a whole one of 64 bits.
const BARE_LIMIT: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    /// Knows members `a` (a container or scalar) and `t` (wanted text) everywhere.
    #[derive(Default)]
    struct Heard(Vec<String>);

    impl Grammar for Heard {
        fn member(&self, _: Node, key: &[u8]) -> Node {
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
            self.0.push(format!("{node} {value:?}"));
        }
        fn wants(&self, node: Node) -> usize {
            if node == 3 { 16 } else { 0 }
        }
    }

    fn walk(pieces: &[&[u8]]) -> (Vec<String>, bool) {
        let (mut walker, mut heard) = (Walker::default(), Heard::default());
        pieces.iter().for_each(|piece| walker.feed(piece, &mut heard));
        (heard.0, walker.ended())
    }

    #[test]
    fn known_members_are_heard_and_the_rest_is_skipped() {
        let (heard, ended) = walk(&[br#" {"x":[{"a":"no","]":"}"}],"a":{"a":12},"t":"hi\n","a":[true,null,-1.5e3]} "#]);
        assert!(ended);
        assert_eq!(
            heard,
            [
                "open 1 false",
                "open 2 false",
                "2 Number(Some(12))",
                "close 2",
                "3 Text { length: 3, raw: Some([104, 105, 92, 110]) }",
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
        let text = r#"{"\u0061":"x\"\\\u20ac","skip":{"k":["\"]"]},"t":"abc","a":[1,22,{"a":false}]}"#.as_bytes();
        let whole = walk(&[text]);
        assert!(whole.1);
        for cut in 0..text.len() {
            assert_eq!(walk(&[&text[..cut], &text[cut..]]), whole, "cut at {cut}");
        }
        assert_eq!(walk(&text.chunks(1).collect::<Vec<_>>()), whole);
    }

    #[test]
    fn broken_documents_do_not_end() {
        for bad in ["{", "{\"a\"}", "{\"a\":tru}", "{\"a\":01}", "[1,]", "{,}", "{\"a\":1,}", "}", "nul ", "{\"a\":1}}"]
        {
            assert!(!walk(&[bad.as_bytes(), b" "]).1, "{bad}");
        }
    }

    #[test]
    fn depth_and_length_are_bounded_and_nothing_panics() {
        let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
        assert!(walk(&[&deep]).1);
        let number = [b"{\"a\":".to_vec(), vec![b'9'; 100_000], b"}".to_vec()].concat();
        assert_eq!(walk(&[&number]).0[1], "2 Number(None)");
        let long = [b"{\"t\":\"".to_vec(), vec![b'x'; 100_000], b"\"}".to_vec()].concat();
        let mut walker = Walker::default();
        long.chunks(1000).for_each(|piece| {
            walker.feed(piece, &mut Heard::default());
            assert!(walker.held.capacity() <= 1024);
        });
        assert!(walker.ended());
    }

    #[test]
    fn surrogates_unescape_in_pairs_and_alone_become_the_replacement() {
        let unescaped = |raw: &str| {
            let mut out = Vec::new();
            unescape(raw.as_bytes(), &mut out, 100);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(unescaped(r"a\u20ac\ud83d\ude00\n"), "a\u{20ac}\u{1f600}\n");
        assert_eq!(unescaped(r"\ud83dx\q\u12"), "\u{fffd}x\u{fffd}\u{fffd}12");
    }
}
