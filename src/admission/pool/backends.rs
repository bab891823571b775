//! All backends and the lines before them, behind one lock.
//!
//! Every event is one short critical section: it is told to its queue, then whoever may go is called, from this queue first and
//! then from the others'. Wakers are collected inside and called outside.

use std::sync::PoisonError;
use std::task::Waker;

use super::backend_state::{BackendState, Membership, SharedState};
use super::parts::{
    AdmissionRequest, Arc, BackendId, BalancePolicy, Dequeued, GateStats, Limits, Mode, Mutex, Offered, Settings, Shed,
    Slot, Timestamp,
};
use super::permit::Permit;
use super::waiter::{QueueWait, WaitVerdict, Waiter, WaiterCell};

/// All backends.
#[derive(Debug)]
pub struct Pool {
    /// One a place; those beyond the backends stand for backends to come.
    shared: Box<[SharedState]>,
    state: Mutex<State>,
}

/// What becomes of a request at its arrival.
#[derive(Debug)]
pub enum Acquire {
    /// It goes.
    Granted(Permit),
    /// It waits.
    Queued(QueueWait),
    /// It is refused; the backend is the one in whose books that belongs.
    Refused(BackendId, Refused),
}

/// A refusal before dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// By a queue.
    Shed(Shed),
    /// No backend is up.
    NoBackend,
}

/// What a queue holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Who wait.
    pub queued: usize,
    /// Bytes of their bodies.
    pub queued_bytes: u64,
    /// Dispatched and not ended.
    pub in_flight: u32,
    /// Of those, streams without a first token.
    pub pending: u32,
}

#[derive(Debug)]
struct State {
    policy: BalancePolicy,
    settings: Settings,
    backends: Vec<BackendState>,
    /// Index after the last pick: the turn of round robin, and what breaks ties elsewhere.
    turn: usize,
    /// The latest time that was told.
    now: Timestamp,
}

impl Pool {
    /// `backends` places, all of them up, in mode observe until limits are published.
    pub fn new(policy: BalancePolicy, backends: usize, settings: Settings) -> Arc<Self> {
        Self::with_places(policy, backends, backends, settings)
    }

    /// The same with room for backends to come, `places` in all.
    pub fn with_places(policy: BalancePolicy, backends: usize, places: usize, settings: Settings) -> Arc<Self> {
        let shared = (0..places.max(backends)).map(|_| SharedState::new(Mode::Observe)).collect();
        let backends = (0..backends).map(|_| BackendState::new(settings)).collect();
        Arc::new(Self {
            shared,
            state: Mutex::new(State { policy, settings, backends, turn: 0, now: Timestamp::ZERO }),
        })
    }

    /// A request asks for a place at any backend but `avoid`, which has just failed it.
    ///
    /// Ejection is a suspicion, so it yields when nobody else is left; a backend that is down is never picked.
    pub fn arrive(self: &Arc<Self>, ask: AdmissionRequest, avoid: Option<BackendId>, now: Timestamp) -> Acquire {
        self.with(now, |pool, state, _| {
            let Some(i) = pool.choose(state, &ask, avoid) else {
                let first = state.backends.iter().position(|one| !one.is_leaving());
                return Acquire::Refused(id(first.unwrap_or(0)), Refused::NoBackend);
            };
            state.turn = i + 1;
            let (queue, limits) = state.backends[i].open(state.now);
            // Most go at once and need no seat.
            let mut seat = None;
            match queue.offer(limits, ask, || seat.insert(WaiterCell::new()).clone(), state.now) {
                Offered::Dispatched(slot) => Acquire::Granted(Permit::new(self.clone(), id(i), slot)),
                Offered::Shed(shed) => Acquire::Refused(id(i), Refused::Shed(shed)),
                Offered::Queued(ticket) => {
                    let seat = seat.unwrap_or_else(WaiterCell::new);
                    seat.stand(id(i), ticket);
                    Acquire::Queued(QueueWait::new(self.clone(), seat, id(i)))
                }
            }
        })
    }

    /// A backend for a request that is not measured: it goes past the lines.
    pub fn pass(self: &Arc<Self>, avoid: Option<BackendId>) -> Option<Permit> {
        let mut state = self.lock();
        let fit = Candidates::new(&state.backends, avoid);
        let least = |i: &usize| state.backends[*i].queue.in_flight() + self.shared[*i].passing();
        let chosen = in_turn(state.turn, state.backends.len())
            .filter(|i| fit.takes(*i, &state.backends[*i]))
            .min_by_key(least)?;
        state.turn = chosen + 1;
        drop(state);
        Some(Permit::passing(self.clone(), id(chosen)))
    }

    /// Obeys these limits from now on, and looks after the queue of this backend: late requests go, others may have their turn.
    pub fn publish(&self, backend: BackendId, limits: Limits, now: Timestamp) {
        let Some(shared) = self.shared.get(backend.index()) else { return };
        shared.set(limits);
        self.with(now, |pool, state, woken| {
            if let Some(one) = state.backends.get_mut(backend.index()) {
                one.publish(limits);
                pool.advance(state, backend.index(), woken);
            }
        });
    }

    /// What happened at this backend since the last call, for control.
    pub fn gate_stats(&self, backend: BackendId, now: Timestamp) -> Option<GateStats> {
        self.lock().backends.get_mut(backend.index()).map(|one| one.queue.gate_stats(now))
    }

    /// The health check's verdict. A backend that goes down hands its queue over; one that comes back starts slowly.
    pub fn set_up(&self, backend: BackendId, up: bool, now: Timestamp) {
        self.reevaluate(backend, now, |one, now| {
            let was_down = one.down;
            one.down = !up || one.is_leaving();
            if was_down && !one.down {
                one.start_slowly(now);
            }
        });
    }

    /// The traffic's own verdict: requests go elsewhere while there is an elsewhere.
    pub fn set_ejected(&self, backend: BackendId, ejected: bool, now: Timestamp) {
        self.reevaluate(backend, now, |one, now| {
            let was_ejected = std::mem::replace(&mut one.ejected, ejected);
            if was_ejected && !ejected {
                one.start_slowly(now);
            }
        });
    }

    /// Whether a backend other than `backend` could be picked.
    pub fn has_another(&self, backend: BackendId) -> bool {
        self.lock().backends.iter().enumerate().any(|(i, one)| i != backend.index() && !one.down)
    }

    /// Takes a free place for a new backend, in that mode until limits are published. Nothing goes there before it is recalled.
    /// `None`: every place is taken.
    pub fn add_backend(&self, mode: Mode) -> Option<BackendId> {
        let mut state = self.lock();
        let free = state.backends.iter().position(|one| one.stay == Membership::Gone);
        let settings = state.settings;
        let place = match free {
            Some(place) => place,
            None if state.backends.len() < self.shared.len() => {
                state.backends.push(BackendState::new(settings));
                state.backends.len() - 1
            }
            None => return None,
        };
        let limits = Limits::new(mode);
        self.shared[place].set(limits);
        let mut one = BackendState::new(settings);
        one.publish(limits);
        (one.down, one.stay) = (true, Membership::Leaving);
        state.backends[place] = one;
        Some(id(place))
    }

    /// A backend takes nothing more; whoever waits before it goes to the others. What is dispatched goes on.
    pub fn drain(&self, backend: BackendId, now: Timestamp) {
        self.reevaluate(backend, now, |one, _| (one.down, one.stay) = (true, Membership::Leaving));
    }

    /// A retired backend stays after all, unless its place was given up. It starts slowly, or all who wait would come at once.
    pub fn reinstate(&self, backend: BackendId, now: Timestamp) {
        self.reevaluate(backend, now, |one, now| {
            if one.stay == Membership::Leaving {
                (one.down, one.stay) = (false, Membership::Here);
                one.start_slowly(now);
            }
        });
    }

    /// Nothing of a retired backend is dispatched or waits any more.
    pub fn is_idle(&self, backend: BackendId) -> bool {
        let (state, place) = (self.lock(), backend.index());
        let passing = self.shared.get(place).map_or(0, SharedState::passing);
        let one = state.backends.get(place).filter(|one| one.stay == Membership::Leaving);
        one.is_some_and(|one| one.queue.in_flight() == 0 && one.queue.queued() == 0 && passing == 0)
    }

    /// Gives up the place of a retired backend. `false`: something of it is still dispatched.
    pub fn remove_backend(&self, backend: BackendId) -> bool {
        // It takes nothing more, so that it stays idle once it is.
        let idle = self.is_idle(backend);
        if let Some(one) = self.lock().backends.get_mut(backend.index()).filter(|_| idle) {
            one.stay = Membership::Gone;
        }
        idle
    }

    /// How a backend is chosen, and what its queue is told, from now on.
    pub fn reset(&self, policy: BalancePolicy, settings: Settings) {
        let mut state = self.lock();
        (state.policy, state.settings) = (policy, settings);
        state.backends.iter_mut().for_each(|one| one.queue.set_settings(settings));
    }

    /// Where a refusal is booked that no backend had a part in.
    pub fn first(&self) -> BackendId {
        id(self.lock().backends.iter().position(|one| !one.is_leaving()).unwrap_or(0))
    }

    /// Number of places in use, those of backends that are gone included.
    pub fn len(&self) -> usize {
        self.lock().backends.len()
    }

    /// There is no backend at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the health check passes, in the configuration's order.
    pub fn ups(&self) -> Vec<bool> {
        self.lock().backends.iter().map(|one| !one.down).collect()
    }

    /// What is published for `backend`.
    pub fn limits(&self, backend: BackendId) -> Option<Limits> {
        self.shared.get(backend.index()).map(|shared| **shared.limits.load())
    }

    /// What its queue holds now.
    pub fn gauges(&self, backend: BackendId) -> Gauges {
        let state = self.lock();
        state.backends.get(backend.index()).map_or(Gauges::default(), |BackendState { queue, .. }| Gauges {
            queued: queue.queued(),
            queued_bytes: queue.queued_bytes(),
            in_flight: queue.in_flight(),
            pending: queue.pending(),
        })
    }

    /// Streams of `backend` that are past their first token and read as they come: those that would hear it.
    pub fn listening(&self, backend: BackendId) -> u32 {
        let shared = self.shared.get(backend.index());
        shared.map_or(0, SharedState::listening)
    }

    /// Requests at `backend`, those included that are not measured.
    pub fn load(&self, backend: BackendId) -> u32 {
        let passing = self.shared.get(backend.index()).map_or(0, SharedState::passing);
        self.gauges(backend).in_flight + passing
    }

    // ---- what permits and those who wait tell ---------------------------------------------------------------------

    pub(super) fn shared(&self, backend: BackendId) -> &SharedState {
        &self.shared[backend.index()]
    }

    pub(super) fn on_first_token(&self, backend: BackendId, slot: Slot, now: Timestamp) {
        self.with(now, |pool, state, woken| {
            let now = state.now;
            if state.backends[backend.index()].queue.on_first_token(slot, now) {
                pool.advance(state, backend.index(), woken);
            }
        });
    }

    pub(super) fn on_tokens(&self, backend: BackendId, slot: Slot, more: u32) {
        self.lock().backends[backend.index()].queue.on_tokens(slot, more);
    }

    /// Without a `now`, at the latest time that was told.
    pub(super) fn on_end(&self, backend: BackendId, slot: Slot, tokens: u32, now: Option<Timestamp>) {
        self.with(now.unwrap_or(Timestamp::ZERO), |pool, state, woken| {
            let queue = &mut state.backends[backend.index()].queue;
            queue.on_tokens(slot, tokens);
            if queue.on_end(slot) {
                pool.advance(state, backend.index(), woken);
            }
        });
    }

    pub(super) fn on_refused(&self, backend: BackendId, now: Timestamp) {
        self.with(now, |_, state, _| {
            let now = state.now;
            state.backends[backend.index()].hold_back(now);
        });
    }

    /// Who waits gives up. If it was called in the same moment, the place goes to somebody else.
    pub(super) fn leave(&self, seat: &Waiter) {
        self.with(Timestamp::ZERO, |pool, state, woken| {
            if let Some((backend, ticket)) = seat.at() {
                let i = backend.index();
                state.backends[i].queue.leave(ticket);
                // It may have held up those behind it: its prompt was too long for the room there is.
                pool.advance(state, i, woken);
            } else if let Some(WaitVerdict::Go(backend, slot)) = seat.verdict() {
                let i = backend.index();
                if state.backends[i].queue.on_end(slot) {
                    pool.advance(state, i, woken);
                }
            }
        });
    }

    /// The time of who waits is over, unless its call has come.
    pub(super) fn expire(&self, seat: &Waiter, now: Timestamp) -> WaitVerdict {
        self.with(now, |pool, state, woken| {
            if let Some((backend, ticket)) = seat.at() {
                let (i, now) = (backend.index(), state.now);
                let (queue, limits) = state.backends[i].open(now);
                if let Some((seat, shed)) = queue.expire(limits, ticket, now) {
                    let _ = seat.call(WaitVerdict::Refused(Refused::Shed(shed)));
                    pool.advance(state, i, woken);
                }
            }
            seat.verdict().unwrap_or(WaitVerdict::Refused(Refused::NoBackend))
        })
    }

    // ---- inside the critical section ------------------------------------------------------------------------------

    fn with<R>(&self, now: Timestamp, act: impl FnOnce(&Self, &mut State, &mut Vec<Waker>) -> R) -> R {
        let mut woken = Vec::new();
        let mut state = self.lock();
        state.now = state.now.max(now);
        let result = act(self, &mut state, &mut woken);
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        result
    }

    /// Where a request goes: where there is room, else where it waits least. `None`: nobody is there.
    fn choose(&self, state: &mut State, ask: &AdmissionRequest, avoid: Option<BackendId>) -> Option<usize> {
        let (now, policy) = (state.now, state.policy);
        let mut roomy: Option<(usize, (i64, i64))> = None;
        let mut patient: Option<(usize, f64)> = None;
        let fit = Candidates::new(&state.backends, avoid);
        if let [only] = &*state.backends {
            return fit.takes(0, only).then_some(0);
        }
        for i in in_turn(state.turn, state.backends.len()) {
            let one = &mut state.backends[i];
            if !fit.takes(i, one) {
                continue;
            }
            if one.has_room(ask, now) {
                let room = match policy {
                    BalancePolicy::MostRoom => one.room(),
                    BalancePolicy::RoundRobin => (0, 0),
                    BalancePolicy::LeastInFlight => (-i64::from(one.queue.in_flight()), 0),
                };
                if roomy.is_none_or(|(_, best)| room > best) {
                    roomy = Some((i, room));
                }
            } else if roomy.is_none() {
                let wait = one.expected_wait(ask, now);
                if patient.is_none_or(|(_, least)| wait < least) {
                    patient = Some((i, wait));
                }
            }
        }
        roomy.map(|(i, _)| i).or_else(|| patient.map(|(i, _)| i))
    }

    /// Calls whose turn it is at backend `i`, from its own queue and then from the others'.
    fn advance(&self, state: &mut State, i: usize, woken: &mut Vec<Waker>) {
        let now = state.now;
        let one = &mut state.backends[i];
        if one.queue.queued() > 0 {
            let (queue, limits) = one.open(now);
            queue.advance(limits, now, &mut |seat: Waiter, call| {
                woken.extend(seat.call(match call {
                    Dequeued::Dispatch(slot) => WaitVerdict::Go(id(i), slot),
                    Dequeued::Shed(shed) => WaitVerdict::Refused(Refused::Shed(shed)),
                }));
            });
        }
        if state.backends.len() > 1 {
            self.steal(state, i, woken);
        }
    }

    /// Takes from the longest of the other lines while there is room here and nobody waits.
    fn steal(&self, state: &mut State, i: usize, woken: &mut Vec<Waker>) {
        let now = state.now;
        loop {
            let one = &mut state.backends[i];
            let open = !one.down && !one.ejected && one.has_room(&AdmissionRequest::new(now, 1.0), now);
            if !open {
                return;
            }
            let others = (0..state.backends.len()).filter(|other| *other != i);
            let Some(longest) = others.max_by_key(|other| state.backends[*other].queue.queued()) else { return };
            let Some((ask, seat)) = state.backends[longest].queue.take_next() else { return };
            self.enqueue_at(state, i, ask, seat, woken);
        }
    }

    /// Who waited elsewhere stands at backend `i` now.
    fn enqueue_at(&self, state: &mut State, i: usize, ask: AdmissionRequest, seat: Waiter, woken: &mut Vec<Waker>) {
        let now = state.now;
        let (queue, limits) = state.backends[i].open(now);
        let verdict = match queue.offer(limits, ask, || seat.clone(), now) {
            Offered::Queued(ticket) => return seat.stand(id(i), ticket),
            Offered::Dispatched(slot) => WaitVerdict::Go(id(i), slot),
            Offered::Shed(shed) => WaitVerdict::Refused(Refused::Shed(shed)),
        };
        woken.extend(seat.call(verdict));
    }

    /// Something changed about whether `backend` may be used.
    fn reevaluate(&self, backend: BackendId, now: Timestamp, change: impl FnOnce(&mut BackendState, Timestamp)) {
        let i = backend.index();
        self.with(now, |pool, state, woken| {
            let now = state.now;
            if i >= state.backends.len() {
                return;
            }
            change(&mut state.backends[i], now);
            if Candidates::new(&state.backends, None).takes(i, &state.backends[i]) {
                return pool.advance(state, i, woken);
            }
            for (ask, seat) in state.backends[i].queue.take_all() {
                match pool.choose(state, &ask, None) {
                    Some(other) => pool.enqueue_at(state, other, ask, seat, woken),
                    None => woken.extend(seat.call(WaitVerdict::Refused(Refused::NoBackend))),
                }
            }
        });
    }

    fn lock(&self) -> impl std::ops::DerefMut<Target = State> + '_ {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which backends may be used: those that are up and not suspected, or when there are none, those that are up.
#[derive(Clone, Copy)]
struct Candidates {
    avoid: Option<usize>,
    /// One is up and not suspected.
    trusted: bool,
}

impl Candidates {
    fn new(backends: &[BackendState], avoid: Option<BackendId>) -> Self {
        let mut fit = Self { avoid: avoid.map(|avoid| usize::from(avoid.0)), trusted: false };
        fit.trusted = backends.iter().enumerate().any(|(i, one)| fit.takes(i, one) && !one.ejected);
        fit
    }

    fn takes(&self, i: usize, one: &BackendState) -> bool {
        !one.down && self.avoid != Some(i) && !(self.trusted && one.ejected)
    }
}

fn in_turn(turn: usize, n: usize) -> impl Iterator<Item = usize> {
    (0..n).map(move |k| (turn + k) % n)
}

fn id(place: usize) -> BackendId {
    BackendId::from_index(place)
}
