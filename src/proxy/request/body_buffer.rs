//! A request's body, held whole until it is dispatched: a slot of the engine is asked for only when the body is complete,
//! and a retry needs every byte again.
//!
//! Pieces of at most 64 KiB, charged to the process's budget as they arrive; a long prompt is copied once.

use std::sync::Arc;

use crate::proxy::budget::{Budget, Charge};

/// The body so far.
pub struct BodyBuffer {
    /// Those that are full. Most bodies have none.
    full: Vec<Vec<u8>>,
    last: Vec<u8>,
    len: usize,
    limit: usize,
    charge: Charge,
}

/// Why the body cannot be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLimit {
    /// Longer than `limits.max_body`: the client's fault, 413.
    Body,
    /// The process's budget is spent: ours, 503.
    Memory,
}

impl BodyBuffer {
    /// An empty body that may grow to `limit` bytes.
    pub fn new(limit: usize, budget: &Arc<Budget>) -> Self {
        Self { full: Vec::new(), last: Vec::new(), len: 0, limit, charge: Charge::new(budget) }
    }

    /// Appends a copy of `bytes`.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), BodyLimit> {
        if bytes.len() > self.limit.saturating_sub(self.len) {
            return Err(BodyLimit::Body);
        }
        if !self.charge.add(bytes.len()) {
            return Err(BodyLimit::Memory);
        }
        self.len += bytes.len();
        while !bytes.is_empty() {
            if self.last.len() == PIECE {
                self.full.push(std::mem::take(&mut self.last));
            }
            let (now, later) = bytes.split_at(bytes.len().min(PIECE - self.last.len()));
            self.last.extend_from_slice(now);
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
        (self.full, self.last) = (Vec::new(), Vec::new());
        self.charge.subtract(self.len);
        self.len = 0;
    }

    /// The pieces in order; only the last is shorter than `PIECE`.
    pub fn piece(&self, i: usize) -> Option<&[u8]> {
        let last = (i == self.full.len() && !self.last.is_empty()).then_some(&self.last);
        self.full.get(i).or(last).map(Vec::as_slice)
    }
}

/// Large enough that a typical prompt is one piece, which leaves with the head in one write.
pub(in crate::proxy) const PIECE: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_are_the_body_whatever_the_reads_were() {
        let budget = Arc::new(Budget::new(1 << 20));
        for (length, read) in [(0, 1), (1, 1), (PIECE, 1000), (PIECE + 1, PIECE), (3 * PIECE, 5000), (200_000, 200_000)]
        {
            let body: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let mut held = BodyBuffer::new(1 << 20, &budget);
            body.chunks(read).for_each(|part| held.push(part).unwrap());
            let pieces: Vec<_> = (0..).map_while(|i| held.piece(i)).collect();
            assert!(pieces.iter().rev().skip(1).all(|piece| piece.len() == PIECE));
            assert_eq!((pieces.concat(), held.len(), budget.used()), (body, length, length));
            held.clear();
            assert_eq!((held.piece(0), budget.used()), (None, 0));
        }
    }

    #[test]
    fn a_body_over_a_limit_is_refused_and_one_at_it_is_not() {
        let budget = Arc::new(Budget::new(15));
        let mut held = BodyBuffer::new(10, &budget);
        assert_eq!(held.push(&[0; 10]), Ok(()));
        assert_eq!(held.push(&[0; 1]), Err(BodyLimit::Body));
        assert_eq!(BodyBuffer::new(10, &budget).push(&[0; 6]), Err(BodyLimit::Memory));
    }
}
