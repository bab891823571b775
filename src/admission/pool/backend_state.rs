//! One backend as the pool sees it: its queue, its limits, and whether it is available.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use arc_swap::ArcSwap;

use super::parts::{AdmissionRequest, Arc, BackendQueue, Limits, Mode, Settings, Timestamp};
use super::slow_start::SlowStart;
use super::waiter::Waiter;

/// What changes only under the pool's lock.
#[derive(Debug)]
pub(super) struct BackendState {
    pub queue: BackendQueue<Waiter>,
    pub down: bool,
    pub ejected: bool,
    pub membership: Membership,
    published: Limits,
    slow_start: Option<SlowStart>,
    /// The published limits, lowered by the slow start when it was last applied.
    in_force: Limits,
}

/// Whether a backend belongs to the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Membership {
    Active,
    /// It takes no new requests; some may still be in flight.
    Draining,
    /// Its index is free.
    Removed,
}

/// What is read and written without the pool's lock.
#[derive(Debug)]
pub(super) struct SharedState {
    pub limits: ArcSwap<Limits>,
    /// Streams past their first token whose backend is being read.
    pub listening: AtomicU32,
    /// Requests in flight that are not measured.
    pub unmeasured: AtomicU32,
}

impl BackendState {
    pub fn new(settings: Settings) -> Self {
        let limits = Limits::new(Mode::Observe);
        Self {
            queue: BackendQueue::new(settings),
            down: false,
            ejected: false,
            membership: Membership::Active,
            published: limits,
            slow_start: None,
            in_force: limits,
        }
    }

    /// A backend that takes nothing until it is reinstated.
    pub fn draining(settings: Settings, limits: Limits) -> Self {
        let mut new = Self::new(settings);
        new.publish(limits);
        new.drain();
        new
    }

    pub fn publish(&mut self, limits: Limits) {
        (self.published, self.in_force) = (limits, limits);
    }

    /// The health check's verdict; a backend that comes up starts slowly.
    pub fn set_up(&mut self, up: bool, now: Timestamp) {
        let was_down = std::mem::replace(&mut self.down, !up || self.membership != Membership::Active);
        if was_down && !self.down {
            self.start_slowly(now);
        }
    }

    /// Passive health's verdict; a backend that is trusted again starts slowly.
    pub fn set_ejected(&mut self, ejected: bool, now: Timestamp) {
        if std::mem::replace(&mut self.ejected, ejected) && !ejected {
            self.start_slowly(now);
        }
    }

    pub fn drain(&mut self) {
        (self.down, self.membership) = (true, Membership::Draining);
    }

    /// Undoes [`BackendState::drain`], unless the backend was removed since.
    pub fn reinstate(&mut self, now: Timestamp) {
        if self.membership == Membership::Draining {
            (self.down, self.membership) = (false, Membership::Active);
            self.start_slowly(now);
        }
    }

    /// The backend itself refused one of the requests in flight.
    pub fn on_refused(&mut self, now: Timestamp) {
        // The refused request is still counted.
        let others = self.queue.in_flight().saturating_sub(1);
        self.slow_start = Some(SlowStart::on_refused(self.slow_start, others, now));
    }

    /// The queue, and the limits in force at `now`.
    pub fn queue_and_limits(&mut self, now: Timestamp) -> (&mut BackendQueue<Waiter>, &Limits) {
        self.apply_slow_start(now);
        (&mut self.queue, &self.in_force)
    }

    /// Whether such a request would be dispatched at once.
    pub fn has_room(&mut self, request: &AdmissionRequest, now: Timestamp) -> bool {
        let (queue, limits) = self.queue_and_limits(now);
        queue.queued() == 0 && (limits.mode == Mode::Observe || queue.has_room(limits, request, now))
    }

    /// Seconds that such a request would wait here.
    pub fn expected_wait(&mut self, request: &AdmissionRequest, now: Timestamp) -> f64 {
        let (queue, limits) = self.queue_and_limits(now);
        queue.expected_wait(limits, request, now)
    }

    /// Room for the comparison between backends: larger is better. Mode observe has no limits, so fewer pending requests win.
    pub fn room(&self) -> (i64, i64) {
        let in_flight = -i64::from(self.queue.in_flight());
        match self.in_force.mode {
            Mode::Observe => (-i64::from(self.queue.pending()), in_flight),
            // Hundredths of a request: fine enough to tell windows apart, and integers have a total order.
            Mode::Enforce => ((self.queue.room(&self.in_force) * 100.0) as i64, in_flight),
        }
    }

    fn start_slowly(&mut self, now: Timestamp) {
        self.slow_start = Some(SlowStart::on_return(now));
    }

    fn apply_slow_start(&mut self, now: Timestamp) {
        let Some(slow_start) = self.slow_start else { return };
        self.in_force = self.published;
        if slow_start.is_over(self.queue.in_flight(), now) {
            self.slow_start = None;
        } else if self.published.mode == Mode::Enforce {
            let limit = slow_start.limit(now);
            self.in_force.concurrency =
                Some(self.published.concurrency.map_or(limit, |published| published.min(limit)));
        }
    }
}

impl SharedState {
    pub fn new(mode: Mode) -> Self {
        Self {
            limits: ArcSwap::from_pointee(Limits::new(mode)),
            listening: AtomicU32::new(0),
            unmeasured: AtomicU32::new(0),
        }
    }

    pub fn set(&self, limits: Limits) {
        self.limits.store(Arc::new(limits));
    }

    pub fn listening(&self) -> u32 {
        self.listening.load(Relaxed)
    }

    pub fn unmeasured(&self) -> u32 {
        self.unmeasured.load(Relaxed)
    }
}
