//! What must come out of a scenario: a measure, where it is taken, and the range it must lie in.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;

use crate::admission::Class;

/// One thing that must come out.
#[derive(Clone, Debug, PartialEq)]
pub struct Expectation {
    /// The line of the acceptance table it belongs to.
    pub line: Option<String>,
    /// What is looked at.
    pub measure: Measure,
    /// In which segment.
    pub segment: usize,
    /// When, from the segment's beginning; `None` is its end. Only readings have a moment.
    pub at: Option<Duration>,
    /// How the seeds' values become the one that must lie in the range.
    pub of: Of,
    /// The range.
    pub range: RangeInclusive<f64>,
    /// Names of the engines it holds for; empty is all.
    pub engines: Vec<String>,
    /// Words that a state or a regime is compared with.
    pub is: Vec<String>,
    /// Only requests of this class.
    pub class: Option<Class>,
    /// Only those of these tenants; empty is all.
    pub tenants: Vec<u16>,
}

/// What can be measured. A figure that is unknown (no knee yet) is in no range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Times the state became saturated within the segment.
    Alarms,
    /// The same, per hour.
    AlarmsPerHour,
    /// Seconds from the segment's beginning to the first of them.
    Detection,
    /// 1 if the state is one of `is`, else 0.
    State,
    /// Share of the segment's readings whose state is one of `is`.
    Share,
    /// 1 if the knee's regime is one of `is`, else 0.
    Regime,
    /// 1 if a knee is known, else 0.
    KneeKnown,
    /// Knee / true capacity of an ungated engine for the segment's mix - 1.
    KneeError,
    /// Knee / what the engine keeps up of just those requests that it has started since the mix last changed - 1: the
    /// estimate's own error, without the luck of the draw.
    KneeSampleError,
    /// 1 if the knee's interval holds that capacity, else 0.
    KneeCovered,
    /// Half the interval's width / the knee.
    KneeWidth,
    /// Knee without recomputation / true capacity at the best concurrency - 1.
    BestError,
    /// The knee in tokens per second / the true one - 1.
    TokensError,
    /// In-flight at the knee / decodes of an ungated engine - 1.
    InFlightError,
    /// N95 / the true one - 1.
    N95Error,
    /// Prediction / true capacity at the best concurrency - 1.
    PredictionError,
    /// 1 if the prediction's interval holds it, else 0.
    PredictionCovered,
    /// 1 if a prediction is known, else 0.
    PredictionKnown,
    /// Upper bound / true capacity at the best concurrency.
    UpperBound,
    /// Lower bound / the same.
    LowerBound,
    /// Changes of the engine's speed, either way, within the segment.
    SpeedChanges,
    /// Seconds from the segment's beginning to the first of them.
    SpeedChange,
    /// Changes of the mix within the segment.
    MixChanges,
    /// Stalled streams within the segment.
    Stalls,
    /// Requests with their first token within the objective, per second, by completion, without the segment's first
    /// 20 s, / what the engine could have served of the offered load.
    Goodput,
    /// Completed requests per second; where the scenario drains, of all requests until the last was served.
    Throughput,
    /// Mean seconds from arrival to first token, of the requests that arrived in the segment and got one.
    Ttft,
    /// The 99th percentile of the same, in objectives.
    TtftP99,
    /// Share of the requests that arrived in the segment, after its first 20 s, and had their first token within the
    /// objective. `class` and `tenants` narrow it.
    OnTime,
    /// Share of them that was refused before dispatch.
    Shed,
    /// Share of the dispatched ones that had their first token too late or never.
    Late,
    /// Of the clients whose first try was in the segment, the share that was served in time at some try.
    ServedClients,
    /// Requests that such a client made.
    Tries,
    /// Goodput over that of the same traffic without a gate.
    GoodputRatio,
    /// Share of the segment's requests that enforcement would have refused, in mode observe.
    WouldShed,
    /// Median time to first token over that of the same traffic without a gate.
    TtftRatio,
}

/// How the values of several seeds become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Of {
    /// Each must lie in the range; the one furthest out is shown.
    #[default]
    Each,
    /// Their mean.
    Mean,
    /// The mean of their absolute values.
    MeanSize,
    /// Their median: the middle one, or the lower of the two.
    Median,
}

impl Expectation {
    /// Whether it holds for that engine.
    pub fn concerns(&self, engine: &str) -> bool {
        self.engines.is_empty() || self.engines.iter().any(|name| name == engine)
    }
}

impl Measure {
    /// The word in a scenario file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Alarms => "alarms",
            Self::AlarmsPerHour => "alarms_per_hour",
            Self::Detection => "detection",
            Self::State => "state",
            Self::Share => "share",
            Self::Regime => "regime",
            Self::KneeKnown => "knee_known",
            Self::KneeError => "knee_error",
            Self::KneeSampleError => "knee_sample_error",
            Self::KneeCovered => "knee_covered",
            Self::KneeWidth => "knee_width",
            Self::BestError => "best_error",
            Self::TokensError => "tokens_error",
            Self::InFlightError => "in_flight_error",
            Self::N95Error => "n95_error",
            Self::PredictionError => "prediction_error",
            Self::PredictionCovered => "prediction_covered",
            Self::PredictionKnown => "prediction_known",
            Self::UpperBound => "upper_bound",
            Self::LowerBound => "lower_bound",
            Self::SpeedChanges => "speed_changes",
            Self::SpeedChange => "speed_change",
            Self::MixChanges => "mix_changes",
            Self::Stalls => "stalls",
            Self::Goodput => "goodput",
            Self::Throughput => "throughput",
            Self::Ttft => "ttft",
            Self::TtftP99 => "ttft_p99",
            Self::OnTime => "on_time",
            Self::Shed => "shed",
            Self::Late => "late",
            Self::ServedClients => "served_clients",
            Self::Tries => "tries",
            Self::GoodputRatio => "goodput_ratio",
            Self::WouldShed => "would_shed",
            Self::TtftRatio => "ttft_ratio",
        }
    }

    /// Whether it is read off one reading, so that `at` means something.
    pub const fn has_moment(self) -> bool {
        !matches!(
            self,
            Self::Alarms
                | Self::Share
                | Self::AlarmsPerHour
                | Self::Detection
                | Self::SpeedChanges
                | Self::SpeedChange
                | Self::MixChanges
                | Self::Stalls
                | Self::Goodput
                | Self::Throughput
                | Self::Ttft
                | Self::TtftP99
                | Self::OnTime
                | Self::Shed
                | Self::Late
                | Self::ServedClients
                | Self::Tries
                | Self::GoodputRatio
                | Self::TtftRatio
                | Self::WouldShed
        )
    }

    /// Whether it is a ratio to the same traffic without a gate.
    pub const fn has_twin(self) -> bool {
        matches!(self, Self::GoodputRatio | Self::TtftRatio)
    }

    /// Whether it can be restricted to some of the requests.
    pub(super) const fn has_parts(self) -> bool {
        matches!(self, Self::OnTime | Self::Shed | Self::Late | Self::TtftP99)
    }

    /// Whether it is a share of something, to be shown in per cent.
    pub const fn is_share(self) -> bool {
        matches!(
            self,
            Self::KneeError
                | Self::KneeSampleError
                | Self::BestError
                | Self::TokensError
                | Self::InFlightError
                | Self::N95Error
                | Self::PredictionError
                | Self::KneeWidth
        )
    }

    pub(super) const fn compares(self) -> bool {
        matches!(self, Self::State | Self::Share | Self::Regime)
    }
}

impl Of {
    /// The word in a scenario file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Each => "each",
            Self::Mean => "mean",
            Self::MeanSize => "mean_size",
            Self::Median => "median",
        }
    }
}
