//! A place at a backend, held until the last byte of the answer.

use std::sync::atomic::Ordering::Relaxed;

use super::backends::Pool;
use super::parts::{Arc, BackendId, Slot, Timestamp};

/// A place at a backend. Dropping it gives the place back, on every path.
#[derive(Debug)]
pub struct Permit {
    pool: Arc<Pool>,
    backend: BackendId,
    hold: Hold,
    /// The queue waits for its first token.
    pending: bool,
    /// Its first token came, and it is read.
    listens: bool,
    suspended: bool,
    begun: bool,
    /// Tokens that the queue has not been told of.
    unreported: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    /// A place in the queue's count.
    Slot(Slot),
    /// Of a request that is not measured.
    Passing,
    /// Given back.
    Nothing,
}

impl Permit {
    pub(super) fn new(pool: Arc<Pool>, backend: BackendId, slot: Slot) -> Self {
        Self::holding(pool, backend, Hold::Slot(slot))
    }

    /// For a request that goes past the lines.
    pub(super) fn passing(pool: Arc<Pool>, backend: BackendId) -> Self {
        pool.shared(backend).passing.fetch_add(1, Relaxed);
        Self::holding(pool, backend, Hold::Passing)
    }

    fn holding(pool: Arc<Pool>, backend: BackendId, hold: Hold) -> Self {
        Self { pool, backend, hold, pending: true, listens: false, suspended: false, begun: false, unreported: 0 }
    }

    /// Whose place it is.
    pub fn backend(&self) -> BackendId {
        self.backend
    }

    /// The first token came: the place no longer counts as pending.
    pub fn on_first_token(&mut self, now: Timestamp) {
        self.no_longer_pending(now);
        self.begun = true;
        self.count_listening();
    }

    /// There will be no first token: the engine does not stream this answer.
    pub fn on_unstreamed(&mut self, now: Timestamp) {
        self.no_longer_pending(now);
    }

    /// So many more tokens of the answer came. The queue learns of them in batches, as it counts a memory of many thousands.
    pub fn on_tokens(&mut self, more: u32) {
        self.unreported = self.unreported.saturating_add(more);
        if self.unreported >= BATCH
            && let Hold::Slot(slot) = self.hold
        {
            self.pool.on_tokens(self.backend, slot, std::mem::take(&mut self.unreported));
        }
    }

    /// The backend itself refused the request, for want of room: others are held back for a while.
    pub fn on_refused(&mut self, now: Timestamp) {
        self.pool.on_refused(self.backend, now);
    }

    /// The backend is not read because the client takes nothing.
    pub fn on_suspended(&mut self) {
        if !std::mem::replace(&mut self.suspended, true) {
            self.count_listening();
        }
    }

    /// The backend is read again.
    pub fn on_resumed(&mut self) {
        if std::mem::take(&mut self.suspended) {
            self.count_listening();
        }
    }

    /// The request is over at `now`. Dropping does the same, without a time to tell.
    pub fn end(mut self, now: Timestamp) {
        self.give_back(Some(now));
    }

    fn no_longer_pending(&mut self, now: Timestamp) {
        if std::mem::take(&mut self.pending)
            && let Hold::Slot(slot) = self.hold
        {
            self.pool.on_first_token(self.backend, slot, now);
        }
    }

    fn give_back(&mut self, now: Option<Timestamp>) {
        self.suspended = true;
        self.count_listening();
        match std::mem::replace(&mut self.hold, Hold::Nothing) {
            Hold::Slot(slot) => self.pool.on_end(self.backend, slot, std::mem::take(&mut self.unreported), now),
            Hold::Passing => _ = self.pool.shared(self.backend).passing.fetch_sub(1, Relaxed),
            Hold::Nothing => {}
        }
    }

    fn count_listening(&mut self) {
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
        self.give_back(None);
    }
}

/// Tokens between two reports.
const BATCH: u32 = 16;
