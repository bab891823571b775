//! Which backend takes the next request.
//!
//! The pick and the permit are taken in one short critical section, so that two requests cannot take the last place; the
//! permit rides with the exchange until its last byte, and dropping it gives the place back on every path. It holds no
//! health check: `up` and `ejected` are told to it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::backend::BackendId;

/// How a backend is chosen among those that are up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// The one with most room for a first token: fewest requests without a first token, then fewest in flight.
    #[default]
    MostRoom,
    /// Each in turn.
    RoundRobin,
    /// Fewest in flight.
    LeastInFlight,
}

/// All backends, with what is in flight at each.
#[derive(Debug)]
pub struct Pool {
    policy: Policy,
    places: Box<[Place]>,
    /// Index after the last pick: the turn of round robin, and what breaks ties elsewhere.
    turn: Mutex<usize>,
}

#[derive(Debug, Default)]
struct Place {
    in_flight: AtomicU32,
    pending: AtomicU32,
    listening: AtomicU32,
    down: AtomicBool,
    ejected: AtomicBool,
}

impl Pool {
    /// `backends` places, all of them up.
    pub fn new(policy: Policy, backends: usize) -> Arc<Self> {
        let places = (0..backends).map(|_| Place::default()).collect();
        Arc::new(Self { policy, places, turn: Mutex::new(0) })
    }

    /// Picks a backend and takes a place at it. `avoid` is a backend that has just failed this request.
    ///
    /// Ejection is a suspicion, so it yields when nobody else is left; a backend that is down is never picked.
    pub fn pick(self: &Arc<Self>, avoid: Option<BackendId>) -> Option<Permit> {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let fit = |i: &usize| self.is_up(*i) && avoid.is_none_or(|a| usize::from(a.0) != *i);
        let trusted = |i: &usize| fit(i) && !self.places[*i].ejected.load(Relaxed);
        let chosen = self.best(*turn, trusted).or_else(|| self.best(*turn, fit))?;
        *turn = chosen + 1;
        self.places[chosen].in_flight.fetch_add(1, Relaxed);
        self.places[chosen].pending.fetch_add(1, Relaxed);
        let backend = BackendId(u16::try_from(chosen).unwrap_or(u16::MAX));
        Some(Permit { pool: self.clone(), backend, pending: true, suspended: false, listens: false })
    }

    /// Whether a backend other than `backend` could be picked.
    pub fn has_another(&self, backend: BackendId) -> bool {
        (0..self.places.len()).any(|i| i != usize::from(backend.0) && self.is_up(i))
    }

    /// Number of backends.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// There is no backend at all.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether the health check passes, in the configuration's order.
    pub fn ups(&self) -> impl Iterator<Item = bool> + '_ {
        (0..self.places.len()).map(|i| self.is_up(i))
    }

    /// Requests in flight at `backend`, and how many of them have no first token yet.
    pub fn load(&self, backend: BackendId) -> (u32, u32) {
        self.places
            .get(usize::from(backend.0))
            .map_or((0, 0), |place| (place.in_flight.load(Relaxed), place.pending.load(Relaxed)))
    }

    /// Streams of `backend` that are past their first token and read as they come: those that would hear it.
    pub fn listening(&self, backend: BackendId) -> u32 {
        self.places.get(usize::from(backend.0)).map_or(0, |place| place.listening.load(Relaxed))
    }

    /// The health check's verdict.
    pub fn set_up(&self, backend: BackendId, up: bool) {
        if let Some(place) = self.places.get(usize::from(backend.0)) {
            place.down.store(!up, Relaxed);
        }
    }

    /// The traffic's own verdict: new requests go elsewhere while there is an elsewhere.
    pub fn set_ejected(&self, backend: BackendId, ejected: bool) {
        if let Some(place) = self.places.get(usize::from(backend.0)) {
            place.ejected.store(ejected, Relaxed);
        }
    }

    fn is_up(&self, i: usize) -> bool {
        !self.places[i].down.load(Relaxed)
    }

    fn best(&self, turn: usize, fit: impl Fn(&usize) -> bool) -> Option<usize> {
        let n = self.places.len();
        let in_turn = (0..n).map(|k| (turn + k) % n).filter(fit);
        let load = |i: &usize| {
            let place = &self.places[*i];
            let (in_flight, pending) = (place.in_flight.load(Relaxed), place.pending.load(Relaxed));
            match self.policy {
                Policy::RoundRobin => (0, 0),
                Policy::MostRoom => (pending, in_flight),
                Policy::LeastInFlight => (in_flight, 0),
            }
        };
        in_turn.min_by_key(load)
    }
}

/// A place at a backend, held until the last byte of the answer.
#[derive(Debug)]
pub struct Permit {
    pool: Arc<Pool>,
    backend: BackendId,
    pending: bool,
    suspended: bool,
    /// Neither pending nor suspended, and counted as such.
    listens: bool,
}

impl Permit {
    /// Whose place it is.
    pub fn backend(&self) -> BackendId {
        self.backend
    }

    /// The first token came: the place no longer counts as pending.
    pub fn on_first_token(&mut self) {
        if std::mem::take(&mut self.pending) {
            self.place().pending.fetch_sub(1, Relaxed);
            self.count_listening();
        }
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

    fn count_listening(&mut self) {
        let listens = !self.pending && !self.suspended;
        match (std::mem::replace(&mut self.listens, listens), listens) {
            (false, true) => _ = self.place().listening.fetch_add(1, Relaxed),
            (true, false) => _ = self.place().listening.fetch_sub(1, Relaxed),
            _ => {}
        }
    }

    fn place(&self) -> &Place {
        &self.pool.places[usize::from(self.backend.0)]
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.on_suspended();
        self.on_first_token();
        self.place().in_flight.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(permits: &[Permit]) -> Vec<u16> {
        permits.iter().map(|p| p.backend().0).collect()
    }

    #[test]
    fn round_robin_takes_turns_whatever_is_in_flight() {
        let pool = Pool::new(Policy::RoundRobin, 3);
        let permits: Vec<_> = (0..6).map(|_| pool.pick(None).unwrap()).collect();
        assert_eq!(ids(&permits), [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn least_in_flight_fills_the_emptiest() {
        let pool = Pool::new(Policy::LeastInFlight, 2);
        let mut permits: Vec<_> = (0..4).map(|_| pool.pick(None).unwrap()).collect();
        permits.retain(|p| p.backend().0 == 0);
        assert_eq!(pool.pick(None).unwrap().backend(), BackendId(1));
    }

    #[test]
    fn most_room_prefers_the_backend_with_fewer_requests_before_their_first_token() {
        let pool = Pool::new(Policy::MostRoom, 2);
        let (mut a, _b) = (pool.pick(None).unwrap(), pool.pick(None).unwrap());
        let _more = pool.pick(None).unwrap();
        assert_eq!(pool.load(BackendId(0)), (2, 2));
        a.on_first_token();
        let _tie = pool.pick(None).unwrap();
        assert_eq!(pool.load(BackendId(1)).0, 2, "one pending each: the one with fewer in flight takes it");
    }

    #[test]
    fn a_backend_that_is_down_is_never_picked_and_an_ejected_one_only_when_nobody_else_is_left() {
        let pool = Pool::new(Policy::MostRoom, 2);
        pool.set_ejected(BackendId(0), true);
        assert!((0..5).all(|_| pool.pick(None).unwrap().backend() == BackendId(1)));
        pool.set_up(BackendId(1), false);
        assert_eq!(pool.pick(None).unwrap().backend(), BackendId(0));
        pool.set_up(BackendId(0), false);
        assert!(pool.pick(None).is_none());
    }

    #[test]
    fn the_backend_to_avoid_is_avoided_even_when_it_is_the_last_one() {
        let pool = Pool::new(Policy::MostRoom, 1);
        assert!(pool.pick(Some(BackendId(0))).is_none());
        assert!(pool.pick(None).is_some());
    }

    #[test]
    fn only_streams_past_their_first_token_that_are_read_listen() {
        let pool = Pool::new(Policy::MostRoom, 1);
        let listening = || pool.listening(BackendId(0));
        let (mut a, mut b, c) = (pool.pick(None).unwrap(), pool.pick(None).unwrap(), pool.pick(None).unwrap());
        assert_eq!(listening(), 0, "all of them wait for their first token");
        a.on_first_token();
        b.on_suspended();
        b.on_first_token();
        assert_eq!(listening(), 1);
        (0..2).for_each(|_| a.on_suspended());
        assert_eq!(listening(), 0);
        (0..2).for_each(|_| a.on_resumed());
        assert_eq!(listening(), 1);
        b.on_resumed();
        b.on_suspended();
        drop((a, b, c));
        assert_eq!((listening(), pool.load(BackendId(0))), (0, (0, 0)));
    }

    #[test]
    fn dropping_a_permit_gives_the_place_back_on_every_path() {
        let pool = Pool::new(Policy::MostRoom, 1);
        let permit = pool.pick(None).unwrap();
        let held = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _permit = permit;
            panic!("injected");
        }));
        assert!(held.is_err());
        assert_eq!(pool.load(BackendId(0)), (0, 0));
    }
}
