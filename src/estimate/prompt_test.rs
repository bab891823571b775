//! Detects that prompts became longer or shorter.
//!
//! A two-sided CUSUM on ln(prompt), in standard deviations from the reference mean. The logarithm bounds the weight of one long
//! prompt, and prompt lengths are close to log-normal.

use crate::vocabulary::average::Moments;

/// The sequential test.
#[derive(Clone, Debug)]
pub(super) struct PromptTest {
    reference: Moments,
    /// The last 50 arrivals: the reference after a change.
    recent: Moments,
    longer: f64,
    shorter: f64,
}

impl PromptTest {
    pub fn new() -> Self {
        Self { reference: Moments::new(0.999), recent: Moments::new(RECENT), longer: 0.0, shorter: 0.0 }
    }

    /// Adds a prompt. Returns whether prompts changed, and starts again then.
    pub fn on_prompt(&mut self, prompt: f64) -> bool {
        let log = prompt.max(1.0).ln();
        let changed = self.reference.weight >= ENOUGH && self.changes(log);
        self.recent.add(log);
        if changed {
            self.reference.copy_from(&self.recent);
            (self.longer, self.shorter) = (0.0, 0.0);
        } else {
            self.reference.add(log);
        }
        changed
    }

    /// Prompts are counted in another unit from now on: `factor` times as many tokens as before.
    pub fn rescale(&mut self, factor: f64) {
        self.reference.mean += factor.ln();
        self.recent.mean += factor.ln();
    }

    /// Changes the share of the reference's weight that an arrival leaves.
    pub fn set_keep(&mut self, keep: f64) {
        self.reference.set_keep(keep);
    }

    /// Log-likelihood ratio of a shift by [`SHIFT`] deviations either way: `k z - k^2 / 2`.
    fn changes(&mut self, log: f64) -> bool {
        let z = ((log - self.reference.mean) / self.reference.deviation().max(SMALLEST_DEVIATION)).clamp(-CLIP, CLIP);
        self.longer = (self.longer + SHIFT * z - 0.5 * SHIFT * SHIFT).max(0.0);
        self.shorter = (self.shorter - SHIFT * z - 0.5 * SHIFT * SHIFT).max(0.0);
        self.longer > THRESHOLD || self.shorter > THRESHOLD
    }
}

/// The shift that the test looks for, in deviations: half of one is a factor of 1.5 where sigma is 0.8.
const SHIFT: f64 = 0.5;
/// Log-likelihood ratio of an alarm.
const THRESHOLD: f64 = 15.0;
/// Arrivals before there is a reference.
const ENOUGH: f64 = 100.0;
const RECENT: f64 = 0.98;
/// Lower bound of the deviation of ln(prompt): prompts of one length are no reason for an alarm at 5 % more.
const SMALLEST_DEVIATION: f64 = 0.05;
/// No prompt counts for more than this many deviations.
const CLIP: f64 = 4.0;

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, StandardNormal};

    use super::*;

    /// Prompts with a sigma of 0.8 around `mean`.
    fn prompt(rng: &mut ChaCha8Rng, mean: f64) -> f64 {
        let normal: f64 = StandardNormal.sample(rng);
        mean * (0.8 * normal).exp()
    }

    #[test]
    fn fifty_thousand_prompts_of_one_distribution_do_not_alarm() {
        let (mut test, mut rng) = (PromptTest::new(), ChaCha8Rng::seed_from_u64(1));
        assert!((0..50_000).all(|_| !test.on_prompt(prompt(&mut rng, 500.0))));
    }

    #[test]
    fn a_factor_of_1_5_is_detected_within_300_prompts() {
        for (seed, factor) in [(2, 1.5), (3, 1.0 / 1.5)] {
            let (mut test, mut rng) = (PromptTest::new(), ChaCha8Rng::seed_from_u64(seed));
            assert!((0..1_000).all(|_| !test.on_prompt(prompt(&mut rng, 500.0))));
            assert!((0..300).any(|_| test.on_prompt(prompt(&mut rng, 500.0 * factor))), "{factor}");
            assert!((0..1_000).filter(|_| test.on_prompt(prompt(&mut rng, 500.0 * factor))).count() <= 1);
        }
    }

    #[test]
    fn another_unit_is_no_change() {
        let (mut test, mut rng) = (PromptTest::new(), ChaCha8Rng::seed_from_u64(4));
        (0..1_000).for_each(|_| assert!(!test.on_prompt(prompt(&mut rng, 500.0))));
        test.rescale(3.0);
        assert!((0..1_000).all(|_| !test.on_prompt(prompt(&mut rng, 1_500.0))));
    }

    #[test]
    fn prompts_of_one_length_are_no_change() {
        let mut test = PromptTest::new();
        assert!((0..1_000).all(|_| !test.on_prompt(64.0)));
    }
}
