//! The verdict on a sweep: where the system saturates, at what throughput, how sure that is, and what to run next.
//!
//! It holds no rule and no text: `judge` fills it, and a report puts its values ([`Say`]) into words.

use super::say::Say;
use crate::estimate::Advice;

/// What a sweep shows of the system.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Which ends of the interval are known.
    pub kind: VerdictKind,
    /// Loads are requests in flight, not requests a second.
    pub closed: bool,
    /// The last load that is served; in a noisy sweep only a hint.
    pub sat_lo: Option<f64>,
    /// The first load that is not.
    pub sat_hi: Option<f64>,
    /// The largest throughput that was observed. A lower bound when right-censored.
    pub most: Most,
    /// The band of throughputs at and past saturation, requests a second.
    pub plateau: Option<Band>,
    /// TTFT before and after.
    pub jump: Option<Jump>,
    /// The loads between which throughput stops to grow.
    pub throughput_knee: Option<(Option<f64>, f64)>,
    /// The loads between which TTFT leaves its base.
    pub latency_knee: Option<(Option<f64>, f64)>,
    /// Requests that were being served at saturation, without those that waited for a first token.
    pub knee_in_flight: Option<f64>,
    /// Values for the engine's own limits; none unless a knee is known.
    pub advice: Vec<Advice>,
    /// Every level in the order of loads.
    pub levels: Vec<JudgedLevel>,
    /// Why.
    pub evidence: Vec<Say>,
    /// What the measurement cannot show.
    pub limits: Vec<Say>,
    /// What to run next.
    pub next: Vec<Say>,
}

/// Which ends of the saturation interval are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VerdictKind {
    /// Both.
    Interval,
    /// Even the lowest level is saturated.
    LeftCensored,
    /// No level is saturated.
    RightCensored,
    /// Refused: the levels do not support an answer.
    #[default]
    Noisy,
}

/// The largest figures that were observed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Most {
    /// Requests a second.
    pub requests: Option<f64>,
    /// Output tokens a second.
    pub output_tokens: Option<f64>,
    /// Prompt and output tokens a second.
    pub total_tokens: Option<f64>,
}

/// A value with its ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Band {
    /// The lower end.
    pub low: f64,
    /// The middle.
    pub middle: f64,
    /// The upper end.
    pub high: f64,
}

/// TTFT on both sides of saturation, seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Jump {
    /// At the last good level.
    pub good: f64,
    /// At the first saturated one.
    pub bad: f64,
    /// Their ratio.
    pub ratio: f64,
    /// Which figure of the distribution.
    pub figure: Figure,
}

/// A figure of a distribution of latencies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Figure {
    /// The mean.
    #[default]
    Mean,
    /// The median.
    Median,
}

/// A level and how it was judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JudgedLevel {
    /// Its index in the sweep's own list.
    pub index: usize,
    /// What was asked for.
    pub load: f64,
    /// Requests a second that it was judged by.
    pub served: Option<f64>,
    /// What an unsaturated server would have shown in a run of this length.
    pub best: Option<f64>,
    /// TTFT over that of the lowest levels.
    pub ttft_ratio: Option<f64>,
    /// Requests a second within the SLO, when there is one.
    pub goodput: Option<f64>,
    /// The judgement.
    pub standing: Standing,
}

/// How a level stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It keeps up.
    Good,
    /// Everything is served, but the first token is later.
    AtCapacity,
    /// Past the system's capacity.
    Saturated,
    /// Not judged: the client, errors or missing figures.
    LeftOut,
}

impl VerdictKind {
    /// Its word in files and reports.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Interval => "interval",
            Self::LeftCensored => "left_censored",
            Self::RightCensored => "right_censored",
            Self::Noisy => "noisy",
        }
    }
}

impl Standing {
    /// Its word in files.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::AtCapacity => "at_capacity",
            Self::Saturated => "saturated",
            Self::LeftOut => "left_out",
        }
    }

    /// It is one of those below saturation.
    pub const fn holds(self) -> bool {
        matches!(self, Self::Good | Self::AtCapacity)
    }
}

impl Band {
    /// The band of some values; none when there are none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let low = values.iter().copied().min_by(f64::total_cmp)?;
        let high = values.iter().copied().max_by(f64::total_cmp)?;
        Some(Self { low, middle: f64::midpoint(low, high), high })
    }

    /// Half its width over its middle.
    pub fn spread(self) -> f64 {
        if self.middle > 0.0 { (self.high - self.low) / 2.0 / self.middle } else { 0.0 }
    }
}
