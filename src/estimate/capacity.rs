//! The capacity of the offered mix, from saturated blocks.
//!
//! In saturation the engine's time is work: `c` a prompt token, `b` an emission, and the rest `r`, the per-step overhead
//! that the binding resource makes every request share. What binds decides in which unit `r` is paid: by emission where slots
//! bind, by KV-token-step where memory binds, all by prompt token where prefill binds. Prices are scaled so that the served
//! mix explains the time exactly; the offered mix at those prices gives the capacity.
//!
//! Limitation: a linear step; what the rows cannot explain is published as `unexplained`.

use super::average::Moments;
use super::blocks::Block;
use super::costs::Solution;
use super::headroom::Headroom;
use super::mix::{MixFigures, ServedMoments};
use super::reading::{Estimate, Knee, Regime};
use crate::time::Timestamp;

/// Sums over saturated blocks with a memory of two minutes, and how much they scatter.
#[derive(Clone, Debug)]
pub(super) struct Capacity {
    sums: Sums,
    /// Work per second of the blocks, at the prices of their time.
    work: Moments,
    last_work: f64,
    neighbours: f64,
    updated_at: Timestamp,
    /// Saturated seconds ever, and what they have shown of the engine: its memory and slots outlast a change of its speed.
    seen: f64,
    learnt: Option<Learnt>,
}

/// Limits of the engine that saturation has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Learnt {
    /// Streams in the batch, if slots bind.
    pub slots: Option<f64>,
    /// Tokens of context in the batch, if memory binds.
    pub kv: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    blocks: f64,
    time: f64,
    first_token_time: f64,
    emissions: f64,
    kv: f64,
    starts: f64,
    prompts: f64,
    recomputed: f64,
    steps: f64,
    decoding: f64,
    decoding_square: f64,
    context: f64,
    context_square: f64,
}

/// Seconds of the engine's time for a prompt token, an emission, a KV-token-step.
type Prices = [f64; 3];

impl Capacity {
    pub fn new() -> Self {
        Self {
            sums: Sums::default(),
            work: Moments::new(0.98),
            last_work: 0.0,
            neighbours: 0.0,
            updated_at: Timestamp::ZERO,
            seen: 0.0,
            learnt: None,
        }
    }

    /// A saturated block that ended at `at`.
    pub fn on_block(&mut self, at: Timestamp, block: &Block, costs: &Solution) {
        self.updated_at = at;
        self.sums.scale((-block.time / MEMORY).exp());
        self.sums.add(block);
        let [_, b, c] = costs.coefficients;
        let overhead = self.sums.overhead(costs) * self.sums.time / self.sums.emissions.max(1.0);
        let work = (c * block.prompts + (b + overhead) * block.emissions) / block.time;
        self.work.add(work);
        let difference = work - self.work.mean;
        self.neighbours = 0.95 * self.neighbours + 0.05 * difference * self.last_work;
        self.last_work = difference;
        self.seen += block.time;
        if self.seen >= LEARNING {
            self.learnt = self.sums.limits(costs);
        }
    }

    /// What was seen is about another engine, or another traffic: it counts for this share from here on.
    pub fn doubt(&mut self, share: f64) {
        let blocks = self.sums.blocks;
        self.sums.scale(share);
        // The blocks were seen all the same: a knee stays a knee while the mix changes.
        self.sums.blocks = blocks;
    }

    /// What was seen no longer holds.
    pub fn clear(&mut self) {
        *self = Self { seen: self.seen, learnt: self.learnt, ..Self::new() };
    }

    /// Prompt tokens are counted in another unit from now on: `factor` times as many as before.
    pub fn rescale_prompts(&mut self, factor: f64) {
        self.sums.prompts *= factor;
    }

    /// What a minute of saturation has shown of the engine's limits.
    pub fn learnt(&self) -> Option<Learnt> {
        self.learnt
    }

    /// Blocks remembered.
    pub fn blocks(&self) -> f64 {
        self.sums.blocks
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
        if sums.blocks < FEWEST_BLOCKS || sums.emissions <= 0.0 {
            return None;
        }
        let regime = if prompts_known { sums.regime(costs) } else { Regime::Unknown };
        let prices = sums.prices(regime, costs);
        let offered = [mix.prompt, mix.output, mix.kv];
        let price: f64 = prices.iter().zip(offered).map(|(price, quantity)| price * quantity).sum();
        let now = 1.0 / price;
        let relative = (served.relative_variance(prices) + self.block_variance() + MODEL_ERROR).sqrt();
        let tokens = mix.tokens_per_emission * mix.output;
        let tokens_relative = (self.block_variance() + MODEL_ERROR).sqrt();
        let decoding = sums.decoding_at_knee(regime, mix);
        Some(Knee {
            requests_per_second: Estimate::around(now, Z * relative * now),
            best: now / (1.0 - self.avoidable_share(regime, mix, costs, price)),
            tokens_per_second: Estimate::around(now * tokens, Z * tokens_relative * now * tokens),
            in_flight: Estimate::around(decoding, self.decoding_error(regime, served, decoding)),
            n95: concurrency_for(0.95 * now, mix, costs).filter(|_| regime != Regime::Prefill),
            regime,
            blocks: sums.blocks.round() as u64,
            updated_at: self.updated_at,
            unexplained: (1.0 - sums.explained(costs)).abs(),
        })
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

    /// Relative variance of the mean of the blocks, neighbours being correlated.
    fn block_variance(&self) -> f64 {
        let work = &self.work;
        let rho = if work.variance > 0.0 { (self.neighbours / work.variance).clamp(0.0, 0.6) } else { 0.3 };
        work.variance / (work.mean * work.mean).max(1e-12) * (1.0 + rho) / (1.0 - rho) / work.effective().max(1.0)
    }

    fn decoding_error(&self, regime: Regime, served: &ServedMoments, decoding: f64) -> f64 {
        let by_mix = if regime == Regime::Kv { served.relative_variance([0.0, 0.0, 1.0]) } else { 0.0 };
        let by_blocks = self.sums.decoding_variation().powi(2) / self.work.effective().max(1.0);
        (Z * (by_mix + by_blocks).sqrt() * decoding).max(0.5)
    }
}

impl Sums {
    fn add(&mut self, block: &Block) {
        self.blocks += 1.0;
        self.time += block.time;
        self.first_token_time += block.first_token_time;
        self.emissions += block.emissions;
        self.kv += block.kv;
        self.starts += block.starts;
        self.prompts += block.prompts;
        self.recomputed += block.recomputed;
        self.steps += block.steps;
        self.decoding += block.decoding * block.time;
        self.decoding_square += block.decoding * block.decoding * block.time;
        self.context += block.context * block.time;
        self.context_square += block.context * block.context * block.time;
    }

    fn scale(&mut self, keep: f64) {
        let Self { blocks, time, first_token_time, emissions, kv, starts, prompts, recomputed, .. } = self;
        [blocks, time, first_token_time, emissions, kv, starts, prompts, recomputed]
            .into_iter()
            .for_each(|sum| *sum *= keep);
        let Self { steps, decoding, decoding_square, context, context_square, .. } = self;
        [steps, decoding, decoding_square, context, context_square].into_iter().for_each(|sum| *sum *= keep);
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

    fn limits(&self, costs: &Solution) -> Option<Learnt> {
        match self.regime(costs) {
            Regime::Slots => Some(Learnt { slots: Some(self.batch()), kv: None }),
            Regime::Kv => Some(Learnt { slots: None, kv: Some(self.context / self.time) }),
            _ => None,
        }
    }

    fn regime(&self, costs: &Solution) -> Regime {
        let [_, _, c] = costs.coefficients;
        if c * self.prompts / self.time > PREFILL_SHARE {
            Regime::Prefill
        } else if self.decoding_variation() <= self.context_variation() {
            // What binds stands still while the other one moves.
            Regime::Slots
        } else {
            Regime::Kv
        }
    }

    fn prices(&self, regime: Regime, costs: &Solution) -> Prices {
        let [_, b, c] = costs.coefficients;
        let [prompts, emissions, kv] = [self.prompts, self.emissions, self.kv].map(|sum| sum / self.time);
        let overhead = self.overhead(costs);
        let prices = match regime {
            // The stage is work-conserving: while somebody waits for a first token, prompts are computed.
            Regime::Prefill => return [self.first_token_time / self.prompts.max(1e-9), 0.0, 0.0],
            Regime::Kv | Regime::Mixed => [c, b, overhead / kv.max(1e-9)],
            Regime::Slots | Regime::Unknown => [c, b + overhead / emissions, 0.0],
        };
        let explained = prices[0] * prompts + prices[1] * emissions + prices[2] * kv;
        prices.map(|price| price / explained.max(1e-9))
    }

    fn decoding_at_knee(&self, regime: Regime, mix: &MixFigures) -> f64 {
        match regime {
            Regime::Kv | Regime::Mixed => self.context / self.time / mix.context(),
            Regime::Slots | Regime::Prefill | Regime::Unknown => self.batch(),
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

    fn context_variation(&self) -> f64 {
        variation(self.context / self.time, self.context_square / self.time)
    }
}

/// Coefficient of variation from the mean and the mean square.
fn variation(mean: f64, square: f64) -> f64 {
    (square - mean * mean).max(0.0).sqrt() / mean.max(1e-9)
}

/// Streams that must decode for so many requests per second, `a O / (1/X - b O - c L)`.
fn concurrency_for(rate: f64, mix: &MixFigures, costs: &Solution) -> Option<f64> {
    let [a, b, c] = costs.coefficients;
    let room = 1.0 / rate - b * mix.output - c * mix.prompt;
    (room > 0.0).then(|| a * mix.output / room)
}

/// Seconds of saturation that are remembered.
const MEMORY: f64 = 120.0;
/// Fewer blocks make no knee.
pub(super) const FEWEST_BLOCKS: f64 = 3.0;
/// Saturated seconds that show what binds.
const LEARNING: f64 = 60.0;
/// Prompt processing binds where it takes more of the time than this.
const PREFILL_SHARE: f64 = 0.7;
/// (1 %)^2: no capacity is known better.
const MODEL_ERROR: f64 = 1e-4;
/// Of the normal law, for 95 %.
const Z: f64 = 1.96;
