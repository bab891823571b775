//! The highest start rate over ten seconds so far: a lower bound of the capacity.
//!
//! While a batch fills up, starts exceed what can be sustained; so a span counts for no more than was completed in it.

use std::collections::VecDeque;

/// Counts starts by the second.
#[derive(Clone, Debug, Default)]
pub(super) struct BestStartRate {
    /// Starts and completions since the start, at the end of each of the last seconds.
    history: VecDeque<[u64; 2]>,
    best: Option<f64>,
}

impl BestStartRate {
    /// A second is over; both counts are since the start.
    pub fn on_second(&mut self, starts: u64, completions: u64) {
        let now = [starts, completions];
        self.history.push_back(now);
        if self.history.len() <= SPAN {
            return;
        }
        let began = self.history.pop_front().unwrap_or(now);
        let rate = (starts - began[0]).min(completions - began[1]) as f64 / SPAN as f64;
        if rate > 0.0 {
            self.best = Some(self.best.map_or(rate, |best| best.max(rate)));
        }
    }

    /// Starts per second; `None` before ten seconds with traffic.
    pub fn best(&self) -> Option<f64> {
        self.best
    }
}

/// Seconds.
const SPAN: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_ten_seconds_count() {
        let mut best = BestStartRate::default();
        let mut starts = 0;
        for second in 0..60 {
            starts += if (20..35).contains(&second) { 7 } else { 2 };
            best.on_second(starts, starts);
            assert_eq!(best.best().is_some(), second >= 10);
        }
        assert_eq!(best.best(), Some(7.0));
    }

    #[test]
    fn a_batch_that_fills_up_is_no_capacity() {
        let mut best = BestStartRate::default();
        (0..60).for_each(|second| best.on_second(20 * second, 5 * second));
        assert_eq!(best.best(), Some(5.0));
    }

    #[test]
    fn without_traffic_there_is_no_bound() {
        let mut best = BestStartRate::default();
        (0..60).for_each(|_| best.on_second(0, 0));
        assert_eq!(best.best(), None);
    }
}
