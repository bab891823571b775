//! The bad answers of one backend: a count for each rule, and a log line a rule and minute.
//!
//! Counting is one atomic addition; the log is written from the once-a-second tick, never from a request's task.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::vocabulary::bad_answer::{BadAnswer, BadAnswerCounts};
use crate::vocabulary::time::Timestamp;

/// Counts since the backend was added.
#[derive(Debug, Default)]
pub struct BadAnswerTally {
    counts: [AtomicU64; BadAnswer::COUNT],
    /// What the log has reported of them.
    reported: [AtomicU64; BadAnswer::COUNT],
    /// Nanoseconds at which the log may report again.
    next_report: AtomicU64,
}

impl BadAnswerTally {
    /// An answer broke the rule `cause`.
    pub fn count(&self, cause: BadAnswer) {
        self.counts[cause.index()].fetch_add(1, Relaxed);
    }

    /// Another backend takes the slot.
    pub fn reset(&self) {
        self.counts.iter().chain(&self.reported).for_each(|count| count.store(0, Relaxed));
        self.next_report.store(0, Relaxed);
    }

    /// The counts.
    pub fn counts(&self) -> BadAnswerCounts {
        self.counts.each_ref().map(|count| count.load(Relaxed))
    }

    /// What is new since the last call that returned something; at most once a minute, whichever worker calls.
    pub fn due(&self, now: Timestamp) -> Option<BadAnswerCounts> {
        let next = self.next_report.load(Relaxed);
        let new = || {
            self.counts.iter().zip(&self.reported).any(|(count, reported)| count.load(Relaxed) > reported.load(Relaxed))
        };
        if now.as_nanos() < next || !new() {
            return None;
        }
        let later = (now + REPORT_INTERVAL).as_nanos();
        self.next_report.compare_exchange(next, later, Relaxed, Relaxed).ok()?;
        let mut fresh = self.counts();
        for (fresh, reported) in fresh.iter_mut().zip(&self.reported) {
            *fresh -= reported.swap(*fresh, Relaxed).min(*fresh);
        }
        Some(fresh)
    }

    /// Writes the log lines that are due.
    pub fn report(&self, backend: impl Fn() -> Arc<str>, now: Timestamp) {
        let Some(fresh) = self.due(now) else { return };
        let backend = &*backend();
        for reason in BadAnswer::ALL {
            let count = fresh[reason.index()];
            if count > 0 {
                tracing::warn!(backend, reason = reason.as_str(), count, "a backend sent answers that break a rule");
            }
        }
    }
}

/// A backend that is broken fails every request; one line a minute says as much.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn the_log_reports_what_is_new_once_a_minute() {
        let tally = BadAnswerTally::default();
        assert_eq!(tally.due(at(0)), None, "nothing happened");
        (0..3).for_each(|_| tally.count(BadAnswer::Framing));
        let fresh = |second| tally.due(at(second)).map(|counts| counts[BadAnswer::Framing.index()]);
        assert_eq!((fresh(1), fresh(2)), (Some(3), None));
        (0..2).for_each(|_| tally.count(BadAnswer::Framing));
        assert_eq!((fresh(60), fresh(61), fresh(200)), (None, Some(2), None));
        assert_eq!(tally.counts()[BadAnswer::Framing.index()], 5);
        tally.reset();
        assert_eq!((tally.counts(), fresh(300)), ([0; BadAnswer::COUNT], None));
    }
}
