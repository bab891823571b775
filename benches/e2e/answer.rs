//! One answer as the client expects it: 200, a body that ends where its framing says, and in it either the unary JSON or
//! the events in order, `[DONE]`, and nothing more. Bytes in, progress out; holds no socket and no clock.

use std::io;

use crate::event::{Event, UNARY_BODY};
use crate::framing::{Body, wrong};

/// How far an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// More follows.
    Partial,
    /// The whole answer was received and is right.
    Whole,
}

/// An answer under way.
#[derive(Debug)]
pub struct Answer {
    want: Want,
    body: Option<Body>,
    keep_alive: bool,
    payload: Vec<u8>,
}

#[derive(Debug)]
enum Want {
    Unary,
    Events { seen: u64, of: u64, done: bool },
}

impl Answer {
    /// An answer to a request for `chunks` events in a stream, or for one JSON document.
    pub fn expected(stream: bool, chunks: u64) -> Self {
        let want = if stream { Want::Events { seen: 0, of: chunks, done: false } } else { Want::Unary };
        Answer { want, body: None, keep_alive: true, payload: Vec::new() }
    }

    /// Takes what it can from `received`, passes each event's stamp on, with whether it is the first.
    ///
    /// # Errors
    /// The answer is not the expected one; the sentence says how.
    pub fn feed(&mut self, received: &mut Vec<u8>, mut on_event: impl FnMut(u64, bool)) -> io::Result<Progress> {
        if self.body.is_none() && !self.read_head(received)? {
            return Ok(Progress::Partial);
        }
        let Some(body) = &mut self.body else { return Ok(Progress::Partial) };
        let used = body.feed(received, &mut self.payload)?;
        received.drain(..used);
        let ended = body.ended();
        self.read_events(&mut on_event)?;
        if !ended {
            return Ok(Progress::Partial);
        }
        self.check_end(received).map(|()| Progress::Whole)
    }

    /// Whether the head of a stream has come and its end has not.
    pub fn is_open_stream(&self) -> bool {
        matches!(self.want, Want::Events { .. }) && self.body.is_some()
    }

    /// Whether the connection may carry another request.
    pub fn keeps_alive(&self) -> bool {
        self.keep_alive
    }

    fn read_head(&mut self, received: &mut Vec<u8>) -> io::Result<bool> {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut fields);
        let httparse::Status::Complete(len) = response.parse(received).map_err(|_| wrong("response head"))? else {
            return Ok(false);
        };
        let status = response.code.unwrap_or(0);
        if status != 200 {
            return Err(io::Error::other(format!("status {status}")));
        }
        let closes = |h: &httparse::Header<'_>| {
            h.name.eq_ignore_ascii_case("connection") && h.value.eq_ignore_ascii_case(b"close")
        };
        self.keep_alive = !response.headers.iter().any(closes);
        self.body = Some(Body::of(response.headers)?);
        received.drain(..len);
        Ok(true)
    }

    fn read_events(&mut self, on_event: &mut impl FnMut(u64, bool)) -> io::Result<()> {
        let Want::Events { seen, of, done } = &mut self.want else { return Ok(()) };
        let mut from = 0;
        while let Some(len) = memchr::memmem::find(&self.payload[from..], b"\n\n") {
            match Event::read(&self.payload[from..from + len]) {
                Event::Content { stamp, index } if index == Event::index_of(*seen) && !*done => {
                    *seen += 1;
                    on_event(stamp, *seen == 1);
                }
                Event::Content { index, .. } => return Err(io::Error::other(format!("event {index} out of order"))),
                Event::Done if *seen == *of && !*done => *done = true,
                Event::Done => return Err(io::Error::other(format!("[DONE] after {seen} of {of} events"))),
                Event::Strange => return Err(io::Error::other("an event that was never sent")),
            }
            from += len + 2;
        }
        self.payload.drain(..from);
        Ok(())
    }

    fn check_end(&mut self, surplus: &[u8]) -> io::Result<()> {
        let right = match self.want {
            Want::Unary => {
                self.payload.len() == UNARY_BODY && self.payload.trim_ascii_end().ends_with(b"\"total_tokens\":16}}")
            }
            Want::Events { done, .. } => done && self.payload.is_empty(),
        };
        match (right, surplus.is_empty()) {
            (true, true) => Ok(()),
            (false, _) => Err(io::Error::other("the body ended early or says something else")),
            (true, false) => Err(io::Error::other("bytes behind the answer's end")),
        }
    }
}
