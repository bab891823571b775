//! Notices that answers became longer or shorter.
//!
//! Two CUSUMs of the log-likelihood ratio "all lengths are twice (half) what they were" against the law so far. Each emission
//! that is survived and each end speaks by the hazards of the two laws at that emission; buckets of four an octave make the
//! law of twice the length a shift by four buckets. It looks up, it does not compute: the tables are refreshed now and then.

use super::lengths::{BUCKETS, OutputLaw};

/// The sequential tests.
#[derive(Clone, Debug)]
pub(super) struct LengthTest {
    weights: [Weights; BUCKETS],
    longer: f64,
    shorter: f64,
}

/// What an event in a bucket adds to the two sums; all 0 where the law is not known well enough.
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
    /// Looks the law up. Ten times a second is often enough: it moves by a thousandth a completion.
    pub fn refresh(&mut self, law: &OutputLaw) {
        let known = law.completions() >= FEWEST;
        for (bucket, weights) in self.weights.iter_mut().enumerate() {
            // Where no end is expected, an end would be judged by a guess.
            let tested = known && law.ends(bucket) >= FEWEST_ENDS;
            *weights = if tested { Weights::of(law, bucket).unwrap_or_default() } else { Weights::default() };
        }
    }

    /// A stream reached an emission of this bucket.
    pub fn on_emission(&mut self, bucket: usize) {
        let Weights { longer, shorter } = self.weights[bucket];
        self.longer = (self.longer + longer.survived).max(0.0);
        self.shorter = (self.shorter + shorter.survived).max(0.0);
    }

    /// A stream ended in this bucket; says whether the law is not what it was, and begins anew then.
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

    /// Nothing speaks for a change: if one is found later, it was not before now.
    pub fn is_quiet(&self) -> bool {
        self.longer.max(self.shorter) < QUIET
    }
}

impl Weights {
    fn of(law: &OutputLaw, bucket: usize) -> Option<Self> {
        let hazard = law.smooth_hazard(bucket)?.min(HIGHEST);
        // O' = 2 O has h'(g) = h(g / 2) / 2, and O' = O / 2 has h'(g) = 2 h(2 g).
        let twice = match bucket.checked_sub(OCTAVE) {
            Some(below) => 0.5 * law.smooth_hazard(below)?,
            None => 0.5 * law.smooth_hazard(0)?,
        };
        let half = 2.0 * law.smooth_hazard(bucket + OCTAVE)?;
        Some(Self { longer: LikelihoodRatios::of(hazard, twice), shorter: LikelihoodRatios::of(hazard, half) })
    }
}

impl LikelihoodRatios {
    fn of(hazard: f64, other: f64) -> Self {
        let other = other.min(HIGHEST);
        let ended = (other / hazard).ln();
        let clipped = ended.clamp(-CLIP, CLIP);
        // The ratio that is meant after clipping, so that the two sides stay those of one law.
        Self { survived: hazard - hazard * clipped.exp(), ended: clipped }
    }
}

/// Buckets in a factor of two.
const OCTAVE: usize = 4;
/// Completions before a law is a law to be tested against.
const FEWEST: f64 = 60.0;
/// Ends in a bucket, at today's weight, before it is tested.
const FEWEST_ENDS: f64 = 3.0;
/// Hazards above this are the end of a law of fixed length.
const HIGHEST: f64 = 0.5;
/// No single end says more than this.
const CLIP: f64 = 3.0;
/// Log-likelihood ratio of an alarm ...
const THRESHOLD: f64 = 15.0;
/// ... and of nothing.
const QUIET: f64 = 1.0;

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::estimate::lengths::bucket;

    /// Lengths with E[O] = 60 and a long tail.
    fn length(dice: &mut ChaCha8Rng, scale: f64) -> u32 {
        let uniform: f64 = dice.random_range(1e-9..1.0);
        (scale * (1.0 + 59.0 * -uniform.ln())).round().max(1.0) as u32
    }

    #[test]
    fn an_unchanged_law_raises_no_alarm_in_ten_thousand_answers() {
        let mut dice = ChaCha8Rng::seed_from_u64(4);
        assert_eq!(alarms(&mut dice, 10_000, 1.0), 0);
    }

    #[test]
    fn answers_of_twice_and_half_the_length_are_noticed() {
        for (seed, scale, answers) in [(5, 2.0, 100), (6, 0.5, 150)] {
            let mut dice = ChaCha8Rng::seed_from_u64(seed);
            assert!(alarms(&mut dice, answers, scale) >= 1, "{scale}");
        }
    }

    /// A cold start into overload: hundreds of streams begin at once and end bucket by bucket.
    #[test]
    fn streams_that_begin_together_are_no_change() {
        let mut dice = ChaCha8Rng::seed_from_u64(7);
        let (mut law, mut test) = (OutputLaw::new(0.999), LengthTest::default());
        let mut left: Vec<(u32, u32)> = (0..500).map(|_| (0, length(&mut dice, 1.0))).collect();
        for step in 0..2_000 {
            if step % 15 == 0 {
                test.refresh(&law);
            }
            for (emitted, length_) in &mut left {
                *emitted += 1;
                test.on_emission(bucket(*emitted));
                law.on_emission(bucket(*emitted));
                if emitted == length_ {
                    law.on_completion(*emitted);
                    assert!(!test.on_completion(bucket(*emitted)), "step {step}");
                    (*emitted, *length_) = (0, length(&mut dice, 1.0));
                }
            }
        }
    }

    /// Learns 1,000 answers, then counts alarms over `count` answers of another scale.
    fn alarms(dice: &mut ChaCha8Rng, count: usize, scale: f64) -> usize {
        let (mut law, mut test) = (OutputLaw::new(0.999), LengthTest::default());
        let mut raised = 0;
        for n in 0..1_000 + count {
            let length = length(dice, if n < 1_000 { 1.0 } else { scale });
            test.refresh(&law);
            (1..=length).for_each(|emission| {
                test.on_emission(bucket(emission));
                law.on_emission(bucket(emission));
            });
            law.on_completion(length);
            raised += usize::from(test.on_completion(bucket(length)) && n >= 1_000);
        }
        raised
    }
}
