//! A pull-less JSON reader: bytes are pushed in as they come, cut anywhere, and a `Grammar` gets the few members it knows.
//!
//! No recursion, no tree, no allocation: a `Walker` holds a fixed number of bytes, for a token that a read cuts. Bulk
//! (prompts, log-probabilities, repeated texts) costs no more than a search. A document that breaks the syntax breaks the
//! walk, and the caller finds out; it is never an error for the relay. What is skipped is not judged: brackets are
//! counted there, not matched, and text is not checked for UTF-8 anywhere (a client's decoder would put U+FFFD).

mod escape;
mod held;
mod number;
mod search;
mod skip;
mod walker;

pub(super) use walker::Walker;

/// A position in a grammar: what a member means. `SKIP` is everything that means nothing.
pub(super) type Node = u8;

/// Nothing below is looked at.
pub(super) const SKIP: Node = 0;
/// The document's own object, or each object of a document that is an array.
pub(super) const ROOT: Node = 1;

/// A value that is not a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar<'a> {
    Null,
    Bool(bool),
    /// A whole number that fits; every other number is `None`.
    Number(Option<u64>),
    /// A string: its length in bytes once unescaped, and as many of its first bytes, unescaped, as were wanted.
    Text {
        length: u64,
        start: &'a [u8],
    },
}

/// Gets what was found.
pub(super) trait Grammar {
    /// What member `key` of an object at `parent` is. The key is unescaped; its value follows.
    fn member(&mut self, parent: Node, key: &[u8]) -> Node;
    /// What an element of an array at `parent` is.
    fn element(&self, parent: Node) -> Node;
    /// A container opens at `node`.
    fn open(&mut self, node: Node, array: bool);
    /// The container at `node` closes.
    fn close(&mut self, node: Node);
    /// A scalar at `node`.
    fn scalar(&mut self, node: Node, value: Scalar<'_>);
    /// How many of the first bytes of the text at `node` are wanted.
    fn wants(&self, node: Node) -> usize;
}
