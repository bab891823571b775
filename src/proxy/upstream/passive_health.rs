//! What traffic shows of one backend: bytes, failures in a row, bad answers; and how long it is avoided for them.
//!
//! Atomics only, written from every exchange. Ejecting it from the pool is the caller's part.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::bad_answers::BadAnswerTally;
use crate::vocabulary::time::Timestamp;

/// The record of one backend slot.
#[derive(Debug, Default)]
pub struct PassiveHealth {
    /// When the backend last sent a byte, in nanoseconds of the proxy's clock; 0: never.
    last_byte_at: AtomicU64,
    /// Failures in a row, before any byte of an answer.
    failures: AtomicU32,
    /// Nanoseconds at which the ejection ends; 0: not ejected.
    ejected_until: AtomicU64,
    /// Ejections in a row, for the back-off.
    ejections: AtomicU32,
    pub bad_answers: BadAnswerTally,
}

impl PassiveHealth {
    /// Another backend takes the slot.
    pub fn reset(&self) {
        self.last_byte_at.store(0, Relaxed);
        self.failures.store(0, Relaxed);
        self.ejected_until.store(0, Relaxed);
        self.ejections.store(0, Relaxed);
        self.bad_answers.reset();
    }

    /// The backend sent something at `at`.
    pub fn on_byte(&self, at: Timestamp) {
        self.last_byte_at.store(at.as_nanos(), Relaxed);
    }

    /// An answer was relayed to its end.
    pub fn on_success(&self) {
        if self.failures.load(Relaxed) != 0 || self.ejections.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
            self.ejections.store(0, Relaxed);
        }
    }

    /// A dial, or a request before the first byte of its answer, failed. `true`: too many did in a row.
    pub fn on_failure(&self) -> bool {
        self.failures.fetch_add(1, Relaxed) + 1 >= FAILURES
    }

    /// Begins an ejection. `false`: it is ejected already.
    pub fn eject(&self, now: Timestamp) -> bool {
        if self.is_ejected(now) {
            return false;
        }
        let times = self.ejections.fetch_add(1, Relaxed).min(EJECTION_DOUBLINGS);
        let until = now + EJECTION * 2_u32.pow(times);
        self.ejected_until.store(until.as_nanos(), Relaxed);
        self.failures.store(FAILURES - 1, Relaxed);
        true
    }

    /// When the backend last sent something.
    pub fn last_byte_at(&self) -> Option<Timestamp> {
        Some(Timestamp::from_nanos(self.last_byte_at.load(Relaxed))).filter(|at| *at > Timestamp::ZERO)
    }

    /// The ejection has not ended.
    pub fn is_ejected(&self, now: Timestamp) -> bool {
        self.ejected_until.load(Relaxed) > now.as_nanos()
    }
}

/// Failed requests in a row after which a backend is avoided.
const FAILURES: u32 = 3;
/// First ejection; each further one in a row is twice as long.
const EJECTION: Duration = Duration::from_secs(5);
const EJECTION_DOUBLINGS: u32 = 5;
