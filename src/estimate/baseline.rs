//! The unloaded TTFT: how long a first token takes when no other request waits for one, by prompt length.
//!
//! Sixteen buckets of log2(prompt tokens), each a tracker of the 30th percentile in the log domain: robust against some
//! queueing in the samples, at the cost of a few floats. The caller decides which samples are free of load.

use crate::vocabulary::average::octave;

/// The unloaded TTFT as a function of prompt length.
#[derive(Clone, Debug, Default)]
pub(super) struct TtftBaseline {
    buckets: [Bucket; BUCKETS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// Natural logarithm of the 30th percentile, in seconds.
    log: f64,
    /// The 30th percentile itself: read with every request, changed by few.
    seconds: f64,
    count: u32,
}

impl TtftBaseline {
    /// Adds a TTFT, in seconds, of a prompt that met no load.
    pub fn add(&mut self, prompt: f64, ttft: f64) {
        let log = ttft.max(1e-5).ln();
        let bucket = &mut self.buckets[bucket_of(prompt)];
        if bucket.count == 0 {
            bucket.log = log;
        }
        bucket.count = bucket.count.saturating_add(1);
        let eta = (1.0 / f64::from(bucket.count)).clamp(SLOWEST, FASTEST);
        bucket.log = if log < bucket.log {
            (bucket.log - (1.0 - PERCENTILE) * eta).max(log)
        } else {
            (bucket.log + PERCENTILE * eta).min(log)
        };
        bucket.seconds = bucket.log.exp();
    }

    /// Seconds for a prompt of this length, from the nearest bucket that has enough samples; `None` before there is one.
    pub fn of(&self, prompt: f64) -> Option<f64> {
        let wanted = bucket_of(prompt);
        let nearest = self.nearest(wanted)?;
        // From a shorter prompt: half of the TTFT grows with the length, half is the step that happens anyway.
        let longer = f64::from(1_u32 << wanted.saturating_sub(nearest));
        Some(self.buckets[nearest].seconds * (1.0 + 0.5 * (longer - 1.0)))
    }

    /// The nearest bucket with enough samples: itself most of the time, the shorter of two that are as far away.
    fn nearest(&self, wanted: usize) -> Option<usize> {
        let has_enough = |index: usize| self.buckets.get(index).is_some_and(|bucket| bucket.count >= ENOUGH);
        let around = |far: usize| {
            wanted
                .checked_sub(far)
                .filter(|index| has_enough(*index))
                .or(Some(wanted + far).filter(|index| has_enough(*index)))
        };
        (0..BUCKETS).find_map(around)
    }

    /// Whether the bucket of this length still has no sample.
    pub fn is_new(&self, prompt: f64) -> bool {
        self.of(prompt).is_none()
    }
}

fn bucket_of(prompt: f64) -> usize {
    octave(prompt).min(BUCKETS - 1)
}

pub(super) const BUCKETS: usize = crate::vocabulary::signals::PROMPT_CLASSES;
const PERCENTILE: f64 = 0.3;
/// Samples before a bucket is used.
const ENOUGH: u32 = 3;
/// A step of 3 % at most once settled: a change of the engine is followed within some tens of samples.
const SLOWEST: f64 = 0.03;
const FASTEST: f64 = 0.5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_known_before_three_samples() {
        let mut baseline = TtftBaseline::default();
        baseline.add(100.0, 0.05);
        baseline.add(100.0, 0.05);
        assert_eq!(baseline.of(100.0), None);
        baseline.add(100.0, 0.05);
        assert!((baseline.of(100.0).unwrap() - 0.05).abs() < 1e-9);
    }

    #[test]
    fn it_settles_near_the_thirtieth_percentile() {
        let mut baseline = TtftBaseline::default();
        for n in 0..5000_u32 {
            // 0.1 to 0.2 in an order that hits every decile alike.
            baseline.add(100.0, 0.1 + 0.1 * f64::from(n * 37 % 100) / 100.0);
        }
        let settled = baseline.of(100.0).unwrap();
        assert!((0.12..0.14).contains(&settled), "{settled}");
    }

    #[test]
    fn longer_prompts_are_scaled_up_from_shorter_ones() {
        let mut baseline = TtftBaseline::default();
        (0..5).for_each(|_| baseline.add(100.0, 0.1));
        assert!((baseline.of(400.0).unwrap() - 0.25).abs() < 1e-6);
        assert!((baseline.of(10.0).unwrap() - 0.1).abs() < 1e-6);
    }

    #[test]
    fn a_length_beyond_every_bucket_is_the_last_bucket() {
        let mut baseline = TtftBaseline::default();
        (0..5).for_each(|_| baseline.add(1e9, 2.0));
        assert!(baseline.of(1e9).is_some() && baseline.of(0.0).is_some());
    }
}
