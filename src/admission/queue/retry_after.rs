//! When a refused client should retry: each refusal promises a start of its own.
//!
//! The same wait for every client would bring all of them back at once. So each refusal takes the engine's next start that was not
//! promised yet, at least 1 s ahead: `tau = max(tau, now + 1) + 1/mu`.

use std::time::Duration;

use crate::vocabulary::time::Timestamp;

/// The last promised start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RetryAfter {
    promised: Timestamp,
}

impl RetryAfter {
    /// Promises the next start of an engine that starts `rate` requests per second. Returns the time until then: whole seconds,
    /// from 2 s to 60 s.
    ///
    /// Promises within 60 s are distinct; later ones lie at its end. Without that bound the promises of a flood would keep clients
    /// away long after it.
    pub fn promise(&mut self, now: Timestamp, rate: f64) -> Duration {
        let next = self.promised.max(now + SOONEST) + Duration::from_secs_f64(1.0 / rate.clamp(SLOWEST, FASTEST));
        self.promised = next.min(now + LATEST);
        Duration::from_secs(self.promised.since(now).as_secs_f64().ceil() as u64)
    }
}

/// A refused client has a round trip to make.
const SOONEST: Duration = Duration::from_secs(1);
/// No promise lies further ahead.
const LATEST: Duration = Duration::from_secs(60);
/// Starts per second: the least assumed of any engine, and the most that nanoseconds can tell apart.
const SLOWEST: f64 = 0.3;
const FASTEST: f64 = 1e6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_is_promised_a_start_of_its_own() {
        let mut retry_after = RetryAfter::default();
        let now = Timestamp::ZERO + Duration::from_secs(100);
        let mut last = Timestamp::ZERO;
        for n in 1..=100_u64 {
            let wait = retry_after.promise(now, 10.0);
            assert!(retry_after.promised > last, "promise {n} is distinct");
            last = retry_after.promised;
            assert_eq!(wait, Duration::from_millis(1_000 + 100 * n).max(Duration::from_secs(2)).as_secs_ceil());
        }
    }

    #[test]
    fn promises_end_after_a_minute_and_start_again_after_a_flood() {
        let mut retry_after = RetryAfter::default();
        let now = Timestamp::ZERO + Duration::from_secs(5);
        (0..10_000).for_each(|_| assert!(retry_after.promise(now, 1.0) <= LATEST));
        assert_eq!(retry_after.promise(now, 1.0), LATEST);
        assert_eq!(retry_after.promise(now + Duration::from_secs(70), 1.0), Duration::from_secs(2));
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
