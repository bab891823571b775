//! The pool: all backends and their queues, behind one lock.
//!
//! Every event is one short critical section: it is reported to its queue, then requests that may now be dispatched are. Wakers are
//! collected under the lock and called after it is released.

use std::sync::PoisonError;
use std::task::Waker;

use super::backend_state::{BackendState, Membership, SharedState};
use super::candidates::{Candidates, round_robin};
use super::parts::{Arc, BackendId, BalancePolicy, GateStats, Limits, Mode, Mutex, Settings, Slot, Timestamp};
use super::pool_state::PoolState;
use super::refused::Refused;
use super::waiter::{WaitVerdict, Waiter};

/// All backends. How a request obtains a permit is in `acquire`.
#[derive(Debug)]
pub struct Pool {
    /// One per index; indices beyond the backends are for backends added later.
    shared: Box<[SharedState]>,
    state: Mutex<PoolState>,
}

/// What a backend holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Requests that wait.
    pub queued: usize,
    /// Bytes of their bodies.
    pub queued_bytes: u64,
    /// Requests dispatched and not ended.
    pub in_flight: u32,
    /// Of those, streams without a first token.
    pub pending: u32,
}

impl Pool {
    /// `backends` backends, all of them up, in mode observe until limits are published.
    pub fn new(policy: BalancePolicy, backends: usize, settings: Settings) -> Arc<Self> {
        Self::with_capacity(policy, backends, backends, settings)
    }

    /// The same, with room for `capacity` backends in all.
    pub fn with_capacity(policy: BalancePolicy, backends: usize, capacity: usize, settings: Settings) -> Arc<Self> {
        let shared = (0..capacity.max(backends)).map(|_| SharedState::new(Mode::Observe)).collect();
        let backends = (0..backends).map(|_| BackendState::new(settings)).collect();
        let state = PoolState { policy, settings, backends, next_pick: 0, now: Timestamp::ZERO };
        Arc::new(Self { shared, state: Mutex::new(state) })
    }

    // ---- control ----

    /// Puts these limits in force, and advances this backend's queue: late requests are refused, others may be dispatched.
    pub fn publish(&self, backend: BackendId, limits: Limits, now: Timestamp) {
        let Some(shared) = self.shared.get(backend.index()) else { return };
        shared.set(limits);
        self.with(now, |state, woken| {
            if let Some(one) = state.backends.get_mut(backend.index()) {
                one.publish(limits);
                state.advance(backend.index(), woken);
            }
        });
    }

    /// What happened at this backend's gate since the last call.
    pub fn gate_stats(&self, backend: BackendId, now: Timestamp) -> Option<GateStats> {
        self.lock().backends.get_mut(backend.index()).map(|one| one.queue.gate_stats(now))
    }

    /// Replaces how a backend is picked and how its queue behaves.
    pub fn reset(&self, policy: BalancePolicy, settings: Settings) {
        let mut state = self.lock();
        (state.policy, state.settings) = (policy, settings);
        state.backends.iter_mut().for_each(|one| one.queue.set_settings(settings));
    }

    // ---- health ----

    /// The health check's verdict. The queue of a backend that goes down moves to the others; one that comes up starts slowly.
    pub fn set_up(&self, backend: BackendId, up: bool, now: Timestamp) {
        self.reevaluate(backend, now, |one, now| one.set_up(up, now));
    }

    /// Passive health's verdict: requests go to other backends while there are any.
    pub fn set_ejected(&self, backend: BackendId, ejected: bool, now: Timestamp) {
        self.reevaluate(backend, now, |one, now| one.set_ejected(ejected, now));
    }

    /// Whether a backend other than `backend` could be picked.
    pub fn has_another(&self, backend: BackendId) -> bool {
        self.lock().backends.iter().enumerate().any(|(i, one)| i != backend.index() && !one.down)
    }

    /// Whether each backend's health check passes, by index.
    pub fn ups(&self) -> Vec<bool> {
        self.lock().backends.iter().map(|one| !one.down).collect()
    }

    // ---- membership ----

    /// Takes a free index for a new backend, in `mode` until limits are published. It takes no requests until it is reinstated.
    /// `None`: no index is free.
    pub fn add_backend(&self, mode: Mode) -> Option<BackendId> {
        let mut state = self.lock();
        let settings = state.settings;
        let index = match state.backends.iter().position(|one| one.membership == Membership::Removed) {
            Some(index) => index,
            None if state.backends.len() < self.shared.len() => {
                state.backends.push(BackendState::new(settings));
                state.backends.len() - 1
            }
            None => return None,
        };
        let limits = Limits::new(mode);
        self.shared[index].set(limits);
        state.backends[index] = BackendState::draining(settings, limits);
        Some(BackendId::from_index(index))
    }

    /// The backend takes no new requests, and those in its queue move to the others. Requests in flight continue.
    pub fn drain(&self, backend: BackendId, now: Timestamp) {
        self.reevaluate(backend, now, |one, _| one.drain());
    }

    /// A draining backend takes requests again, unless it was removed. It starts slowly, or all waiting requests would be
    /// dispatched to it at once.
    pub fn reinstate(&self, backend: BackendId, now: Timestamp) {
        self.reevaluate(backend, now, BackendState::reinstate);
    }

    /// Whether a draining backend has no request left, queued or in flight.
    pub fn is_idle(&self, backend: BackendId) -> bool {
        let (state, index) = (self.lock(), backend.index());
        let unmeasured = self.shared.get(index).map_or(0, SharedState::unmeasured);
        let one = state.backends.get(index).filter(|one| one.membership == Membership::Draining);
        one.is_some_and(|one| one.queue.in_flight() == 0 && one.queue.queued() == 0 && unmeasured == 0)
    }

    /// Frees the index of a draining backend. `false`: it still has requests.
    pub fn remove_backend(&self, backend: BackendId) -> bool {
        // It takes no new requests, so it stays idle once it is.
        let idle = self.is_idle(backend);
        if let Some(one) = self.lock().backends.get_mut(backend.index()).filter(|_| idle) {
            one.membership = Membership::Removed;
        }
        idle
    }

    // ---- what is read ----

    /// The backend that a refusal counts for when none was involved.
    pub fn first(&self) -> BackendId {
        self.lock().first()
    }

    /// Number of indices in use, those of removed backends included.
    pub fn len(&self) -> usize {
        self.lock().backends.len()
    }

    /// Whether there is no backend at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The limits last published for `backend`.
    pub fn limits(&self, backend: BackendId) -> Option<Limits> {
        self.shared.get(backend.index()).map(|shared| **shared.limits.load())
    }

    /// What `backend` holds now.
    pub fn gauges(&self, backend: BackendId) -> Gauges {
        let state = self.lock();
        state.backends.get(backend.index()).map_or(Gauges::default(), |BackendState { queue, .. }| Gauges {
            queued: queue.queued(),
            queued_bytes: queue.queued_bytes(),
            in_flight: queue.in_flight(),
            pending: queue.pending(),
        })
    }

    /// Streams past their first token whose backend is being read: they would notice if it went silent.
    pub fn listening(&self, backend: BackendId) -> u32 {
        let shared = self.shared.get(backend.index());
        shared.map_or(0, SharedState::listening)
    }

    /// Requests in flight at `backend`, those that are not measured included.
    pub fn load(&self, backend: BackendId) -> u32 {
        let unmeasured = self.shared.get(backend.index()).map_or(0, SharedState::unmeasured);
        self.gauges(backend).in_flight + unmeasured
    }

    // ---- events of permits and waiting requests ----

    pub(super) fn shared(&self, backend: BackendId) -> &SharedState {
        &self.shared[backend.index()]
    }

    pub(super) fn on_first_token(&self, backend: BackendId, slot: Slot, now: Timestamp) {
        self.with(now, |state, woken| {
            let now = state.now;
            if state.backends[backend.index()].queue.on_first_token(slot, now) {
                state.advance(backend.index(), woken);
            }
        });
    }

    pub(super) fn on_tokens(&self, backend: BackendId, slot: Slot, more: u32) {
        self.lock().backends[backend.index()].queue.on_tokens(slot, more);
    }

    /// `tokens` are those not reported before. Without a `now` it ends at the latest known time.
    pub(super) fn on_end(&self, backend: BackendId, slot: Slot, tokens: u32, now: Option<Timestamp>) {
        self.with(now.unwrap_or(Timestamp::ZERO), |state, woken| {
            let queue = &mut state.backends[backend.index()].queue;
            queue.on_tokens(slot, tokens);
            if queue.on_end(slot) {
                state.advance(backend.index(), woken);
            }
        });
    }

    pub(super) fn on_refused(&self, backend: BackendId, now: Timestamp) {
        self.with(now, |state, _| {
            let now = state.now;
            state.backends[backend.index()].on_refused(now);
        });
    }

    /// A waiting request is dropped. If it was dispatched at that moment, its slot goes to another request.
    pub(super) fn leave(&self, waiter: &Waiter) {
        self.with(Timestamp::ZERO, |state, woken| {
            if let Some((backend, ticket)) = waiter.position() {
                let i = backend.index();
                state.backends[i].queue.leave(ticket);
                // It may have blocked those behind it: its prompt was too long for the room there is.
                state.advance(i, woken);
            } else if let Some(WaitVerdict::Dispatched(backend, slot)) = waiter.take_verdict() {
                let i = backend.index();
                if state.backends[i].queue.on_end(slot) {
                    state.advance(i, woken);
                }
            }
        });
    }

    /// The deadline of a waiting request passed, unless it has its verdict already.
    pub(super) fn expire(&self, waiter: &Waiter, now: Timestamp) -> WaitVerdict {
        self.with(now, |state, woken| {
            if let Some((backend, ticket)) = waiter.position() {
                let (i, now) = (backend.index(), state.now);
                let (queue, limits) = state.backends[i].queue_and_limits(now);
                if let Some((waiter, shed)) = queue.expire(limits, ticket, now) {
                    let _ = waiter.deliver(WaitVerdict::Refused(Refused::Shed(shed)));
                    state.advance(i, woken);
                }
            }
            waiter.take_verdict().unwrap_or(WaitVerdict::Refused(Refused::NoBackend))
        })
    }

    /// The least loaded backend, for a request that is not measured.
    pub(super) fn choose_unmeasured(&self, avoid: Option<BackendId>) -> Option<usize> {
        let mut state = self.lock();
        let candidates = Candidates::new(&state.backends, avoid);
        let load = |i: &usize| state.backends[*i].queue.in_flight() + self.shared[*i].unmeasured();
        let chosen = round_robin(state.next_pick, state.backends.len())
            .filter(|i| candidates.include(*i, &state.backends[*i]))
            .min_by_key(load)?;
        state.next_pick = chosen + 1;
        Some(chosen)
    }

    /// Runs `act` in the critical section, then calls the wakers it collected.
    pub(super) fn with<R>(&self, now: Timestamp, act: impl FnOnce(&mut PoolState, &mut Vec<Waker>) -> R) -> R {
        let mut woken = Vec::new();
        let mut state = self.lock();
        state.now = state.now.max(now);
        let result = act(&mut state, &mut woken);
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        result
    }

    fn reevaluate(&self, backend: BackendId, now: Timestamp, change: impl FnOnce(&mut BackendState, Timestamp)) {
        self.with(now, |state, woken| state.reevaluate(backend.index(), woken, change));
    }

    fn lock(&self) -> impl std::ops::DerefMut<Target = PoolState> + '_ {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
