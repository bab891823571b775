//! One backend as the pool sees it: its line, its limits, and whether it is there at all.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use arc_swap::ArcSwap;

use super::ceiling::Ceiling;
use super::parts::{Ask, Limits, Line, Mode, Settings, Timestamp};
use super::waiting::Caller;

/// What changes only inside the pool's critical section.
#[derive(Debug)]
pub(super) struct Desk {
    pub line: Line<Caller>,
    pub down: bool,
    pub ejected: bool,
    pub ceiling: Option<Ceiling>,
}

/// What is published of a backend, or counted without order.
#[derive(Debug)]
pub(super) struct Board {
    pub limits: ArcSwap<Limits>,
    /// Streams past their first token that are read as they come.
    pub listening: AtomicU32,
    /// Requests that are not measured.
    pub passing: AtomicU32,
}

impl Desk {
    pub fn new(settings: Settings) -> Self {
        Self { line: Line::new(settings), down: false, ejected: false, ceiling: None }
    }

    /// What is in force now: as published, and never more than the backend's own ceiling.
    pub fn limits(&mut self, board: &Board, now: Timestamp) -> Limits {
        let mut limits = **board.limits.load();
        let in_flight = self.line.in_flight();
        if self.ceiling.is_some_and(|ceiling| ceiling.is_over(in_flight, now)) {
            self.ceiling = None;
        }
        if let Some(ceiling) = self.ceiling.filter(|_| limits.mode == Mode::Enforce) {
            let most = ceiling.limit(now);
            limits.concurrency = Some(limits.concurrency.map_or(most, |limit| limit.min(most)));
        }
        limits
    }

    /// Room as the pick compares it: larger is better. In mode observe there are no limits, so the emptier one is roomier.
    pub fn room(&self, limits: &Limits) -> (i64, i64) {
        let in_flight = -i64::from(self.line.in_flight());
        match limits.mode {
            Mode::Observe => (-i64::from(self.line.pending()), in_flight),
            // Hundredths of a request: enough to tell windows apart, and an order.
            Mode::Enforce => ((self.line.room(limits) * 100.0) as i64, in_flight),
        }
    }

    pub fn has_room(&self, limits: &Limits, ask: &Ask, now: Timestamp) -> bool {
        limits.mode == Mode::Observe || self.line.has_room(limits, ask, now)
    }
}

impl Board {
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
