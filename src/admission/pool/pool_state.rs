//! All backends and their queues: which backend receives a request, and which waiting request is dispatched next.
//!
//! Everything here runs under the pool's lock. Wakers are collected in `woken`, and the pool calls them after it releases the lock.

use std::task::Waker;

use super::backend_state::{BackendState, Membership};
use super::candidates::{Candidates, round_robin};
use super::parts::{AdmissionRequest, BackendId, BalancePolicy, Dequeued, Offered, Settings, Timestamp};
use super::refused::Refused;
use super::waiter::{WaitVerdict, Waiter};

#[derive(Debug)]
pub(super) struct PoolState {
    pub policy: BalancePolicy,
    pub settings: Settings,
    pub backends: Vec<BackendState>,
    /// Index after the last pick: where round robin continues, and what breaks ties for the other policies.
    pub next_pick: usize,
    /// The latest time that any event carried.
    pub now: Timestamp,
}

impl PoolState {
    /// The backend for a request: one that has room, else the one with the shortest wait. `None`: none is available.
    pub fn choose(&mut self, request: &AdmissionRequest, avoid: Option<BackendId>) -> Option<usize> {
        let (now, policy) = (self.now, self.policy);
        let mut roomiest: Option<(usize, (i64, i64))> = None;
        let mut soonest: Option<(usize, f64)> = None;
        let candidates = Candidates::new(&self.backends, avoid);
        if let [only] = &*self.backends {
            return candidates.include(0, only).then_some(0);
        }
        for i in round_robin(self.next_pick, self.backends.len()) {
            let one = &mut self.backends[i];
            if !candidates.include(i, one) {
                continue;
            }
            if one.has_room(request, now) {
                let room = match policy {
                    BalancePolicy::MostRoom => one.room(),
                    BalancePolicy::RoundRobin => (0, 0),
                    BalancePolicy::LeastInFlight => (-i64::from(one.queue.in_flight()), 0),
                };
                if roomiest.is_none_or(|(_, best)| room > best) {
                    roomiest = Some((i, room));
                }
            } else if roomiest.is_none() {
                let wait = one.expected_wait(request, now);
                if soonest.is_none_or(|(_, least)| wait < least) {
                    soonest = Some((i, wait));
                }
            }
        }
        roomiest.map(|(i, _)| i).or_else(|| soonest.map(|(i, _)| i))
    }

    /// Dispatches waiting requests to backend `i`, from its own queue and then from the others'.
    pub fn advance(&mut self, i: usize, woken: &mut Vec<Waker>) {
        let now = self.now;
        let one = &mut self.backends[i];
        if one.queue.queued() > 0 {
            let (queue, limits) = one.queue_and_limits(now);
            queue.advance(limits, now, &mut |waiter: Waiter, dequeued| {
                woken.extend(waiter.deliver(match dequeued {
                    Dequeued::Dispatch(slot) => WaitVerdict::Dispatched(BackendId::from_index(i), slot),
                    Dequeued::Shed(shed) => WaitVerdict::Refused(Refused::Shed(shed)),
                }));
            });
        }
        if self.backends.len() > 1 {
            self.steal(i, woken);
        }
    }

    /// `change` alters whether backend `i` may be used: then it takes waiting requests, or its own move to other backends.
    pub fn reevaluate(&mut self, i: usize, woken: &mut Vec<Waker>, change: impl FnOnce(&mut BackendState, Timestamp)) {
        let now = self.now;
        if i >= self.backends.len() {
            return;
        }
        change(&mut self.backends[i], now);
        if Candidates::new(&self.backends, None).include(i, &self.backends[i]) {
            return self.advance(i, woken);
        }
        for (request, waiter) in self.backends[i].queue.take_all() {
            match self.choose(&request, None) {
                Some(other) => self.enqueue_at(other, request, waiter, woken),
                None => woken.extend(waiter.deliver(WaitVerdict::Refused(Refused::NoBackend))),
            }
        }
    }

    /// The backend that a refusal counts for when none was involved.
    pub fn first(&self) -> BackendId {
        BackendId::from_index(self.backends.iter().position(|one| one.membership == Membership::Active).unwrap_or(0))
    }

    /// Takes requests from the longest other queue while backend `i` has room and an empty queue.
    fn steal(&mut self, i: usize, woken: &mut Vec<Waker>) {
        let now = self.now;
        loop {
            let one = &mut self.backends[i];
            let open = !one.down && !one.ejected && one.has_room(&AdmissionRequest::new(now, 1.0), now);
            if !open {
                return;
            }
            let others = (0..self.backends.len()).filter(|other| *other != i);
            let Some(longest) = others.max_by_key(|other| self.backends[*other].queue.queued()) else { return };
            let Some((request, waiter)) = self.backends[longest].queue.take_next() else { return };
            self.enqueue_at(i, request, waiter, woken);
        }
    }

    /// Offers backend `i` a request that waited at another one.
    fn enqueue_at(&mut self, i: usize, request: AdmissionRequest, waiter: Waiter, woken: &mut Vec<Waker>) {
        let now = self.now;
        let (queue, limits) = self.backends[i].queue_and_limits(now);
        let verdict = match queue.offer(limits, request, || waiter.clone(), now) {
            Offered::Queued(ticket) => return waiter.set_position(BackendId::from_index(i), ticket),
            Offered::Dispatched(slot) => WaitVerdict::Dispatched(BackendId::from_index(i), slot),
            Offered::Shed(shed) => WaitVerdict::Refused(Refused::Shed(shed)),
        };
        woken.extend(waiter.deliver(verdict));
    }
}
