//! What a tick does: the state is judged, saturated time is collected into blocks, and once a second the knee is computed.

use super::state::Estimator;
use crate::estimate::blocks::BlockTick;
use crate::estimate::reading::Knee;
use crate::vocabulary::time::Timestamp;

impl Estimator {
    /// Time has passed; call it every 100 ms.
    pub fn on_tick(&mut self, at: Timestamp) {
        let now = self.seconds(at);
        // A process that stood still has seen nothing of the time in between.
        let elapsed = (now - self.last_tick).clamp(0.0, LONGEST_TICK);
        self.last_tick = now;
        self.mix.refresh();
        self.judge(at, now, elapsed);
        self.collect_blocks(at, now);
        if now - self.last_second >= 1.0 - 1e-9 {
            self.last_second = now;
            self.best_start_rate.on_second(self.counts.starts, self.counts.completions);
            self.knee = self.compute_knee();
        }
    }

    /// Saturated or not.
    fn judge(&mut self, at: Timestamp, now: f64, elapsed: f64) {
        let heads = [self.requests.oldest_queued(), self.requests.oldest_pending()];
        let streams = heads.into_iter().flatten().filter(|head| head.stream);
        let baseline = |prompt| self.first_tokens.baseline(prompt);
        let head = streams.map(|head| now - head.arrived - baseline(head.prompt)).fold(0.0, f64::max);
        let findings = self.detector.on_tick(elapsed, head, self.first_tokens.allowed_wait());
        let change = self.saturation.on_tick(at, now, &findings, self.counts.starts);
        self.transitions.extend(change);
        // If no caller drains them, the oldest have lost their value.
        if self.transitions.len() > MOST_TRANSITIONS {
            self.transitions.remove(0);
        }
    }

    /// Saturated time becomes blocks, blocks become capacity.
    fn collect_blocks(&mut self, at: Timestamp, now: f64) {
        let oldest = self.requests.oldest_pending().map_or(0.0, |head| now - head.admitted);
        let queueing = self.counts.pending >= 1 && self.first_tokens.is_queueing(oldest);
        let tick = BlockTick {
            now,
            waiting: self.held_back || self.counts.pending + self.counts.queued > 0,
            saturated: queueing || std::mem::take(&mut self.held_back),
            decoding: (self.counts.in_flight - self.counts.pending) as f64,
            context: self.counts.context,
            first_token_clock: self.first_tokens.busy(now),
            start_rate: self.first_tokens.start_rate(now),
        };
        if let Some(block) = self.blocks.on_tick(&tick) {
            self.on_block(at, &block);
        }
    }

    fn compute_knee(&self) -> Option<Knee> {
        let (mix, costs) = (self.mix.figures()?, self.costs.solution()?);
        self.capacity.knee(&mix, self.mix.served(), costs, self.mix.prompts_are_known())
    }
}

/// Seconds that a tick can stand for.
const LONGEST_TICK: f64 = 1.0;
const MOST_TRANSITIONS: usize = 64;
