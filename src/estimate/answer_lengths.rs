//! The distribution of answer lengths, from hazards: of the streams that reached emission g, the share that ended there.
//!
//! Streams that are still running count as exposure, so the short answers that finish first cause no bias (the product-limit
//! estimate of Kaplan and Meier, 1958). Lengths are in emissions; a step makes one per stream. Sixty-six buckets, four an
//! octave; older completions weigh less, because the weight of a new one grows.

/// Ends and exposure by bucket.
#[derive(Clone, Debug)]
pub(super) struct LengthDistribution {
    ends: [f64; BUCKETS],
    exposure: [f64; BUCKETS],
    /// Weight of an event now; grows by `1 / keep` a completion.
    weight: f64,
    keep: f64,
    /// Completions, by weight.
    completions: f64,
}

/// First three moments of the length, in emissions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct LengthMoments {
    pub mean: f64,
    pub square: f64,
    pub cube: f64,
}

impl LengthDistribution {
    /// Each completion leaves the share `keep` of the older ones' weight.
    pub fn new(keep: f64) -> Self {
        Self { ends: [0.0; BUCKETS], exposure: [0.0; BUCKETS], weight: 1.0, keep, completions: 0.0 }
    }

    /// A stream reached an emission of this bucket ([`bucket`]).
    pub fn on_emission(&mut self, bucket: usize) {
        self.exposure[bucket] += self.weight;
    }

    /// A stream ended by itself after this number of emissions.
    pub fn on_completion(&mut self, emissions: u32) {
        self.ends[bucket(emissions)] += self.weight;
        self.completions = self.completions * self.keep + 1.0;
        self.weight /= self.keep;
        if self.weight > HEAVIEST {
            self.scale_sums(1.0 / self.weight);
            self.weight = 1.0;
        }
    }

    /// Changes the share that is kept from now on.
    pub fn set_keep(&mut self, keep: f64) {
        self.keep = keep;
    }

    /// Copies the sums of another at `share` of their weight, and keeps its own `keep`.
    pub fn copy_from(&mut self, other: &Self, share: f64) {
        *self = Self { keep: self.keep, ..other.clone() };
        self.scale_sums(share);
        self.completions *= share;
    }

    /// Completions, by weight.
    pub fn completions(&self) -> f64 {
        self.completions
    }

    /// Hazard of a bucket, smoothed over its neighbours and shrunk towards the mean hazard by the weight of one end; beyond the
    /// longest stream, that of the last bucket that was reached. `None` before the first end.
    pub fn smooth_hazard(&self, bucket: usize) -> Option<f64> {
        let mean = self.ends.iter().sum::<f64>() / self.exposure.iter().sum::<f64>();
        let last = self.exposure.iter().rposition(|exposure| *exposure > 0.0).filter(|_| mean > 0.0)?;
        let bucket = bucket.min(last);
        let around = |sums: &[f64; BUCKETS]| {
            2.0 * sums[bucket] + sums[bucket.saturating_sub(1)] + sums[(bucket + 1).min(BUCKETS - 1)]
        };
        Some((around(&self.ends) + self.weight) / (around(&self.exposure) + self.weight / mean))
    }

    /// Ends in a bucket, at the weight of now.
    pub fn ends(&self, bucket: usize) -> f64 {
        self.ends[bucket] / self.weight
    }

    /// Share of the streams that outlive the longest one seen.
    pub fn unfinished(&self) -> f64 {
        self.survival().1
    }

    /// `E[O]`, `E[O^2]`, `E[O^3]`: sums of the survival function over the buckets. Streams that outlive the longest one seen are
    /// assumed to go on at its hazard.
    pub fn moments(&self) -> LengthMoments {
        let (mut moments, survivors, end) = self.survival();
        let hazard = self.tail_hazard();
        if survivors > NEGLIGIBLE {
            // Of a geometric distribution with mean 1/h, beyond `end`.
            let mean = 1.0 / hazard;
            moments.mean += survivors * mean;
            moments.square += survivors * (2.0 * mean * end + 2.0 * mean * mean);
            moments.cube += survivors * (3.0 * mean * end * end + 6.0 * mean * mean * end + 6.0 * mean.powi(3));
        }
        moments
    }

    /// The moments up to the longest stream seen, the share of streams beyond it, and its length.
    fn survival(&self) -> (LengthMoments, f64, f64) {
        let mut survivors = 1.0;
        let mut moments = LengthMoments::default();
        let last = self.exposure.iter().rposition(|exposure| *exposure > 0.0).unwrap_or(0);
        for bucket in 0..=last {
            let (from, to) = (first_of(bucket), first_of(bucket + 1));
            let width = to - from;
            // An empty bucket between full ones: integer lengths skip some quarter octaves near 1, or few streams.
            if width <= 0.0 || self.exposure[bucket] <= 0.0 {
                continue;
            }
            let hazard = (self.ends[bucket] / self.exposure[bucket]).min(1.0);
            let through = (1.0 - hazard).powf(width);
            let sum = if hazard > 1e-9 { survivors * (1.0 - through) / hazard } else { survivors * width };
            let (below, above) = (from - 1.0, to - 1.0);
            moments.mean += sum;
            moments.square += sum / width * (above * above - below * below);
            moments.cube += sum / width * (above.powi(3) - below.powi(3));
            survivors *= through;
            if survivors < NEGLIGIBLE {
                return (moments, 0.0, above);
            }
        }
        (moments, survivors, first_of(last + 1) - 1.0)
    }

    /// Hazard over the last two octaves that were reached. Few streams reach them, so it is kept above half of the
    /// mean hazard: a tail made of one stream that goes on would outweigh all others.
    fn tail_hazard(&self) -> f64 {
        let mean = (self.ends.iter().sum::<f64>() / self.exposure.iter().sum::<f64>()).clamp(1e-6, 1.0);
        let last = self.exposure.iter().rposition(|exposure| *exposure > 0.0).unwrap_or(0);
        let tail = last.saturating_sub(TAIL)..=last;
        let (ends, exposure) = (self.ends[tail.clone()].iter().sum::<f64>(), self.exposure[tail].iter().sum::<f64>());
        ((ends + self.weight) / (exposure + self.weight / mean)).clamp(0.5 * mean, 1.0)
    }

    fn scale_sums(&mut self, factor: f64) {
        self.ends.iter_mut().chain(&mut self.exposure).for_each(|sum| *sum *= factor);
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
fn first_of(bucket: usize) -> f64 {
    (bucket as f64 / 4.0).exp2().ceil()
}

/// Four an octave up to 2^16.5 emissions; longer answers count as that.
pub(super) const BUCKETS: usize = 66;
/// 2^31 times 2^(1/4), 2^(1/2), 2^(3/4), rounded up.
const QUARTERS: [u32; 3] = [2_553_802_834, 3_037_000_500, 3_611_622_603];
/// Buckets in two octaves.
const TAIL: usize = 8;
/// A share of survivors too small for any moment.
const NEGLIGIBLE: f64 = 1e-6;
/// Sums are scaled back before they lose digits.
const HEAVIEST: f64 = 1e12;

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Lengths with E[O] = 60 and a long tail.
    fn length(rng: &mut ChaCha8Rng, scale: f64) -> u32 {
        let uniform: f64 = rng.random_range(1e-9..1.0);
        (scale * (1.0 + 59.0 * -uniform.ln())).round().max(1.0) as u32
    }

    fn serve(distribution: &mut LengthDistribution, length: u32) {
        (1..=length).for_each(|emission| distribution.on_emission(bucket(emission)));
        distribution.on_completion(length);
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
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut distribution = LengthDistribution::new(1.0);
        let lengths: Vec<u32> = (0..20_000).map(|_| length(&mut rng, 1.0)).collect();
        lengths.iter().for_each(|length| serve(&mut distribution, *length));
        let moment = |power: i32| lengths.iter().map(|o| f64::from(*o).powi(power)).sum::<f64>() / 20_000.0;
        let found = distribution.moments();
        for (found, power, tolerance) in [(found.mean, 1, 0.01), (found.square, 2, 0.02), (found.cube, 3, 0.05)] {
            assert!((found / moment(power) - 1.0).abs() < tolerance, "{power}: {found} of {}", moment(power));
        }
    }

    /// All streams begin together and are watched for 45 emissions: the mean of those that ended is far too short. The
    /// distribution is memoryless, so the part beyond goes on as the part that was seen.
    #[test]
    fn streams_still_running_do_not_bias_the_mean() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut distribution = LengthDistribution::new(1.0);
        let (mut ended, mut count) = (0.0, 0.0);
        for _ in 0..20_000 {
            let length = length(&mut rng, 1.0);
            (1..=length.min(45)).for_each(|emission| distribution.on_emission(bucket(emission)));
            if length <= 45 {
                distribution.on_completion(length);
                (ended, count) = (ended + f64::from(length), count + 1.0);
            }
        }
        let moments = distribution.moments();
        assert!(ended / count < 25.0, "{}", ended / count);
        assert!((moments.mean / 60.0 - 1.0).abs() < 0.05, "{moments:?}");
        assert!((moments.square / 7_100.0 - 1.0).abs() < 0.1, "{moments:?}");
        assert!((distribution.unfinished() - (-44.5_f64 / 59.0).exp()).abs() < 0.02, "{}", distribution.unfinished());
    }

    #[test]
    fn weighted_completions_follow_a_change() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut distribution = LengthDistribution::new(0.95);
        (0..300).for_each(|_| serve(&mut distribution, length(&mut rng, 1.0)));
        (0..300).for_each(|_| serve(&mut distribution, length(&mut rng, 3.0)));
        assert!(distribution.moments().mean > 110.0, "{:?}", distribution.moments());
        assert!((distribution.completions() - 20.0).abs() < 0.1);
    }
}
