//! A bounded channel whose sender never waits: an item that finds it full is dropped and counted.
//!
//! The journal, the access log, the log on standard error and the spans each have one in front of a thread of their own: a disk, a
//! pipe or a collector that stalls costs items and never a request. The receiving side stays the channel's own, because two
//! threads block on it and one is async. Absent: a preference among items; the newest one is the one that is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use tokio::sync::mpsc;

/// The sending side; cheap to clone.
#[derive(Clone, Debug)]
pub struct Sink<C> {
    channel: C,
    lost: LostCount,
}

/// How many items were dropped; it only grows.
#[derive(Clone, Debug, Default)]
pub struct LostCount(Arc<AtomicU64>);

/// A sending side that takes an item or refuses it at once.
pub trait BoundedSender<T> {
    /// `false`: the channel is full or its receiver is gone, and the item is dropped.
    fn try_push(&self, item: T) -> bool;
}

impl<T> BoundedSender<T> for SyncSender<T> {
    fn try_push(&self, item: T) -> bool {
        self.try_send(item).is_ok()
    }
}

impl<T> BoundedSender<T> for mpsc::Sender<T> {
    fn try_push(&self, item: T) -> bool {
        self.try_send(item).is_ok()
    }
}

impl<T> Sink<SyncSender<T>> {
    /// A sink of at most `capacity` items for a thread that blocks on the receiver.
    pub fn blocking(capacity: usize) -> (Self, Receiver<T>) {
        let (channel, receiver) = sync_channel(capacity);
        (Self { channel, lost: LostCount::default() }, receiver)
    }
}

impl<T> Sink<mpsc::Sender<T>> {
    /// A sink of at most `capacity` items for a task that awaits the receiver.
    pub fn asynchronous(capacity: usize) -> (Self, mpsc::Receiver<T>) {
        let (channel, receiver) = mpsc::channel(capacity);
        (Self { channel, lost: LostCount::default() }, receiver)
    }
}

impl<C> Sink<C> {
    /// Sends an item, or drops it and counts one.
    pub fn offer<T>(&self, item: T)
    where
        C: BoundedSender<T>,
    {
        self.offer_as(item, 1);
    }

    /// Sends an item that counts as `weight` items when it is dropped.
    pub fn offer_as<T>(&self, item: T, weight: u64)
    where
        C: BoundedSender<T>,
    {
        if !self.channel.try_push(item) {
            self.lost.0.fetch_add(weight, Relaxed);
        }
    }

    /// Sends an item whose loss is not counted; `false`: it was dropped.
    pub fn offer_uncounted<T>(&self, item: T) -> bool
    where
        C: BoundedSender<T>,
    {
        self.channel.try_push(item)
    }

    /// Items dropped so far.
    pub fn lost(&self) -> u64 {
        self.lost.get()
    }

    /// The count itself, for a reader that outlives the senders.
    pub fn lost_count(&self) -> LostCount {
        self.lost.clone()
    }

    /// The channel itself, for a sender that counts its own losses.
    pub fn channel(&self) -> &C {
        &self.channel
    }
}

impl LostCount {
    /// Items dropped so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_that_finds_the_sink_full_is_dropped_and_counted() {
        let (sink, receiver) = Sink::blocking(2);
        (0..5).for_each(|n| sink.offer(n));
        assert_eq!((sink.lost(), receiver.try_iter().collect::<Vec<_>>()), (3, vec![0, 1]));
    }

    #[test]
    fn an_item_is_lost_once_the_receiver_is_gone() {
        let (sink, receiver) = Sink::asynchronous(2);
        sink.offer_as("taken", 3);
        assert_eq!(sink.lost(), 0);
        drop(receiver);
        sink.offer_as("dropped", 3);
        assert!(!sink.offer_uncounted("not counted"));
        assert_eq!(sink.lost_count().get(), 3);
    }
}
