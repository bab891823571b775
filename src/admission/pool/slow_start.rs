//! A limit of in-flight requests that a backend imposes on itself: by refusing work, or by having been away.
//!
//! An engine's own 429 or 503 says that it has too much, whatever the estimate thinks; a backend that comes back begins with one
//! request and doubles. Both rise until they bind nobody any more. It knows no engine and no clock.

use std::time::Duration;

use super::parts::Timestamp;

/// Most requests in flight for now, and how it rises.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SlowStart {
    /// At `since`.
    base: f64,
    since: Timestamp,
    /// Factor a second.
    growth: f64,
}

impl SlowStart {
    /// The backend has come back at `now`.
    pub fn on_return(now: Timestamp) -> Self {
        Self { base: 1.0, since: now, growth: RETURN_GROWTH }
    }

    /// The backend refused a request at `now`, with `in_flight` others there. Refusals of one moment count once.
    pub fn on_refused(before: Option<Self>, in_flight: u32, now: Timestamp) -> Self {
        if let Some(before) =
            before.filter(|before| before.growth == LOSS_GROWTH && now.since(before.since) < ONE_MOMENT)
        {
            return before;
        }
        let stood = before.map_or(f64::INFINITY, |before| f64::from(before.limit(now)));
        let base = (BACK_OFF * f64::from(in_flight).min(stood)).max(1.0);
        Self { base, since: now, growth: LOSS_GROWTH }
    }

    /// Most in flight at `now`.
    pub fn limit(&self, now: Timestamp) -> u32 {
        let seconds = now.since(self.since).as_secs_f64().min(60.0);
        // It is finite, at least 1, and `as` saturates.
        (self.base * self.growth.powf(seconds) + STEP * seconds).floor().max(1.0) as u32
    }

    /// With so many in flight it has bound nobody for long enough to be forgotten.
    pub fn is_over(&self, in_flight: u32, now: Timestamp) -> bool {
        let (limit, old) = (self.limit(now), now.since(self.since));
        limit / 2 > in_flight && old >= SETTLED || old >= FORGOTTEN
    }
}

/// Doubles a second: a cold engine fills its batch over many seconds anyway.
const RETURN_GROWTH: f64 = 2.0;
/// An engine that refuses is asked for a tenth less, then for 5 % and half a request more each second.
const BACK_OFF: f64 = 0.9;
const LOSS_GROWTH: f64 = 1.05;
const STEP: f64 = 0.5;
/// Refusals that belong together: they were on their way already when the first one came back.
const ONE_MOMENT: Duration = Duration::from_secs(1);
const SETTLED: Duration = Duration::from_secs(5);
const FORGOTTEN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn one_that_comes_back_begins_with_one_and_doubles() {
        let ceiling = SlowStart::on_return(at(0));
        assert_eq!([0, 1000, 2000, 3000].map(|ms| ceiling.limit(at(ms))), [1, 2, 5, 9]);
        assert!(!ceiling.is_over(8, at(4000)) && ceiling.is_over(8, at(6000)));
    }

    #[test]
    fn one_that_refuses_is_asked_for_less_and_refusals_of_one_moment_count_once() {
        let first = SlowStart::on_refused(None, 40, at(0));
        assert_eq!(first.limit(at(0)), 36);
        assert_eq!(SlowStart::on_refused(Some(first), 40, at(500)), first);
        let again = SlowStart::on_refused(Some(first), 36, at(1500));
        assert!(again.limit(at(1500)) < 36);
        assert!(first.limit(at(5000)) > 40, "it rises again");
    }

    #[test]
    fn it_never_closes_a_backend_altogether() {
        let mut ceiling = None;
        for ms in (0..100_000).step_by(1100) {
            ceiling = Some(SlowStart::on_refused(ceiling, 1, at(ms)));
        }
        assert_eq!(ceiling.unwrap().limit(at(100_000)), 1);
    }
}
