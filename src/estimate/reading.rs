//! The reading of one backend: its state, the knee with its error, and what evidence is missing where a figure is unknown.
//!
//! Values to publish, built once a second. They hold no way to compute themselves and no wall-clock time.

use std::fmt;

use crate::vocabulary::quantities::{PerSecond, Seconds};
use crate::vocabulary::time::Timestamp;

/// The load relative to the knee.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SaturationState {
    /// Not enough traffic since the start to judge.
    #[default]
    Unknown,
    /// The backend starts work as fast as it arrives.
    Healthy,
    /// First-token delay accumulates, the evidence is not yet sufficient.
    Approaching,
    /// Work persistently arrives faster than it is started.
    Saturated,
    /// Was saturated, the backlog shrinks; ends after a quiet period.
    Recovering,
}

impl SaturationState {
    /// Every state, in the order of declaration.
    pub const ALL: [Self; 5] = [Self::Unknown, Self::Healthy, Self::Approaching, Self::Saturated, Self::Recovering];

    /// The word in metrics, logs and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Approaching => "approaching",
            Self::Saturated => "saturated",
            Self::Recovering => "recovering",
        }
    }
}

impl fmt::Display for SaturationState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.word())
    }
}

/// A change of state, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    /// When.
    pub at: Timestamp,
    /// The state before.
    pub from: SaturationState,
    /// The state after.
    pub to: SaturationState,
    /// One sentence of named findings, without a full stop.
    pub reason: String,
}

/// Everything that is known about one backend at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The load relative to the knee.
    pub state: SaturationState,
    /// Since when.
    pub since: Timestamp,
    /// Why: the last transition's sentence.
    pub reason: String,
    /// (in-flight + queued) / knee in-flight; 1 is at the knee, not clamped. `None` until a knee is known.
    pub ratio: Option<f64>,
    /// Offered rate / capacity of the offered mix; shed requests count as offered; not clamped. `None` until a knee is known.
    pub demand_ratio: Option<f64>,
    /// The knee, measured in saturation.
    pub knee: Result<Knee, NotEnoughEvidence>,
    /// The capacity computed before any saturation was seen. Computed beside a knee too, so that its error is visible.
    pub prediction: Result<Prediction, NotEnoughEvidence>,
    /// Requests per second that no setting of the engine's limits can exceed: step costs without the per-step overhead.
    pub upper_bound: Option<PerSecond>,
    /// Highest start rate (first tokens per second over 10 s) seen so far.
    pub lower_bound: Option<PerSecond>,
    /// What an engine step costs.
    pub costs: Option<StepCosts>,
    /// Several engines seem to answer behind this backend: their steps cannot be separated.
    pub several_engines: bool,
    /// How often the engine itself changed its speed.
    pub speed_changes: SpeedChanges,
    /// How often the mix of the requests changed.
    pub mix_changes: u64,
    /// How often the throughput in saturation drifted from its reference, without either of the above.
    pub drifts: u64,
    /// The last change of speed or drift.
    pub shift: Option<Shift>,
    /// Streams that were preempted and recomputed, as far as that shows in their stamps.
    pub stalls: u64,
    /// Blocks of saturated time.
    pub blocks: BlockCounts,
    /// Dispatched and not finished.
    pub in_flight: u64,
    /// Of those, streams without a first token.
    pub pending: u64,
    /// Arrived and neither dispatched nor gone.
    pub queued: u64,
}

/// A lasting change of the engine with the same mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shift {
    /// When it was detected; it happened before.
    pub at: Timestamp,
    pub kind: ShiftKind,
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShiftKind {
    /// Its steps take longer.
    Slower,
    /// Its steps take less time.
    Faster,
    /// Its throughput in saturation drifted.
    Drift,
}

impl ShiftKind {
    /// The word in JSON and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Slower => "slower",
            Self::Faster => "faster",
            Self::Drift => "drift",
        }
    }
}

/// A value with its 95 % interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimate {
    /// The value.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

impl Estimate {
    /// `value` plus or minus `half_width`; the lower end is not below 0.
    pub fn around(value: f64, half_width: f64) -> Self {
        Self { value, low: (value - half_width).max(0.0), high: value + half_width }
    }

    /// The same in another unit, `factor` of which are one of this.
    pub fn scaled(self, factor: f64) -> Self {
        Self { value: self.value * factor, low: self.low * factor, high: self.high * factor }
    }

    /// Whether the interval holds `truth`.
    pub fn covers(self, truth: f64) -> bool {
        (self.low..=self.high).contains(&truth)
    }
}

/// The load beyond which throughput stops growing and latency starts to, for the offered mix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Knee {
    /// Completions per second as the backend is driven now (`X_now`).
    pub requests_per_second: Estimate,
    /// Completions per second without the recomputation that over-admission causes (`X_best`); equal to the above where
    /// nothing is recomputed.
    pub best: PerSecond,
    /// Output tokens per second.
    pub tokens_per_second: Estimate,
    /// Requests in flight at which the engine starts to queue (`D`).
    pub in_flight: Estimate,
    /// Requests in flight at which 95 % of the throughput is reached; `None` where prefill binds.
    pub n95: Option<f64>,
    /// What binds.
    pub regime: Regime,
    /// Saturated blocks behind the figures.
    pub blocks: u64,
    /// When the last of them ended.
    pub updated_at: Timestamp,
    /// Share of the saturated time that the step costs do not explain: near 0 when the model fits.
    pub unexplained: f64,
}

/// What binds the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Regime {
    /// The number of sequences in the batch.
    Slots,
    /// KV memory.
    Kv,
    /// Prompt processing.
    Prefill,
    /// Slots and KV memory alternately.
    Mixed,
    /// Undetermined, because prompt lengths are unknown.
    Unknown,
}

impl Regime {
    /// The word in JSON and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Slots => "slots",
            Self::Kv => "kv",
            Self::Prefill => "prefill",
            Self::Mixed => "mixed",
            Self::Unknown => "unknown",
        }
    }
}

/// The capacity computed before any saturation was seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// Completions per second for the offered mix.
    pub requests_per_second: Estimate,
    /// Requests in flight at that load.
    pub in_flight: f64,
    /// What will bind.
    pub regime: Regime,
    /// A limit of the engine is unknown, so this is an upper bound, not a point.
    pub at_most: bool,
}

/// What one engine step costs: `T = a n_s + b n_d + c n_p`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepCosts {
    /// `a`: every step.
    pub step: Seconds,
    /// `b`: each decode in it.
    pub decode: Seconds,
    /// `c`: each prompt token in it.
    pub prefill_token: Seconds,
}

/// How often the engine's step costs shifted persistently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpeedChanges {
    /// Steps became slower.
    pub slower: u64,
    /// Steps became faster.
    pub faster: u64,
}

/// Blocks of time in which the backend was saturated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockCounts {
    /// Taken into the estimate.
    pub accepted: u64,
    /// Saturated, but the in-flight number was still rising.
    pub rejected: u64,
}

/// Why a figure is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not enough evidence: {}", sentence(.why))]
pub struct NotEnoughEvidence {
    /// What is missing, most basic first; never empty.
    pub why: Vec<Missing>,
}

/// One piece of evidence that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The backend was not saturated long enough.
    SaturatedBlocks { have: u64, need: u64 },
    /// Too few requests completed.
    Completions { have: u64, need: u64 },
    /// The step costs are not identified yet.
    StepCosts { rows: u64, need: u64 },
    /// Prompt lengths are unknown for too many requests, and what binds depends on them.
    PromptLengths,
    /// No limit of the engine is known.
    EngineLimits,
    /// Several engines seem to answer behind the backend.
    SingleEngine,
}

impl fmt::Display for Missing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SaturatedBlocks { have, need } => write!(out, "{have} of {need} saturated blocks seen"),
            Self::Completions { have, need } => write!(out, "{have} of {need} completed requests seen"),
            Self::StepCosts { rows, need } => {
                write!(out, "step costs not identified ({rows} of {need} seconds of steps)")
            }
            Self::PromptLengths => out.write_str("prompt lengths are unknown"),
            Self::EngineLimits => out.write_str("no limit of the engine is known (max_num_seqs, KV tokens)"),
            Self::SingleEngine => out.write_str("several engines seem to answer behind this backend"),
        }
    }
}

fn sentence(why: &[Missing]) -> String {
    why.iter().map(Missing::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_one_sentence() {
        let why = vec![Missing::SaturatedBlocks { have: 1, need: 3 }, Missing::PromptLengths];
        assert_eq!(
            NotEnoughEvidence { why }.to_string(),
            "not enough evidence: 1 of 3 saturated blocks seen; prompt lengths are unknown"
        );
    }

    #[test]
    fn an_interval_holds_its_ends_and_nothing_below_zero() {
        let estimate = Estimate::around(2.0, 3.0);
        assert_eq!((estimate.low, estimate.high), (0.0, 5.0));
        assert!(estimate.covers(5.0) && !estimate.covers(5.1));
        assert_eq!(estimate.scaled(2.0).high, 10.0);
    }
}
