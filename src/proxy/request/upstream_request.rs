//! The request as it leaves for a backend: one head, then the held body.
//!
//! A body of up to one piece leaves in the same write as its head. The bytes are kept until the first byte of an answer,
//! because only until then can a retry be considered.

use std::borrow::Cow;
use std::task::{Context, Poll};

use super::body_buffer::{BodyBuffer, BodyLimit, PIECE};
use crate::http1::finish_request_head;
use crate::proxy::io::Io;

/// A request to be written, from its first byte again if need be.
pub struct UpstreamRequest {
    head: Vec<u8>,
    /// Where the part of the head ends that is the same for every backend.
    common: usize,
    /// Length of the prefix that stands before the path.
    prefixed: usize,
    body: BodyBuffer,
    /// Next buffer to write: 0 is `head`, then the body's pieces that are not inside `head`.
    buffer: usize,
    offset: usize,
    whole_in_head: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Writing,
    Written,
    /// Writing failed or became pointless; what the backend has is not the whole request.
    Abandoned,
}

impl UpstreamRequest {
    /// A request whose rewritten head, without Host and framing, is `head`.
    pub fn new(head: Vec<u8>, body: BodyBuffer) -> Self {
        let common = head.len();
        Self { head, common, prefixed: 0, body, buffer: 0, offset: 0, whole_in_head: false, state: State::Writing }
    }

    /// Appends to the body.
    ///
    /// # Errors
    /// See `BodyBuffer::push`.
    pub fn hold(&mut self, bytes: &[u8]) -> Result<(), BodyLimit> {
        self.body.push(bytes)
    }

    /// Bytes of the body.
    pub fn body_len(&self) -> usize {
        self.body.len()
    }

    /// The whole body in one piece.
    pub fn body(&self) -> Cow<'_, [u8]> {
        match (self.body.piece(0), self.body.piece(1)) {
            (first, None) => Cow::Borrowed(first.unwrap_or_default()),
            _ => Cow::Owned((0..).map_while(|i| self.body.piece(i)).flatten().copied().collect()),
        }
    }

    /// Replaces the body that the client sent.
    ///
    /// # Errors
    /// See `BodyBuffer::push`; the body is then not whole.
    pub fn replace_body(&mut self, body: &[u8]) -> Result<(), BodyLimit> {
        self.body.clear();
        self.body.push(body)
    }

    /// Completes the head for one backend and begins at the first byte. `prefix` is put before the path.
    pub fn address(&mut self, prefix: &str, host: &[u8], made_id: Option<&[u8]>, has_length: bool) {
        self.head.truncate(self.common);
        self.put_prefix(prefix);
        let length = has_length.then_some(self.body.len() as u64);
        finish_request_head(&mut self.head, host, made_id, length);
        self.whole_in_head = self.body.len() <= PIECE;
        if self.whole_in_head {
            self.head.extend_from_slice(self.body.piece(0).unwrap_or_default());
        }
        (self.buffer, self.offset, self.state) = (0, 0, State::Writing);
    }

    /// Only a target that is a path takes a prefix: `OPTIONS *` asks the server as a whole.
    fn put_prefix(&mut self, prefix: &str) {
        if prefix.is_empty() && self.prefixed == 0 {
            return;
        }
        let target = self.head.iter().position(|b| *b == b' ').map_or(0, |blank| blank + 1);
        self.head.drain(target..target + self.prefixed);
        let fits = self.head.get(target) == Some(&b'/');
        self.prefixed = if fits { prefix.len() } else { 0 };
        if self.prefixed > 0 {
            self.head.splice(target..target, prefix.bytes());
        }
        self.common = self.head.len();
    }

    /// Writes what `to` takes. Says whether anything moved. An error abandons the writing: the answer decides.
    pub fn push<U: Io>(&mut self, cx: &mut Context<'_>, to: &mut U) -> bool {
        let mut moved = false;
        while let Some(part) = self.part() {
            match to.poll_write(cx, part) {
                Poll::Ready(Ok(n)) if n > 0 => {
                    moved = true;
                    self.advance(n);
                }
                Poll::Ready(_) => {
                    self.state = State::Abandoned;
                    return true;
                }
                Poll::Pending => return moved,
            }
        }
        match to.poll_flush(cx) {
            Poll::Ready(Ok(())) => self.state = State::Written,
            Poll::Ready(Err(_)) => self.state = State::Abandoned,
            Poll::Pending => return moved,
        }
        true
    }

    /// Nothing is left to be written, or it has become pointless.
    pub fn is_settled(&self) -> bool {
        self.state != State::Writing
    }

    /// Every byte went out.
    pub fn is_written(&self) -> bool {
        self.state == State::Written
    }

    /// The final answer came: the rest of the request is not wanted.
    pub fn stop(&mut self) {
        if self.state == State::Writing {
            self.state = State::Abandoned;
        }
    }

    /// An answer has begun: no retry can come any more, so what is written need not be kept.
    pub fn release(&mut self) {
        if self.is_settled() {
            self.head = Vec::new();
            self.body.clear();
        }
    }

    fn part(&self) -> Option<&[u8]> {
        let buffer = match self.buffer.checked_sub(1) {
            None => &self.head[..],
            Some(_) if self.whole_in_head => return None,
            Some(i) => self.body.piece(i)?,
        };
        Some(&buffer[self.offset..])
    }

    fn advance(&mut self, n: usize) {
        self.offset += n;
        if self.part().is_some_and(<[u8]>::is_empty) {
            (self.buffer, self.offset) = (self.buffer + 1, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::budget::Budget;
    use std::sync::Arc;

    #[test]
    fn each_backends_prefix_takes_the_place_of_the_one_before() {
        let head = |line: &str, prefixes: &[&str]| {
            let mut upstream_request =
                UpstreamRequest::new(line.as_bytes().to_vec(), BodyBuffer::new(0, &Arc::new(Budget::new(0))));
            prefixes.iter().for_each(|prefix| upstream_request.address(prefix, b"h", None, true));
            String::from_utf8(upstream_request.head).unwrap()
        };
        let rest = "host: h\r\ncontent-length: 0\r\n\r\n";
        for (prefixes, path) in
            [(&["/a"][..], "/a/x"), (&["/a", "/long"], "/long/x"), (&["/a", ""], "/x"), (&[""], "/x")]
        {
            assert_eq!(head("POST /x HTTP/1.1\r\n", prefixes), format!("POST {path} HTTP/1.1\r\n{rest}"));
        }
        assert_eq!(head("OPTIONS * HTTP/1.1\r\n", &["/a"]), format!("OPTIONS * HTTP/1.1\r\n{rest}"));
    }
}
