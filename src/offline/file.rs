//! The files of `weir sweep`: `sweep.json` and `sweep.csv`.
//!
//! The JSON has weir's own keys, times in seconds, and beside them the keys of vLLM's results (milliseconds in `_ms`), so that
//! tools which read those can read it.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::report::{self, Lang};
use super::sweep::{LatencySummary, Level, LevelLoad, SCHEMA, Start, Sweep};
use super::verdict::Verdict;

/// The text of `sweep.json`, with the verdict in it.
pub fn json(sweep: &Sweep, verdict: &Verdict, lang: Lang) -> String {
    let levels: Vec<Value> = sweep.levels.iter().map(level).collect();
    let file = json!({
        "schema": SCHEMA,
        "schema_version": 1,
        "sweep_id": sweep.id,
        "environment": sweep.environment,
        "slo": sweep.slo,
        "levels": levels,
        "verdict": report::json::sweep(sweep, verdict, lang),
    });
    format!("{file:#}\n")
}

/// The text of `sweep.csv`: the columns that `weir analyze` reads, one level a row.
pub fn csv(sweep: &Sweep) -> String {
    let mut text = COLUMNS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(",");
    text.push('\n');
    for level in &sweep.levels {
        let fields = COLUMNS.iter().map(|(_, of)| of(sweep, level));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", fields.collect::<Vec<_>>().join(","));
    }
    text
}

fn level(level: &Level) -> Value {
    let mut ours = match serde_json::to_value(level) {
        Ok(Value::Object(ours)) => ours,
        // A level is a structure of numbers: it always is an object.
        _ => Map::new(),
    };
    ours.extend(vllm(level));
    Value::Object(ours)
}

/// The keys of `vllm bench serve --save-result`.
fn vllm(level: &Level) -> Map<String, Value> {
    let mut keys = Map::new();
    let (rate, held) = match level.load {
        LevelLoad::Rate(rate) => (json!(rate), json!(level.cap)),
        LevelLoad::Concurrency(held) => (json!("inf"), json!(held)),
        LevelLoad::Burst => (json!("inf"), Value::Null),
    };
    let mut put = |key: &str, value: Value| keys.insert(key.to_owned(), value);
    put("request_rate", rate);
    put("max_concurrency", held);
    put("num_prompts", json!(level.counts.offered));
    put("completed", json!(level.counts.completed));
    put("failed", json!(level.counts.failed));
    put("request_throughput", json!(level.whole.requests));
    put("output_throughput", json!(level.whole.output_tokens));
    put("total_token_throughput", json!(level.whole.total_tokens));
    put("request_goodput", json!(level.goodput));
    for (name, times) in [("ttft", level.ttft), ("tpot", level.tpot), ("itl", level.itl), ("e2el", level.e2e)] {
        for (figure, time) in figures(times) {
            put(&format!("{figure}_{name}_ms"), json!(time.map(|time| 1e3 * time)));
        }
        put(&format!("median_{name}_ms"), json!(times.p50.map(|time| 1e3 * time)));
    }
    keys
}

const fn figures(times: LatencySummary) -> [(&'static str, Option<f64>); 4] {
    [("mean", times.mean), ("p50", times.p50), ("p90", times.p90), ("p99", times.p99)]
}

type CsvColumn = (&'static str, fn(&Sweep, &Level) -> String);

const COLUMNS: [CsvColumn; 37] = [
    ("sweep_id", |sweep, _| quoted(&sweep.id)),
    ("tool", |sweep, _| quoted(sweep.environment.tool.as_deref().unwrap_or_default())),
    ("engine", |sweep, _| quoted(sweep.environment.engine.as_deref().unwrap_or_default())),
    ("model", |sweep, _| quoted(sweep.environment.model.as_deref().unwrap_or_default())),
    ("gpu", |sweep, _| quoted(sweep.environment.gpu.as_deref().unwrap_or_default())),
    ("gpus", |sweep, _| field(sweep.environment.gpus)),
    ("load_kind", |_, level| {
        if matches!(level.load, LevelLoad::Concurrency(_)) { "concurrency" } else { "rate" }.to_owned()
    }),
    ("load", |_, level| field(level.load.value())),
    ("request_throughput", |_, level| field(level.whole.requests)),
    ("output_token_throughput", |_, level| field(level.whole.output_tokens)),
    ("total_token_throughput", |_, level| field(level.whole.total_tokens)),
    ("steady_request_throughput", |_, level| field(level.steady.and_then(|steady| steady.throughput.requests))),
    ("steady_output_token_throughput", |_, level| {
        field(level.steady.and_then(|steady| steady.throughput.output_tokens))
    }),
    ("steady_s", |_, level| field(level.steady.map(|steady| steady.length))),
    ("mean_ttft_ms", |_, level| millis(level.ttft.mean)),
    ("p50_ttft_ms", |_, level| millis(level.ttft.p50)),
    ("p90_ttft_ms", |_, level| millis(level.ttft.p90)),
    ("p99_ttft_ms", |_, level| millis(level.ttft.p99)),
    ("ttft_from", |_, level| if level.ttft_from == Start::Schedule { "schedule" } else { "send" }.to_owned()),
    ("mean_tpot_ms", |_, level| millis(level.tpot.mean)),
    ("mean_itl_ms", |_, level| millis(level.itl.mean)),
    ("mean_e2e_ms", |_, level| millis(level.e2e.mean)),
    ("p50_e2e_ms", |_, level| millis(level.e2e.p50)),
    ("p99_e2e_ms", |_, level| millis(level.e2e.p99)),
    ("goodput", |_, level| field(level.goodput)),
    ("in_flight", |_, level| field(level.in_flight)),
    ("duration_s", |_, level| field(level.duration)),
    ("offered", |_, level| field(level.counts.offered)),
    ("completed", |_, level| field(level.counts.completed)),
    ("failed", |_, level| field(level.counts.failed)),
    ("shed", |_, level| field(level.counts.shed)),
    ("unfinished", |_, level| field(level.counts.unfinished)),
    ("achieved_send_rate", |_, level| field(level.achieved_rate)),
    ("mean_schedule_delay_ms", |_, level| millis(level.schedule_delay.mean)),
    ("p99_schedule_delay_ms", |_, level| millis(level.schedule_delay.p99)),
    ("client_limited", |_, level| level.client_limited.to_string()),
    ("output_tokens", |_, level| field(level.output_tokens)),
];

fn field(value: Option<f64>) -> String {
    value.filter(|value| value.is_finite()).map(|value| super::round::tidy(value).to_string()).unwrap_or_default()
}

fn millis(value: Option<f64>) -> String {
    field(value.map(|value| 1e3 * value))
}

/// A text that may hold a comma or a quote.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}
