//! `/knee` and `/saturation`: the knee or the evidence still missing for it, and advice for a batch client.
//!
//! Both are made from the readings that `/metrics` shows and keep nothing between two calls. A key whose value is unknown is null,
//! never missing.

use serde_json::{Value, json};

use super::gpu;
use super::saturation::{BackendEstimate, confidence};
use crate::estimate::{Advice, Estimate, Knee, Prediction, Reading, SaturationState, Shift};
use crate::gpu::reading::Device;
use crate::measure::snapshot::Snapshot;
use crate::vocabulary::time::Timestamp;

/// `/knee`: per backend the knee with its interval, the prediction, the bounds, the curve between.
pub fn knee(snapshot: &Snapshot, estimates: &[Option<BackendEstimate>], gpus: &[Device], epoch: f64) -> Value {
    let backends = each(snapshot, estimates).map(|(name, estimate)| match estimate {
        Some(estimate) => backend(name, &estimate.reading, gpus, snapshot.at, epoch),
        None => json!({ "name": name, "state": SaturationState::Unknown.word(), "knee": null, "missing": ["no reading yet"], "advice": [] }),
    });
    json!({ "backends": backends.collect::<Vec<_>>() })
}

/// `/saturation`: the worst state, the ratio over all backends, and the load that a batch client may send.
pub fn saturation(snapshot: &Snapshot, estimates: &[Option<BackendEstimate>]) -> Value {
    let readings: Vec<(&str, Option<&Reading>)> =
        each(snapshot, estimates).map(|(name, estimate)| (name, estimate.map(|estimate| &estimate.reading))).collect();
    let state = readings.iter().filter_map(|(_, reading)| reading.map(|reading| reading.state)).max_by_key(severity);
    let retry = readings.iter().filter_map(|(_, reading)| reading.map(retry_after)).max();
    let knees: Option<f64> = readings.iter().map(|(_, reading)| suggested(reading.as_ref()?)).sum();
    let load: u64 = readings.iter().filter_map(|(_, r)| r.map(|r| r.in_flight + r.queued)).sum();
    let all_known = readings.iter().all(|(_, reading)| reading.is_some_and(|reading| reading.knee.is_ok()));
    let backends = readings.iter().map(|(name, reading)| {
        json!({
            "name": name,
            "state": reading.map_or(SaturationState::Unknown, |reading| reading.state).word(),
            "ratio": reading.and_then(|reading| reading.ratio),
            "suggested_in_flight": reading.and_then(suggested).map(f64::floor),
            "retry_after_s": reading.map_or(0, retry_after),
        })
    });
    json!({
        "state": state.unwrap_or_default().word(),
        "ratio": knees.filter(|knees| all_known && *knees > 0.0).map(|knees| load as f64 / knees),
        "suggested_in_flight": knees.map(f64::floor),
        "retry_after_s": retry.unwrap_or(0),
        "backends": backends.collect::<Vec<_>>(),
    })
}

fn each<'a>(
    snapshot: &'a Snapshot,
    estimates: &'a [Option<BackendEstimate>],
) -> impl Iterator<Item = (&'a str, Option<&'a BackendEstimate>)> {
    let estimates = estimates.iter().map(Option::as_ref).chain(std::iter::repeat(None));
    snapshot.backends.iter().map(|name| &**name).zip(estimates)
}

fn backend(name: &str, reading: &Reading, gpus: &[Device], now: Timestamp, epoch: f64) -> Value {
    let known = reading.knee.as_ref().ok();
    let prediction = reading.prediction.as_ref();
    json!({
        "name": name,
        "state": reading.state.word(),
        "since_s": now.since(reading.since).as_secs_f64(),
        "reason": reading.reason,
        "knee": known.map(|knee| describe(knee, now, epoch)),
        "missing": missing(reading.knee.as_ref().err()),
        "advice": known.map_or_else(Vec::new, |knee| knee.advice().iter().map(describe_advice).collect()),
        "prediction": prediction.ok().map(predicted),
        "prediction_missing": missing(prediction.err()),
        "upper_bound_requests_per_second": reading.upper_bound,
        "lower_bound_requests_per_second": reading.lower_bound,
        "step_seconds": reading.costs.map(|costs| json!({
            "step": costs.step, "decode": costs.decode, "prefill_token": costs.prefill_token,
        })),
        "curve": curve(reading),
        "changes": {
            "slower": reading.speed_changes.slower,
            "faster": reading.speed_changes.faster,
            "mix": reading.mix_changes,
            "drift": reading.drifts,
        },
        "shift": reading.shift.map(|shift| shifted(shift, &gpu::beside(shift, name, gpus, epoch), now, epoch)),
        "throttled": gpu::throttled(name, gpus, epoch),
        "stalls": reading.stalls,
        "several_engines": reading.several_engines,
    })
}

fn describe(knee: &Knee, now: Timestamp, epoch: f64) -> Value {
    json!({
        "source": "online",
        "requests_per_second": interval(knee.requests_per_second),
        "best_requests_per_second": knee.best,
        "output_tokens_per_second": interval(knee.tokens_per_second),
        "in_flight": interval(knee.in_flight),
        "in_flight_95": knee.n95,
        "regime": knee.regime.word(),
        "confidence": confidence(knee),
        "unexplained": knee.unexplained,
        "blocks": knee.blocks,
        "updated_at": epoch + knee.updated_at.as_secs_f64(),
        "age_s": now.since(knee.updated_at).as_secs_f64(),
    })
}

/// The last shift of the engine's speed, with the throttling of the backend's GPUs at that time, which may explain it.
fn shifted(shift: Shift, beside: &[String], now: Timestamp, epoch: f64) -> Value {
    json!({
        "kind": shift.kind.word(),
        "at": epoch + shift.at.as_secs_f64(),
        "age_s": now.since(shift.at).as_secs_f64(),
        "beside": beside,
    })
}

fn predicted(prediction: &Prediction) -> Value {
    json!({
        "requests_per_second": interval(prediction.requests_per_second),
        "in_flight": prediction.in_flight,
        "regime": prediction.regime.word(),
        "at_most": prediction.at_most,
    })
}

fn describe_advice(advice: &Advice) -> Value {
    let Advice { engine, setting, value, low, high, .. } = advice;
    json!({ "engine": engine, "setting": setting, "value": value, "low": low, "high": high, "why": advice.why() })
}

fn interval(estimate: Estimate) -> Value {
    json!({ "value": estimate.value, "low": estimate.low, "high": estimate.high })
}

fn missing(evidence: Option<&crate::estimate::NotEnoughEvidence>) -> Vec<String> {
    evidence.map_or_else(Vec::new, |evidence| evidence.why.iter().map(ToString::to_string).collect())
}

/// Throughput at loads D up to the knee: X(D) = 1 / (1/U + a O/D). 1/U, the inverse of the upper bound, is the cost of a request
/// without the overhead of the steps, and `a O` follows from the knee, or from the prediction where no knee is known.
fn curve(reading: &Reading) -> Value {
    let end = match (&reading.knee, &reading.prediction) {
        (Ok(knee), _) => Some((knee.requests_per_second.value, knee.in_flight.value)),
        (Err(_), Ok(prediction)) if !prediction.at_most => {
            Some((prediction.requests_per_second.value, prediction.in_flight))
        }
        _ => None,
    };
    let Some(((at_end, in_flight), upper)) = end.zip(reading.upper_bound) else { return Value::Null };
    if !(at_end > 0.0 && in_flight > 0.0 && upper >= at_end) {
        return Value::Null;
    }
    let overhead = (1.0 / at_end - 1.0 / upper) * in_flight;
    let point = |tenth: u32| {
        let load = in_flight * f64::from(tenth) / 10.0;
        json!({ "in_flight": load, "requests_per_second": 1.0 / (1.0 / upper + overhead / load) })
    };
    (1..=10).map(point).collect()
}

/// Requests that a batch client may keep in flight: those at the measured or predicted knee.
fn suggested(reading: &Reading) -> Option<f64> {
    match (&reading.knee, &reading.prediction) {
        (Ok(knee), _) => Some(knee.in_flight.value),
        (Err(_), Ok(prediction)) if !prediction.at_most => Some(prediction.in_flight),
        _ => None,
    }
}

/// Whole seconds until the load above the knee is completed; 0 unless the backend is saturated.
fn retry_after(reading: &Reading) -> u64 {
    if reading.state != SaturationState::Saturated {
        return 0;
    }
    let load = (reading.in_flight + reading.queued) as f64;
    let (backlog, rate) = match &reading.knee {
        Ok(knee) => (load - knee.in_flight.value, Some(knee.requests_per_second.value)),
        Err(_) => ((reading.pending + reading.queued) as f64, reading.lower_bound),
    };
    let seconds = rate.filter(|rate| *rate > 0.0).map_or(LEAST, |rate| backlog / rate);
    seconds.ceil().clamp(LEAST, MOST) as u64
}

fn severity(state: &SaturationState) -> u8 {
    match state {
        SaturationState::Unknown => 0,
        SaturationState::Healthy => 1,
        SaturationState::Approaching => 2,
        SaturationState::Recovering => 3,
        SaturationState::Saturated => 4,
    }
}

/// Bounds of every `Retry-After` of weir, in seconds.
const LEAST: f64 = 1.0;
const MOST: f64 = 30.0;
