//! The live page's figures of one second: a short form of `/status` and `/knee`, as one small JSON object.
//!
//! It is made from the content of those two pages, so they cannot disagree; an unknown value is null. The shape is the page's own and
//! may change with it: programs read `/status`.

use serde_json::{Value, json};

use crate::export::gate_status::GateStatus;
use crate::export::{ProcessState, knee, status};
use crate::measure::snapshot::Snapshot;

/// One frame; `transitions` is null when no state changed since the last one.
pub fn describe(snapshot: &Snapshot, process: &ProcessState, draining: bool, transitions: Value) -> Value {
    let status = status::describe(snapshot, process, draining);
    let knees = knee::knee(snapshot, &process.estimates, &process.gpus, process.epoch);
    let of = |page: &Value| page["backends"].as_array().cloned().unwrap_or_default();
    let pairs = of(&status).into_iter().zip(of(&knees)).enumerate();
    let backends = pairs.map(|(i, (now, knee))| {
        let mut described = backend(&now, &knee);
        described["would_shed"] = json!(process.gates.get(i).map(would_shed));
        described
    });
    json!({
        "at": short(&json!(process.epoch + snapshot.at.as_secs_f64())),
        "version": status["version"],
        "mode": status["mode"],
        "draining": status["draining"],
        "uptime_s": short(&status["uptime_s"]),
        "backends": backends.collect::<Vec<_>>(),
        "turns": transitions,
    })
}

fn backend(now: &Value, knee: &Value) -> Value {
    let (rates, saturation) = (&now["rates_10s"], &now["saturation"]);
    json!({
        "name": now["name"],
        "up": now["up"],
        "state": saturation["state"],
        "since_s": short(&saturation["since_s"]),
        "reason": reason(&saturation["reason"], &knee["shift"]),
        "ratio": short(&saturation["ratio"]),
        "demand_ratio": short(&saturation["demand_ratio"]),
        "offered": short(&rates["offered"]),
        "completed": short(&rates["completed"]),
        "shed": short(&rates["shed"]),
        "output_tokens": short(&rates["output_tokens"]),
        "in_flight": now["in_flight"],
        "pending": now["pending"],
        "queue": now["queue"]["depth"],
        "oldest_s": short(&now["queue"]["oldest_s"]),
        "ttft": quantiles(&now["ttft_s"]),
        "itl": quantiles(&now["itl_s"]),
        "window": now["limits"]["first_token_window"],
        "shed_total": now["totals"]["shed"],
        "knee": known(&knee["knee"]),
        "missing": knee["missing"],
        "predicted": predicted(&knee["prediction"]),
        "lower": short(&knee["lower_bound_requests_per_second"]),
    })
}

/// The last transition's sentence; within an hour of a shift of the engine's speed also the throttling of a GPU at that time.
fn reason(of_state: &Value, shift: &Value) -> Value {
    let recent = shift["age_s"].as_f64().is_some_and(|age| age < SHOWN_FOR);
    match (of_state.as_str(), shift["beside"][0].as_str().filter(|_| recent)) {
        (Some(sentence), Some(beside)) => format!("{sentence}; {beside}").into(),
        _ => of_state.clone(),
    }
}

fn known(knee: &Value) -> Value {
    if knee.is_null() {
        return Value::Null;
    }
    let rate = &knee["requests_per_second"];
    json!({
        "value": short(&rate["value"]),
        "low": short(&rate["low"]),
        "high": short(&rate["high"]),
        "in_flight": short(&knee["in_flight"]["value"]),
        "regime": knee["regime"],
    })
}

/// Nothing for a prediction that is only an upper bound.
fn predicted(prediction: &Value) -> Value {
    if prediction["at_most"] != false {
        return Value::Null;
    }
    json!({ "value": short(&prediction["requests_per_second"]["value"]), "in_flight": short(&prediction["in_flight"]) })
}

/// Mode observe: how many requests enforcement would have refused since the start.
fn would_shed(gate: &GateStatus) -> u64 {
    gate.would_shed.total()
}

/// p50 and p99, in seconds.
fn quantiles(of: &Value) -> Value {
    json!([short(&of["p50"]), short(&of["p99"])])
}

/// A number to six decimals: microseconds, and no more digits than a chart shows. Anything else is null.
fn short(number: &Value) -> Value {
    number.as_f64().map_or(Value::Null, |number| json!((number * 1e6).round() / 1e6))
}

/// Seconds for which a shift explains the state.
const SHOWN_FOR: f64 = 3600.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_other_values_are_null() {
        assert_eq!(short(&json!(1.0 / 3.0)).to_string(), "0.333333");
        assert_eq!(short(&json!(12)).to_string(), "12.0");
        assert_eq!([&Value::Null, &json!("12"), &json!(f64::NAN)].map(short), [Value::Null, Value::Null, Value::Null]);
    }

    #[test]
    fn throttling_is_shown_beside_a_recent_shift_only() {
        let shift = |age: u32| json!({ "age_s": age, "beside": ["GPU 0 throttled (power cap) since T"] });
        let shown = |shift| reason(&json!("the queue grows"), &shift);
        assert_eq!(shown(shift(30)), "the queue grows; GPU 0 throttled (power cap) since T");
        assert_eq!(shown(shift(3601)), "the queue grows");
        assert_eq!(shown(Value::Null), "the queue grows");
        assert_eq!(shown(json!({ "age_s": 1, "beside": [] })), "the queue grows");
    }

    #[test]
    fn a_prediction_that_is_only_a_bound_is_no_figure() {
        let prediction = |at_most: bool| json!({ "requests_per_second": {"value": 3.0, "low": 2.0, "high": 4.0}, "in_flight": 9.0, "at_most": at_most });
        assert_eq!(predicted(&prediction(true)), Value::Null);
        assert_eq!(predicted(&Value::Null), Value::Null);
        assert_eq!(predicted(&prediction(false)), json!({ "value": 3.0, "in_flight": 9.0 }));
    }
}
