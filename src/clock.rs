//! The one reading of the monotonic clock, and the Unix time that belongs to it.
//!
//! A process makes one `Clock` at its start and copies it to every part that does I/O; the layers below take `now` as an
//! argument. It reads tokio's clock: the system's monotonic clock in a running process, virtual time in a paused test. The wall
//! clock is read once, with the zero of the monotonic one, so that all Unix times of a process agree with each other.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::vocabulary::time::Timestamp;

/// The process's monotonic clock, counted from the moment it was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    zero: Instant,
    /// Unix time at `zero`.
    unix_zero: Duration,
}

impl Clock {
    /// A clock whose zero is now.
    #[expect(clippy::disallowed_methods, reason = "this is the place that reads the clocks")]
    pub fn start() -> Self {
        let unix_zero = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { zero: Instant::now(), unix_zero }
    }

    /// Time since zero.
    #[expect(clippy::disallowed_methods, reason = "this is the place that reads the clocks")]
    pub fn now(&self) -> Timestamp {
        Timestamp::from_nanos(nanos(Instant::now().duration_since(self.zero)))
    }

    /// The instant at which a timer for `at` must fire.
    pub fn instant(&self, at: Timestamp) -> Instant {
        self.zero + Duration::from_nanos(at.as_nanos())
    }

    /// Unix time at zero.
    pub fn epoch(&self) -> Duration {
        self.unix_zero
    }

    /// `at` as Unix time, in seconds.
    pub fn unix_seconds(&self, at: Timestamp) -> f64 {
        self.unix_zero.as_secs_f64() + at.as_secs_f64()
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
