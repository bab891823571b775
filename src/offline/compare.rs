//! Compares two systems, or one before and after a change: how much more one serves, how sure that is, and TTFT at the same
//! share of each one's capacity.
//!
//! It holds no text; `report/comparison.rs` has the sentences.

use super::analysis::JudgedSweep;
use super::fit::{Fit, fit};
use super::sweep::{LatencySummary, Level};
use super::verdict::{Band, JudgedLevel, Standing, VerdictKind};

/// What a comparison found.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// What is compared with.
    pub base: ComparedSystem,
    /// What is compared, the one with the most GPUs last; the figures below are of the last.
    pub candidates: Vec<ComparedSystem>,
    /// Capacity of the candidate over that of the base.
    pub speedup: Ratio,
    /// Speed-up over the ratio of GPUs.
    pub efficiency: Ratio,
    /// TTFT at equal shares of each capacity.
    pub latency: Vec<AtShare>,
    /// For two runs of as many GPUs: whether anything changed.
    pub change: Option<BeforeAfter>,
    /// A law of scaling, when there are enough sizes.
    pub fit: Option<Fit>,
    /// Further remarks.
    pub facts: Vec<Fact>,
    /// Why there is no answer.
    pub refused: Option<Fact>,
}

/// One of the systems.
#[derive(Clone, Debug, PartialEq)]
pub struct ComparedSystem {
    /// As it was named.
    pub file: String,
    /// The sweep.
    pub id: String,
    /// GPUs; 1 when unknown.
    pub gpus: f64,
    /// The most requests a second, with the plateau's spread and the noise of counting.
    pub capacity: Band,
    /// Which ends its verdict has.
    pub kind: VerdictKind,
}

/// A ratio with its 95 % interval; no upper end when it is a lower bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// The value.
    pub value: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: Option<f64>,
}

/// TTFT at a share of each capacity, seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AtShare {
    /// Load over capacity.
    pub share: f64,
    /// Of the base.
    pub base: f64,
    /// Of the candidate.
    pub candidate: f64,
}

/// Before against after.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BeforeAfter {
    /// Throughput after over before.
    pub throughput: Tested,
    /// TTFT after over before, over the levels below saturation that both have.
    pub ttft: Option<Tested>,
}

/// A ratio and whether it differs from 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tested {
    /// With its 95 % interval.
    pub ratio: Ratio,
    /// The interval excludes 1 and the difference is large enough to matter.
    pub significant: bool,
    /// Levels it rests on.
    pub levels: usize,
}

/// A remark on a comparison.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// A side's verdict is refused.
    Noisy(String),
    /// The base never saturated: its capacity is unknown upwards, so nothing bounds the speed-up from below.
    BaseNeverSaturated(String),
    /// A side has no throughput in requests.
    NoThroughput(String),
    /// Requests differ in length by this factor.
    Lengths(f64),
    /// The candidate never saturated: the speed-up is a lower bound.
    AtLeast(String),
    /// One is an open loop, the other a closed one.
    LoopsDiffer,
    /// GPUs are not given; 1 was taken.
    GpusAssumed(String),
    /// The plateaus were read from runs whose spread makes most of the interval.
    Spread(f64),
}

/// Compares judged sweeps with a judged base. Files are named as on the command line.
pub fn compare(base: (&str, &JudgedSweep), candidates: &[(&str, &JudgedSweep)]) -> Option<Comparison> {
    let mut facts = Vec::new();
    let mut candidates: Vec<(ComparedSystem, &JudgedSweep)> =
        candidates.iter().map(|(file, judged)| (ComparedSystem::of(file, judged, &mut facts), *judged)).collect();
    candidates.sort_by(|left, right| left.0.gpus.total_cmp(&right.0.gpus));
    let (base, before) = (ComparedSystem::of(base.0, base.1, &mut facts), base.1);
    let (last, after) = candidates.last().cloned()?;
    let refused = refused(&base, before, &candidates);
    let at_least = last.kind == VerdictKind::RightCensored;
    if at_least {
        facts.push(Fact::AtLeast(last.file.clone()));
    }
    if before.verdict.closed != after.verdict.closed {
        facts.push(Fact::LoopsDiffer);
    }
    let lengths = lengths(before, after);
    if lengths > SEEN_LENGTHS {
        facts.push(Fact::Lengths(lengths));
    }
    let speedup = Ratio::of(last.capacity, base.capacity, at_least);
    let share = last.gpus / base.gpus;
    let sizes: Vec<(f64, f64)> = candidates
        .iter()
        .map(|(side, _)| (side.gpus / base.gpus, side.capacity.middle / base.capacity.middle))
        .collect();
    let spread = base.capacity.spread().max(last.capacity.spread());
    if spread > SEEN_SPREAD {
        facts.push(Fact::Spread(spread));
    }
    Some(Comparison {
        speedup,
        efficiency: speedup.over(share),
        latency: latency(before, &base, after, &last),
        change: (base.gpus == last.gpus).then(|| BeforeAfter::of(before, after, speedup)),
        fit: if refused.is_none() { fit(&sizes) } else { None },
        facts,
        refused,
        base,
        candidates: candidates.into_iter().map(|(side, _)| side).collect(),
    })
}

impl ComparedSystem {
    fn of(file: &str, judged: &JudgedSweep, facts: &mut Vec<Fact>) -> Self {
        let gpus = judged.sweep.environment.gpus;
        if gpus.is_none() {
            facts.push(Fact::GpusAssumed(file.to_owned()));
        }
        let most = judged.verdict.most.requests.unwrap_or(0.0);
        let low = judged.verdict.plateau.map_or(most, |band| band.low.min(most));
        let noise = counting_noise(judged);
        let high = undrained(judged).max(most);
        Self {
            file: file.to_owned(),
            id: judged.sweep.id.clone(),
            gpus: gpus.unwrap_or(1.0),
            capacity: Band { low: low * (1.0 - noise), middle: most, high: high * (1.0 + noise) },
            kind: judged.verdict.kind,
        }
    }
}

/// The largest throughput, corrected for the drain of its run.
fn undrained(judged: &JudgedSweep) -> f64 {
    let (tail, assumed) = super::plan::tail(&judged.sweep, &judged.verdict);
    let runs = judged.sweep.levels.iter().filter(|level| !assumed && level.steady.is_none());
    let whole = runs.filter_map(|level| Some((level.best_requests()?, level.counts.completed?)));
    let corrected = whole.map(|(served, requests)| served / (1.0 - (tail * served / requests).min(MOST_GIVEN_BACK)));
    corrected.fold(0.0, f64::max)
}

/// 1.96 / √N of the level with the most throughput, at least 1 %.
fn counting_noise(judged: &JudgedSweep) -> f64 {
    let top = judged.sweep.levels.iter().filter_map(|level| Some((level.best_requests()?, level.counts.completed?)));
    let requests = top.max_by(|left, right| left.0.total_cmp(&right.0)).map(|(_, requests)| requests);
    requests.map_or(LEAST_NOISE, |requests| (1.96 / requests.max(1.0).sqrt()).clamp(LEAST_NOISE, MOST_NOISE))
}

fn refused(base: &ComparedSystem, before: &JudgedSweep, candidates: &[(ComparedSystem, &JudgedSweep)]) -> Option<Fact> {
    let sides = || std::iter::once(base).chain(candidates.iter().map(|(side, _)| side));
    if let Some(noisy) = sides().find(|side| side.kind == VerdictKind::Noisy) {
        return Some(Fact::Noisy(noisy.file.clone()));
    }
    if let Some(none) = sides().find(|side| side.capacity.middle <= 0.0) {
        return Some(Fact::NoThroughput(none.file.clone()));
    }
    let same_size = candidates.iter().all(|(side, _)| side.gpus == base.gpus);
    if base.kind == VerdictKind::RightCensored && !same_size {
        return Some(Fact::BaseNeverSaturated(base.file.clone()));
    }
    let worst = candidates.iter().map(|(_, after)| lengths(before, after)).fold(1.0, f64::max);
    (worst > MOST_LENGTHS).then_some(Fact::Lengths(worst))
}

fn lengths(before: &JudgedSweep, after: &JudgedSweep) -> f64 {
    match before.sweep.total_tokens().zip(after.sweep.total_tokens()) {
        Some((one, other)) if one > 0.0 && other > 0.0 => (one / other).max(other / one),
        _ => 1.0,
    }
}

impl Ratio {
    /// The interval from the lowest above to the highest below, and the other way round.
    fn of(above: Band, below: Band, at_least: bool) -> Self {
        let over = |one: f64, other: f64| if other > 0.0 { one / other } else { 0.0 };
        let high = (!at_least).then(|| over(above.high, below.low));
        Self { value: over(above.middle, below.middle), low: over(above.low, below.high), high }
    }

    fn over(self, share: f64) -> Self {
        Self { value: self.value / share, low: self.low / share, high: self.high.map(|high| high / share) }
    }

    fn excludes_one(self) -> bool {
        self.low > 1.0 || self.high.is_some_and(|high| high < 1.0)
    }
}

impl BeforeAfter {
    fn of(before: &JudgedSweep, after: &JudgedSweep, speedup: Ratio) -> Self {
        let throughput = Tested {
            ratio: speedup,
            significant: speedup.excludes_one() && (speedup.value - 1.0).abs() > WORTH,
            levels: saturated(before).min(saturated(after)).max(1),
        };
        Self { throughput, ttft: ttft_change(before, after) }
    }
}

fn saturated(judged: &JudgedSweep) -> usize {
    judged.verdict.levels.iter().filter(|level| level.standing == Standing::Saturated).count()
}

/// The mean of the logarithms of the ratios at equal loads below saturation; its error from each level's own spread and from
/// how much the levels disagree, whichever is larger.
fn ttft_change(before: &JudgedSweep, after: &JudgedSweep) -> Option<Tested> {
    let pairs: Vec<(f64, f64)> = held(before)
        .filter_map(|(load, one)| {
            let (_, other) = held(after).find(|(other, _)| (other / load - 1.0).abs() < SAME_LOAD)?;
            let ratio = (figure(&other.ttft)? / figure(&one.ttft)?).ln();
            let error = error_of(one)?.hypot(error_of(other)?);
            (ratio.is_finite() && error.is_finite()).then_some((ratio, error))
        })
        .collect();
    let count = pairs.len() as f64;
    let mean = pairs.iter().map(|pair| pair.0).sum::<f64>() / count;
    let own = pairs.iter().map(|pair| pair.1.powi(2)).sum::<f64>().sqrt() / count;
    let between = if pairs.len() > 1 {
        (pairs.iter().map(|pair| (pair.0 - mean).powi(2)).sum::<f64>() / (count - 1.0) / count).sqrt()
    } else {
        0.0
    };
    let reach = student(pairs.len()) * own.max(between);
    let ratio = Ratio { value: mean.exp(), low: (mean - reach).exp(), high: Some((mean + reach).exp()) };
    let significant = ratio.excludes_one() && (ratio.value - 1.0).abs() > WORTH;
    (!pairs.is_empty()).then_some(Tested { ratio, significant, levels: pairs.len() })
}

/// Levels below saturation, by load.
fn held(judged: &JudgedSweep) -> impl Iterator<Item = (f64, &Level)> {
    let good = judged.verdict.levels.iter().filter(|level: &&JudgedLevel| level.standing.holds());
    good.filter_map(|level| Some((level.load, judged.sweep.levels.get(level.index)?)))
}

fn figure(ttft: &LatencySummary) -> Option<f64> {
    ttft.mean.or(ttft.p50).filter(|ttft| *ttft > 0.0)
}

/// Standard error of the logarithm of a mean TTFT: σ/√N, with σ of a log-normal law from p90 over p50, or assumed.
fn error_of(level: &Level) -> Option<f64> {
    let requests =
        level.counts.completed.or_else(|| Some(level.best_requests()? * level.duration?)).unwrap_or(ASSUMED_REQUESTS);
    let sigma =
        level.ttft.p50.zip(level.ttft.p90).filter(|(p50, _)| *p50 > 0.0).map(|(p50, p90)| (p90 / p50).ln() / Z90);
    Some(sigma.unwrap_or(ASSUMED_SIGMA).max(LEAST_SIGMA) / requests.max(1.0).sqrt())
}

/// 97.5 % point of Student's law for the mean of this many values.
fn student(values: usize) -> f64 {
    const POINTS: [f64; 10] = [12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
    match values {
        // One pair has its own spread only, from hundreds of requests.
        0 | 1 => 1.96,
        _ => POINTS.get(values - 2).copied().unwrap_or(2.0),
    }
}

/// TTFT of both at the shares of capacity that both were measured around, interpolated in the logarithm of the time.
fn latency(
    before: &JudgedSweep,
    base: &ComparedSystem,
    after: &JudgedSweep,
    candidate: &ComparedSystem,
) -> Vec<AtShare> {
    let one = curve(before, base.capacity.middle);
    let other = curve(after, candidate.capacity.middle);
    SHARES
        .into_iter()
        .filter_map(|share| Some(AtShare { share, base: at(&one, share)?, candidate: at(&other, share)? }))
        .collect()
}

/// (load over capacity, TTFT), ascending, up to the first saturated level.
fn curve(judged: &JudgedSweep, capacity: f64) -> Vec<(f64, f64)> {
    let verdict = &judged.verdict;
    let whole = if verdict.closed { verdict.sat_hi } else { Some(capacity) };
    let Some(whole) = whole.filter(|whole| *whole > 0.0) else { return Vec::new() };
    let upto = verdict.sat_hi.unwrap_or(f64::INFINITY);
    let levels = verdict.levels.iter().filter(|level| level.served.is_some() && level.load <= upto);
    levels
        .filter_map(|level| Some((level.load / whole, figure(&judged.sweep.levels.get(level.index)?.ttft)?)))
        .collect()
}

fn at(curve: &[(f64, f64)], share: f64) -> Option<f64> {
    curve.windows(2).find(|pair| pair[0].0 <= share && share <= pair[1].0).map(|pair| {
        let ((from, low), (to, high)) = (pair[0], pair[1]);
        let part = if to > from { (share - from) / (to - from) } else { 0.0 };
        (low.ln() + part * (high.ln() - low.ln())).exp()
    })
}

const SHARES: [f64; 5] = [0.25, 0.5, 0.7, 0.85, 1.0];

/// Loads that are the same in two files.
const SAME_LOAD: f64 = 0.02;

/// A difference below this is not reported, however sure.
const WORTH: f64 = 0.02;

/// Throughputs repeat to within this at best; a count of a few proves nothing.
const LEAST_NOISE: f64 = 0.01;
const MOST_NOISE: f64 = 0.3;

/// At most this share of a run is taken for its drain: a server that drains still works.
const MOST_GIVEN_BACK: f64 = 0.25;

/// Requests that differ in length by more make two experiments; by less, a warning.
const MOST_LENGTHS: f64 = 1.6;
const SEEN_LENGTHS: f64 = 1.1;

/// A spread of a plateau that is worth a sentence.
const SEEN_SPREAD: f64 = 0.04;

/// TTFT below saturation is about log-normal with this spread where quantiles are missing, and never narrower than the other.
const ASSUMED_SIGMA: f64 = 0.5;
const LEAST_SIGMA: f64 = 0.05;
const Z90: f64 = 1.2816;
const ASSUMED_REQUESTS: f64 = super::drain::ASSUMED_REQUESTS;
