//! The state of one backend's estimator: its parts, and the counts that several of them need.
//!
//! About 10 KB, and 80 bytes a request in the system. It decides nothing.

use super::preemption::Preemptions;
use crate::estimate::blocks::Blocks;
use crate::estimate::capacity::Capacity;
use crate::estimate::costs::Costs;
use crate::estimate::detector::Detector;
use crate::estimate::drift::DriftTest;
use crate::estimate::first_token::FirstTokens;
use crate::estimate::in_flight::InFlightTable;
use crate::estimate::mix::Mix;
use crate::estimate::prompts::PromptCorrection;
use crate::estimate::reading::{Knee, Shift, SpeedChanges, Transition};
use crate::estimate::saturation::Saturation;
use crate::estimate::settings::{EngineLimits, Settings};
use crate::estimate::speed::SpeedTest;
use crate::estimate::step_visibility::StepVisibility;
use crate::estimate::steps::Steps;
use crate::estimate::throughput::BestStartRate;
use crate::vocabulary::average::DecayingRate;
use crate::vocabulary::time::Timestamp;

/// One backend's estimator: samples and ticks in, a [`Reading`](crate::estimate::Reading) and
/// [`Signals`](crate::vocabulary::signals::Signals) out.
#[derive(Debug)]
pub struct Estimator {
    pub(super) engine: EngineLimits,
    pub(super) started: Timestamp,
    pub(super) requests: InFlightTable,
    pub(super) prompts: PromptCorrection,
    pub(super) first_tokens: FirstTokens,
    pub(super) steps: Steps,
    pub(super) visibility: StepVisibility,
    pub(super) preemptions: Preemptions,
    pub(super) costs: Costs,
    pub(super) speed: SpeedTest,
    pub(super) mix: Mix,
    pub(super) detector: Detector,
    pub(super) saturation: Saturation,
    pub(super) blocks: Blocks,
    pub(super) capacity: Capacity,
    pub(super) drift: DriftTest,
    pub(super) best_start_rate: BestStartRate,
    pub(super) offered: DecayingRate,
    pub(super) counts: EstimatorCounts,
    /// The gate held requests back since the last tick, because the engine's memory is full.
    pub(super) held_back: bool,
    /// The last tick, the last full second and the last event, in seconds since `started`.
    pub(super) last_tick: f64,
    pub(super) last_second: f64,
    pub(super) now: f64,
    pub(super) knee: Option<Knee>,
    pub(super) transitions: Vec<Transition>,
}

/// Counts that more than one part needs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EstimatorCounts {
    pub queued: u64,
    pub in_flight: u64,
    /// Streams without a first token.
    pub pending: u64,
    /// Context of the decoding streams, in tokens.
    pub context: f64,
    /// Output tokens since the start.
    pub delivered: u64,
    /// First tokens since the start.
    pub starts: u64,
    /// Streams served to their end since the start.
    pub completions: u64,
    pub drifts: u64,
    pub speed: SpeedChanges,
    pub shift: Option<Shift>,
}

impl Estimator {
    /// An estimator that knows nothing yet; `now` is the zero of its clock.
    pub fn new(settings: Settings, now: Timestamp) -> Self {
        Self {
            engine: settings.engine,
            started: now,
            requests: InFlightTable::default(),
            prompts: PromptCorrection::new(),
            first_tokens: FirstTokens::new(settings.slo_ttft.as_secs_f64()),
            steps: Steps::new(),
            visibility: StepVisibility::new(),
            preemptions: Preemptions::new(),
            costs: Costs::default(),
            speed: SpeedTest::default(),
            mix: Mix::new(),
            detector: Detector::new(),
            saturation: Saturation::new(now),
            blocks: Blocks::default(),
            capacity: Capacity::new(settings.engine.max_num_batched_tokens.map(f64::from)),
            drift: DriftTest::new(),
            best_start_rate: BestStartRate::default(),
            offered: DecayingRate::new(10.0),
            counts: EstimatorCounts::default(),
            held_back: false,
            last_tick: 0.0,
            last_second: 0.0,
            now: 0.0,
            knee: None,
            transitions: Vec::new(),
        }
    }
}
