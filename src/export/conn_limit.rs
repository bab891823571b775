//! The admin port's places: so many connections at a time, and none that only sits there.
//!
//! A probe must be answered whoever holds connections open. So when every place is taken, the connection that has asked for
//! nothing for the longest time makes room; only when all of them are being answered is a newcomer turned away. It holds no
//! sockets and no deadlines.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// All places of a port.
#[derive(Debug)]
pub struct ConnLimit {
    cap: usize,
    taken: Mutex<Vec<Arc<SlotEntry>>>,
    /// Orders what happens, oldest first.
    turns: AtomicU64,
}

/// One connection's place; dropping it frees the place.
#[derive(Debug)]
pub struct ConnSlot {
    places: Arc<ConnLimit>,
    entry: Arc<SlotEntry>,
}

#[derive(Debug, Default)]
struct SlotEntry {
    /// The turn at which it came, or was last answered.
    since: AtomicU64,
    answering: AtomicBool,
    leave: Notify,
}

impl ConnLimit {
    /// Places for `cap` connections.
    pub fn new(cap: usize) -> Arc<Self> {
        Arc::new(Self { cap, taken: Mutex::default(), turns: AtomicU64::new(0) })
    }

    /// A place, made free if need be; `None`: all are being answered.
    pub fn take(self: &Arc<Self>) -> Option<ConnSlot> {
        let entry = Arc::new(SlotEntry::default());
        entry.since.store(self.turn(), Relaxed);
        let mut taken = self.lock();
        if taken.len() >= self.cap {
            let idle = taken.iter().enumerate().filter(|(_, entry)| !entry.answering.load(Relaxed));
            let (longest, _) = idle.min_by_key(|(_, entry)| entry.since.load(Relaxed))?;
            taken.swap_remove(longest).leave.notify_one();
        }
        taken.push(entry.clone());
        Some(ConnSlot { places: self.clone(), entry })
    }

    fn turn(&self) -> u64 {
        self.turns.fetch_add(1, Relaxed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<SlotEntry>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnSlot {
    /// A request has come: the place is safe until `on_answered`.
    pub fn on_request(&self) {
        self.entry.answering.store(true, Relaxed);
    }

    /// The answer is made.
    pub fn on_answered(&self) {
        self.entry.since.store(self.places.turn(), Relaxed);
        self.entry.answering.store(false, Relaxed);
    }

    /// Resolves when somebody else needs the place.
    pub async fn needed(&self) {
        self.entry.leave.notified().await;
    }
}

impl Drop for ConnSlot {
    fn drop(&mut self) {
        self.places.lock().retain(|entry| !Arc::ptr_eq(entry, &self.entry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_needed(place: &ConnSlot) -> bool {
        let mut needed = std::pin::pin!(place.needed());
        needed.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[test]
    fn the_one_that_was_silent_for_the_longest_time_makes_room() {
        let places = ConnLimit::new(3);
        let [a, b, c] = std::array::from_fn(|_| places.take().unwrap());
        a.on_request();
        b.on_request();
        b.on_answered();
        let _d = places.take().unwrap();
        assert_eq!([&a, &b, &c].map(is_needed), [false, false, true], "a is being answered, b was after c came");
    }

    #[test]
    fn when_all_are_being_answered_a_newcomer_is_turned_away_until_one_is_free() {
        let places = ConnLimit::new(2);
        let [a, b] = std::array::from_fn(|_| places.take().unwrap());
        a.on_request();
        b.on_request();
        assert!(places.take().is_none());
        drop(a);
        assert!(places.take().is_some());
        assert!(!is_needed(&b));
    }
}
