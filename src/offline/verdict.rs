//! The verdict on a sweep: where the system saturates, at what throughput, how sure that is, and what to run next.
//!
//! Open loops are judged in `open`, closed ones in `closed`; docs/use/reports.md derives the rules. It holds no text: what
//! it says are values ([`Say`]), put into words by a report.

use super::goodput;
use super::points::Points;
use super::say::Say;
use super::sweep::Sweep;
use super::{closed, next, open};
use crate::estimate::{Advice, Estimate, advice};

/// What a sweep says about the system.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Which ends of the interval are known.
    pub kind: VerdictKind,
    /// Loads are requests in flight, not requests a second.
    pub closed: bool,
    /// The last load that is served; in a noisy sweep only where one would look.
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
    /// What the measurement cannot say.
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
    /// Its place in the sweep's own list.
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
    /// It is served as it comes.
    Good,
    /// Everything is served, but the first token comes later.
    AtCapacity,
    /// Past what the system can do.
    Saturated,
    /// Not judged: the client, errors or missing figures.
    LeftOut,
}

/// Judges a sweep. Pure and cheap: a search may ask after every level.
pub fn verdict(sweep: &Sweep) -> Verdict {
    let points = Points::of(sweep);
    let mut verdict = if sweep.is_closed() { closed::judge(&points) } else { open::judge(&points) };
    verdict.limits.splice(0..0, points.limits.iter().cloned());
    verdict.most = Most::of(sweep);
    if points.by_tokens {
        verdict.forget_requests();
    }
    goodput::add(sweep, &mut verdict);
    verdict.advice = verdict.advise();
    verdict.next = next::after(sweep, &points, &verdict);
    verdict
}

impl Verdict {
    /// Where output tokens stood in for requests, no figure of it is a number of requests.
    fn forget_requests(&mut self) {
        self.plateau = None;
        self.levels.iter_mut().for_each(|level| (level.served, level.best) = (None, None));
    }
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

impl Verdict {
    /// From what was in flight at saturation; the plateau's width, or the two loads around the knee, are its uncertainty.
    fn advise(&self) -> Vec<Advice> {
        let known = matches!(self.kind, VerdictKind::Interval | VerdictKind::LeftCensored);
        let (Some(held), Some(band), true) = (self.knee_in_flight, self.plateau, known) else { return Vec::new() };
        let rate = Estimate { value: band.middle, low: band.low, high: band.high };
        let in_flight = match self.throughput_knee {
            Some((lo, hi)) if self.closed => {
                Estimate { value: held, low: lo.unwrap_or(held).min(held), high: hi.max(held) }
            }
            // Little's law: what is served at once is the rate times the time that serving takes.
            _ if band.middle > 0.0 => rate.scaled(held / band.middle),
            _ => return Vec::new(),
        };
        advice(in_flight, rate, None)
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

impl Most {
    fn of(sweep: &Sweep) -> Self {
        let usable = || sweep.levels.iter().filter(|level| !level.client_limited);
        let most = |of: fn(&super::sweep::Level) -> Option<f64>| usable().filter_map(of).max_by(f64::total_cmp);
        Self {
            requests: most(|level| level.best_requests()),
            output_tokens: most(|level| level.whole.output_tokens),
            total_tokens: most(|level| level.whole.total_tokens),
        }
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
