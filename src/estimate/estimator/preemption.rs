//! Preempted streams, as seen from outside, and the engine time that their recomputation costs.
//!
//! A stream that runs emits in every step. One that the others overtake by several steps was thrown out of the batch, and
//! its context is computed again. Whether the steps of this backend can be believed is not decided here (`step_visibility`).

use crate::vocabulary::average::DecayingRate;

/// Preemptions counted, and the time lost to them.
#[derive(Clone, Debug)]
pub(super) struct Preemptions {
    count: u64,
    /// Seconds lost to recomputation, per second.
    wasted: DecayingRate,
    wasted_lately: DecayingRate,
    /// Streams that emit again in the current step after a preemption, and the seconds that this cost.
    resumed: u32,
    resumed_work: f64,
}

impl Preemptions {
    pub fn new() -> Self {
        Self {
            count: 0,
            wasted: DecayingRate::new(6.0),
            wasted_lately: DecayingRate::new(1.5),
            resumed: 0,
            resumed_work: 0.0,
        }
    }

    /// Whether a stream was overtaken that emits `tokens` now: `steps` after its last emission, while the backend delivered
    /// `delivered` tokens to all streams. Tokens that come late but together count as one step each.
    pub fn is_overtaken(steps: u32, tokens: u32, delivered: u64) -> bool {
        steps > STALL_STEPS + (tokens - 1) && delivered > STALL_TOKENS
    }

    /// A preempted stream emits again; computing its context again took `seconds`.
    pub fn on_resumed(&mut self, seconds: f64) {
        self.count += 1;
        self.resumed += 1;
        self.resumed_work += seconds.max(0.0);
    }

    /// A step of `streams` is over: what its resumed streams lost is counted. Most of a step's streams were not preempted
    /// together: that is the long step of another engine behind the same address.
    pub fn on_step(&mut self, now: f64, streams: u32) {
        let (resumed, work) = (std::mem::take(&mut self.resumed), std::mem::take(&mut self.resumed_work));
        if resumed > 0 && f64::from(resumed) <= (RESUMED_TOGETHER * f64::from(streams)).max(1.0) {
            self.wasted.add_many(now, work);
            self.wasted_lately.add_many(now, work);
        }
    }

    /// Preemptions since the start.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Seconds lost to recomputation, per second.
    pub fn wasted(&self, now: f64) -> f64 {
        self.wasted.at(now)
    }

    /// The same over the last one or two seconds.
    pub fn wasted_lately(&self, now: f64) -> f64 {
        self.wasted_lately.at(now)
    }
}

/// A stream was preempted that others overtook by more than this many steps ...
///
/// Two missing steps are a preemption; one may be jitter. Eight would miss a fifth of the preemptions of an engine with short
/// steps and nearly all of one whose steps are long.
const STALL_STEPS: u32 = 2;
/// ... and by more than this many tokens.
const STALL_TOKENS: u64 = 24;
/// Share of a step's streams that a preemption can have delayed.
const RESUMED_TOGETHER: f64 = 0.25;
