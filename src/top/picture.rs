//! What a weir reports of itself in one second: `/status`, `/knee` and `/saturation` as one value.
//!
//! It reads leniently, so that it can look at a weir of another version: what is missing is unknown. It computes one thing, the
//! headroom.

use serde_json::Value;

/// One second.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Picture {
    pub version: String,
    pub mode: String,
    pub draining: bool,
    pub uptime: f64,
    /// The worst state of all backends.
    pub state: String,
    /// What a batch client is advised.
    pub suggested_in_flight: Option<f64>,
    pub retry_after: u64,
    pub backends: Vec<BackendPicture>,
}

/// One backend.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BackendPicture {
    pub name: String,
    pub up: bool,
    pub state: String,
    pub since: Option<f64>,
    pub reason: String,
    pub demand_ratio: Option<f64>,
    pub offered: Option<f64>,
    pub completed: Option<f64>,
    pub shed: Option<f64>,
    pub output_tokens: Option<f64>,
    /// p50 and p99.
    pub ttft: [Option<f64>; 2],
    pub itl: [Option<f64>; 2],
    pub in_flight: u64,
    pub pending: u64,
    pub queue: u64,
    pub oldest: Option<f64>,
    /// Value, low, high, in requests per second.
    pub knee: Option<[f64; 3]>,
    pub knee_in_flight: Option<f64>,
    pub predicted: Option<f64>,
    pub missing: Vec<String>,
    /// Since the start, by reason; none that is 0.
    pub shed_by: Vec<(String, u64)>,
}

impl Picture {
    /// The picture of three answers; `None` when the first is not the status of a weir.
    pub fn of(status: &Value, knee: &Value, saturation: &Value) -> Option<Self> {
        let backends = status["backends"].as_array()?;
        let knee_of = |name: &Value| knee["backends"].as_array()?.iter().find(|knee| knee["name"] == *name);
        Some(Self {
            version: text(&status["version"]),
            mode: text(&status["mode"]),
            draining: status["draining"] == true,
            uptime: status["uptime_s"].as_f64().unwrap_or_default(),
            state: text(&saturation["state"]),
            suggested_in_flight: saturation["suggested_in_flight"].as_f64(),
            retry_after: saturation["retry_after_s"].as_u64().unwrap_or_default(),
            backends: backends
                .iter()
                .map(|now| BackendPicture::of(now, knee_of(&now["name"]).unwrap_or(&Value::Null)))
                .collect(),
        })
    }

    /// The least headroom of all backends that have one.
    pub fn headroom(&self) -> Option<f64> {
        self.backends.iter().filter_map(BackendPicture::headroom).min_by(f64::total_cmp)
    }
}

impl BackendPicture {
    fn of(now: &Value, known: &Value) -> Self {
        let (rates, saturation, knee) = (&now["rates_10s"], &now["saturation"], &known["knee"]);
        let quantiles = |of: &Value| [of["p50"].as_f64(), of["p99"].as_f64()];
        let predicted = &known["prediction"];
        Self {
            name: text(&now["name"]),
            up: now["up"] == true,
            state: text(&saturation["state"]),
            since: saturation["since_s"].as_f64(),
            reason: text(&saturation["reason"]),
            demand_ratio: saturation["demand_ratio"].as_f64(),
            offered: rates["offered"].as_f64(),
            completed: rates["completed"].as_f64(),
            shed: rates["shed"].as_f64(),
            output_tokens: rates["output_tokens"].as_f64(),
            ttft: quantiles(&now["ttft_s"]),
            itl: quantiles(&now["itl_s"]),
            in_flight: count(&now["in_flight"]),
            pending: count(&now["pending"]),
            queue: count(&now["queue"]["depth"]),
            oldest: now["queue"]["oldest_s"].as_f64(),
            knee: interval(&knee["requests_per_second"]),
            knee_in_flight: knee["in_flight"]["value"].as_f64(),
            predicted: predicted["requests_per_second"]["value"].as_f64().filter(|_| predicted["at_most"] == false),
            missing: known["missing"].as_array().into_iter().flatten().map(text).collect(),
            shed_by: shed_by(&now["totals"]["shed"]),
        }
    }

    /// 1 − demand ratio, and none when more is asked for than can be served; unknown without a knee.
    pub fn headroom(&self) -> Option<f64> {
        self.demand_ratio.map(|demand| (1.0 - demand).max(0.0))
    }
}

/// Text of another process, for a terminal: without control characters, and not longer than a screen.
fn text(value: &Value) -> String {
    let shown = value.as_str().unwrap_or_default().chars().filter(|c| !c.is_control());
    shown.take(LONGEST_TEXT).collect()
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn interval(of: &Value) -> Option<[f64; 3]> {
    Some([of["value"].as_f64()?, of["low"].as_f64()?, of["high"].as_f64()?])
}

fn shed_by(totals: &Value) -> Vec<(String, u64)> {
    let mut some: Vec<(String, u64)> = totals
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(reason, n)| Some((reason.clone(), n.as_u64().filter(|n| *n > 0)?)))
        .collect();
    some.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    some
}

const LONGEST_TEXT: usize = 600;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_empty_backend_is_unknown_and_not_nought() {
        let picture = Picture::of(&json!({ "backends": [{ "name": "a" }] }), &Value::Null, &Value::Null).unwrap();
        let backend = &picture.backends[0];
        assert_eq!((backend.headroom(), backend.knee, backend.offered), (None, None, None));
        assert_eq!(picture.headroom(), None);
        assert!(Picture::of(&json!({ "error": "no such admin path" }), &Value::Null, &Value::Null).is_none());
    }

    #[test]
    fn headroom_is_what_the_demand_leaves_and_never_below_none() {
        let of =
            |demand| BackendPicture { demand_ratio: Some(demand), ..BackendPicture::default() }.headroom().unwrap();
        assert_eq!((of(0.25), of(1.6)), (0.75, 0.0));
    }

    #[test]
    fn a_hostile_text_has_no_control_characters() {
        assert_eq!(text(&json!("a\u{1b}[2J\r\nb\u{9b}31m")), "a[2Jb31m");
        assert_eq!(text(&json!("x".repeat(10_000))).len(), LONGEST_TEXT);
    }

    #[test]
    fn sheds_that_happened_are_listed_most_frequent_first() {
        let totals = json!({ "saturated": 3, "deadline": 0, "queue_full": 7 });
        assert_eq!(shed_by(&totals), [("queue_full".to_owned(), 7), ("saturated".to_owned(), 3)]);
    }
}
