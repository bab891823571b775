//! When each request of an open-loop level is meant to start.
//!
//! All intended start times are drawn before the run, from a seed: a slow server cannot change what it is offered, which is
//! the point of an open loop. It holds no clock and sends nothing.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp1, Gamma};
use serde::{Deserialize, Serialize};

/// The law of the gaps between intended starts. All three have the mean gap `1 / rate`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrivals {
    /// Exponential gaps, CV 1: many independent users.
    Poisson,
    /// Equal gaps, CV 0; the first request starts at 0.
    Constant,
    /// Gamma gaps. Burstiness is the shape, as in vLLM's `--burstiness`: 1 is Poisson, below 1 is burstier.
    Gamma {
        /// Shape of the gamma law, 1 / CV².
        burstiness: Burstiness,
    },
}

/// Requests a second: finite and above zero.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Rate(f64);

/// Shape of a gamma law: finite and above zero. The coefficient of variation of the gaps is `1 / sqrt(shape)`.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Burstiness(f64);

/// How long a level goes on sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extent {
    /// This many requests.
    Count(u64),
    /// Every request whose intended start lies before this; the number then varies with the seed.
    Time(Duration),
}

/// A number that is not finite or not above zero.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{0} is not a number above zero")]
pub struct NotPositive(pub f64);

/// Intended starts, counted from the start of the level, in order, never decreasing.
///
/// The same arguments give the same times on every machine. A `Count` gives exactly that many; their mean gap is
/// `1 / rate` in expectation, so the last one falls near `count / rate` and not, as in vLLM, exactly on it: rescaling to
/// hit it would take the randomness out of the very number that is to be measured.
pub fn schedule(arrivals: Arrivals, rate: Rate, extent: Extent, seed: u64) -> Vec<Duration> {
    let mut gaps = GapSampler::new(arrivals, seed);
    let mut at = if arrivals == Arrivals::Constant { 0.0 } else { gaps.next() };
    let mut starts = Vec::new();
    while extent.admits(starts.len(), at / rate.0) {
        starts.push(Duration::from_secs_f64(at / rate.0));
        at += gaps.next();
    }
    starts
}

/// The same starts, stretched so that the last falls on `count / rate`, as vLLM does.
///
/// Some hundred drawn gaps miss the rate that was asked for by `1 / sqrt(count)`, and two runs at "the same rate" are then
/// not the same load. Stretching keeps the shape of every burst and takes that error out. It is not for a level whose own
/// arrival rate is to be estimated.
pub fn pinned(starts: Vec<Duration>, rate: Rate) -> Vec<Duration> {
    let Some(last) = starts.last().map(Duration::as_secs_f64).filter(|last| *last > 0.0) else { return starts };
    let stretch = starts.len() as f64 / rate.0 / last;
    starts.into_iter().map(|start| start.mul_f64(stretch)).collect()
}

impl Arrivals {
    /// Gaps whose standard deviation is `cv` times their mean.
    ///
    /// # Errors
    /// `cv` is not a finite number above zero (a CV of zero is [`Arrivals::Constant`]).
    pub fn with_cv(cv: f64) -> Result<Self, NotPositive> {
        let cv = positive(cv)?;
        Ok(Self::Gamma { burstiness: Burstiness::new(1.0 / (cv * cv))? })
    }
}

impl Rate {
    /// One request a second: gaps in units of their mean.
    pub const ONE: Self = Self(1.0);

    /// A rate of `per_second` requests a second.
    ///
    /// # Errors
    /// The number is not finite or not above zero.
    pub fn new(per_second: f64) -> Result<Self, NotPositive> {
        positive(per_second).map(Self)
    }

    /// Requests a second.
    pub const fn per_second(self) -> f64 {
        self.0
    }
}

impl Burstiness {
    /// A gamma law of this shape.
    ///
    /// # Errors
    /// The number is not finite or not above zero.
    pub fn new(shape: f64) -> Result<Self, NotPositive> {
        positive(shape).map(Self)
    }

    /// Shape of the law, 1 / CV².
    pub const fn shape(self) -> f64 {
        self.0
    }
}

impl Extent {
    /// Whether a request belongs to the level that would be number `already` and start `seconds` after its beginning.
    fn admits(self, already: usize, seconds: f64) -> bool {
        match self {
            Self::Count(count) => (already as u64) < count && seconds < LATEST_START,
            Self::Time(length) => seconds < length.as_secs_f64().min(LATEST_START),
        }
    }
}

impl TryFrom<f64> for Rate {
    type Error = NotPositive;

    fn try_from(per_second: f64) -> Result<Self, NotPositive> {
        Self::new(per_second)
    }
}

impl TryFrom<f64> for Burstiness {
    type Error = NotPositive;

    fn try_from(shape: f64) -> Result<Self, NotPositive> {
        Self::new(shape)
    }
}

impl From<Rate> for f64 {
    fn from(rate: Rate) -> Self {
        rate.0
    }
}

impl From<Burstiness> for f64 {
    fn from(burstiness: Burstiness) -> Self {
        burstiness.0
    }
}

impl FromStr for Rate {
    type Err = NotPositive;

    fn from_str(text: &str) -> Result<Self, NotPositive> {
        Self::new(text.trim().parse().unwrap_or(f64::NAN))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Gaps in units of the mean gap.
struct GapSampler {
    law: Law,
    rng: ChaCha8Rng,
}

enum Law {
    Constant,
    Exponential,
    Gamma(Gamma<f64>),
}

impl GapSampler {
    fn new(arrivals: Arrivals, seed: u64) -> Self {
        let law = match arrivals {
            Arrivals::Constant => Law::Constant,
            Arrivals::Poisson => Law::Exponential,
            // A shape of k and a scale of 1/k have mean 1. A shape so extreme that the law cannot be built (its scale
            // overflows) has gaps that are, in f64, constant.
            Arrivals::Gamma { burstiness: Burstiness(shape) } => {
                Gamma::new(shape, 1.0 / shape).map_or(Law::Constant, Law::Gamma)
            }
        };
        Self { law, rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    fn next(&mut self) -> f64 {
        match &self.law {
            Law::Constant => 1.0,
            Law::Exponential => Exp1.sample(&mut self.rng),
            Law::Gamma(gamma) => gamma.sample(&mut self.rng),
        }
    }
}

fn positive(number: f64) -> Result<f64, NotPositive> {
    if number.is_finite() && number > 0.0 { Ok(number) } else { Err(NotPositive(number)) }
}

/// No request is scheduled later than this many seconds (ten years): a rate near zero must not overflow a `Duration`.
const LATEST_START: f64 = 10.0 * 365.0 * 86_400.0;

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: u64 = 40_000;

    fn rate(per_second: f64) -> Rate {
        Rate::new(per_second).unwrap()
    }

    fn mean_and_cv(starts: &[Duration]) -> (f64, f64) {
        let gaps: Vec<f64> = starts.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        (mean, variance.sqrt() / mean)
    }

    #[test]
    fn gaps_have_the_mean_of_the_rate_and_the_cv_of_the_law() {
        let laws = [
            (Arrivals::Poisson, 1.0),
            (Arrivals::Constant, 0.0),
            (Arrivals::with_cv(2.0).unwrap(), 2.0),
            (Arrivals::with_cv(0.5).unwrap(), 0.5),
        ];
        for (arrivals, expected) in laws {
            let (mean, cv) = mean_and_cv(&schedule(arrivals, rate(20.0), Extent::Count(MANY), 7));
            assert!((mean * 20.0 - 1.0).abs() < 0.03, "{arrivals:?}: mean gap {mean}");
            assert!((cv - expected).abs() < 0.05, "{arrivals:?}: cv {cv}");
        }
    }

    #[test]
    fn same_seed_same_times_and_another_seed_other_times() {
        let draw = |seed| schedule(Arrivals::Poisson, rate(5.0), Extent::Count(100), seed);
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn times_never_decrease_even_in_bursts() {
        let bursty = Arrivals::with_cv(6.0).unwrap();
        let starts = schedule(bursty, rate(100.0), Extent::Count(MANY), 3);
        assert!(starts.is_sorted());
    }

    #[test]
    fn a_count_is_exact_and_a_time_is_never_passed() {
        assert_eq!(schedule(Arrivals::Poisson, rate(10.0), Extent::Count(0), 1).len(), 0);
        assert_eq!(schedule(Arrivals::Poisson, rate(10.0), Extent::Count(600), 1).len(), 600);
        let limit = Duration::from_secs(1000);
        let starts = schedule(Arrivals::Poisson, rate(10.0), Extent::Time(limit), 1);
        assert!(starts.iter().all(|start| *start < limit));
        assert!((9_600..10_400).contains(&starts.len()), "{}", starts.len());
    }

    #[test]
    fn pinned_starts_have_the_rate_and_keep_their_bursts() {
        let drawn = schedule(Arrivals::Poisson, rate(10.0), Extent::Count(600), 4);
        let pinned = pinned(drawn.clone(), rate(10.0));
        assert!((pinned[599].as_secs_f64() - 60.0).abs() < 1e-6);
        let ((_, before), (_, after)) = (mean_and_cv(&drawn), mean_and_cv(&pinned));
        assert!((before - after).abs() < 1e-6, "{before} {after}");
        assert!(super::pinned(Vec::new(), rate(1.0)).is_empty());
    }

    #[test]
    fn a_tiny_rate_ends_the_schedule_instead_of_overflowing() {
        assert!(schedule(Arrivals::Poisson, rate(1e-300), Extent::Count(3), 1).is_empty());
    }

    #[test]
    fn equal_gaps_start_at_zero() {
        let starts = schedule(Arrivals::Constant, rate(4.0), Extent::Count(3), 9);
        assert_eq!(starts, [0, 250, 500].map(Duration::from_millis));
    }

    #[test]
    fn only_a_rate_above_zero_is_a_rate() {
        for wrong in ["0", "-1", "inf", "NaN", "ten"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
        assert_eq!("2.5".parse::<Rate>(), Ok(rate(2.5)));
        assert!(Arrivals::with_cv(0.0).is_err());
        assert!(serde_json::from_str::<Rate>("-3").is_err());
    }
}
