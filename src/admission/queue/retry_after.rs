//! When the refused should come back: one promised start each.
//!
//! A wait told to everybody brings everybody back at once. So each refusal takes the next start of the engine that nobody
//! else was promised, not sooner than in a second: `tau = max(tau, now + 1) + 1/mu`.

use std::time::Duration;

use crate::vocabulary::time::Timestamp;

/// The last start that was promised.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::admission) struct RetryAfter {
    promised: Timestamp,
}

impl RetryAfter {
    /// Promises the next start of an engine that starts `rate` requests per second, and says how long until then: whole
    /// seconds, at least two and at most a minute.
    ///
    /// Promises are distinct as long as they lie within the minute; later ones are at its end. Without that bound the
    /// promises of a flood would keep everybody away long after it.
    pub fn promise(&mut self, now: Timestamp, rate: f64) -> Duration {
        let next = self.promised.max(now + SOONEST) + Duration::from_secs_f64(1.0 / rate.clamp(SLOWEST, FASTEST));
        self.promised = next.min(now + LATEST);
        Duration::from_secs(self.promised.since(now).as_secs_f64().ceil() as u64)
    }
}

/// A client that is sent away has a round trip to make.
const SOONEST: Duration = Duration::from_secs(1);
/// Nobody plans further ahead than that.
const LATEST: Duration = Duration::from_secs(60);
/// Starts per second that are assumed of any engine; and that the clock can tell apart.
const SLOWEST: f64 = 0.3;
const FASTEST: f64 = 1e6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_is_promised_a_start_of_its_own() {
        let mut pace = RetryAfter::default();
        let now = Timestamp::ZERO + Duration::from_secs(100);
        let mut last = Timestamp::ZERO;
        for n in 1..=100_u64 {
            let wait = pace.promise(now, 10.0);
            assert!(pace.promised > last, "promise {n} is nobody else's");
            last = pace.promised;
            assert_eq!(wait, Duration::from_millis(1_000 + 100 * n).max(Duration::from_secs(2)).as_secs_ceil());
        }
    }

    #[test]
    fn promises_end_after_a_minute_and_start_anew_when_the_flood_is_over() {
        let mut pace = RetryAfter::default();
        let now = Timestamp::ZERO + Duration::from_secs(5);
        (0..10_000).for_each(|_| assert!(pace.promise(now, 1.0) <= LATEST));
        assert_eq!(pace.promise(now, 1.0), LATEST);
        assert_eq!(pace.promise(now + Duration::from_secs(70), 1.0), Duration::from_secs(2));
    }

    #[test]
    fn an_unknown_or_absurd_rate_still_gives_a_wait() {
        for rate in [0.0, -1.0, f64::INFINITY] {
            let wait = RetryAfter::default().promise(Timestamp::ZERO, rate);
            assert!((Duration::from_secs(2)..=Duration::from_secs(5)).contains(&wait), "{rate}: {wait:?}");
        }
    }

    trait Ceil {
        fn as_secs_ceil(&self) -> Duration;
    }

    impl Ceil for Duration {
        fn as_secs_ceil(&self) -> Duration {
            Duration::from_secs(self.as_secs_f64().ceil() as u64)
        }
    }
}
