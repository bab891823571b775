//! The open requests of one backend: what the estimator remembers of each, and which has waited longest.
//!
//! A slab with a map from the request's key to its index, and two queues in order of arrival: requests before dispatch, and
//! those before their first token. A request that left a queue is removed when it reaches the head. Bounded: a request that
//! arrives when the table is full is not followed.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use crate::measure::RequestKey;

/// An open request. Times are seconds on the estimator's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct TrackedRequest {
    /// When it arrived.
    pub arrived: f64,
    /// When it was dispatched.
    pub admitted: f64,
    /// Prompt tokens, corrected as far as that is possible.
    pub prompt: f64,
    /// Prompt tokens that the request's body suggests.
    pub estimated: Option<u32>,
    pub phase: RequestPhase,
    /// Whether a first token will be seen.
    pub stream: bool,
    /// No other request waited for a first token when it was dispatched.
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
    /// Tokens that the backend had delivered to all streams when it last emitted.
    pub delivered: u64,
}

/// The phase of a tracked request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestPhase {
    /// Not dispatched.
    Queued,
    /// Dispatched, no first token yet; an answer that is not streamed stays here.
    Pending,
    /// Emitting.
    Decoding,
}

/// The open requests.
#[derive(Debug, Default)]
pub(super) struct InFlightTable {
    requests: Vec<TrackedRequest>,
    vacant: Vec<u32>,
    indices: HashMap<u64, u32, BuildHasherDefault<KeyHasher>>,
    queued: VecDeque<RequestKey>,
    pending: VecDeque<RequestKey>,
}

impl InFlightTable {
    /// Adds a request under a key that is not in use; `false` if the table is full.
    pub fn insert(&mut self, key: RequestKey, arrived: f64, prompt: f64, estimated: Option<u32>, stream: bool) -> bool {
        if self.indices.len() >= MOST_REQUESTS {
            return false;
        }
        let request = TrackedRequest {
            arrived,
            admitted: arrived,
            prompt,
            estimated,
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
        let index = match self.vacant.pop() {
            Some(index) => {
                self.requests[index as usize] = request;
                index
            }
            None => {
                self.requests.push(request);
                (self.requests.len() - 1) as u32
            }
        };
        self.indices.insert(key.0, index);
        self.queued.push_back(key);
        self.trim(RequestPhase::Queued);
        true
    }

    pub fn get_mut(&mut self, key: RequestKey) -> Option<&mut TrackedRequest> {
        let index = *self.indices.get(&key.0)?;
        self.requests.get_mut(index as usize)
    }

    /// A stream was dispatched and waits for its first token from now on.
    pub fn await_first_token(&mut self, key: RequestKey) {
        self.pending.push_back(key);
        self.trim(RequestPhase::Pending);
    }

    pub fn remove(&mut self, key: RequestKey) -> Option<TrackedRequest> {
        let index = self.indices.remove(&key.0)?;
        self.vacant.push(index);
        Some(self.requests[index as usize])
    }

    /// The request that has waited longest for its dispatch.
    pub fn oldest_queued(&mut self) -> Option<TrackedRequest> {
        self.oldest(RequestPhase::Queued)
    }

    /// The dispatched request that has waited longest for its first token.
    pub fn oldest_pending(&mut self) -> Option<TrackedRequest> {
        self.oldest(RequestPhase::Pending)
    }

    fn oldest(&mut self, phase: RequestPhase) -> Option<TrackedRequest> {
        while let Some(&key) = self.queue(phase).front() {
            if let Some(request) = self.get_mut(key).filter(|request| request.phase == phase) {
                return Some(*request);
            }
            self.queue(phase).pop_front();
        }
        None
    }

    fn queue(&mut self, phase: RequestPhase) -> &mut VecDeque<RequestKey> {
        if phase == RequestPhase::Queued { &mut self.queued } else { &mut self.pending }
    }

    /// Removes the requests that left a queue behind a head that stays: at most the open ones remain, so this takes constant
    /// time on average.
    fn trim(&mut self, phase: RequestPhase) {
        let most = 2 * self.indices.len() + SHORT_QUEUE;
        if self.queue(phase).len() <= most {
            return;
        }
        let mut queue = std::mem::take(self.queue(phase));
        queue.retain(|key| self.get_mut(*key).is_some_and(|request| request.phase == phase));
        *self.queue(phase) = queue;
    }
}

/// Multiplies by an odd constant and keeps the high bits where the map looks. Keys are a counter of this process, so no client can
/// choose them to collide.
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

/// More open requests than any backend serves; the table takes 5 MiB.
const MOST_REQUESTS: usize = 1 << 16;
/// Shorter queues are not worth trimming.
const SHORT_QUEUE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> RequestKey {
        RequestKey(n)
    }

    fn arrive(table: &mut InFlightTable, n: u64) -> bool {
        table.insert(key(n), n as f64, 10.0, Some(10), true)
    }

    fn admit(table: &mut InFlightTable, n: u64) {
        table.get_mut(key(n)).unwrap().phase = RequestPhase::Pending;
        table.await_first_token(key(n));
    }

    #[test]
    fn the_oldest_are_those_that_waited_longest() {
        let mut table = InFlightTable::default();
        (0..4).for_each(|n| assert!(arrive(&mut table, n)));
        [0, 2].into_iter().for_each(|n| admit(&mut table, n));
        assert_eq!(table.oldest_queued().unwrap().arrived, 1.0);
        assert_eq!(table.oldest_pending().unwrap().arrived, 0.0);
        table.get_mut(key(0)).unwrap().phase = RequestPhase::Decoding;
        table.remove(key(1));
        assert_eq!(table.oldest_queued().unwrap().arrived, 3.0);
        assert_eq!(table.oldest_pending().unwrap().arrived, 2.0);
        table.remove(key(2));
        table.remove(key(3));
        assert!(table.oldest_pending().is_none() && table.oldest_queued().is_none());
    }

    #[test]
    fn a_head_that_stays_does_not_let_the_queue_grow() {
        let mut table = InFlightTable::default();
        arrive(&mut table, 0);
        admit(&mut table, 0);
        for n in 1..10_000 {
            arrive(&mut table, n);
            admit(&mut table, n);
            table.get_mut(key(n)).unwrap().phase = RequestPhase::Decoding;
            table.remove(key(n));
        }
        assert!(table.pending.len() <= 100 && table.queued.len() <= 100);
        assert!(table.requests.len() <= 3);
        assert_eq!(table.oldest_pending().unwrap().arrived, 0.0);
    }

    #[test]
    fn a_full_table_follows_no_more() {
        let mut table = InFlightTable::default();
        assert!((0..MOST_REQUESTS as u64).all(|n| arrive(&mut table, n)));
        assert!(!arrive(&mut table, 1 << 40));
        table.remove(key(7));
        assert!(arrive(&mut table, 1 << 40));
    }
}
