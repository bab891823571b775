//! Saturated time, in blocks: what was served while the engine was driven to its limit, and for how long.
//!
//! A block proves something about capacity only if the engine was queueing for at least half of it and the number of
//! decoding streams no longer rose: a batch that still fills up serves less than it could. What follows from a block is
//! in `capacity`.

use super::reading::BlockCounts;

/// One block of saturated time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct SaturatedBlock {
    /// Seconds.
    pub time: f64,
    /// Seconds of them in which a request waited for a first token, `T_p`.
    pub first_token_time: f64,
    /// Content events.
    pub emissions: f64,
    /// Tokens in them.
    pub tokens: f64,
    /// Sum of the contexts of their streams at that time, in tokens: KV-token-steps.
    pub kv: f64,
    /// Requests that started.
    pub starts: f64,
    /// Their prompt tokens.
    pub prompts: f64,
    /// Tokens computed again after a preemption.
    pub recomputed: f64,
    /// Steps of the engine.
    pub steps: f64,
    /// Those of them in which the largest number of streams emitted: the slots were full.
    pub full_steps: f64,
    /// Mean number of decoding streams, `D`.
    pub decoding: f64,
    /// Mean context of all of them together, in tokens.
    pub context: f64,
}

/// Collects blocks.
#[derive(Clone, Debug, Default)]
pub(super) struct Blocks {
    began: f64,
    first_token_clock: f64,
    ticks: u32,
    saturated: u32,
    waiting: u32,
    decoding_at_start: f64,
    sums: SaturatedBlock,
    /// Emissions were lost since the block began.
    has_loss: bool,
    /// Most streams in one step, decaying within an hour.
    most_streams: f64,
    counts: BlockCounts,
}

/// What the blocks need at a tick.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockTick {
    pub now: f64,
    /// The engine makes requests wait, or a cap holds them back.
    pub saturated: bool,
    /// A request waits for a first token, before or after dispatch.
    pub waiting: bool,
    pub decoding: f64,
    pub context: f64,
    /// [`super::first_token::FirstTokens::busy`].
    pub first_token_clock: f64,
    /// First tokens per second: a slow engine needs longer blocks.
    pub start_rate: f64,
}

impl Blocks {
    /// One content event of `tokens` tokens, after which the context of its stream is `context` tokens.
    pub fn on_emission(&mut self, tokens: u32, context: f64) {
        self.sums.emissions += 1.0;
        self.sums.tokens += f64::from(tokens);
        // The middle of the event: over an answer this adds up to L O + kappa O^2 / 2.
        self.sums.kv += context - 0.5 * f64::from(tokens);
    }

    /// A step in which this number of streams emitted.
    pub fn on_step(&mut self, streams: u32) {
        let streams = f64::from(streams);
        self.most_streams = self.most_streams.max(streams);
        self.sums.steps += 1.0;
        self.sums.full_steps += f64::from(u8::from(streams >= FULL * self.most_streams));
    }

    /// A request with a prompt of `prompt` tokens started.
    pub fn on_first_token(&mut self, prompt: f64) {
        self.sums.starts += 1.0;
        self.sums.prompts += prompt;
    }

    /// Tokens were computed again after a preemption.
    pub fn on_recomputed(&mut self, tokens: f64) {
        self.sums.recomputed += tokens;
    }

    /// Emissions were lost: the current block would show less work than was done.
    pub fn on_loss(&mut self) {
        self.has_loss = true;
    }

    /// Called every 100 ms. Returns a block that is over and proves something.
    pub fn on_tick(&mut self, tick: &BlockTick) -> Option<SaturatedBlock> {
        if self.ticks == 0 {
            self.decoding_at_start = tick.decoding;
        }
        self.ticks += 1;
        self.saturated += u32::from(tick.saturated);
        self.waiting += u32::from(tick.waiting);
        self.sums.decoding += tick.decoding;
        self.sums.context += tick.context;
        let length = (STARTS / tick.start_rate.max(1.0)).clamp(SHORTEST, LONGEST);
        if tick.now - self.began < length - 1e-9 {
            return None;
        }
        let block = self.close(tick);
        if !self.is_saturated() {
            self.restart(tick);
            return None;
        }
        let rising = tick.decoding - self.decoding_at_start > (RISE * block.decoding).max(RISE_IN_STREAMS);
        self.restart(tick);
        if rising || block.emissions == 0.0 {
            self.counts.rejected += 1;
            return None;
        }
        self.counts.accepted += 1;
        Some(block)
    }

    pub fn counts(&self) -> BlockCounts {
        self.counts
    }

    fn close(&self, tick: &BlockTick) -> SaturatedBlock {
        let ticks = f64::from(self.ticks);
        SaturatedBlock {
            time: tick.now - self.began,
            first_token_time: tick.first_token_clock - self.first_token_clock,
            decoding: self.sums.decoding / ticks,
            context: self.sums.context / ticks,
            ..self.sums
        }
    }

    /// A long prompt or a slower engine looks like queueing, but between two of them the engine is idle.
    fn is_saturated(&self) -> bool {
        !self.has_loss && 2 * self.saturated >= self.ticks && f64::from(self.waiting) >= ALWAYS * f64::from(self.ticks)
    }

    fn restart(&mut self, tick: &BlockTick) {
        *self = Self {
            began: tick.now,
            first_token_clock: tick.first_token_clock,
            most_streams: self.most_streams * (self.began - tick.now).min(0.0).mul_add(1.0 / FORGETTING, 1.0),
            counts: self.counts,
            ..Self::default()
        };
    }
}

/// A block holds about ten starts ...
const STARTS: f64 = 10.0;
/// ... but takes at least and at most this number of seconds.
const SHORTEST: f64 = 1.0;
const LONGEST: f64 = 5.0;
/// A batch within 3 % of the largest one has all slots taken except those that prefill.
const FULL: f64 = 0.97;
/// Seconds in which the largest batch decays to 0.
const FORGETTING: f64 = 3600.0;
/// Share of the ticks that is "all of the time".
const ALWAYS: f64 = 0.9;
/// Decoding streams rose by more than this share of their mean ...
const RISE: f64 = 0.06;
/// ... and by more than one and a half streams: the batch is still filling up.
const RISE_IN_STREAMS: f64 = 1.5;

#[cfg(test)]
mod tests {
    use super::*;

    fn run(blocks: &mut Blocks, seconds: u32, saturated: bool, decoding: impl Fn(f64) -> f64) -> Vec<SaturatedBlock> {
        run_with(blocks, seconds, saturated, |_| true, decoding)
    }

    /// Ticks for `seconds` with `decoding` streams at each; returns the blocks.
    fn run_with(
        blocks: &mut Blocks,
        seconds: u32,
        saturated: bool,
        waiting: impl Fn(u32) -> bool,
        decoding: impl Fn(f64) -> f64,
    ) -> Vec<SaturatedBlock> {
        let from = blocks.began;
        let mut found = Vec::new();
        for n in 1..=seconds * 10 {
            let now = from + f64::from(n) / 10.0;
            (0..5).for_each(|_| blocks.on_emission(2, 101.0));
            (0..5).for_each(|step| blocks.on_step(if step == 0 { 30 } else { 40 }));
            let decoding = decoding(now - from);
            let tick = BlockTick {
                now,
                saturated,
                waiting: waiting(n),
                decoding,
                context: 100.0 * decoding,
                first_token_clock: now / 2.0,
                start_rate: 20.0,
            };
            found.extend(blocks.on_tick(&tick));
        }
        found
    }

    #[test]
    fn a_saturated_second_is_a_block() {
        let mut blocks = Blocks::default();
        let found = run(&mut blocks, 3, true, |_| 40.0);
        assert_eq!(found.len(), 3);
        let block = found[0];
        assert!((block.time - 1.0).abs() < 1e-9 && (block.first_token_time - 0.5).abs() < 1e-9);
        assert_eq!((block.steps, block.kv), (50.0, 5000.0));
        assert_eq!(found[1].full_steps, 40.0);
        assert_eq!((block.emissions, block.tokens, block.decoding, block.context), (50.0, 100.0, 40.0, 4000.0));
    }

    #[test]
    fn time_below_the_limit_proves_nothing() {
        let mut blocks = Blocks::default();
        assert!(run(&mut blocks, 3, false, |_| 40.0).is_empty());
        assert_eq!(blocks.counts(), BlockCounts::default());
    }

    #[test]
    fn a_loss_of_emissions_discards_the_block_and_not_the_next() {
        let mut blocks = Blocks::default();
        blocks.on_loss();
        assert_eq!(run(&mut blocks, 3, true, |_| 40.0).len(), 2);
    }

    #[test]
    fn time_in_which_no_request_waits_proves_nothing() {
        let mut blocks = Blocks::default();
        assert!(run_with(&mut blocks, 3, true, |n| n % 3 > 0, |_| 40.0).is_empty());
    }

    #[test]
    fn a_batch_that_still_fills_up_proves_nothing() {
        let mut blocks = Blocks::default();
        assert!(run(&mut blocks, 3, true, |at| 10.0 + 10.0 * at).is_empty());
        assert_eq!(blocks.counts(), BlockCounts { accepted: 0, rejected: 3 });
    }
}
