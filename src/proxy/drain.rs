//! How the process stops taking work: serving, then lame (the port answers 503), then stopped.
//!
//! One writer (signals, the admin port), many readers; the readers are connections that wait for their next request.
//! Readiness goes at once, the 503s only after `drain.min_delay`, so that endpoints have time to be taken out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::futures::Notified;
use tokio::sync::{Notify, watch};

/// Where the process is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DrainPhase {
    /// Taking requests.
    Serving,
    /// Not ready any more, still taking requests while endpoints propagate.
    Leaving,
    /// New requests get 503 and `Connection: close`; open streams run on.
    Lame,
    /// Listeners are closed; idle connections return.
    Stopped,
}

/// The drain's state and what it waits for.
#[derive(Debug)]
pub struct Drain {
    phase: watch::Sender<DrainPhase>,
    /// Grows with each cancelling, so that a drain that was cancelled never acts behind the back of the next one. Written only
    /// while the phase is.
    generation: watch::Sender<u64>,
    exchanges: AtomicUsize,
    idle: Notify,
    stopped: Notify,
    final_: AtomicBool,
}

impl Drain {
    /// A process that serves.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            phase: watch::Sender::new(DrainPhase::Serving),
            generation: watch::Sender::new(0),
            exchanges: AtomicUsize::new(0),
            idle: Notify::new(),
            stopped: Notify::new(),
            final_: AtomicBool::new(false),
        })
    }

    /// The phase now.
    pub fn phase(&self) -> DrainPhase {
        *self.phase.borrow()
    }

    /// A reader that can wait for a change.
    pub fn watch(&self) -> watch::Receiver<DrainPhase> {
        self.phase.subscribe()
    }

    /// Leaves, at once: from here on the process is not ready. `false`: it was leaving already.
    pub fn begin(&self) -> bool {
        self.advance(*self.generation.borrow(), DrainPhase::Leaving)
    }

    /// Runs the drain: leaves, turns lame after `min_delay`, and returns when nothing is in flight or `timeout` is over.
    /// `true`: everything that was in flight has ended. Cancelled by `undrain`, which makes it return `false`.
    pub async fn run(&self, min_delay: Duration, timeout: Duration) -> bool {
        let generation = *self.generation.borrow();
        self.advance(generation, DrainPhase::Leaving);
        tokio::select! {
            () = self.cancelled(generation) => false,
            empty = async {
                tokio::time::sleep(min_delay).await;
                self.advance(generation, DrainPhase::Lame);
                tokio::time::timeout(timeout.saturating_sub(min_delay), self.empty()).await.is_ok()
            } => empty,
        }
    }

    /// Resolves when new requests are refused and none is under way (`true`), or when the drain was cancelled (`false`).
    pub async fn drained(&self) -> bool {
        let (generation, mut watch) = (*self.generation.borrow(), self.watch());
        tokio::select! {
            () = self.cancelled(generation) => false,
            () = async {
                let _ = watch.wait_for(|phase| *phase >= DrainPhase::Lame).await;
                self.empty().await;
            } => true,
        }
    }

    /// No cancelling any more: the process will end.
    pub fn make_final(&self) {
        self.phase.send_if_modified(|_| {
            self.final_.store(true, Relaxed);
            false
        });
    }

    /// Takes requests again, unless the process is about to end. Says whether it does.
    pub fn undrain(&self) -> bool {
        let mut serves = false;
        self.phase.send_if_modified(|phase| {
            serves = !self.final_.load(Relaxed) && *phase != DrainPhase::Stopped;
            if serves {
                self.generation.send_modify(|generation| *generation += 1);
                *phase = DrainPhase::Serving;
            }
            serves
        });
        serves
    }

    /// Closes the listeners.
    pub fn stop(&self) {
        self.phase.send_replace(DrainPhase::Stopped);
        self.stopped.notify_waiters();
    }

    /// Resolves when the listeners close, if that happens after this call; `has_stopped` knows whether it happened before.
    /// One of these lasts a connection's life: a reader of its own for each wait would cost a request as much as its head.
    pub fn stopped(&self) -> Notified<'_> {
        self.stopped.notified()
    }

    /// The listeners are closed.
    pub fn has_stopped(&self) -> bool {
        self.phase() == DrainPhase::Stopped
    }

    /// Counts one exchange until the guard drops.
    pub fn enter(&self) -> Underway<'_> {
        self.exchanges.fetch_add(1, Relaxed);
        Underway(self)
    }

    /// Exchanges under way, pass-through ones included.
    pub fn underway(&self) -> usize {
        self.exchanges.load(Relaxed)
    }

    /// Resolves when no exchange is under way.
    pub async fn empty(&self) {
        loop {
            let idle = self.idle.notified();
            if self.underway() == 0 {
                return;
            }
            idle.await;
        }
    }

    async fn cancelled(&self, generation: u64) {
        let _ = self.generation.subscribe().wait_for(|now| *now != generation).await;
    }

    /// Serving => Leaving => Lame => Stopped; never backwards, and not for a drain that was cancelled.
    fn advance(&self, generation: u64, to: DrainPhase) -> bool {
        self.phase.send_if_modified(|phase| {
            let forward = *phase < to && *self.generation.borrow() == generation;
            if forward {
                *phase = to;
            }
            forward
        })
    }
}

/// One exchange under way.
#[derive(Debug)]
pub struct Underway<'d>(&'d Drain);

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        if self.0.exchanges.fetch_sub(1, Relaxed) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "virtual time is what is measured here")]

    use super::*;

    const DELAY: Duration = Duration::from_secs(5);
    const TIMEOUT: Duration = Duration::from_secs(120);

    #[tokio::test(start_paused = true)]
    async fn an_idle_process_has_drained_after_the_minimum_delay() {
        let drain = Drain::new();
        let start = tokio::time::Instant::now();
        assert!(drain.run(DELAY, TIMEOUT).await);
        assert_eq!(start.elapsed(), DELAY);
        assert_eq!(drain.phase(), DrainPhase::Lame);
    }

    #[tokio::test(start_paused = true)]
    async fn the_drain_ends_with_the_last_exchange_and_not_before() {
        let drain = Drain::new();
        let underway = drain.enter();
        let run = tokio::spawn({
            let drain = drain.clone();
            async move { drain.run(DELAY, TIMEOUT).await }
        });
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!run.is_finished());
        drop(underway);
        assert!(run.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_longer_than_the_timeout_makes_the_drain_fail() {
        let drain = Drain::new();
        let _underway = drain.enter();
        let start = tokio::time::Instant::now();
        assert!(!drain.run(DELAY, TIMEOUT).await);
        assert_eq!(start.elapsed(), TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn undrain_cancels_unless_the_process_is_about_to_end() {
        let drain = Drain::new();
        let _underway = drain.enter();
        let run = tokio::spawn({
            let drain = drain.clone();
            async move { drain.run(DELAY, TIMEOUT).await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(drain.undrain());
        assert!(!run.await.unwrap());
        assert_eq!(drain.phase(), DrainPhase::Serving);
        drain.make_final();
        assert!(!drain.undrain());
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_drain_does_not_act_for_the_next_one() {
        let drain = Drain::new();
        let run = |drain: &Arc<Drain>| {
            let drain = drain.clone();
            tokio::spawn(async move { drain.run(DELAY, TIMEOUT).await })
        };
        let first = run(&drain);
        tokio::time::sleep(DELAY / 2).await;
        assert!(drain.undrain() && drain.begin(), "before the first one can see that it was cancelled");
        let second = run(&drain);
        tokio::time::sleep(DELAY * 3 / 4).await;
        assert_eq!(drain.phase(), DrainPhase::Leaving, "the first one would have turned it lame by now");
        assert!(!first.await.unwrap());
        assert!(second.await.unwrap());
        assert_eq!(drain.phase(), DrainPhase::Lame);
    }

    #[tokio::test(start_paused = true)]
    async fn undraining_at_the_moment_of_turning_lame_leaves_it_serving() {
        for _ in 0..50 {
            let drain = Drain::new();
            let run = tokio::spawn({
                let drain = drain.clone();
                async move { drain.run(DELAY, TIMEOUT).await }
            });
            tokio::task::yield_now().await;
            tokio::time::advance(DELAY).await;
            assert!(drain.undrain());
            run.await.unwrap();
            assert_eq!(drain.phase(), DrainPhase::Serving);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_has_drained_only_once_new_requests_are_refused() {
        let drain = Drain::new();
        assert!(drain.begin() && !drain.begin());
        let start = tokio::time::Instant::now();
        let (ran, drained) = tokio::join!(drain.run(DELAY, TIMEOUT), drain.drained());
        assert!(ran && drained);
        assert_eq!(start.elapsed(), DELAY);
    }
}
