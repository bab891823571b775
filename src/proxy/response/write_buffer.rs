//! Bytes that the client has not taken yet.
//!
//! A list of pieces, each freed as soon as it is written. One vector with a write offset would be reclaimed only when it
//! runs empty, so a client that is slow but never stops would grow it without end. An empty buffer owns no memory, and
//! every byte in it is charged to the process's budget.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::proxy::budget::{Budget, Charge};
use crate::proxy::io::Io;

/// What one exchange still owes its client.
#[derive(Default)]
pub struct WriteBuffer {
    pieces: VecDeque<Vec<u8>>,
    /// Bytes of the front piece that are written already.
    written: usize,
    held: usize,
    charge: Option<Charge>,
}

impl WriteBuffer {
    /// Appends a copy of `bytes`. `false`: the process's budget is spent, and the exchange must end.
    pub fn push(&mut self, budget: &Arc<Budget>, mut bytes: &[u8]) -> bool {
        if bytes.is_empty() {
            return true;
        }
        let charge = self.charge.get_or_insert_with(|| Charge::new(budget));
        if !charge.add(bytes.len()) {
            return false;
        }
        self.held += bytes.len();
        while !bytes.is_empty() {
            let free = self.pieces.back().map_or(0, |piece| PIECE.saturating_sub(piece.len()));
            if free == 0 {
                self.pieces.push_back(Vec::with_capacity(bytes.len().min(PIECE)));
                continue;
            }
            let (now, later) = bytes.split_at(free.min(bytes.len()));
            if let Some(piece) = self.pieces.back_mut() {
                piece.extend_from_slice(now);
            }
            bytes = later;
        }
        true
    }

    /// Writes as much as `to` takes. `Ready` says how many bytes went out before it was empty or `to` would not take more.
    pub fn drain<D: Io>(&mut self, cx: &mut Context<'_>, to: &mut D) -> io::Result<usize> {
        let mut sent = 0;
        while let Some(piece) = self.pieces.front() {
            match to.poll_write(cx, &piece[self.written..]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => {
                    sent += n;
                    self.written += n;
                    if self.written == piece.len() {
                        self.written = 0;
                        self.pieces.pop_front();
                    }
                }
                Poll::Ready(Err(e)) => return Err(e),
                Poll::Pending => break,
            }
        }
        self.held -= sent;
        if self.held == 0 {
            *self = Self::default();
        } else if let Some(charge) = &mut self.charge {
            charge.subtract(sent);
        }
        Ok(sent)
    }

    /// Bytes held.
    pub fn len(&self) -> usize {
        self.held
    }

    /// Nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }
}

/// Size of a piece: one read from the engine.
const PIECE: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes at most `window` bytes a poll, then says it would block.
    struct Narrow {
        window: usize,
        left: usize,
        taken: Vec<u8>,
    }

    impl Io for Narrow {
        fn poll_read(&mut self, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
        fn poll_write(&mut self, _: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
            let n = from.len().min(self.left);
            if n == 0 {
                return Poll::Pending;
            }
            self.left -= n;
            self.taken.extend_from_slice(&from[..n]);
            Poll::Ready(Ok(n))
        }
        fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn reset_on_drop(&mut self) {}
    }

    fn context() -> Context<'static> {
        Context::from_waker(std::task::Waker::noop())
    }

    #[test]
    fn a_slow_but_steady_client_bounds_what_is_held() {
        let budget = Arc::new(Budget::new(1 << 20));
        let mut buffer = WriteBuffer::default();
        let mut client = Narrow { window: 4000, left: 0, taken: Vec::new() };
        let mut sent = Vec::new();
        for i in 0..2000_u32 {
            let chunk = vec![(i % 251) as u8; 4000];
            sent.extend_from_slice(&chunk);
            assert!(buffer.push(&budget, &chunk));
            client.left = client.window;
            buffer.drain(&mut context(), &mut client).unwrap();
            assert!(buffer.pieces.len() <= 2, "pieces are freed one by one");
        }
        client.left = usize::MAX;
        buffer.drain(&mut context(), &mut client).unwrap();
        assert_eq!(client.taken, sent);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_spent_budget_refuses_and_an_unspent_one_does_not() {
        let budget = Arc::new(Budget::new(10));
        let mut buffer = WriteBuffer::default();
        assert!(buffer.push(&budget, &[0; 10]));
        assert!(!buffer.push(&budget, &[0; 1]));
        drop(buffer);
        assert_eq!(budget.used(), 0);
    }
}
