//! The guard that holds a slot at a backend until the last byte of the answer.

use std::sync::atomic::Ordering::Relaxed;

use super::backends::Pool;
use super::parts::{Arc, BackendId, Slot, Timestamp};

/// A slot at a backend. Dropping it releases the slot, on every path.
#[derive(Debug)]
pub struct Permit {
    pool: Arc<Pool>,
    backend: BackendId,
    held: PermitHold,
    /// Its first token has not been reported yet.
    pending: bool,
    /// It is counted in `listening`.
    listens: bool,
    suspended: bool,
    /// Its first token arrived.
    begun: bool,
    /// Tokens not yet reported to the queue.
    unreported: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PermitHold {
    Slot(Slot),
    /// A request that is not measured; the queue does not count it.
    Unmeasured,
    Released,
}

impl Permit {
    pub(super) fn new(pool: Arc<Pool>, backend: BackendId, slot: Slot) -> Self {
        Self::holding(pool, backend, PermitHold::Slot(slot))
    }

    /// For a request that bypasses the queues.
    pub(super) fn unmeasured(pool: Arc<Pool>, backend: BackendId) -> Self {
        pool.shared(backend).unmeasured.fetch_add(1, Relaxed);
        Self::holding(pool, backend, PermitHold::Unmeasured)
    }

    fn holding(pool: Arc<Pool>, backend: BackendId, held: PermitHold) -> Self {
        Self { pool, backend, held, pending: true, listens: false, suspended: false, begun: false, unreported: 0 }
    }

    /// The backend that serves the request.
    pub fn backend(&self) -> BackendId {
        self.backend
    }

    /// The first token arrived: the request is no longer pending.
    pub fn on_first_token(&mut self, now: Timestamp) {
        self.stop_pending(now);
        self.begun = true;
        self.update_listening();
    }

    /// There will be no first token: the engine does not stream this answer.
    pub fn on_unstreamed(&mut self, now: Timestamp) {
        self.stop_pending(now);
    }

    /// `more` tokens of the answer arrived. They are reported in batches: the queue counts context in thousands of tokens.
    pub fn on_tokens(&mut self, more: u32) {
        self.unreported = self.unreported.saturating_add(more);
        if self.unreported >= BATCH
            && let PermitHold::Slot(slot) = self.held
        {
            self.pool.on_tokens(self.backend, slot, std::mem::take(&mut self.unreported));
        }
    }

    /// The backend itself refused the request for lack of capacity: its concurrency is limited for a while.
    pub fn on_refused(&mut self, now: Timestamp) {
        self.pool.on_refused(self.backend, now);
    }

    /// The backend is not read because the client accepts no bytes.
    pub fn on_suspended(&mut self) {
        if !std::mem::replace(&mut self.suspended, true) {
            self.update_listening();
        }
    }

    /// The backend is read again.
    pub fn on_resumed(&mut self) {
        if std::mem::take(&mut self.suspended) {
            self.update_listening();
        }
    }

    /// The request ended at `now`. Dropping does the same, at the latest time the pool knows.
    pub fn end(mut self, now: Timestamp) {
        self.release(Some(now));
    }

    fn stop_pending(&mut self, now: Timestamp) {
        if std::mem::take(&mut self.pending)
            && let PermitHold::Slot(slot) = self.held
        {
            self.pool.on_first_token(self.backend, slot, now);
        }
    }

    fn release(&mut self, now: Option<Timestamp>) {
        self.suspended = true;
        self.update_listening();
        match std::mem::replace(&mut self.held, PermitHold::Released) {
            PermitHold::Slot(slot) => self.pool.on_end(self.backend, slot, std::mem::take(&mut self.unreported), now),
            PermitHold::Unmeasured => _ = self.pool.shared(self.backend).unmeasured.fetch_sub(1, Relaxed),
            PermitHold::Released => {}
        }
    }

    fn update_listening(&mut self) {
        let listens = self.begun && !self.suspended;
        let count = &self.pool.shared(self.backend).listening;
        match (std::mem::replace(&mut self.listens, listens), listens) {
            (false, true) => _ = count.fetch_add(1, Relaxed),
            (true, false) => _ = count.fetch_sub(1, Relaxed),
            _ => {}
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.release(None);
    }
}

/// Tokens between two reports.
const BATCH: u32 = 16;
