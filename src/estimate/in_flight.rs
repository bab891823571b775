//! The requests of one backend that are under way: what the estimator has to remember of each, and who has waited longest.
//!
//! A slab with a map from the request's key to its place, and two lines in order of arrival: those before dispatch, and
//! those before their first token. Whoever leaves a line is taken out when he reaches its head. Bounded: what finds the
//! table full is not followed.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use crate::measure::RequestKey;

/// A request under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct TrackedRequest {
    /// When it arrived.
    pub arrived: f64,
    /// When it was dispatched.
    pub admitted: f64,
    /// Prompt tokens, as good as they are known.
    pub prompt: f64,
    /// Prompt tokens as the request told them, if it did.
    pub told: Option<u32>,
    pub phase: RequestPhase,
    /// Whether a first token will be seen.
    pub stream: bool,
    /// Nobody waited for a first token when it was dispatched.
    pub alone: bool,
    /// [`super::mix::Mix::epoch`] when it began to emit.
    pub epoch: u32,
    /// Content events so far.
    pub emissions: u32,
    /// Tokens in them.
    pub tokens: u32,
    /// The step of its last emission.
    pub last_step: u32,
    /// When that was.
    pub last: f64,
    /// Tokens that the backend had delivered to all when it last emitted.
    pub delivered: u64,
}

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestPhase {
    /// Not dispatched.
    Queued,
    /// Dispatched, no first token yet; an answer that is not streamed stays here.
    Pending,
    /// Emitting.
    Decoding,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct InFlightTable {
    requests: Vec<TrackedRequest>,
    vacant: Vec<u32>,
    places: HashMap<u64, u32, BuildHasherDefault<KeyHasher>>,
    queued: VecDeque<RequestKey>,
    pending: VecDeque<RequestKey>,
}

impl InFlightTable {
    /// A request arrived under a key that is not in use; whether there was room for it.
    pub fn insert(&mut self, key: RequestKey, arrived: f64, prompt: f64, told: Option<u32>, stream: bool) -> bool {
        if self.places.len() >= MOST_REQUESTS {
            return false;
        }
        let request = TrackedRequest {
            arrived,
            admitted: arrived,
            prompt,
            told,
            phase: RequestPhase::Queued,
            stream,
            alone: false,
            epoch: 0,
            emissions: 0,
            tokens: 0,
            last_step: 0,
            last: 0.0,
            delivered: 0,
        };
        let place = match self.vacant.pop() {
            Some(place) => {
                self.requests[place as usize] = request;
                place
            }
            None => {
                self.requests.push(request);
                (self.requests.len() - 1) as u32
            }
        };
        self.places.insert(key.0, place);
        self.queued.push_back(key);
        self.trim(RequestPhase::Queued);
        true
    }

    /// The request of that name.
    pub fn get_mut(&mut self, key: RequestKey) -> Option<&mut TrackedRequest> {
        let place = *self.places.get(&key.0)?;
        self.requests.get_mut(place as usize)
    }

    /// A stream was dispatched and waits for its first token from now on.
    pub fn await_first_token(&mut self, key: RequestKey) {
        self.pending.push_back(key);
        self.trim(RequestPhase::Pending);
    }

    /// It is gone.
    pub fn remove(&mut self, key: RequestKey) -> Option<TrackedRequest> {
        let place = self.places.remove(&key.0)?;
        self.vacant.push(place);
        Some(self.requests[place as usize])
    }

    /// Who has waited longest before dispatch.
    pub fn head_of_queue(&mut self) -> Option<TrackedRequest> {
        self.head(RequestPhase::Queued)
    }

    /// Who has waited longest for a first token since dispatch.
    pub fn head_of_pending(&mut self) -> Option<TrackedRequest> {
        self.head(RequestPhase::Pending)
    }

    fn head(&mut self, phase: RequestPhase) -> Option<TrackedRequest> {
        while let Some(&key) = self.line(phase).front() {
            if let Some(request) = self.get_mut(key).filter(|request| request.phase == phase) {
                return Some(*request);
            }
            self.line(phase).pop_front();
        }
        None
    }

    fn line(&mut self, phase: RequestPhase) -> &mut VecDeque<RequestKey> {
        if phase == RequestPhase::Queued { &mut self.queued } else { &mut self.pending }
    }

    /// Takes those out who left a line behind a head that stays: at most as many as are alive remain, so it is constant
    /// time on average.
    fn trim(&mut self, phase: RequestPhase) {
        let most = 2 * self.places.len() + SHORT_LINE;
        if self.line(phase).len() <= most {
            return;
        }
        let mut line = std::mem::take(self.line(phase));
        line.retain(|key| self.get_mut(*key).is_some_and(|request| request.phase == phase));
        *self.line(phase) = line;
    }
}

/// Multiplies by an odd constant and keeps the high bits where the map looks. Keys are our own counter, so nobody can choose
/// them to collide.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, key: u64) {
        let mixed = (self.0 ^ key).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// More requests under way than any backend serves: 5 MiB.
const MOST_REQUESTS: usize = 1 << 16;
/// Lines up to here are not worth trimming.
const SHORT_LINE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> RequestKey {
        RequestKey(n)
    }

    fn arrive(live: &mut InFlightTable, n: u64) -> bool {
        live.insert(key(n), n as f64, 10.0, Some(10), true)
    }

    fn admit(live: &mut InFlightTable, n: u64) {
        live.get_mut(key(n)).unwrap().phase = RequestPhase::Pending;
        live.await_first_token(key(n));
    }

    #[test]
    fn the_heads_are_who_waited_longest() {
        let mut live = InFlightTable::default();
        (0..4).for_each(|n| assert!(arrive(&mut live, n)));
        [0, 2].into_iter().for_each(|n| admit(&mut live, n));
        assert_eq!(live.head_of_queue().unwrap().arrived, 1.0);
        assert_eq!(live.head_of_pending().unwrap().arrived, 0.0);
        live.get_mut(key(0)).unwrap().phase = RequestPhase::Decoding;
        live.remove(key(1));
        assert_eq!(live.head_of_queue().unwrap().arrived, 3.0);
        assert_eq!(live.head_of_pending().unwrap().arrived, 2.0);
        live.remove(key(2));
        live.remove(key(3));
        assert!(live.head_of_pending().is_none() && live.head_of_queue().is_none());
    }

    #[test]
    fn a_head_that_stays_does_not_let_the_line_grow() {
        let mut live = InFlightTable::default();
        arrive(&mut live, 0);
        admit(&mut live, 0);
        for n in 1..10_000 {
            arrive(&mut live, n);
            admit(&mut live, n);
            live.get_mut(key(n)).unwrap().phase = RequestPhase::Decoding;
            live.remove(key(n));
        }
        assert!(live.pending.len() <= 100 && live.queued.len() <= 100);
        assert!(live.requests.len() <= 3);
        assert_eq!(live.head_of_pending().unwrap().arrived, 0.0);
    }

    #[test]
    fn a_full_table_follows_no_more() {
        let mut live = InFlightTable::default();
        assert!((0..MOST_REQUESTS as u64).all(|n| arrive(&mut live, n)));
        assert!(!arrive(&mut live, 1 << 40));
        live.remove(key(7));
        assert!(arrive(&mut live, 1 << 40));
    }
}
