//! The admin port's limit of connections.
//!
//! A probe must be answered however many connections are idle. So at the limit a new connection displaces the one that has been
//! idle for the longest time, and is rejected only while all of them wait for an answer. Absent: sockets and deadlines.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// The connection slots of a port.
#[derive(Debug)]
pub struct ConnLimit {
    cap: usize,
    taken: Mutex<Vec<Arc<SlotEntry>>>,
    /// A logical clock that orders events, oldest first.
    ticks: AtomicU64,
}

/// One connection's slot; dropping it frees the slot.
#[derive(Debug)]
pub struct ConnSlot {
    limit: Arc<ConnLimit>,
    entry: Arc<SlotEntry>,
}

#[derive(Debug, Default)]
struct SlotEntry {
    /// The tick of its accept, or of its last answer.
    since: AtomicU64,
    answering: AtomicBool,
    displaced: Notify,
}

impl ConnLimit {
    /// Slots for `cap` connections.
    pub fn new(cap: usize) -> Arc<Self> {
        Arc::new(Self { cap, taken: Mutex::default(), ticks: AtomicU64::new(0) })
    }

    /// A slot, if need be that of an idle connection; `None`: all connections wait for an answer.
    pub fn take(self: &Arc<Self>) -> Option<ConnSlot> {
        let entry = Arc::new(SlotEntry::default());
        entry.since.store(self.tick(), Relaxed);
        let mut taken = self.lock();
        if taken.len() >= self.cap {
            let idle = taken.iter().enumerate().filter(|(_, entry)| !entry.answering.load(Relaxed));
            let (longest, _) = idle.min_by_key(|(_, entry)| entry.since.load(Relaxed))?;
            taken.swap_remove(longest).displaced.notify_one();
        }
        taken.push(entry.clone());
        Some(ConnSlot { limit: self.clone(), entry })
    }

    fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Relaxed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<SlotEntry>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnSlot {
    /// A request has arrived: the slot cannot be displaced until `on_answered`.
    pub fn on_request(&self) {
        self.entry.answering.store(true, Relaxed);
    }

    /// The answer is ready.
    pub fn on_answered(&self) {
        self.entry.since.store(self.limit.tick(), Relaxed);
        self.entry.answering.store(false, Relaxed);
    }

    /// Resolves when another connection takes the slot.
    pub async fn displaced(&self) {
        self.entry.displaced.notified().await;
    }
}

impl Drop for ConnSlot {
    fn drop(&mut self) {
        self.limit.lock().retain(|entry| !Arc::ptr_eq(entry, &self.entry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_displaced(slot: &ConnSlot) -> bool {
        let mut displaced = std::pin::pin!(slot.displaced());
        displaced.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[test]
    fn the_connection_idle_for_the_longest_time_is_displaced() {
        let limit = ConnLimit::new(3);
        let [a, b, c] = std::array::from_fn(|_| limit.take().unwrap());
        a.on_request();
        b.on_request();
        b.on_answered();
        let _d = limit.take().unwrap();
        assert_eq!(
            [&a, &b, &c].map(is_displaced),
            [false, false, true],
            "a is being answered, b was answered after c came"
        );
    }

    #[test]
    fn a_new_connection_is_rejected_while_all_are_answered() {
        let limit = ConnLimit::new(2);
        let [a, b] = std::array::from_fn(|_| limit.take().unwrap());
        a.on_request();
        b.on_request();
        assert!(limit.take().is_none());
        drop(a);
        assert!(limit.take().is_some());
        assert!(!is_displaced(&b));
    }
}
