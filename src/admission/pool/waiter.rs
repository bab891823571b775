//! The slot through which a queued request receives its verdict.
//!
//! The pool writes the verdict under its own lock and the waiter's; the waker runs after both are released. The polling task takes
//! the waiter's lock alone, so a verdict that arrives between its check and its sleep either finds the waker or is found.

use std::sync::PoisonError;
use std::task::{Context, Waker};

use super::parts::{Arc, BackendId, Mutex, Slot, Ticket};
use super::refused::Refused;

/// What a backend queue stores beside a request.
pub(super) type Waiter = Arc<WaiterCell>;

#[derive(Debug)]
pub(super) struct WaiterCell(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Its queue and its ticket there; changes under the pool's lock only.
    position: Option<(BackendId, Ticket)>,
    verdict: Option<WaitVerdict>,
    waker: Option<Waker>,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum WaitVerdict {
    Dispatched(BackendId, Slot),
    Refused(Refused),
}

impl WaiterCell {
    pub fn new() -> Waiter {
        Arc::new(Self(Mutex::new(State { position: None, verdict: None, waker: None })))
    }

    pub fn set_position(&self, backend: BackendId, ticket: Ticket) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).position = Some((backend, ticket));
    }

    /// `None` once it has a verdict.
    pub fn position(&self) -> Option<(BackendId, Ticket)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).position
    }

    /// Stores the verdict; the caller wakes the task once it holds no lock.
    pub fn deliver(&self, verdict: WaitVerdict) -> Option<Waker> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (state.position, state.verdict) = (None, Some(verdict));
        state.waker.take()
    }

    /// Takes the verdict, if there is one.
    pub fn take_verdict(&self) -> Option<WaitVerdict> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).verdict.take()
    }

    /// Takes the verdict, or registers the waker for it.
    pub fn poll(&self, cx: &mut Context<'_>) -> Option<WaitVerdict> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let verdict = state.verdict.take();
        if verdict.is_none() && !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        verdict
    }
}
