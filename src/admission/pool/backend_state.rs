//! One backend as the pool sees it: its queue, its limits, and whether it is there at all.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use arc_swap::ArcSwap;

use super::parts::{AdmissionRequest, BackendQueue, Limits, Mode, Settings, Timestamp};
use super::slow_start::SlowStart;
use super::waiter::Waiter;

/// What changes only inside the pool's critical section.
#[derive(Debug)]
pub(super) struct BackendState {
    pub queue: BackendQueue<Waiter>,
    pub down: bool,
    pub ejected: bool,
    published: Limits,
    ceiling: Option<SlowStart>,
    /// As published, and never more than the ceiling: what was in force at the last look.
    in_force: Limits,
    pub stay: Membership,
}

/// Whether a backend belongs to the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Membership {
    Here,
    /// It was taken out and still has requests.
    Leaving,
    /// Its place is free.
    Gone,
}

/// What is published of a backend, or counted without order.
#[derive(Debug)]
pub(super) struct SharedState {
    pub limits: ArcSwap<Limits>,
    /// Streams past their first token that are read as they come.
    pub listening: AtomicU32,
    /// Requests that are not measured.
    pub passing: AtomicU32,
}

impl BackendState {
    pub fn new(settings: Settings) -> Self {
        let limits = Limits::new(Mode::Observe);
        Self {
            queue: BackendQueue::new(settings),
            down: false,
            ejected: false,
            published: limits,
            ceiling: None,
            in_force: limits,
            stay: Membership::Here,
        }
    }

    pub fn is_leaving(&self) -> bool {
        self.stay != Membership::Here
    }

    /// Obeys these from now on.
    pub fn publish(&mut self, limits: Limits) {
        (self.published, self.in_force) = (limits, limits);
    }

    /// It comes back after an absence, and starts slowly.
    pub fn start_slowly(&mut self, now: Timestamp) {
        self.ceiling = Some(SlowStart::on_return(now));
    }

    /// The backend itself refused one of those in flight.
    pub fn hold_back(&mut self, now: Timestamp) {
        // The one that was refused is still counted.
        let others = self.queue.in_flight().saturating_sub(1);
        self.ceiling = Some(SlowStart::on_refused(self.ceiling, others, now));
    }

    /// The queue, and what is in force now.
    pub fn open(&mut self, now: Timestamp) -> (&mut BackendQueue<Waiter>, &Limits) {
        self.look(now);
        (&mut self.queue, &self.in_force)
    }

    /// Whether one like that would go at once.
    pub fn has_room(&mut self, ask: &AdmissionRequest, now: Timestamp) -> bool {
        let (queue, limits) = self.open(now);
        queue.queued() == 0 && (limits.mode == Mode::Observe || queue.has_room(limits, ask, now))
    }

    /// Seconds that one like that would wait here.
    pub fn expected_wait(&mut self, ask: &AdmissionRequest, now: Timestamp) -> f64 {
        let (queue, limits) = self.open(now);
        queue.expected_wait(limits, ask, now)
    }

    fn look(&mut self, now: Timestamp) {
        let Some(ceiling) = self.ceiling else { return };
        self.in_force = self.published;
        if ceiling.is_over(self.queue.in_flight(), now) {
            self.ceiling = None;
        } else if self.published.mode == Mode::Enforce {
            let most = ceiling.limit(now);
            self.in_force.concurrency = Some(self.published.concurrency.map_or(most, |limit| limit.min(most)));
        }
    }

    /// Room as the pick compares it: larger is better. In mode observe there are no limits, so the emptier one is roomier.
    pub fn room(&self) -> (i64, i64) {
        let in_flight = -i64::from(self.queue.in_flight());
        match self.in_force.mode {
            Mode::Observe => (-i64::from(self.queue.pending()), in_flight),
            // Hundredths of a request: enough to tell windows apart, and an order.
            Mode::Enforce => ((self.queue.room(&self.in_force) * 100.0) as i64, in_flight),
        }
    }
}

impl SharedState {
    pub fn new(mode: Mode) -> Self {
        Self {
            limits: ArcSwap::from_pointee(Limits::new(mode)),
            listening: AtomicU32::new(0),
            passing: AtomicU32::new(0),
        }
    }

    pub fn set(&self, limits: Limits) {
        self.limits.store(std::sync::Arc::new(limits));
    }

    pub fn listening(&self) -> u32 {
        self.listening.load(Relaxed)
    }

    pub fn passing(&self) -> u32 {
        self.passing.load(Relaxed)
    }
}
