//! The one reading of the monotonic clock, for the I/O floor and above.
//!
//! One `Clock` is made at start and copied to whoever touches a socket; everything below takes `now` as an argument.
//! It reads tokio's clock, which is the system's monotonic clock in a running process and virtual time in a paused test.

use std::time::Duration;

use tokio::time::Instant;

use crate::vocabulary::time::Timestamp;

/// The process's monotonic clock, counted from the moment it was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// A clock whose epoch is now.
    #[expect(clippy::disallowed_methods, reason = "this is the place that reads the clock")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the epoch.
    #[expect(clippy::disallowed_methods, reason = "this is the place that reads the clock")]
    pub fn now(&self) -> Timestamp {
        Timestamp::from_nanos(nanos(Instant::now().duration_since(self.0)))
    }

    /// The instant at which a timer for `at` must fire.
    pub fn instant(&self, at: Timestamp) -> Instant {
        self.0 + Duration::from_nanos(at.as_nanos())
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
