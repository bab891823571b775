//! A temporary concurrency limit of a backend that refused a request itself, or that came back after an absence.
//!
//! An engine's own 429 or 503 says that it is overloaded, whatever the estimate says. A backend that comes back starts with one
//! request and doubles. Both limits rise until they no longer bind.
//!
//! Absent: the engine and the clock.

use std::time::Duration;

use super::parts::Timestamp;

/// A limit on requests in flight that rises with time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SlowStart {
    /// The limit at `since`.
    base: f64,
    since: Timestamp,
    /// Factor per second.
    growth: f64,
}

impl SlowStart {
    /// The backend came back at `now`.
    pub fn on_return(now: Timestamp) -> Self {
        Self { base: 1.0, since: now, growth: RETURN_GROWTH }
    }

    /// The backend refused a request at `now`, with `in_flight` others there. Refusals within a second count once.
    pub fn on_refused(before: Option<Self>, in_flight: u32, now: Timestamp) -> Self {
        if let Some(before) =
            before.filter(|before| before.growth == LOSS_GROWTH && now.since(before.since) < SAME_BURST)
        {
            return before;
        }
        let previous = before.map_or(f64::INFINITY, |before| f64::from(before.limit(now)));
        let base = (BACK_OFF * f64::from(in_flight).min(previous)).max(1.0);
        Self { base, since: now, growth: LOSS_GROWTH }
    }

    /// Requests in flight allowed at `now`.
    pub fn limit(&self, now: Timestamp) -> u32 {
        let seconds = now.since(self.since).as_secs_f64().min(60.0);
        // It is finite, at least 1, and `as` saturates.
        (self.base * self.growth.powf(seconds) + STEP * seconds).floor().max(1.0) as u32
    }

    /// With `in_flight` requests it has not bound for long enough to be dropped.
    pub fn is_over(&self, in_flight: u32, now: Timestamp) -> bool {
        let (limit, age) = (self.limit(now), now.since(self.since));
        limit / 2 > in_flight && age >= SETTLED || age >= MAX_AGE
    }
}

/// Doubles every second: a cold engine fills its batch over many seconds anyway.
const RETURN_GROWTH: f64 = 2.0;
/// A refusal lowers the limit by 10 %; then it rises by 5 % and half a request per second.
const BACK_OFF: f64 = 0.9;
const LOSS_GROWTH: f64 = 1.05;
const STEP: f64 = 0.5;
/// Refusals that count once: they were in flight already when the first one came back.
const SAME_BURST: Duration = Duration::from_secs(1);
const SETTLED: Duration = Duration::from_secs(5);
const MAX_AGE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn a_backend_that_comes_back_starts_with_one_and_doubles() {
        let slow_start = SlowStart::on_return(at(0));
        assert_eq!([0, 1000, 2000, 3000].map(|ms| slow_start.limit(at(ms))), [1, 2, 5, 9]);
        assert!(!slow_start.is_over(8, at(4000)) && slow_start.is_over(8, at(6000)));
    }

    #[test]
    fn a_refusal_lowers_it_and_refusals_of_one_burst_count_once() {
        let first = SlowStart::on_refused(None, 40, at(0));
        assert_eq!(first.limit(at(0)), 36);
        assert_eq!(SlowStart::on_refused(Some(first), 40, at(500)), first);
        let again = SlowStart::on_refused(Some(first), 36, at(1500));
        assert!(again.limit(at(1500)) < 36);
        assert!(first.limit(at(5000)) > 40, "it rises again");
    }

    #[test]
    fn it_never_closes_a_backend() {
        let mut slow_start = None;
        for ms in (0..100_000).step_by(1100) {
            slow_start = Some(SlowStart::on_refused(slow_start, 1, at(ms)));
        }
        assert_eq!(slow_start.unwrap().limit(at(100_000)), 1);
    }
}
