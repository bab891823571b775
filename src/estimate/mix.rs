//! The mix: how long the prompts of the offered requests are, and how long their answers will be.
//!
//! Prompts are known at arrival, answers only of served requests, and under overload the served mix is not the offered one.
//! So the distribution of answer lengths (`answer_lengths`) is weighted by prompt length (post-stratification): per bucket
//! of log2(prompt), the mean answer against the mean of all. Two sequential tests detect a change of the mix.

use super::answer_lengths::{LengthDistribution, bucket};
use super::length_test::LengthTest;
use super::prompt_test::PromptTest;
use super::prompts::PromptTokens;
use crate::vocabulary::average::{Smoothed, octave};

/// The offered and the served mix.
#[derive(Clone, Debug)]
pub(super) struct Mix {
    prompts: [PromptBucket; BUCKETS],
    /// Offered requests, by weight.
    offered: f64,
    lengths: LengthDistribution,
    /// The same from the last 20 completions: this remains when the mix changes.
    recent_lengths: LengthDistribution,
    length_test: LengthTest,
    /// The answers of the streams that began since there was no evidence of a change. When one is found, these are of the new
    /// mix; streams that began before are of the old one, and mostly its long ones.
    new_lengths: LengthDistribution,
    /// The epoch of those streams.
    epoch: u32,
    /// A change was found, and `new_lengths` has not seen enough yet.
    changing: bool,
    prompt_test: PromptTest,
    /// Tokens per emission that is not the first.
    tokens_per_emission: Smoothed,
    served: ServedMoments,
    keep: f64,
    last_completion: f64,
    between_completions: Smoothed,
    /// Share of the offered requests whose prompt length is unknown.
    unknown_prompts: Smoothed,
    changes: u64,
}

/// Requests whose prompts fall into one bucket of log2.
#[derive(Clone, Copy, Debug, Default)]
struct PromptBucket {
    offered: f64,
    mean: f64,
    mean_square: f64,
    served: f64,
    output: f64,
}

/// The offered mix in figures; lengths of answers are in emissions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct MixFigures {
    /// `E[L]`.
    pub prompt: f64,
    /// `E[O]`.
    pub output: f64,
    /// KV-token-steps of a request, `kv = E[L O] + kappa E[O^2] / 2`.
    pub kv: f64,
    /// Coefficient of variation of a decoding stream's context.
    pub context_variation: f64,
    /// Tokens per emission, `kappa`, at least 1.
    pub tokens_per_emission: f64,
    /// Completions behind the answers, by weight.
    pub completions: f64,
    /// Arrivals behind the prompts, by weight.
    pub offered: f64,
}

impl MixFigures {
    /// Mean context of a decoding stream, in KV tokens.
    pub fn context(&self) -> f64 {
        (self.kv / self.output).max(1.0)
    }
}

impl Mix {
    pub fn new() -> Self {
        Self {
            prompts: [PromptBucket::default(); BUCKETS],
            offered: 0.0,
            lengths: LengthDistribution::new(SHORTEST_MEMORY),
            recent_lengths: LengthDistribution::new(RECENT_LENGTHS),
            length_test: LengthTest::default(),
            new_lengths: LengthDistribution::new(SHORTEST_MEMORY),
            epoch: 0,
            changing: false,
            prompt_test: PromptTest::new(),
            tokens_per_emission: Smoothed::new(0.02),
            served: ServedMoments::default(),
            keep: SHORTEST_MEMORY,
            last_completion: 0.0,
            between_completions: Smoothed::new(0.01),
            unknown_prompts: Smoothed::new(0.02),
            changes: 0,
        }
    }

    /// A request arrived. Returns whether the prompts changed.
    pub fn on_offered(&mut self, length: PromptTokens) -> bool {
        self.unknown_prompts.add(if matches!(length, PromptTokens::Unknown(_)) { 1.0 } else { 0.0 });
        let prompt = length.tokens();
        self.prompts.iter_mut().for_each(|bucket| bucket.offered *= self.keep);
        self.offered = self.offered * self.keep + 1.0;
        let bucket = &mut self.prompts[bucket_of(prompt)];
        bucket.offered += 1.0;
        let gain = (1.0 / bucket.offered).max(1.0 - self.keep);
        bucket.mean += gain * (prompt - bucket.mean);
        bucket.mean_square += gain * (prompt * prompt - bucket.mean_square);
        matches!(length, PromptTokens::Estimated(_)) && self.prompts_changed(prompt)
    }

    /// A stream that began in `epoch` reached its `emission`th emission.
    pub fn on_emission(&mut self, emission: u32, epoch: u32) {
        let bucket = bucket(emission);
        if epoch == self.epoch {
            self.new_lengths.on_emission(bucket);
        }
        self.length_test.on_emission(bucket);
        self.lengths.on_emission(bucket);
        self.recent_lengths.on_emission(bucket);
    }

    /// A request was served to its end. Returns whether the answers changed.
    pub fn on_completion(&mut self, now: f64, prompt: f64, emissions: u32, tokens: u32, epoch: u32) -> bool {
        self.set_memory(now);
        if epoch == self.epoch {
            self.new_lengths.on_completion(emissions);
        }
        if emissions > 1 {
            let tokens_per_emission = (f64::from(tokens) - 1.0) / (f64::from(emissions) - 1.0);
            self.tokens_per_emission.add(tokens_per_emission.max(1.0));
        }
        let output = f64::from(emissions);
        self.prompts.iter_mut().for_each(|prompts| prompts.served *= self.keep);
        let prompts = &mut self.prompts[bucket_of(prompt)];
        prompts.served += 1.0;
        prompts.output += (1.0 / prompts.served).max(1.0 - self.keep) * (output - prompts.output);
        let kv = output * (prompt + 0.5 * self.tokens_per_emission() * output);
        self.served.add([prompt, output, kv], self.keep);
        self.lengths.on_completion(emissions);
        self.recent_lengths.on_completion(emissions);
        let changed = self.length_test.on_completion(bucket(emissions));
        if changed {
            self.discount_answers();
        }
        self.follow_new_lengths();
        changed
    }

    /// Rebuilds the tables that an emission looks up; called at each tick.
    pub fn refresh(&mut self) {
        self.length_test.refresh(&self.lengths);
    }

    /// Prompt tokens are counted in another unit from now on: `factor` times as many as before.
    pub fn rescale_prompts(&mut self, factor: f64) {
        for bucket in &mut self.prompts {
            bucket.mean *= factor;
            bucket.mean_square *= factor * factor;
        }
        self.prompt_test.rescale(factor);
        // The KV share of the work is not linear in the factor; it is estimated again.
        self.served.discount();
    }

    /// The offered mix; `None` before five requests arrived and completed.
    pub fn figures(&self) -> Option<MixFigures> {
        if self.lengths.completions() < FEWEST_REQUESTS || self.offered < FEWEST_REQUESTS {
            return None;
        }
        let answers = self.lengths.moments();
        let (mut offered, mut served) = (Weighted::default(), Weighted::default());
        let (mut prompt_by_output, mut prompt_square) = (0.0, 0.0);
        let mean_output = self.mean_output();
        for bucket in &self.prompts {
            let ratio = bucket.output_ratio(mean_output);
            offered.add(bucket.offered, ratio, bucket.mean);
            served.add(bucket.served, ratio, bucket.mean);
            prompt_by_output += bucket.offered * bucket.mean * ratio;
            prompt_square += bucket.offered * bucket.mean_square;
        }
        let adjustment = if served.weight > FEWEST_SERVED { offered.ratio() / served.ratio() } else { 1.0 };
        let kappa = self.tokens_per_emission();
        let (output, square, cube) =
            (answers.mean * adjustment, answers.square * adjustment, answers.cube * adjustment);
        let prompt = offered.prompts / offered.weight;
        let kv = output * prompt_by_output / offered.ratios + 0.5 * kappa * square;
        // E[(L + kappa g)^2] over the emissions g of all streams, with E[L^2], E[O^2], E[O^3].
        let context_square =
            (prompt_square / offered.weight * output + prompt * kappa * square + kappa * kappa * cube / 3.0) / output;
        let context = kv / output;
        Some(MixFigures {
            prompt,
            output,
            kv,
            context_variation: (context_square / (context * context) - 1.0).max(0.0).sqrt(),
            tokens_per_emission: kappa,
            completions: self.lengths.completions(),
            offered: self.offered,
        })
    }

    /// Mean, covariance and effective number of the served requests' work.
    pub fn served(&self) -> &ServedMoments {
        &self.served
    }

    /// Whether enough prompt lengths are known for figures that depend on them.
    pub fn prompts_are_known(&self) -> bool {
        self.unknown_prompts.value() < MOST_UNKNOWN
    }

    /// Completions behind the answer lengths, by weight.
    pub fn completions(&self) -> f64 {
        self.lengths.completions()
    }

    /// The epoch of a stream that begins now.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// How often the mix changed.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    fn tokens_per_emission(&self) -> f64 {
        self.tokens_per_emission.value().max(1.0)
    }

    fn mean_output(&self) -> f64 {
        let (sum, weight) = self
            .prompts
            .iter()
            .fold((0.0, 0.0), |(sum, weight), bucket| (sum + bucket.served * bucket.output, weight + bucket.served));
        if weight > 0.0 { sum / weight } else { 0.0 }
    }

    /// Two minutes of completions, within bounds.
    fn set_memory(&mut self, now: f64) {
        self.between_completions.add((now - self.last_completion).max(0.0));
        self.last_completion = now;
        let remembered = (MEMORY / self.between_completions.value().max(1e-5)).clamp(FEWEST_KEPT, MOST_KEPT);
        self.keep = 1.0 - 1.0 / remembered;
        self.lengths.set_keep(self.keep);
        self.prompt_test.set_keep(self.keep);
    }

    fn prompts_changed(&mut self, prompt: f64) -> bool {
        let changed = self.prompt_test.on_prompt(prompt);
        if changed {
            self.discount_prompts();
        }
        changed
    }

    /// After a change `new_lengths` replaces `lengths` once it has seen all but the longest of its streams end; otherwise it
    /// starts again whenever there is no evidence of a change.
    fn follow_new_lengths(&mut self) {
        let seen = self.new_lengths.completions() >= ENOUGH_OF_NEW && self.new_lengths.unfinished() < MOST_UNFINISHED;
        if self.changing && !seen {
            return;
        }
        if self.changing {
            self.lengths.copy_from(&self.new_lengths, 1.0);
            self.length_test.refresh(&self.lengths);
        }
        if self.changing || self.length_test.is_quiet() {
            self.changing = false;
            self.new_lengths = LengthDistribution::new(self.keep);
            self.epoch = self.epoch.wrapping_add(1);
        }
    }

    fn discount_prompts(&mut self) {
        self.changes += 1;
        for bucket in &mut self.prompts {
            bucket.offered *= OLD_MIX;
            bucket.served *= OLD_MIX;
        }
        self.offered *= OLD_MIX;
        self.served.discount();
    }

    fn discount_answers(&mut self) {
        self.changes += 1;
        self.recent_lengths.copy_from(&self.recent_lengths.clone(), RECENT_SHARE);
        self.lengths.copy_from(&self.recent_lengths, 1.0);
        self.changing = true;
        self.prompts.iter_mut().for_each(|bucket| bucket.served *= OLD_MIX);
        self.served.discount();
    }
}

impl PromptBucket {
    /// Mean answer against the mean of all, shrunk towards 1 by [`PRIOR`] requests.
    fn output_ratio(&self, mean_output: f64) -> f64 {
        if self.served <= 0.0 || mean_output <= 0.0 {
            return 1.0;
        }
        (self.output / mean_output * self.served + PRIOR) / (self.served + PRIOR)
    }
}

/// Sums over buckets with one kind of weight.
#[derive(Default)]
struct Weighted {
    weight: f64,
    ratios: f64,
    prompts: f64,
}

impl Weighted {
    fn add(&mut self, weight: f64, ratio: f64, prompt: f64) {
        self.weight += weight;
        self.ratios += weight * ratio;
        self.prompts += weight * prompt;
    }

    fn ratio(&self) -> f64 {
        self.ratios / self.weight
    }
}

/// Mean and covariance of (prompt, emissions, KV-token-steps) of the served requests: the variance of any price of a
/// request follows, whatever the prices.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ServedMoments {
    weight: f64,
    keep: f64,
    mean: [f64; 3],
    covariance: [[f64; 3]; 3],
}

impl ServedMoments {
    fn add(&mut self, value: [f64; 3], keep: f64) {
        self.keep = keep;
        self.weight = self.weight * keep + 1.0;
        let from_old: [f64; 3] = std::array::from_fn(|i| value[i] - self.mean[i]);
        for (mean, difference) in self.mean.iter_mut().zip(from_old) {
            *mean += difference / self.weight;
        }
        for (i, old) in from_old.iter().enumerate() {
            for (j, new) in value.iter().enumerate() {
                let product = old * (new - self.mean[j]);
                self.covariance[i][j] += (product - self.covariance[i][j]) / self.weight;
            }
        }
    }

    fn discount(&mut self) {
        self.weight *= DISCOUNT;
    }

    /// Relative variance of the mean price of a request, with these prices for a prompt token, an emission and a
    /// KV-token-step; 1 while too few requests were served.
    pub fn relative_variance(&self, prices: [f64; 3]) -> f64 {
        if self.weight <= FEWEST_REQUESTS {
            return 1.0;
        }
        let mean: f64 = prices.iter().zip(self.mean).map(|(price, mean)| price * mean).sum();
        let independent = self.weight.min(2.0 / (1.0 - self.keep).max(1e-9));
        self.variance(prices) / (mean * mean).max(1e-18) / independent
    }

    /// Variance of the price of one request.
    pub fn variance(&self, prices: [f64; 3]) -> f64 {
        let mut sum = 0.0;
        for (i, row) in self.covariance.iter().enumerate() {
            for (j, covariance) in row.iter().enumerate() {
                sum += prices[i] * covariance * prices[j];
            }
        }
        sum.max(0.0)
    }

    /// Served requests behind it, by weight.
    pub fn weight(&self) -> f64 {
        self.weight
    }
}

fn bucket_of(prompt: f64) -> usize {
    octave(prompt).min(BUCKETS - 1)
}

/// Prompts up to 2^16 tokens; longer ones count as that.
const BUCKETS: usize = 17;
/// Seconds of completions that are remembered, within the following numbers of completions.
const MEMORY: f64 = 120.0;
const FEWEST_KEPT: f64 = 1000.0;
const MOST_KEPT: f64 = 50_000.0;
const SHORTEST_MEMORY: f64 = 1.0 - 1.0 / FEWEST_KEPT;
/// `recent_lengths` counts 20 completions.
const RECENT_LENGTHS: f64 = 0.95;
/// Weight of `recent_lengths` when it replaces `lengths`: 20 completions are too few for full weight.
const RECENT_SHARE: f64 = 0.3;
/// Arrivals and completions before there is a mix.
pub(super) const FEWEST_REQUESTS: f64 = 5.0;
/// Served requests before they are weighted by prompt length.
const FEWEST_SERVED: f64 = 20.0;
/// Requests of the mean ratio that are added to every bucket.
const PRIOR: f64 = 20.0;
/// Completions of streams that began after a change, and the share of them that may still be running, before theirs is the
/// distribution.
const ENOUGH_OF_NEW: f64 = 30.0;
const MOST_UNFINISHED: f64 = 0.05;
/// Weight of the old mix after a change ...
const OLD_MIX: f64 = 0.02;
/// ... and of the served requests.
const DISCOUNT: f64 = 0.05;
/// With a larger share of prompts of unknown length, nothing that depends on them is published.
const MOST_UNKNOWN: f64 = 0.1;

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn uniform(rng: &mut ChaCha8Rng, from: f64, to: f64) -> f64 {
        rng.random_range(from..to)
    }

    fn serve(mix: &mut Mix, now: f64, prompt: f64, emissions: u32) -> bool {
        mix.refresh();
        let epoch = mix.epoch();
        (1..=emissions).for_each(|emission| mix.on_emission(emission, epoch));
        mix.on_completion(now, prompt, emissions, emissions, epoch)
    }

    #[test]
    fn a_served_mix_is_found() {
        let (mut mix, mut rng) = (Mix::new(), ChaCha8Rng::seed_from_u64(1));
        let (mut kv, mut output) = (0.0, 0.0);
        for n in 0..900_u32 {
            let prompt = uniform(&mut rng, 50.0, 250.0);
            let emissions = uniform(&mut rng, 20.0, 180.0) as u32;
            assert!(!mix.on_offered(PromptTokens::Estimated(prompt)));
            serve(&mut mix, f64::from(n) * 0.1, prompt, emissions);
            let o = f64::from(emissions);
            kv += o * (prompt + 0.5 * o);
            output += o;
        }
        let figures = mix.figures().unwrap();
        assert!((figures.prompt / 150.0 - 1.0).abs() < 0.05, "{figures:?}");
        assert!((figures.output / (output / 900.0) - 1.0).abs() < 0.02, "{figures:?}");
        assert!((figures.kv / (kv / 900.0) - 1.0).abs() < 0.04, "{figures:?} {}", kv / 900.0);
        assert!(mix.prompts_are_known());
        assert_eq!(mix.changes(), 0);
    }

    /// Long prompts ask for long answers and are mostly shed: the mean answer of what is served is too short.
    #[test]
    fn what_was_shed_counts_by_its_prompt() {
        let (mut mix, mut rng) = (Mix::new(), ChaCha8Rng::seed_from_u64(2));
        for n in 0..3000_u32 {
            let long = n % 2 == 0;
            let prompt = if long { 2000.0 } else { 100.0 };
            mix.on_offered(PromptTokens::Estimated(prompt));
            if !long || uniform(&mut rng, 0.0, 1.0) < 0.2 {
                let spread = uniform(&mut rng, 0.5, 1.5);
                serve(&mut mix, f64::from(n) * 0.1, prompt, (spread * if long { 300.0 } else { 100.0 }) as u32);
            }
        }
        let figures = mix.figures().unwrap();
        assert!((figures.output / 200.0 - 1.0).abs() < 0.06, "{figures:?}: served were 133 on average");
        assert!((figures.prompt / 1050.0 - 1.0).abs() < 0.05, "{figures:?}");
    }

    #[test]
    fn longer_answers_are_detected_and_followed() {
        let (mut mix, mut rng) = (Mix::new(), ChaCha8Rng::seed_from_u64(4));
        let mut changed = 0;
        for n in 0..2000_u32 {
            let scale = if n < 1500 { 1.0 } else { 2.0 };
            mix.on_offered(PromptTokens::Estimated(100.0));
            let emissions = (scale * uniform(&mut rng, 20.0, 180.0)) as u32;
            changed += u32::from(serve(&mut mix, f64::from(n) * 0.1, 100.0, emissions));
            assert!(n >= 1500 || changed == 0);
        }
        assert!(changed >= 1);
        assert!((mix.figures().unwrap().output / 200.0 - 1.0).abs() < 0.1, "{:?}", mix.figures());
    }

    #[test]
    fn unknown_prompts_leave_the_mix_unknown() {
        let mut mix = Mix::new();
        (0..50).for_each(|_| {
            mix.on_offered(PromptTokens::Unknown(100.0));
        });
        assert!(!mix.prompts_are_known());
    }

    /// A reported mean follows the prompts by construction, so it is no evidence of a change, however fast it moves.
    #[test]
    fn reported_means_are_known_and_never_a_change() {
        let mut mix = Mix::new();
        assert!((0..2_000).all(|n| !mix.on_offered(PromptTokens::Reported(f64::from(100 + n)))));
        assert!(mix.prompts_are_known());
    }

    #[test]
    fn several_tokens_an_emission_are_seen() {
        let mut mix = Mix::new();
        for n in 0..100_u32 {
            mix.on_offered(PromptTokens::Estimated(100.0));
            (1..=50).for_each(|emission| mix.on_emission(emission, 0));
            mix.on_completion(f64::from(n), 100.0, 50, 99, 0);
        }
        assert!((mix.figures().unwrap().tokens_per_emission - 2.0).abs() < 0.01);
    }

    #[test]
    fn the_variance_of_a_price_is_that_of_the_requests() {
        let mut served = ServedMoments::default();
        let requests = [[10.0, 5.0, 80.0], [20.0, 3.0, 70.0], [30.0, 9.0, 400.0], [25.0, 1.0, 26.0], [5.0, 5.0, 50.0]];
        (0..100).for_each(|_| requests.iter().for_each(|request| served.add(*request, 1.0)));
        let prices = [0.1, 2.0, 0.01];
        let price = |request: &[f64; 3]| prices.iter().zip(request).map(|(p, x)| p * x).sum::<f64>();
        let mean = requests.iter().map(price).sum::<f64>() / 5.0;
        let variance = requests.iter().map(|request| (price(request) - mean).powi(2)).sum::<f64>() / 5.0;
        assert!((served.variance(prices) / variance - 1.0).abs() < 1e-6);
    }
}
