//! How many retries the backends are sent: a share of the requests, so that a failing backend is not hit twice as hard.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use crate::vocabulary::time::Timestamp;

/// At most one retry in ten requests, and one a second.
#[derive(Debug)]
pub struct RetryBudget {
    /// In tenths of a retry.
    tenths: AtomicI64,
    refilled: AtomicU64,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { tenths: AtomicI64::new(RETRY_CAP), refilled: AtomicU64::new(0) }
    }
}

impl RetryBudget {
    /// A request was dispatched for the first time.
    pub fn earn(&self) {
        if self.tenths.load(Relaxed) < RETRY_CAP {
            self.tenths.fetch_add(1, Relaxed);
        }
    }

    /// Whether a retry may happen at `now`; takes it from the budget.
    pub fn spend(&self, now: Timestamp) -> bool {
        let second = now.as_nanos() / 1_000_000_000;
        let before = self.refilled.swap(second, Relaxed);
        let earned = i64::try_from(second.saturating_sub(before)).unwrap_or(0).min(RETRY_CAP / 10) * 10;
        self.tenths
            .fetch_update(Relaxed, Relaxed, |tenths| {
                let have = (tenths + earned).min(RETRY_CAP);
                (have >= 10).then_some(have - 10)
            })
            .is_ok()
    }
}

/// Ten retries in store.
const RETRY_CAP: i64 = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn retries_are_a_tenth_of_the_requests_and_one_a_second() {
        let budget = RetryBudget::default();
        let start = Timestamp::ZERO;
        assert_eq!((0..50).filter(|_| budget.spend(start)).count(), 10, "what is in store");
        (0..30).for_each(|_| budget.earn());
        assert_eq!((0..50).filter(|_| budget.spend(start)).count(), 3);
        assert_eq!((0..50).filter(|_| budget.spend(start + Duration::from_secs(2))).count(), 2);
    }
}
