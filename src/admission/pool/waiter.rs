//! A request that waits for its turn: a place in some queue, and where the verdict is put.
//!
//! The verdict is put into the seat under the pool's lock and the seat's own; the waker is called after both are free. Whoever
//! polls takes the seat's lock alone, so that a verdict that comes between a look and the sleep finds the waker or is found.

use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};

use super::backends::{Pool, Refused};
use super::parts::{Arc, BackendId, Mutex, Slot, Ticket, Timestamp};
use super::permit::Permit;

/// What rides along in a queue.
pub(super) type Waiter = Arc<WaiterCell>;

/// One who waits. Dropping it leaves the queue at once: what is dropped is never dispatched.
#[derive(Debug)]
pub struct QueueWait {
    pool: Arc<Pool>,
    seat: Waiter,
    home: BackendId,
    /// The verdict was taken.
    called: bool,
}

/// Where a verdict is put.
#[derive(Debug)]
pub(super) struct WaiterCell(Mutex<State>);

#[derive(Debug)]
struct State {
    /// In which queue it stands; changes under the pool's lock only.
    at: Option<(BackendId, Ticket)>,
    verdict: Option<WaitVerdict>,
    waker: Option<Waker>,
}

/// What became of one who waited.
#[derive(Clone, Copy, Debug)]
pub(super) enum WaitVerdict {
    Go(BackendId, Slot),
    Refused(Refused),
}

impl QueueWait {
    pub(super) fn new(pool: Arc<Pool>, seat: Waiter, home: BackendId) -> Self {
        Self { pool, seat, home, called: false }
    }

    /// In whose queue it was put first.
    pub fn home(&self) -> BackendId {
        self.home
    }

    /// Its turn, or that it will have none.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Permit, Refused>> {
        match self.seat.poll(cx) {
            None => Poll::Pending,
            Some(verdict) => Poll::Ready(self.take(verdict)),
        }
    }

    /// Its own timer ran out at `now`. `Ok`: its turn had come already.
    pub fn expire(mut self, now: Timestamp) -> Result<Permit, Refused> {
        let verdict = self.pool.expire(&self.seat, now);
        self.take(verdict)
    }

    fn take(&mut self, verdict: WaitVerdict) -> Result<Permit, Refused> {
        self.called = true;
        match verdict {
            WaitVerdict::Go(backend, slot) => Ok(Permit::new(self.pool.clone(), backend, slot)),
            WaitVerdict::Refused(refused) => Err(refused),
        }
    }
}

impl Drop for QueueWait {
    fn drop(&mut self) {
        if !self.called {
            self.pool.leave(&self.seat);
        }
    }
}

impl WaiterCell {
    pub fn new() -> Waiter {
        Arc::new(Self(Mutex::new(State { at: None, verdict: None, waker: None })))
    }

    /// It stands in this queue now.
    pub fn stand(&self, backend: BackendId, ticket: Ticket) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).at = Some((backend, ticket));
    }

    /// In which queue it stands.
    pub fn at(&self) -> Option<(BackendId, Ticket)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).at
    }

    /// Puts the verdict down; the waker is to be called when no lock is held.
    pub fn call(&self, verdict: WaitVerdict) -> Option<Waker> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (state.at, state.verdict) = (None, Some(verdict));
        state.waker.take()
    }

    /// The verdict, if it is there.
    pub fn verdict(&self) -> Option<WaitVerdict> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).verdict.take()
    }

    fn poll(&self, cx: &mut Context<'_>) -> Option<WaitVerdict> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let verdict = state.verdict.take();
        if verdict.is_none() && !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        verdict
    }
}
