//! Histograms of a level's times; those of several processes add up bucket by bucket.
//!
//! Buckets are those of `measure`'s log histogram (1/64 of a value), the sum is exact. A quantile of a merged level comes
//! from here only where the single values are not kept: the gaps between tokens. It holds no level and no file.

use serde::{Deserialize, Serialize};

use super::record::{LoadOutcome, LoadRecord};
use super::summary::{Spread, gaps_per_token, is_served_or_waiting, ttft_or_age};
use crate::measure::histogram::LogHistogram;

/// The times of a level, each with the same meaning as the [`Spread`] of that name in a summary.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LevelTimes {
    /// Intended start to first content token, or the age of one that never had it.
    pub ttft: Times,
    /// Send to first content token.
    pub ttft_from_send: Times,
    /// Gaps between tokens, once a token.
    pub itl: Times,
    /// Time per output token, once a request.
    pub tpot: Times,
    /// Intended start to the end.
    pub e2e: Times,
    /// Intended start to the send.
    pub schedule_delay: Times,
}

/// A histogram of durations.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Times {
    log: LogHistogram,
    sum: u128,
    max: u64,
}

impl LevelTimes {
    /// Those of some requests.
    pub fn of(records: &[LoadRecord]) -> Self {
        let mut times = Self::default();
        for record in records {
            times.add(record);
        }
        times
    }

    /// Adds those of another process, or of other requests.
    pub fn merge(&mut self, other: &Self) {
        self.ttft.merge(&other.ttft);
        self.ttft_from_send.merge(&other.ttft_from_send);
        self.itl.merge(&other.itl);
        self.tpot.merge(&other.tpot);
        self.e2e.merge(&other.e2e);
        self.schedule_delay.merge(&other.schedule_delay);
    }

    fn add(&mut self, record: &LoadRecord) {
        let completed = record.outcome == LoadOutcome::Completed;
        self.ttft.record_all(ttft_or_age(record));
        self.ttft_from_send.record_all(record.ttft_from_send().filter(|_| completed));
        self.tpot.record_all(record.tpot().filter(|_| completed));
        self.e2e.record_all(is_served_or_waiting(record).then(|| record.e2e()));
        self.schedule_delay.record_all(record.schedule_delay());
        for (seconds, tokens) in gaps_per_token(record) {
            // A file may have an endless gap: the cast saturates.
            self.itl.record((seconds * 1e9) as u64, u32::try_from(tokens).unwrap_or(u32::MAX));
        }
    }
}

impl Times {
    /// `n` times the same duration, in nanoseconds.
    pub fn record(&mut self, nanos: u64, n: u32) {
        self.log.record_n(nanos, n);
        self.sum = self.sum.saturating_add(u128::from(nanos) * u128::from(n));
        self.max = self.max.max(nanos);
    }

    /// Adds another histogram.
    pub fn merge(&mut self, other: &Self) {
        self.log.merge(&other.log);
        self.sum = self.sum.saturating_add(other.sum);
        self.max = self.max.max(other.max);
    }

    /// Lower bounds in nanoseconds and counts, of the buckets that hold any.
    pub fn buckets(&self) -> Vec<(u64, u32)> {
        self.log.buckets().collect()
    }

    /// The distribution: the mean and the largest are exact, quantiles are within 1/64.
    pub fn spread(&self) -> Spread {
        let count = self.log.count();
        if count == 0 {
            return Spread::default();
        }
        let quantile = |q| self.log.quantile(q).unwrap_or_default().min(self.max) as f64 / 1e9;
        let mean = self.sum as f64 / count as f64 / 1e9;
        let [p50, p90, p99] = [0.5, 0.9, 0.99].map(quantile);
        Spread { count, mean, p50, p90, p99, max: self.max as f64 / 1e9 }
    }

    fn record_all(&mut self, times: impl IntoIterator<Item = std::time::Duration>) {
        for time in times {
            self.record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), 1);
        }
    }
}

/// Equal bucket by bucket, whether memory for an empty one is allocated or not.
impl PartialEq for Times {
    fn eq(&self, other: &Self) -> bool {
        (self.sum, self.max) == (other.sum, other.max) && self.log.buckets().eq(other.log.buckets())
    }
}

impl Eq for Times {}

/// As it is in `sweep.json`. The sum is a text: it does not fit into the numbers of every JSON reader.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Written {
    sum_ns: String,
    max_ns: u64,
    buckets: Vec<(u64, u32)>,
}

impl From<Times> for Written {
    fn from(times: Times) -> Self {
        Self { sum_ns: times.sum.to_string(), max_ns: times.max, buckets: times.buckets() }
    }
}

impl From<Written> for Times {
    fn from(written: Written) -> Self {
        let mut log = LogHistogram::new();
        for (lower, count) in written.buckets {
            log.record_n(lower, count);
        }
        Self { log, sum: written.sum_ns.parse().unwrap_or_default(), max: written.max_ns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_as_it_was(values in prop::collection::vec((any::<u64>(), 1u32..4), 0..50)) {
            let mut times = Times::default();
            for (nanos, n) in values {
                times.record(nanos >> 8, n);
            }
            let text = serde_json::to_string(&times).unwrap();
            prop_assert_eq!(serde_json::from_str::<Times>(&text).unwrap(), times);
        }
    }

    #[test]
    fn one_more_value_is_another_histogram() {
        let mut times = Times::default();
        times.record(5_000_000, 2);
        let before = times.clone();
        times.record(5_000_000, 1);
        assert_ne!(times, before);
        assert_eq!((times.spread().count, times.spread().mean), (3, 0.005));
    }
}
