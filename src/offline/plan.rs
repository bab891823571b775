//! The next experiment: from a baseline to levels that bracket the capacity of more GPUs, with what it will cost.
//!
//! It holds no text but the commands, which are the same in every language.

use super::drain::ASSUMED_REQUESTS;
use super::rates::{ladder, requests_for};
use super::round::{nice, nice_between};
use super::sweep::Sweep;
use super::verdict::{Verdict, VerdictKind};

/// What the plan is for.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanRequest {
    /// GPUs of the next system.
    pub gpus: f64,
    /// GPUs of the baseline, when its file does not have them.
    pub baseline_gpus: Option<f64>,
    /// Expected efficiency: capacity of N GPUs over N times that of one.
    pub efficiency: f64,
    /// Objective for the time to first token, seconds.
    pub slo_ttft: Option<f64>,
    /// Where the next system listens.
    pub target: String,
    /// The baseline, as it was named on the command line.
    pub file: String,
}

/// An experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What it rests on.
    pub baseline: PlanBaseline,
    /// GPUs of the next system.
    pub gpus: f64,
    /// Capacity if it scales perfectly, requests a second.
    pub ideal: f64,
    /// Capacity with the expected efficiency.
    pub with_efficiency: f64,
    /// The efficiency.
    pub efficiency: f64,
    /// In ascending order.
    pub levels: Vec<PlannedLevel>,
    /// How long every level sends, seconds.
    pub send: f64,
    /// The commands to run, in order.
    pub commands: Vec<String>,
    /// What it will take.
    pub cost: Cost,
}

/// What a plan rests on.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanBaseline {
    /// As it was named.
    pub file: String,
    /// Of the baseline.
    pub gpus: f64,
    /// Requests a second.
    pub capacity: f64,
    /// The capacity is a lower bound: the baseline never saturated.
    pub at_least: bool,
    /// Seconds from the last send to the last completion of a run that keeps up.
    pub tail: f64,
    /// The tail was derived without knowing the number of requests.
    pub tail_assumed: bool,
}

/// A level to run.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedLevel {
    /// Requests a second.
    pub rate: f64,
    /// Requests.
    pub requests: f64,
    /// Seconds, the drain included.
    pub duration: f64,
    /// The largest share by which a whole-run reading lies below the truth.
    pub bias: f64,
    /// Why it is there.
    pub why: LevelPurpose,
}

/// Why a level is in a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LevelPurpose {
    /// Well below: the base of TTFT and of the tail.
    Base,
    /// Below the expected capacity.
    Below,
    /// Between the capacity with the expected efficiency and the ideal one.
    Knee,
    /// Above the ideal capacity: it shows the plateau.
    Above,
}

/// What a plan takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Seconds, pauses included.
    pub duration: f64,
    /// Output tokens; prompt tokens are included when the baseline has only their sum.
    pub output_tokens: Option<f64>,
    /// `output_tokens` counts the prompts too.
    pub prompts_included: bool,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NoPlan {
    /// The baseline is refused.
    #[error("the baseline {0} is too noisy to plan from: {1}")]
    Noisy(String, &'static str),
    /// It has no throughput in requests.
    #[error("the baseline {0} has no throughput in requests per second")]
    NoThroughput(String),
}

/// Plans the next experiment from a judged baseline.
///
/// # Errors
/// [`NoPlan`], when the baseline does not carry one.
pub fn plan(sweep: &Sweep, verdict: &Verdict, request: &PlanRequest) -> Result<Plan, NoPlan> {
    if verdict.kind == VerdictKind::Noisy {
        return Err(NoPlan::Noisy(sweep.id.clone(), "repeat it first, as `weir analyze` says"));
    }
    let capacity = verdict.most.requests.ok_or_else(|| NoPlan::NoThroughput(sweep.id.clone()))?;
    let baseline_gpus = sweep.environment.gpus.or(request.baseline_gpus).unwrap_or(1.0);
    let (tail, tail_assumed) = tail(sweep, verdict);
    let ideal = capacity * request.gpus / baseline_gpus;
    let expected = ideal * request.efficiency;
    let rates = rates(ideal, expected);
    let send = send_time(tail);
    let levels: Vec<PlannedLevel> = rates.iter().map(|rate| level(*rate, send, tail, ideal, expected)).collect();
    let tokens = sweep.output_tokens().or_else(|| sweep.total_tokens());
    let cost = Cost {
        duration: levels.iter().map(|level| level.duration).sum::<f64>() + PAUSE * levels.len() as f64,
        output_tokens: tokens.map(|tokens| tokens * levels.iter().map(|level| level.requests).sum::<f64>()),
        prompts_included: sweep.output_tokens().is_none(),
    };
    let baseline = PlanBaseline {
        file: request.file.clone(),
        gpus: baseline_gpus,
        capacity,
        at_least: verdict.kind == VerdictKind::RightCensored,
        tail,
        tail_assumed,
    };
    let commands = commands(request, &rates, send, sweep);
    Ok(Plan {
        baseline,
        gpus: request.gpus,
        ideal,
        with_efficiency: expected,
        efficiency: request.efficiency,
        levels,
        send,
        commands,
        cost,
    })
}

/// The ladder, and one more level where the knee is expected when the ladder leaves that open.
fn rates(ideal: f64, expected: f64) -> Vec<f64> {
    let mut rates = ladder(ideal);
    let inside = |rates: &[f64]| rates.iter().any(|rate| *rate > expected && *rate < ideal);
    if expected < ideal && !inside(&rates) {
        rates.extend(nice_between(expected, ideal, 1));
    }
    rates.sort_by(f64::total_cmp);
    rates.dedup();
    rates
}

/// How long a level sends so that the tail stays below [`MOST_BIAS`] of the run, in round numbers.
fn send_time(tail: f64) -> f64 {
    let needed = requests_for(tail, 1.0, MOST_BIAS);
    ((needed / ROUND_SECONDS).ceil() * ROUND_SECONDS).clamp(LEAST_SEND, MOST_SEND)
}

fn level(rate: f64, send: f64, tail: f64, ideal: f64, expected: f64) -> PlannedLevel {
    let requests = (rate * send).ceil();
    let served = rate.min(expected);
    let why = match rate {
        rate if rate <= 0.5 * ideal => LevelPurpose::Base,
        rate if rate < expected => LevelPurpose::Below,
        rate if rate <= ideal => LevelPurpose::Knee,
        _ => LevelPurpose::Above,
    };
    let duration = requests / served + tail;
    PlannedLevel { rate, requests, duration, bias: tail / duration, why }
}

/// The tail of the last good level: what its run lasted beyond its schedule, or the longest of the answers.
pub fn tail(sweep: &Sweep, verdict: &Verdict) -> (f64, bool) {
    let good = verdict.levels.iter().rfind(|judged| judged.standing.holds() && Some(judged.load) == verdict.sat_lo);
    let level = good.and_then(|judged| sweep.levels.get(judged.index));
    let answer = level.and_then(|level| level.e2e.p99.or(level.e2e.mean).or(level.e2e.p50)).unwrap_or(0.0);
    let run = level.filter(|_| !verdict.closed).and_then(|level| {
        let (served, rate) = (level.whole.requests.or_else(|| level.best_requests())?, level.load.value()?);
        let spare = (1.0 / served - 1.0 / level.achieved_rate.unwrap_or(rate)).max(0.0);
        Some((spare * level.counts.completed.unwrap_or(ASSUMED_REQUESTS), level.counts.completed.is_none()))
    });
    match run {
        Some((tail, assumed)) if tail > answer => (tail, assumed),
        _ if answer > 0.0 => (answer, false),
        _ => (ASSUMED_TAIL, true),
    }
}

fn commands(request: &PlanRequest, rates: &[f64], send: f64, sweep: &Sweep) -> Vec<String> {
    let rates = rates.iter().map(|rate| rate.to_string()).collect::<Vec<_>>().join(",");
    let slo = request.slo_ttft.map(|slo| format!(" --slo-ttft {}ms", (1e3 * slo).round())).unwrap_or_default();
    let model = sweep
        .environment
        .model
        .as_deref()
        .filter(|model| is_plain(model))
        .map(|model| format!(" --model {model}"))
        .unwrap_or_default();
    let out = format!("sweep-{}gpu", request.gpus);
    let file = if is_plain(&request.file) {
        request.file.clone()
    } else {
        format!("'{}'", request.file.replace('\'', "'\\''"))
    };
    vec![
        format!("weir sweep --target {} --rates {rates} --duration {send}s{slo}{model} --out {out}", request.target),
        format!("weir analyze {out}"),
        format!("weir compare {file} {out} --gpus {}", request.gpus),
    ]
}

/// A word that needs no quotes in a shell.
fn is_plain(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "._-/:".contains(c))
}

impl PlannedLevel {
    /// The rate over the ideal capacity.
    pub fn share(&self, ideal: f64) -> f64 {
        nice_share(self.rate / ideal)
    }
}

fn nice_share(share: f64) -> f64 {
    if share.is_finite() { (share * 100.0).round() / 100.0 } else { nice(1.0) }
}

/// The largest drain bias of a level: N / (N/R + tail) is within 2 % of R.
const MOST_BIAS: f64 = 0.019;

/// A level sends for a round time, at least long enough for some hundred requests of a slow server, at most an hour.
const ROUND_SECONDS: f64 = 10.0;
const LEAST_SEND: f64 = 60.0;
const MOST_SEND: f64 = 3600.0;

/// Pause between levels for requests in flight to end and caches to settle, seconds.
const PAUSE: f64 = 10.0;

/// A tail when nothing is known: one long answer.
const ASSUMED_TAIL: f64 = 10.0;
