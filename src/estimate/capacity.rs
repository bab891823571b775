//! The capacity of the offered mix, from saturated blocks.
//!
//! In saturation the engine's time is work: `c` per prompt token, `b` per emission, and the rest `r`, the per-step overhead
//! that the requests share. The binding resource decides by what unit `r` is shared: by emission where slots bind, by
//! KV-token-step where memory binds; where prefill binds, prompt tokens take all the time. Prices are scaled so that the
//! served mix explains the time exactly; the offered mix at those prices gives the capacity.
//!
//! Limitation: a step is linear in its work; the share that this does not explain is published as `unexplained`.

use std::time::Duration;

use super::blocks::SaturatedBlock;
use super::costs::Solution;
use super::headroom::Headroom;
use super::mix::{MixFigures, ServedMoments};
use super::reading::{Estimate, Knee, Regime};
use crate::vocabulary::average::Moments;
use crate::vocabulary::time::Timestamp;

/// Sums over saturated blocks, weighted over two minutes, and how much the blocks scatter.
#[derive(Clone, Debug)]
pub(super) struct Capacity {
    /// Most tokens in one step, if it is known.
    batched: Option<f64>,
    sums: Sums,
    /// Blocks added to the sums, whatever they still weigh.
    blocks: u64,
    /// Work per second of the blocks, at the prices of their time.
    work: Moments,
    last_work: f64,
    neighbours: f64,
    updated_at: Timestamp,
    /// The last blocks and when they ended, newest first: they remain when the others are dropped.
    recent: [Option<(Timestamp, SaturatedBlock)>; RECENT],
    /// Saturated seconds since the start, and the limits that they have shown: these outlast a change of the engine's speed.
    seen: f64,
    shown_limits: Option<ShownLimits>,
}

/// Limits of the engine that saturation has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ShownLimits {
    /// Streams in the batch, if slots bind.
    pub slots: Option<f64>,
    /// Tokens of context in the batch, if memory binds.
    pub kv: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    time: f64,
    first_token_time: f64,
    emissions: f64,
    kv: f64,
    starts: f64,
    prompts: f64,
    recomputed: f64,
    steps: f64,
    full_steps: f64,
    decoding: f64,
    decoding_square: f64,
    context: f64,
    context_square: f64,
}

/// Seconds of the engine's time for a prompt token, an emission, a KV-token-step.
type Prices = [f64; 3];

impl Capacity {
    pub fn new(batched: Option<f64>) -> Self {
        Self {
            batched,
            sums: Sums::default(),
            blocks: 0,
            work: Moments::new(0.98),
            last_work: 0.0,
            neighbours: 0.0,
            updated_at: Timestamp::ZERO,
            recent: [None; RECENT],
            seen: 0.0,
            shown_limits: None,
        }
    }

    /// Sets the most tokens in one step.
    pub fn set_batched(&mut self, batched: Option<f64>) {
        self.batched = batched;
    }

    /// Adds a saturated block that ended at `at`.
    pub fn on_block(&mut self, at: Timestamp, block: &SaturatedBlock, costs: &Solution) {
        self.updated_at = at;
        self.recent.rotate_right(1);
        self.recent[0] = Some((at, *block));
        self.sums.scale((-block.time / MEMORY).exp());
        self.sums.add(block);
        self.blocks += 1;
        let [_, b, c] = costs.coefficients;
        let overhead = self.sums.overhead(costs) * self.sums.time / self.sums.emissions.max(1.0);
        let work = (c * block.prompts + (b + overhead) * block.emissions) / block.time;
        self.work.add(work);
        let difference = work - self.work.mean;
        self.neighbours = 0.95 * self.neighbours + 0.05 * difference * self.last_work;
        self.last_work = difference;
        self.seen += block.time;
        if self.seen >= ENOUGH_SATURATION {
            self.shown_limits = self.sums.limits(self.regime(costs));
        }
    }

    /// The traffic changed: what was added so far keeps this share of its weight.
    pub fn discount(&mut self, share: f64) {
        self.sums.scale(share);
    }

    /// The engine changed: drops what was added so far, except the last blocks not older than `fresh`, which showed it.
    pub fn clear(&mut self, now: Timestamp, costs: &Solution, fresh: Duration) {
        let recent = self.recent;
        *self = Self { seen: self.seen, shown_limits: self.shown_limits, ..Self::new(self.batched) };
        for (at, block) in recent.into_iter().rev().flatten() {
            if now.since(at) <= fresh {
                self.seen -= block.time;
                self.on_block(at, &block, costs);
            }
        }
    }

    /// Prompt tokens are counted in another unit from now on: `factor` times as many as before.
    pub fn rescale_prompts(&mut self, factor: f64) {
        self.sums.prompts *= factor;
    }

    /// The engine's limits, as a minute of saturation has shown them.
    pub fn shown_limits(&self) -> Option<ShownLimits> {
        self.shown_limits
    }

    /// Blocks behind the knee.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// The knee of the offered mix; `None` without enough blocks. Unknown prompt lengths leave the regime unknown.
    pub fn knee(
        &self,
        mix: &MixFigures,
        served: &ServedMoments,
        costs: &Solution,
        prompts_known: bool,
    ) -> Option<Knee> {
        let sums = &self.sums;
        if self.blocks < FEWEST_BLOCKS || sums.emissions <= 0.0 {
            return None;
        }
        let regime = if prompts_known { self.regime(costs) } else { Regime::Unknown };
        let prices = sums.prices(regime, costs);
        let offered = [mix.prompt, mix.output, mix.kv];
        let price: f64 = prices.iter().zip(offered).map(|(price, quantity)| price * quantity).sum();
        let now = 1.0 / price;
        let relative = (served.relative_variance(prices) + self.block_variance() + MODEL_ERROR).sqrt();
        let tokens = mix.tokens_per_emission * mix.output;
        let tokens_relative = (self.block_variance() + MODEL_ERROR).sqrt();
        let decoding = sums.decoding_at_knee(regime, mix);
        let best = now / (1.0 - self.avoidable_share(regime, mix, costs, price));
        Some(Knee {
            requests_per_second: Estimate::around(now, Z * relative * now),
            best,
            tokens_per_second: Estimate::around(now * tokens, Z * tokens_relative * now * tokens),
            in_flight: Estimate::around(decoding, self.decoding_error(regime, served, decoding)),
            n95: concurrency_for(0.95 * best, mix, costs).filter(|_| regime != Regime::Prefill),
            regime,
            blocks: self.blocks,
            updated_at: self.updated_at,
            unexplained: (1.0 - sums.explained(costs)).abs(),
        })
    }

    /// Seconds of the engine per prompt token, if prompts are most of a request's work: measured in the saturated blocks,
    /// and before there are any the cost of a token, with a small part of the steps.
    ///
    /// Before saturation the batch is assumed to be the `decoding` streams of now, and each step to hold all of them: rather too
    /// little for a prompt than too much, because admission by tokens where requests matter refuses too many.
    pub fn per_prompt_token(&self, mix: &MixFigures, costs: &Solution, decoding: f64) -> Option<f64> {
        let [a, b, c] = costs.coefficients;
        let prompt = c * mix.prompt;
        let batch = if self.sums.time > 0.0 { self.sums.batch() } else { decoding };
        let steps = a * mix.output / batch.max(1.0);
        if prompt <= PROMPTS_ARE_THE_WORK * (prompt + b * mix.output + steps) {
            return None;
        }
        let seen = self.sums.first_token_time > ENOUGH_WORK && self.sums.prompts > 0.0;
        Some(if seen { self.sums.first_token_time / self.sums.prompts } else { BEFORE_SATURATION * c })
    }

    fn regime(&self, costs: &Solution) -> Regime {
        let [_, _, c] = costs.coefficients;
        let sums = &self.sums;
        // From a cold start into overload all steps are full, and the cost of a token cannot be separated from a step's own
        // cost; that the steps are full is visible.
        let full_of_prompts = |batched: f64| sums.prompts + sums.emissions > FULL_BATCH * batched * sums.steps;
        if c * sums.prompts / sums.time > PREFILL_SHARE || self.batched.is_some_and(full_of_prompts) {
            Regime::Prefill
        } else if sums.slots_share() > MOSTLY {
            Regime::Slots
        } else if sums.slots_share() < 1.0 - MOSTLY {
            Regime::Kv
        } else {
            Regime::Mixed
        }
    }

    /// Share of the time lost to recomputation beyond what the best headroom would lose, less what its smaller batch costs.
    fn avoidable_share(&self, regime: Regime, mix: &MixFigures, costs: &Solution, price: f64) -> f64 {
        if matches!(regime, Regime::Prefill | Regime::Unknown) {
            return 0.0;
        }
        let [a, _, c] = costs.coefficients;
        let lost = (c * self.sums.recomputed / self.sums.time).min(0.5);
        let full = self.sums.context / self.sums.time / mix.context();
        let best = Headroom::cheapest(full, mix, a, c);
        let smaller_batch = a * mix.output * (1.0 / best.decoding - 1.0 / self.sums.batch().max(1.0));
        (lost - (best.recomputation + smaller_batch.max(0.0)) / price).max(0.0)
    }

    /// Relative variance of the mean of the blocks, whose neighbours are correlated.
    fn block_variance(&self) -> f64 {
        let work = &self.work;
        let rho = if work.variance > 0.0 { (self.neighbours / work.variance).clamp(0.0, 0.6) } else { 0.3 };
        work.variance / (work.mean * work.mean).max(1e-12) * (1.0 + rho) / (1.0 - rho) / work.effective().max(1.0)
    }

    fn decoding_error(&self, regime: Regime, served: &ServedMoments, decoding: f64) -> f64 {
        let by_mix =
            if matches!(regime, Regime::Kv | Regime::Mixed) { served.relative_variance([0.0, 0.0, 1.0]) } else { 0.0 };
        let by_blocks = self.sums.decoding_variation().powi(2) / self.work.effective().max(1.0);
        (Z * (by_mix + by_blocks).sqrt() * decoding).max(0.5)
    }
}

impl Sums {
    fn add(&mut self, block: &SaturatedBlock) {
        self.time += block.time;
        self.first_token_time += block.first_token_time;
        self.emissions += block.emissions;
        self.kv += block.kv;
        self.starts += block.starts;
        self.prompts += block.prompts;
        self.recomputed += block.recomputed;
        self.steps += block.steps;
        self.full_steps += block.full_steps;
        self.decoding += block.decoding * block.time;
        self.decoding_square += block.decoding * block.decoding * block.time;
        self.context += block.context * block.time;
        self.context_square += block.context * block.context * block.time;
    }

    fn scale(&mut self, keep: f64) {
        let Self { time, first_token_time, emissions, kv, starts, prompts, recomputed, .. } = self;
        [time, first_token_time, emissions, kv, starts, prompts, recomputed].into_iter().for_each(|sum| *sum *= keep);
        let Self { steps, full_steps, decoding, decoding_square, context, context_square, .. } = self;
        [steps, full_steps, decoding, decoding_square, context, context_square]
            .into_iter()
            .for_each(|sum| *sum *= keep);
    }

    /// `r`: share of the time that neither prompt tokens nor emissions cost.
    fn overhead(&self, costs: &Solution) -> f64 {
        let [_, b, c] = costs.coefficients;
        (1.0 - (c * self.prompts + b * self.emissions) / self.time).clamp(0.0, 1.0)
    }

    /// Share of the time that the costs explain.
    fn explained(&self, costs: &Solution) -> f64 {
        let [a, b, c] = costs.coefficients;
        (a * self.steps + b * self.emissions + c * (self.prompts + self.recomputed)) / self.time
    }

    /// The engine's limits that saturation in this regime shows.
    fn limits(&self, regime: Regime) -> Option<ShownLimits> {
        match regime {
            Regime::Slots => Some(ShownLimits { slots: Some(self.batch()), kv: None }),
            Regime::Kv => Some(ShownLimits { slots: None, kv: Some(self.context / self.time) }),
            Regime::Mixed => Some(ShownLimits { slots: Some(self.batch()), kv: Some(self.context / self.time) }),
            Regime::Prefill | Regime::Unknown => None,
        }
    }

    /// Share of the saturated time in which slots bind, the rest being memory's.
    fn slots_share(&self) -> f64 {
        self.full_steps / self.steps.max(1.0)
    }

    fn prices(&self, regime: Regime, costs: &Solution) -> Prices {
        let [_, b, c] = costs.coefficients;
        let [prompts, emissions, kv] = [self.prompts, self.emissions, self.kv].map(|sum| sum / self.time);
        let overhead = self.overhead(costs);
        let prices = match regime {
            // Prefill is work-conserving: while a request waits for a first token, prompts are computed.
            Regime::Prefill => return [self.first_token_time / self.prompts.max(1e-9), 0.0, 0.0],
            Regime::Unknown => [c, b + overhead / emissions, 0.0],
            Regime::Slots | Regime::Kv | Regime::Mixed => {
                let slots = self.slots_share();
                [c, b + slots * overhead / emissions, (1.0 - slots) * overhead / kv.max(1e-9)]
            }
        };
        let explained = prices[0] * prompts + prices[1] * emissions + prices[2] * kv;
        prices.map(|price| price / explained.max(1e-9))
    }

    fn decoding_at_knee(&self, regime: Regime, mix: &MixFigures) -> f64 {
        match regime {
            Regime::Prefill | Regime::Unknown => self.batch(),
            Regime::Slots | Regime::Kv | Regime::Mixed => {
                let slots = self.slots_share();
                slots * self.batch() + (1.0 - slots) * self.context / self.time / mix.context()
            }
        }
    }

    /// Streams in a step. Those that get their first token in it are not counted as decoding, and are `starts` of all
    /// `emissions`: a large share where answers are short.
    fn batch(&self) -> f64 {
        self.decoding / self.time * self.emissions / (self.emissions - self.starts).max(1.0)
    }

    fn decoding_variation(&self) -> f64 {
        variation(self.decoding / self.time, self.decoding_square / self.time)
    }
}

/// Coefficient of variation from the mean and the mean square.
fn variation(mean: f64, square: f64) -> f64 {
    (square - mean * mean).max(0.0).sqrt() / mean.max(1e-9)
}

/// Streams that must decode for `rate` requests per second, `a O / (1/X - b O - c L)`.
fn concurrency_for(rate: f64, mix: &MixFigures, costs: &Solution) -> Option<f64> {
    let [a, b, c] = costs.coefficients;
    let left = 1.0 / rate - b * mix.output - c * mix.prompt;
    (left > 0.0).then(|| a * mix.output / left)
}

/// Seconds of saturation that are remembered.
const MEMORY: f64 = 120.0;
/// Prompts are most of the work from this share on: then the prompt tokens that wait determine how long the wait is.
const PROMPTS_ARE_THE_WORK: f64 = 0.6;
/// Seconds of first-token time before the measured cost of a prompt token is used.
const ENOUGH_WORK: f64 = 5.0;
/// Factor on the cost of a prompt token for its part of the steps' own cost.
const BEFORE_SATURATION: f64 = 1.05;
/// Blocks before there is a knee.
pub(super) const FEWEST_BLOCKS: u64 = 3;
/// Blocks that may outlast a change: about as many are needed to detect it.
const RECENT: usize = 3;
/// How full steps are where prompts bind: the last prompt of a step seldom fills it.
const FULL_BATCH: f64 = 0.8;
/// A resource that binds for more than this share of the time is the regime.
const MOSTLY: f64 = 0.8;
/// Saturated seconds before the shown limits are used.
const ENOUGH_SATURATION: f64 = 60.0;
/// Prompt processing binds where it takes more of the time than this.
const PREFILL_SHARE: f64 = 0.7;
/// (1 %)^2: no capacity is known more precisely.
const MODEL_ERROR: f64 = 1e-4;
/// 95 % quantile of the normal distribution, two-sided.
const Z: f64 = 1.96;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimate::costs::Costs;
    use crate::estimate::steps::WorkInterval;

    const A: f64 = 0.0135;
    const B: f64 = 0.000157;
    const C: f64 = 0.000183;

    fn costs() -> Solution {
        let mut costs = Costs::default();
        for n in 0..60_u32 {
            let steps = f64::from(20 + n * 7 % 31);
            let (decodes, prefill) = (steps * f64::from(3 + n * 13 % 29), f64::from(n * 29 % 17) * 100.0);
            costs.add(&WorkInterval { time: A * steps + B * decodes + C * prefill, steps, decodes, prefill });
        }
        *costs.solution().unwrap()
    }

    fn mix(prompt: f64, output: f64) -> MixFigures {
        MixFigures {
            prompt,
            output,
            kv: output * (prompt + 0.6 * output),
            context_variation: 0.5,
            tokens_per_emission: 1.0,
            completions: 1000.0,
            offered: 1000.0,
        }
    }

    /// Ten seconds of an engine whose batch is `streams`, serving `mix`; `full` of the steps fill the slots.
    fn block(streams: f64, mix: &MixFigures, full: f64) -> SaturatedBlock {
        // One step of one request's share: 1 / output of a prompt and one emission a stream.
        let step = A + streams * (B + C * mix.prompt / mix.output);
        let steps = 10.0 / step;
        let starts = steps * streams / mix.output;
        SaturatedBlock {
            time: 10.0,
            first_token_time: 10.0,
            emissions: steps * streams,
            tokens: steps * streams,
            kv: steps * streams * mix.context(),
            starts,
            prompts: starts * mix.prompt,
            recomputed: 0.0,
            steps,
            full_steps: full * steps,
            decoding: streams * (1.0 - 1.0 / mix.output),
            context: streams * mix.context(),
        }
    }

    fn capacity_of(blocks: &[SaturatedBlock]) -> Capacity {
        let mut capacity = Capacity::new(Some(2048.0));
        for (n, block) in (1_u64..).zip(blocks) {
            capacity.on_block(Timestamp::from_nanos(n * 10_000_000_000), block, &costs());
        }
        capacity
    }

    fn knee(capacity: &Capacity, mix: &MixFigures) -> Knee {
        capacity.knee(mix, &ServedMoments::default(), &costs(), true).unwrap()
    }

    fn assert_near(value: f64, expected: f64, tolerance: f64) {
        assert!((value / expected - 1.0).abs() < tolerance, "{value} instead of {expected}");
    }

    #[test]
    fn what_is_served_is_the_capacity_of_the_served_mix() {
        let mix = mix(162.0, 153.0);
        for full in [0.0, 0.5, 1.0] {
            let block = block(91.0, &mix, full);
            let knee = knee(&capacity_of(&[block; 5]), &mix);
            assert_near(knee.requests_per_second.value, block.starts / block.time, 1e-3);
            assert_near(knee.in_flight.value, 91.0, 0.01);
            assert!(knee.unexplained < 0.01, "{knee:?}");
        }
    }

    /// Twice the answer and half the prompt: what the engine would serve of it follows from the step alone.
    #[test]
    fn slots_share_the_overhead_by_emission() {
        let (served, offered) = (mix(162.0, 153.0), mix(81.0, 306.0));
        let knee = knee(&capacity_of(&[block(91.0, &served, 1.0); 5]), &offered);
        let truth = block(91.0, &offered, 1.0);
        assert_eq!(knee.regime, Regime::Slots);
        assert_near(knee.requests_per_second.value, truth.starts / truth.time, 0.01);
        assert_near(knee.tokens_per_second.value, truth.tokens / truth.time, 0.01);
        assert_near(knee.in_flight.value, 91.0, 0.01);
    }

    #[test]
    fn memory_shares_the_overhead_by_context() {
        let (served, offered) = (mix(400.0, 300.0), mix(600.0, 600.0));
        let memory = 16_000.0;
        let knee = knee(&capacity_of(&[block(memory / served.context(), &served, 0.0); 5]), &offered);
        let truth = block(memory / offered.context(), &offered, 0.0);
        assert_eq!(knee.regime, Regime::Kv);
        assert_near(knee.requests_per_second.value, truth.starts / truth.time, 0.02);
        assert_near(knee.in_flight.value, memory / offered.context(), 0.02);
    }

    #[test]
    fn full_steps_of_prompts_are_prefill_though_a_token_seems_free() {
        let mix = mix(5000.0, 60.0);
        // As after a cold start into overload, where c is not identified.
        let mut confused = costs();
        confused.coefficients = [0.17, 0.0, 0.0];
        let full = SaturatedBlock { steps: 1.05 * block(20.0, &mix, 0.0).prompts / 2048.0, ..block(20.0, &mix, 0.0) };
        let capacity = capacity_of(&[full; 5]);
        let knee = capacity.knee(&mix, &ServedMoments::default(), &confused, true).unwrap();
        assert_eq!((knee.regime, knee.n95), (Regime::Prefill, None));
        assert_near(knee.requests_per_second.value, full.starts / full.time, 0.01);
    }

    #[test]
    fn without_prompt_lengths_the_regime_is_unknown() {
        let mix = mix(162.0, 153.0);
        let capacity = capacity_of(&[block(91.0, &mix, 1.0); 5]);
        let knee = capacity.knee(&mix, &ServedMoments::default(), &costs(), false).unwrap();
        assert_eq!(knee.regime, Regime::Unknown);
    }

    #[test]
    fn two_blocks_are_no_knee() {
        let mix = mix(162.0, 153.0);
        let capacity = capacity_of(&[block(91.0, &mix, 1.0); 2]);
        assert_eq!(capacity.knee(&mix, &ServedMoments::default(), &costs(), true), None);
    }

    #[test]
    fn avoidable_recomputation_lifts_the_best_above_the_present() {
        let mix = mix(600.0, 700.0);
        let plain = block(24.0, &mix, 0.0);
        let wasteful = SaturatedBlock { recomputed: 0.3 * plain.time / C, ..plain };
        let (with, without) = (knee(&capacity_of(&[wasteful; 5]), &mix), knee(&capacity_of(&[plain; 5]), &mix));
        assert_eq!(without.best, without.requests_per_second.value);
        assert!(with.best > 1.05 * with.requests_per_second.value, "{with:?}");
    }

    #[test]
    fn clearing_keeps_the_fresh_blocks_and_the_shown_limits() {
        let mix = mix(162.0, 153.0);
        let mut capacity = capacity_of(&[block(91.0, &mix, 1.0); 8]);
        let shown = capacity.shown_limits().unwrap();
        assert_near(shown.slots.unwrap(), 91.0, 0.01);
        capacity.clear(Timestamp::from_nanos(95_000_000_000), &costs(), Duration::from_secs(30));
        assert_eq!(capacity.blocks(), 2);
        assert_near(capacity.shown_limits().unwrap().slots.unwrap(), shown.slots.unwrap(), 1e-6);
        capacity.clear(Timestamp::from_nanos(200_000_000_000), &costs(), Duration::from_secs(15));
        assert_eq!(capacity.blocks(), 0);
    }

    #[test]
    fn scattered_blocks_have_a_wider_interval() {
        let mix = mix(162.0, 153.0);
        let width = |capacity: &Capacity| {
            let knee = knee(capacity, &mix).tokens_per_second;
            (knee.high - knee.low) / knee.value
        };
        let even = capacity_of(&[block(91.0, &mix, 1.0); 12]);
        let uneven: Vec<SaturatedBlock> =
            (0..12).map(|n| block(if n % 4 < 2 { 60.0 } else { 91.0 }, &mix, 1.0)).collect();
        assert!(width(&capacity_of(&uneven)) > 1.5 * width(&even));
    }

    #[test]
    fn the_concurrency_for_a_rate_gives_that_rate() {
        let mix = mix(162.0, 153.0);
        let truth = block(80.0, &mix, 1.0);
        assert_near(concurrency_for(truth.starts / truth.time, &mix, &costs()).unwrap(), 80.0, 0.01);
        assert_eq!(concurrency_for(1e6, &mix, &costs()), None);
    }
}
