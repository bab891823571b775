//! A request's body, held whole until it is dispatched: a slot of the engine is asked for only when the body is complete,
//! and a retry needs every byte again.
//!
//! Pieces of at most 64 KiB, charged to the process's budget as they arrive; a long prompt is copied once.

use std::sync::Arc;

use super::budget::{Budget, Charge};

/// The body so far.
pub struct Held {
    pieces: Vec<Vec<u8>>,
    len: usize,
    limit: usize,
    charge: Charge,
}

/// Why the body cannot be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooMuch {
    /// Longer than `limits.max_body`: the client's fault, 413.
    Body,
    /// The process's budget is spent: ours, 503.
    Memory,
}

impl Held {
    /// An empty body that may grow to `limit` bytes.
    pub fn new(limit: usize, budget: &Arc<Budget>) -> Self {
        Self { pieces: Vec::new(), len: 0, limit, charge: Charge::new(budget) }
    }

    /// Appends a copy of `bytes`.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), TooMuch> {
        if bytes.len() > self.limit.saturating_sub(self.len) {
            return Err(TooMuch::Body);
        }
        if !self.charge.add(bytes.len()) {
            return Err(TooMuch::Memory);
        }
        self.len += bytes.len();
        while !bytes.is_empty() {
            let room = self.pieces.last().map_or(0, |piece| PIECE - piece.len());
            if room == 0 {
                self.pieces.push(Vec::new());
                continue;
            }
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            if let Some(piece) = self.pieces.last_mut() {
                piece.extend_from_slice(now);
            }
            bytes = later;
        }
        Ok(())
    }

    /// Bytes held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Frees the body and gives its charge back.
    pub fn clear(&mut self) {
        self.pieces = Vec::new();
        self.charge.subtract(self.len);
        self.len = 0;
    }

    /// The pieces in order.
    pub fn pieces(&self) -> &[Vec<u8>] {
        &self.pieces
    }
}

/// Large enough that a typical prompt is one piece, which leaves with the head in one write.
pub(super) const PIECE: usize = 64 * 1024;
