//! What to run next: the levels that would narrow the interval, and what the last measurement lacked.

use super::drain::ASSUMED_REQUESTS;
use super::points::{Point, Points};
use super::rates::{ladder, requests_for};
use super::round::{nice, nice_between};
use super::say::Say;
use super::sweep::Sweep;
use super::verdict::{Verdict, VerdictKind};

/// The next levels and what should be changed about the measurement.
pub fn after(sweep: &Sweep, points: &Points, verdict: &Verdict) -> Vec<Say> {
    let mut next = Vec::new();
    match (verdict.kind, verdict.sat_lo, verdict.sat_hi) {
        (VerdictKind::Interval, Some(lo), Some(hi)) => next.extend(within(lo, hi, verdict.closed)),
        (VerdictKind::RightCensored, Some(lo), _) => {
            next.push(Say::Higher { loads: vec![nice(1.5 * lo), nice(2.0 * lo), nice(3.0 * lo)] })
        }
        (VerdictKind::LeftCensored, _, Some(hi)) => next.push(lower(hi, verdict)),
        _ => next.extend(again(points, verdict)),
    }
    if points.cold {
        next.push(Say::WarmUp);
    }
    if points.limits.iter().any(|said| matches!(said, Say::Omission { .. } | Say::ClientLimited { .. })) {
        next.push(Say::LiftCap);
    }
    next.extend(longer(points, verdict));
    next.extend(scale(sweep, verdict));
    next
}

/// Levels that cut the interval in four; in a closed loop whole numbers.
fn within(lo: f64, hi: f64, closed: bool) -> Option<Say> {
    if hi - lo <= NARROW * hi {
        return None;
    }
    let mut loads: Vec<f64> =
        nice_between(lo, hi, 3).into_iter().map(|load| if closed { load.round() } else { load }).collect();
    loads.dedup();
    loads.retain(|load| *load > lo && *load < hi);
    (!loads.is_empty()).then_some(Say::Bisect { loads })
}

/// Below the lowest level, around the capacity by the plateau.
fn lower(hi: f64, verdict: &Verdict) -> Say {
    let capacity = verdict.plateau.filter(|_| !verdict.closed).map(|band| band.high.min(hi)).unwrap_or(hi / 2.0);
    let mut loads: Vec<f64> = [0.25, 0.5, 0.8, 0.95].iter().map(|share| nice(share * capacity)).collect();
    if verdict.closed {
        loads.iter_mut().for_each(|load| *load = load.round().max(1.0));
    }
    loads.dedup();
    Say::Lower { loads }
}

/// Three runs of the levels in question separate chance from the system.
fn again(points: &Points, verdict: &Verdict) -> Option<Say> {
    let around = |point: &&Point| match (verdict.sat_lo, verdict.sat_hi) {
        (Some(lo), Some(hi)) => point.load >= lo / 2.0 && point.load <= 2.0 * hi,
        _ => true,
    };
    let loads: Vec<f64> = points.usable.iter().filter(around).map(|point| point.load).collect();
    (!loads.is_empty()).then_some(Say::Repeat { loads, times: REPEATS })
}

/// Enough requests that the drain of the last good level is a small share.
fn longer(points: &Points, verdict: &Verdict) -> Option<Say> {
    let lo = verdict.sat_lo.filter(|_| !verdict.closed)?;
    let good = points.usable.iter().find(|point| point.load >= lo)?;
    if good.steady || good.served > (1.0 - DRAIN) * good.load {
        return None;
    }
    let requests = good.requests.unwrap_or(ASSUMED_REQUESTS);
    let tail = requests * (1.0 / good.served - 1.0 / good.load);
    let needed = requests_for(tail, good.load, DRAIN);
    Some(Say::MoreRequests { requests: (needed / 100.0).ceil() * 100.0, load: good.load, share: DRAIN })
}

/// The same experiment on four times the GPUs, where the baseline is known.
fn scale(sweep: &Sweep, verdict: &Verdict) -> Option<Say> {
    if verdict.kind != VerdictKind::Interval || verdict.closed {
        return None;
    }
    let gpus = MORE_GPUS * sweep.environment.gpus.unwrap_or(1.0);
    let loads = ladder(verdict.most.requests? * MORE_GPUS);
    Some(Say::Scale { gpus, loads })
}

/// An interval that is narrower than this share is narrow enough.
const NARROW: f64 = 0.1;

/// Runs of one level that separate chance from the system.
const REPEATS: u32 = 3;

/// The drain should stay below this share of a run.
const DRAIN: f64 = 0.05;

/// The next size of system that is worth an experiment.
const MORE_GPUS: f64 = 4.0;
