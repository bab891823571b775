//! Histograms: `Buckets` with exact configured bounds for export, `LogHistogram` for live quantiles.
//!
//! Values are whole nanoseconds or whole tokens, so sums are exact and a replay gives the same numbers to the last digit.
//! Absent: time; `window` decides which values belong to which minute.

use std::sync::Arc;

/// Upper bounds of one classic histogram, ascending, without the infinite one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    upper: Arc<[u64]>,
    unit: BoundUnit,
}

/// The unit of a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoundUnit {
    /// Nanoseconds inside, seconds outside.
    Seconds,
    /// Tokens inside and outside.
    Tokens,
}

/// A classic histogram: one count for each bound (`value <= bound`) and one for all above.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buckets {
    bounds: Bounds,
    counts: Box<[u64]>,
    count: u64,
    /// 128 bits: a thousand open streams fill 64 bits of nanoseconds in seven months.
    sum: u128,
}

/// Mergeable log-linear histogram of durations from 1 us to 1 h; a quantile is within 1/64 (1.6 %) of the exact one.
///
/// 32 octaves of 32 equal parts, 4 KiB, allocated at the first value. Values outside the range count as its ends.
#[derive(Clone, Debug, Default)]
pub struct LogHistogram {
    counts: Option<Box<[u32]>>,
    count: u64,
}

impl Bounds {
    /// Bounds in seconds; sorted and rounded to nanoseconds; duplicates and values that are not positive and finite are left out.
    pub fn seconds(upper: &[f64]) -> Self {
        let nanos = upper.iter().filter(|s| s.is_finite() && **s > 0.0).map(|s| (s * 1e9).round() as u64);
        Self::new(nanos.collect(), BoundUnit::Seconds)
    }

    /// Bounds in tokens; sorted, duplicates left out.
    pub fn tokens(upper: &[u64]) -> Self {
        Self::new(upper.to_vec(), BoundUnit::Tokens)
    }

    /// The same bounds with one more, unless it is there already. `bound` in nanoseconds or tokens.
    pub fn with(&self, bound: u64) -> Self {
        Self::new(self.upper.iter().copied().chain([bound]).collect(), self.unit)
    }

    /// The bounds in nanoseconds or tokens.
    pub fn upper(&self) -> &[u64] {
        &self.upper
    }

    pub fn unit(&self) -> BoundUnit {
        self.unit
    }

    /// Index of the bucket of `value`; `upper().len()` is the infinite one.
    pub(super) fn bucket_of(&self, value: u64) -> usize {
        self.upper.partition_point(|bound| *bound < value)
    }

    fn new(mut upper: Vec<u64>, unit: BoundUnit) -> Self {
        upper.retain(|bound| *bound > 0);
        upper.sort_unstable();
        upper.dedup();
        Self { upper: upper.into(), unit }
    }

    fn outward(&self, value: f64) -> f64 {
        match self.unit {
            BoundUnit::Seconds => value / 1e9,
            BoundUnit::Tokens => value,
        }
    }
}

impl Buckets {
    /// An empty histogram.
    pub fn new(bounds: &Bounds) -> Self {
        Self { bounds: bounds.clone(), counts: vec![0; bounds.upper.len() + 1].into(), count: 0, sum: 0 }
    }

    /// One observation, in nanoseconds or tokens.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// `n` observations of the same value.
    pub fn record_n(&mut self, value: u64, n: u64) {
        let bucket = self.bounds.bucket_of(value);
        self.add_at(bucket, n, u128::from(value) * u128::from(n));
    }

    /// `n` observations of `total / n` each; the sum gets exactly `total`, and the bucket is that of the exact quotient.
    pub fn record_share(&mut self, total: u64, n: u32) {
        if n == 0 {
            return;
        }
        let n = u64::from(n);
        let bucket = self.bounds.upper.partition_point(|bound| bound.saturating_mul(n) < total);
        self.add_at(bucket, n, u128::from(total));
    }

    /// Adds another histogram of the same bounds.
    pub fn add(&mut self, other: &Self) {
        debug_assert_eq!(self.bounds, other.bounds, "histograms of different bounds cannot be added");
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.count += other.count;
        self.sum += other.sum;
    }

    /// Adds `n` observations to a bucket, and their sum.
    pub(super) fn add_at(&mut self, bucket: usize, n: u64, sum: u128) {
        self.counts[bucket] += n;
        self.count += n;
        self.sum += sum;
    }

    /// Observations so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Sum of the observations, in nanoseconds or tokens.
    pub fn sum(&self) -> u128 {
        self.sum
    }

    /// Sum of the observations, in seconds or tokens.
    pub fn sum_outward(&self) -> f64 {
        self.bounds.outward(self.sum as f64)
    }

    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// Observations per bucket, not cumulative; the last is the infinite one.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// (upper bound in seconds or tokens, observations up to it) as in Prometheus, without the infinite one.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let mut below = 0;
        self.bounds.upper.iter().zip(&self.counts).map(move |(bound, count)| {
            below += count;
            (self.bounds.outward(*bound as f64), below)
        })
    }
}

impl LogHistogram {
    /// An empty histogram, without memory of its own yet.
    pub const fn new() -> Self {
        Self { counts: None, count: 0 }
    }

    /// One duration, in nanoseconds.
    pub fn record(&mut self, nanos: u64) {
        self.record_n(nanos, 1);
    }

    /// `n` times the same duration.
    pub fn record_n(&mut self, nanos: u64, n: u32) {
        let counts = self.counts.get_or_insert_with(|| vec![0; LOG_BUCKETS].into());
        let slot = &mut counts[log_bucket(nanos)];
        *slot = slot.saturating_add(n);
        self.count += u64::from(n);
    }

    /// Adds another histogram.
    pub fn merge(&mut self, other: &Self) {
        let Some(theirs) = &other.counts else { return };
        if other.count == 0 {
            return;
        }
        let counts = self.counts.get_or_insert_with(|| vec![0; LOG_BUCKETS].into());
        for (mine, theirs) in counts.iter_mut().zip(theirs) {
            *mine = mine.saturating_add(*theirs);
        }
        self.count += other.count;
    }

    /// Forgets every value and keeps the memory.
    pub fn clear(&mut self) {
        if self.count > 0
            && let Some(counts) = &mut self.counts
        {
            counts.fill(0);
        }
        self.count = 0;
    }

    /// Observations so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// (lower bound in nanoseconds, observations) of every bucket that holds any, ascending. A value equal to the bound falls into
    /// the bucket, so recording the pairs makes the same histogram.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        let counts = self.counts.iter().flat_map(|counts| counts.iter().enumerate());
        counts.filter(|(_, count)| **count > 0).map(|(bucket, count)| (log_lower(bucket), *count))
    }

    /// The duration in nanoseconds that a share `q` (0 to 1) of the values does not exceed; `None` when there are none.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let counts = self.counts.as_ref().filter(|_| self.count > 0)?;
        let rank = ((q.clamp(0.0, 1.0) * self.count as f64).ceil() as u64).max(1);
        let mut below = 0;
        for (bucket, count) in counts.iter().enumerate() {
            below += u64::from(*count);
            if below >= rank {
                return Some(log_middle(bucket));
            }
        }
        // Only after a count has saturated at 2^32 - 1.
        counts.iter().rposition(|count| *count > 0).map(log_middle)
    }
}

fn log_bucket(nanos: u64) -> usize {
    let nanos = nanos.clamp(1 << LOG_FIRST_OCTAVE, (1 << LOG_END_OCTAVE) - 1);
    let octave = nanos.ilog2();
    let part = (nanos >> (octave - LOG_PART_BITS)) & ((1 << LOG_PART_BITS) - 1);
    (((octave - LOG_FIRST_OCTAVE) as usize) << LOG_PART_BITS) + part as usize
}

fn log_lower(bucket: usize) -> u64 {
    let octave = log_octave(bucket);
    let part = (bucket & ((1 << LOG_PART_BITS) - 1)) as u64;
    (1 << octave) + (part << (octave - LOG_PART_BITS))
}

fn log_middle(bucket: usize) -> u64 {
    log_lower(bucket) + (1u64 << (log_octave(bucket) - LOG_PART_BITS)) / 2
}

fn log_octave(bucket: usize) -> u32 {
    LOG_FIRST_OCTAVE + (bucket >> LOG_PART_BITS) as u32
}

/// 2^10 ns is the power of two next to 1 us.
const LOG_FIRST_OCTAVE: u32 = 10;
/// 2^42 ns is 73 minutes.
const LOG_END_OCTAVE: u32 = 42;
/// 32 parts an octave: half a part is 1/64 of the value.
const LOG_PART_BITS: u32 = 5;
const LOG_BUCKETS: usize = ((LOG_END_OCTAVE - LOG_FIRST_OCTAVE) as usize) << LOG_PART_BITS;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_value_on_the_bound_belongs_below_it_and_one_more_above() {
        let mut buckets = Buckets::new(&Bounds::seconds(&[0.001, 0.005]));
        buckets.record(1_000_000);
        buckets.record(1_000_001);
        buckets.record(5_000_001);
        assert_eq!(buckets.counts(), [1, 1, 1]);
        assert_eq!(buckets.cumulative().collect::<Vec<_>>(), [(0.001, 1), (0.005, 2)]);
        assert_eq!(buckets.sum(), 7_000_002);
    }

    #[test]
    fn a_share_keeps_the_exact_total() {
        let mut buckets = Buckets::new(&Bounds::seconds(&[0.001, 0.004]));
        buckets.record_share(10_000_001, 3);
        assert_eq!((buckets.count(), buckets.sum()), (3, 10_000_001));
        assert_eq!(buckets.counts(), [0, 3, 0]);
    }

    #[test]
    fn a_share_just_above_the_bound_is_not_rounded_down() {
        let mut buckets = Buckets::new(&Bounds::seconds(&[0.001]));
        buckets.record_share(3_000_001, 3);
        assert_eq!(buckets.counts(), [0, 3]);
        buckets.record_share(3_000_000, 3);
        assert_eq!(buckets.counts(), [3, 3]);
    }

    #[test]
    fn an_inserted_threshold_is_there_once() {
        let bounds = Bounds::seconds(&[0.5, 1.0]);
        assert_eq!(bounds.with(1_000_000_000).upper().len(), 2);
        assert_eq!(bounds.with(700_000_000).upper(), [500_000_000, 700_000_000, 1_000_000_000]);
    }

    #[test]
    fn no_values_have_no_quantile_also_after_clear() {
        let mut log = LogHistogram::new();
        assert_eq!(log.quantile(0.5), None);
        log.record(5_000);
        log.clear();
        assert_eq!((log.quantile(0.5), log.count()), (None, 0));
    }

    #[test]
    fn out_of_range_values_count_as_the_ends() {
        let mut log = LogHistogram::new();
        log.record(0);
        log.record(u64::MAX);
        assert!(log.quantile(0.0).unwrap() < 1_100);
        assert!(log.quantile(1.0).unwrap() > 3_600_000_000_000);
    }

    proptest! {
        #[test]
        fn a_quantile_is_within_two_percent(mut values in prop::collection::vec(1_024u64..3_600_000_000_000, 1..400), q in 0.0f64..=1.0) {
            let (mut log, mut other) = (LogHistogram::new(), LogHistogram::new());
            for (i, v) in values.iter().enumerate() {
                if i % 3 == 0 { other.record(*v) } else { log.record(*v) }
            }
            log.merge(&other);
            values.sort_unstable();
            let exact = values[((q * values.len() as f64).ceil() as usize).max(1) - 1] as f64;
            let got = log.quantile(q).unwrap() as f64;
            prop_assert!((got - exact).abs() / exact <= 1.0 / 64.0 + 1e-3, "{got} {exact}");
        }
    }
}
