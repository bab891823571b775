//! An answer that is held back until it is whole: a stream from the engine, one JSON document for the client.
//!
//! The tap sees the stream as it comes. What is held is charged to the process's budget. How the pieces fit is
//! `wire::reassemble`'s.

use std::sync::Arc;

use super::tap::Tap;
use crate::http1::{BadAnswer, Relay, Unfinished};
use crate::proxy::budget::{Budget, Charge};
use crate::proxy::end::Break;
use crate::vocabulary::time::Timestamp;
use crate::wire::Dialect;
use crate::wire::reassemble::{Assembler, ReassemblyFault};

/// A stream that is being put together.
pub struct Assembling {
    relay: Relay,
    assembler: Option<Assembler>,
    /// Status line and fields that the client gets.
    head: Vec<u8>,
    /// The engine sent a date, and an id.
    has: (bool, bool),
    charge: Charge,
}

impl Assembling {
    /// For a stream in `dialect` behind `head`; `None`: that one cannot be put together.
    pub fn new(dialect: Dialect, relay: Relay, head: Vec<u8>, has: (bool, bool), memory: &Arc<Budget>) -> Option<Self> {
        let assembler = Some(Assembler::new(dialect)?);
        Some(Self { relay, assembler, head, has, charge: Charge::new(memory) })
    }

    /// Takes one read, and says how much of it belonged to the answer.
    pub fn feed(&mut self, at: Timestamp, read: &[u8], tap: &mut Tap) -> Result<usize, Break> {
        let Self { relay, assembler, charge, .. } = self;
        let mut fits = true;
        let mut unsent = Vec::new();
        let fed = relay.feed(read, &mut unsent, |payload| {
            tap.scan(at, payload);
            // The pieces, and the answer that is written from them in the end.
            fits &= charge.add(2 * payload.len());
            if let Some(assembler) = assembler.as_mut().filter(|_| fits) {
                assembler.feed(payload);
            }
        });
        // Want of memory first: what follows it was not read.
        if !fits {
            return Err(Break::Memory);
        }
        Ok(fed?.used)
    }

    /// The engine closed its side: that must be the body's proper end.
    pub fn on_eof(&mut self) -> Result<(), Unfinished> {
        self.relay.closed(&mut Vec::new()).map(|_| ())
    }

    /// The framed end was reached.
    pub fn has_ended(&self) -> bool {
        self.relay.ended()
    }

    /// The body into `out`, and its status: the engine's own, or that of an error in the middle of its stream.
    pub fn complete(&mut self, out: &mut Vec<u8>) -> Result<u16, BadAnswer> {
        match self.assembler.take().ok_or(BadAnswer::Stream)?.finish() {
            Ok(body) => {
                *out = body;
                Ok(200)
            }
            Err(ReassemblyFault::Said { status, body }) => {
                *out = body;
                Ok(status)
            }
            Err(ReassemblyFault::Broken) => Err(BadAnswer::Stream),
        }
    }

    /// Status line and fields into `out`: the engine's, but of a JSON document.
    pub fn head(&self, out: &mut Vec<u8>, status: u16) {
        let mut lines = self.head.split_inclusive(|b| *b == b'\n');
        let first = lines.next().unwrap_or_default();
        if status == 200 {
            out.extend_from_slice(first);
        } else {
            out.extend_from_slice(format!("HTTP/1.1 {status} Engine Error\r\n").as_bytes());
        }
        let is_type = |line: &[u8]| line.get(..TYPE.len()).is_some_and(|name| name.eq_ignore_ascii_case(TYPE));
        lines.filter(|line| !is_type(line)).for_each(|line| out.extend_from_slice(line));
        out.extend_from_slice(b"content-type: application/json\r\n");
    }

    /// Whether the engine sent a date, and an id.
    pub fn has(&self) -> (bool, bool) {
        self.has
    }
}

const TYPE: &[u8] = b"content-type:";
