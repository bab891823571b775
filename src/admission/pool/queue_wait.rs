//! The guard of a queued request: it resolves to a permit or a refusal.

use std::task::{Context, Poll};

use super::backends::Pool;
use super::parts::{Arc, BackendId, Timestamp};
use super::permit::Permit;
use super::refused::Refused;
use super::waiter::{WaitVerdict, Waiter};

/// A queued request. Dropping it leaves the queue at once, and a request that left is never dispatched.
#[derive(Debug)]
pub struct QueueWait {
    pool: Arc<Pool>,
    waiter: Waiter,
    home: BackendId,
    /// The verdict was taken.
    resolved: bool,
}

impl QueueWait {
    pub(super) fn new(pool: Arc<Pool>, waiter: Waiter, home: BackendId) -> Self {
        Self { pool, waiter, home, resolved: false }
    }

    /// The backend whose queue it entered first.
    pub fn home(&self) -> BackendId {
        self.home
    }

    /// Ready when it is dispatched or refused.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Permit, Refused>> {
        match self.waiter.poll(cx) {
            None => Poll::Pending,
            Some(verdict) => Poll::Ready(self.resolve(verdict)),
        }
    }

    /// Its own timer expired at `now`. `Ok` if it was dispatched just before.
    pub fn expire(mut self, now: Timestamp) -> Result<Permit, Refused> {
        let verdict = self.pool.expire(&self.waiter, now);
        self.resolve(verdict)
    }

    fn resolve(&mut self, verdict: WaitVerdict) -> Result<Permit, Refused> {
        self.resolved = true;
        match verdict {
            WaitVerdict::Dispatched(backend, slot) => Ok(Permit::new(self.pool.clone(), backend, slot)),
            WaitVerdict::Refused(refused) => Err(refused),
        }
    }
}

impl Drop for QueueWait {
    fn drop(&mut self) {
        if !self.resolved {
            self.pool.leave(&self.waiter);
        }
    }
}
