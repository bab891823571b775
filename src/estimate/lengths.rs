//! The law of output lengths, from hazards: of the streams that reached emission g, which share ended there?
//!
//! Streams that are still running count as exposure, so the short answers that finish first bias nothing (a product-limit
//! estimate: Kaplan and Meier, 1958). Lengths are in emissions, the unit of which a step spends one a stream. Sixty-six
//! buckets, four an octave; older completions weigh less, by letting the weight of a new one grow.

/// Where streams are, and where they end.
#[derive(Clone, Debug)]
pub(super) struct OutputLaw {
    ends: [f64; BUCKETS],
    exposure: [f64; BUCKETS],
    /// Weight of an event now; grows by `1 / keep` a completion.
    weight: f64,
    keep: f64,
    /// Completions, forgotten ones not counted.
    completions: f64,
}

/// First three moments of the length, in emissions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct LengthMoments {
    pub mean: f64,
    pub square: f64,
    pub cube: f64,
}

impl OutputLaw {
    /// Keeps the share `keep` of what is known with every completion.
    pub fn new(keep: f64) -> Self {
        Self { ends: [0.0; BUCKETS], exposure: [0.0; BUCKETS], weight: 1.0, keep, completions: 0.0 }
    }

    /// A stream reached an emission of this bucket ([`bucket`]).
    pub fn on_emission(&mut self, bucket: usize) {
        self.exposure[bucket] += self.weight;
    }

    /// A stream ended by itself after so many emissions.
    pub fn on_completion(&mut self, emissions: u32) {
        self.ends[bucket(emissions)] += self.weight;
        self.completions = self.completions * self.keep + 1.0;
        self.weight /= self.keep;
        if self.weight > HEAVIEST {
            self.scale_sums(1.0 / self.weight);
            self.weight = 1.0;
        }
    }

    /// Changes how much is kept from now on.
    pub fn set_keep(&mut self, keep: f64) {
        self.keep = keep;
    }

    /// Takes over what another knows, as if it weighed `share` as much, and keeps its own memory.
    pub fn take_over(&mut self, other: &Self, share: f64) {
        *self = Self { keep: self.keep, ..other.clone() };
        self.scale_sums(share);
        self.completions *= share;
    }

    /// Completions, forgotten ones not counted.
    pub fn completions(&self) -> f64 {
        self.completions
    }

    /// Hazard of a bucket to be tested against; 0 where too little is known.
    fn tested_hazard(&self, bucket: usize) -> f64 {
        let (ends, exposure) = (self.ends[bucket], self.exposure[bucket]);
        if self.completions < FEWEST || ends < FEWEST_ENDS * self.weight { 0.0 } else { (ends / exposure).min(1.0) }
    }

    /// `E[O]`, `E[O^2]`, `E[O^3]`: sums of the survival function over the buckets.
    pub fn moments(&self) -> LengthMoments {
        let mut survivors = 1.0;
        let mut moments = LengthMoments::default();
        let last = self.exposure.iter().rposition(|exposure| *exposure > 0.0).unwrap_or(0);
        for place in 0..=last {
            let (from, to) = (first_of(place), first_of(place + 1));
            let width = to - from;
            // An empty bucket between full ones: integer lengths skip some quarter octaves near 1, or few streams.
            if width <= 0.0 || self.exposure[place] <= 0.0 {
                continue;
            }
            let hazard = (self.ends[place] / self.exposure[place]).min(1.0);
            let through = (1.0 - hazard).powf(width);
            let sum = if hazard > 1e-9 { survivors * (1.0 - through) / hazard } else { survivors * width };
            let (below, above) = (from - 1.0, to - 1.0);
            moments.mean += sum;
            moments.square += sum / width * (above * above - below * below);
            moments.cube += sum / width * (above.powi(3) - below.powi(3));
            survivors *= through;
            if survivors < 1e-6 {
                break;
            }
        }
        moments
    }

    fn scale_sums(&mut self, factor: f64) {
        self.ends.iter_mut().chain(&mut self.exposure).for_each(|sum| *sum *= factor);
    }
}

/// Notices that answers became longer or shorter: a point-process CUSUM of "half the hazard" and "twice the hazard"
/// against the law so far. Each emission survived speaks for longer, each end for shorter.
#[derive(Clone, Debug)]
pub(super) struct LengthTest {
    /// Hazards of the law, refreshed by [`LengthTest::refresh`]; 0 where it says nothing yet.
    hazards: [f64; BUCKETS],
    longer: f64,
    shorter: f64,
}

impl Default for LengthTest {
    fn default() -> Self {
        Self { hazards: [0.0; BUCKETS], longer: 0.0, shorter: 0.0 }
    }
}

impl LengthTest {
    /// Looks the hazards up, so that an emission costs no division. Ten times a second is often enough: the law moves by a
    /// thousandth a completion.
    pub fn refresh(&mut self, law: &OutputLaw) {
        for (place, hazard) in self.hazards.iter_mut().enumerate() {
            *hazard = law.tested_hazard(place);
        }
    }

    /// A stream went on. log(L) of half the hazard rises by h/2, of twice the hazard falls by h.
    pub fn on_emission(&mut self, bucket: usize) {
        let hazard = self.hazards[bucket];
        self.longer += 0.5 * hazard;
        self.shorter = (self.shorter - hazard).max(0.0);
    }

    /// A stream ended in this bucket; says whether the law, which has taken it in, is not what it was.
    pub fn on_completion(&mut self, law: &OutputLaw, bucket: usize) -> bool {
        // An end counts only where going on would have counted: else the two sides of the test are not one law.
        let tested = self.hazards[bucket] > 0.0;
        // A fast engine ends many streams between two refreshes, and at a cold start all in one bucket.
        self.hazards[bucket] = law.tested_hazard(bucket);
        if !tested {
            return false;
        }
        self.longer = (self.longer - std::f64::consts::LN_2).max(0.0);
        self.shorter += std::f64::consts::LN_2;
        let changed = self.longer > THRESHOLD || self.shorter > THRESHOLD;
        if changed {
            (self.longer, self.shorter) = (0.0, 0.0);
        }
        changed
    }
}

/// The bucket of the g-th emission: `floor(4 log2 g)`, without a logarithm.
pub(super) fn bucket(emission: u32) -> usize {
    let octave = emission.max(1).ilog2();
    // The leading one and the 31 bits after it: the mantissa in [1, 2), scaled by 2^31.
    let mantissa = emission.max(1) << (31 - octave);
    let quarters = QUARTERS.iter().filter(|quarter| mantissa >= **quarter).count();
    (4 * octave as usize + quarters).min(BUCKETS - 1)
}

/// First emission of a bucket; some near 1 hold none.
fn first_of(place: usize) -> f64 {
    (place as f64 / 4.0).exp2().ceil()
}

/// Four an octave up to 2^16.5 emissions; what is longer counts as that.
const BUCKETS: usize = 66;
/// 2^31 times 2^(1/4), 2^(1/2), 2^(3/4), rounded up.
const QUARTERS: [u32; 3] = [2_553_802_834, 3_037_000_500, 3_611_622_603];
/// Completions before a law is a law to be tested against.
const FEWEST: f64 = 60.0;
/// Ends in a bucket, at today's weight, before its hazard is known.
const FEWEST_ENDS: f64 = 3.0;
/// Log-likelihood ratio of the length test.
const THRESHOLD: f64 = 15.0;
/// Sums are scaled back before they lose digits.
const HEAVIEST: f64 = 1e12;

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Lengths with E[O] = 60 and a long tail.
    fn length(dice: &mut ChaCha8Rng, scale: f64) -> u32 {
        let uniform: f64 = dice.random_range(1e-9..1.0);
        (scale * (1.0 + 59.0 * -uniform.ln())).round().max(1.0) as u32
    }

    fn whole(law: &mut OutputLaw, length: u32) {
        (1..=length).for_each(|emission| law.on_emission(bucket(emission)));
        law.on_completion(length);
    }

    #[test]
    fn a_bucket_is_four_times_the_binary_logarithm() {
        for emission in 1..100_000_u32 {
            let expected = (4.0 * f64::from(emission).log2() + 1e-9) as usize;
            assert_eq!(bucket(emission), expected.min(BUCKETS - 1), "{emission}");
            assert!(f64::from(emission) >= first_of(bucket(emission)), "{emission}");
        }
    }

    #[test]
    fn the_moments_are_those_of_the_lengths() {
        let mut dice = ChaCha8Rng::seed_from_u64(1);
        let mut law = OutputLaw::new(1.0);
        let lengths: Vec<u32> = (0..20_000).map(|_| length(&mut dice, 1.0)).collect();
        lengths.iter().for_each(|length| whole(&mut law, *length));
        let moment = |power: i32| lengths.iter().map(|o| f64::from(*o).powi(power)).sum::<f64>() / 20_000.0;
        let found = law.moments();
        for (found, power, tolerance) in [(found.mean, 1, 0.01), (found.square, 2, 0.02), (found.cube, 3, 0.05)] {
            assert!((found / moment(power) - 1.0).abs() < tolerance, "{power}: {found} of {}", moment(power));
        }
    }

    /// All streams begin together and are watched for 45 emissions, the end of a bucket: the mean of those that ended is far too short, and so
    /// is the watched part of the law if running streams are not counted.
    #[test]
    fn streams_still_running_do_not_bias_the_mean() {
        let mut dice = ChaCha8Rng::seed_from_u64(2);
        let mut law = OutputLaw::new(1.0);
        let (mut watched, mut ended, mut count) = (0.0, 0.0, 0.0);
        for _ in 0..5_000 {
            let length = length(&mut dice, 1.0);
            (1..=length.min(45)).for_each(|emission| law.on_emission(bucket(emission)));
            watched += f64::from(length.min(45));
            if length <= 45 {
                law.on_completion(length);
                (ended, count) = (ended + f64::from(length), count + 1.0);
            }
        }
        let restricted = watched / 5_000.0;
        assert!((ended / count) < 0.7 * restricted, "{} {restricted}", ended / count);
        assert!((law.moments().mean / restricted - 1.0).abs() < 0.01, "{:?} {restricted}", law.moments());
    }

    #[test]
    fn a_law_with_memory_follows() {
        let mut dice = ChaCha8Rng::seed_from_u64(3);
        let mut law = OutputLaw::new(0.95);
        (0..300).for_each(|_| whole(&mut law, length(&mut dice, 1.0)));
        (0..300).for_each(|_| whole(&mut law, length(&mut dice, 3.0)));
        assert!(law.moments().mean > 110.0, "{:?}", law.moments());
        assert!((law.completions() - 20.0).abs() < 0.1);
    }

    #[test]
    fn an_unchanged_law_raises_no_alarm_in_ten_thousand_answers() {
        let mut dice = ChaCha8Rng::seed_from_u64(4);
        assert_eq!(alarms(&mut dice, 10_000, 1.0), 0);
    }

    #[test]
    fn answers_of_twice_and_half_the_length_are_noticed() {
        // On average an answer speaks for "longer" by 1 - ln 2, for "shorter" by ln 2 - 1/2: 49 and 78 answers to the alarm.
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
                    assert!(!test.on_completion(&law, bucket(*emitted)), "step {step}");
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
            raised += usize::from(test.on_completion(&law, bucket(length)) && n >= 1_000);
        }
        raised
    }
}
