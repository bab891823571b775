//! What the page is told in one second: `/status` and `/knee` in fewer words, as one small JSON object.
//!
//! It is made from what those two pages say, so that they cannot disagree; what is unknown is null. The shape is the page's own
//! and may change with it: programs read `/status`.

use serde_json::{Value, json};

use crate::export::gate::Gate;
use crate::export::{Facts, knee, status};
use crate::measure::snapshot::Snapshot;

/// One second; `turns` is null when no state changed since the last one.
pub fn describe(snapshot: &Snapshot, facts: &Facts, draining: bool, turns: Value) -> Value {
    let status = status::describe(snapshot, facts, draining);
    let knees = knee::knee(snapshot, &facts.judged, facts.epoch);
    let of = |page: &Value| page["backends"].as_array().cloned().unwrap_or_default();
    let pairs = of(&status).into_iter().zip(of(&knees)).enumerate();
    let backends = pairs.map(|(place, (now, knee))| {
        let mut told = backend(&now, &knee);
        told["would_shed"] = json!(facts.gates.get(place).map(would_shed));
        told
    });
    json!({
        "at": short(&json!(facts.epoch + snapshot.at.as_nanos() as f64 / 1e9)),
        "version": status["version"],
        "mode": status["mode"],
        "draining": status["draining"],
        "uptime_s": short(&status["uptime_s"]),
        "backends": backends.collect::<Vec<_>>(),
        "turns": turns,
    })
}

fn backend(now: &Value, knee: &Value) -> Value {
    let (rates, saturation) = (&now["rates_10s"], &now["saturation"]);
    json!({
        "name": now["name"],
        "up": now["up"],
        "state": saturation["state"],
        "since_s": short(&saturation["since_s"]),
        "reason": saturation["reason"],
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
fn would_shed(gate: &Gate) -> u64 {
    gate.would_shed.iter().flatten().sum()
}

/// p50 and p99, in seconds.
fn quantiles(of: &Value) -> Value {
    json!([short(&of["p50"]), short(&of["p99"])])
}

/// A number to six decimals: microseconds, and no more digits than a chart shows. Anything else is null.
fn short(number: &Value) -> Value {
    number.as_f64().map_or(Value::Null, |number| json!((number * 1e6).round() / 1e6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_what_is_none_is_null() {
        assert_eq!(short(&json!(1.0 / 3.0)).to_string(), "0.333333");
        assert_eq!(short(&json!(12)).to_string(), "12.0");
        assert_eq!([&Value::Null, &json!("12"), &json!(f64::NAN)].map(short), [Value::Null, Value::Null, Value::Null]);
    }

    #[test]
    fn a_prediction_that_is_only_a_bound_is_no_figure() {
        let prediction = |at_most: bool| json!({ "requests_per_second": {"value": 3.0, "low": 2.0, "high": 4.0}, "in_flight": 9.0, "at_most": at_most });
        assert_eq!(predicted(&prediction(true)), Value::Null);
        assert_eq!(predicted(&Value::Null), Value::Null);
        assert_eq!(predicted(&prediction(false)), json!({ "value": 3.0, "in_flight": 9.0 }));
    }
}
