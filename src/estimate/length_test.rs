//! Detects that answers became longer or shorter.
//!
//! Two CUSUMs of the log-likelihood ratio "all lengths are twice (half) what they were" against the distribution so far. Each
//! emission that a stream survives and each end adds the ratio of the two hazards at that emission; with buckets of four an
//! octave, the distribution of twice the length is a shift by four buckets. An event costs a look-up; the tables are
//! refreshed at each tick.

use super::answer_lengths::{BUCKETS, LengthDistribution};

/// The sequential tests.
#[derive(Clone, Debug)]
pub(super) struct LengthTest {
    weights: [Weights; BUCKETS],
    longer: f64,
    shorter: f64,
}

/// What an event in a bucket adds to the two sums; all 0 where the distribution is not known well enough.
#[derive(Clone, Copy, Debug, Default)]
struct Weights {
    longer: LikelihoodRatios,
    shorter: LikelihoodRatios,
}

/// Log-likelihood ratios.
#[derive(Clone, Copy, Debug, Default)]
struct LikelihoodRatios {
    survived: f64,
    ended: f64,
}

impl Default for LengthTest {
    fn default() -> Self {
        Self { weights: [Weights::default(); BUCKETS], longer: 0.0, shorter: 0.0 }
    }
}

impl LengthTest {
    /// Rebuilds the tables. Ten times a second is often enough: a completion moves the distribution by a thousandth.
    pub fn refresh(&mut self, distribution: &LengthDistribution) {
        let known = distribution.completions() >= FEWEST;
        for (bucket, weights) in self.weights.iter_mut().enumerate() {
            // Where no end is expected, an end would be judged by a guess.
            let tested = known && distribution.ends(bucket) >= FEWEST_ENDS;
            *weights = if tested { Weights::of(distribution, bucket).unwrap_or_default() } else { Weights::default() };
        }
    }

    /// A stream reached an emission of this bucket.
    pub fn on_emission(&mut self, bucket: usize) {
        let Weights { longer, shorter } = self.weights[bucket];
        self.longer = (self.longer + longer.survived).max(0.0);
        self.shorter = (self.shorter + shorter.survived).max(0.0);
    }

    /// A stream ended in this bucket. Returns whether the distribution changed, and starts again then.
    pub fn on_completion(&mut self, bucket: usize) -> bool {
        let Weights { longer, shorter } = self.weights[bucket];
        self.longer = (self.longer + longer.ended).max(0.0);
        self.shorter = (self.shorter + shorter.ended).max(0.0);
        let changed = self.longer > THRESHOLD || self.shorter > THRESHOLD;
        if changed {
            *self = Self::default();
        }
        changed
    }

    /// There is no evidence of a change: if one is found later, it was not before now.
    pub fn is_quiet(&self) -> bool {
        self.longer.max(self.shorter) < QUIET
    }
}

impl Weights {
    fn of(distribution: &LengthDistribution, bucket: usize) -> Option<Self> {
        let hazard = distribution.smooth_hazard(bucket)?.min(HIGHEST);
        // O' = 2 O has h'(g) = h(g / 2) / 2, and O' = O / 2 has h'(g) = 2 h(2 g).
        let twice = match bucket.checked_sub(OCTAVE) {
            Some(below) => 0.5 * distribution.smooth_hazard(below)?,
            None => 0.5 * distribution.smooth_hazard(0)?,
        };
        let half = 2.0 * distribution.smooth_hazard(bucket + OCTAVE)?;
        Some(Self { longer: LikelihoodRatios::of(hazard, twice), shorter: LikelihoodRatios::of(hazard, half) })
    }
}

impl LikelihoodRatios {
    fn of(hazard: f64, other: f64) -> Self {
        let other = other.min(HIGHEST);
        let ended = (other / hazard).ln();
        let clipped = ended.clamp(-CLIP, CLIP);
        // From the clipped ratio, so that both weights belong to one alternative.
        Self { survived: hazard - hazard * clipped.exp(), ended: clipped }
    }
}

/// Buckets in a factor of two.
const OCTAVE: usize = 4;
/// Completions before a distribution is tested against.
const FEWEST: f64 = 60.0;
/// Ends in a bucket, at the weight of now, before it is tested.
const FEWEST_ENDS: f64 = 3.0;
/// A hazard above this is the end of answers of fixed length.
const HIGHEST: f64 = 0.5;
/// No single end adds more than this.
const CLIP: f64 = 3.0;
/// Log-likelihood ratio of an alarm ...
const THRESHOLD: f64 = 15.0;
/// ... and of no evidence.
const QUIET: f64 = 1.0;

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::estimate::answer_lengths::bucket;

    /// Lengths with E[O] = 60 and a long tail.
    fn length(rng: &mut ChaCha8Rng, scale: f64) -> u32 {
        let uniform: f64 = rng.random_range(1e-9..1.0);
        (scale * (1.0 + 59.0 * -uniform.ln())).round().max(1.0) as u32
    }

    #[test]
    fn ten_thousand_answers_of_one_distribution_do_not_alarm() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        assert_eq!(alarms(&mut rng, 10_000, 1.0), 0);
    }

    #[test]
    fn answers_of_twice_and_half_the_length_are_detected() {
        for (seed, scale, answers) in [(5, 2.0, 100), (6, 0.5, 150)] {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            assert!(alarms(&mut rng, answers, scale) >= 1, "{scale}");
        }
    }

    /// A cold start into overload: hundreds of streams begin at once and end bucket by bucket.
    #[test]
    fn streams_that_begin_together_are_no_change() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let (mut distribution, mut test) = (LengthDistribution::new(0.999), LengthTest::default());
        let mut left: Vec<(u32, u32)> = (0..500).map(|_| (0, length(&mut rng, 1.0))).collect();
        for step in 0..2_000 {
            if step % 15 == 0 {
                test.refresh(&distribution);
            }
            for (emitted, target) in &mut left {
                *emitted += 1;
                test.on_emission(bucket(*emitted));
                distribution.on_emission(bucket(*emitted));
                if emitted == target {
                    distribution.on_completion(*emitted);
                    assert!(!test.on_completion(bucket(*emitted)), "step {step}");
                    (*emitted, *target) = (0, length(&mut rng, 1.0));
                }
            }
        }
    }

    /// Learns 1,000 answers, then counts alarms over `count` answers of another scale.
    fn alarms(rng: &mut ChaCha8Rng, count: usize, scale: f64) -> usize {
        let (mut distribution, mut test) = (LengthDistribution::new(0.999), LengthTest::default());
        let mut raised = 0;
        for n in 0..1_000 + count {
            let length = length(rng, if n < 1_000 { 1.0 } else { scale });
            test.refresh(&distribution);
            (1..=length).for_each(|emission| {
                test.on_emission(bucket(emission));
                distribution.on_emission(bucket(emission));
            });
            distribution.on_completion(length);
            raised += usize::from(test.on_completion(bucket(length)) && n >= 1_000);
        }
        raised
    }
}
