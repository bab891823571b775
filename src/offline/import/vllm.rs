//! `vllm bench serve --save-result`: one JSON object a run; and InferenceX's rewriting of it, whose times are in seconds.
//!
//! TTFT is from the send, inside the client's semaphore; `client_queue_time` (0.33 on) is the wait before it.

use super::super::sweep::{Environment, Level, LevelLoad, OutcomeCounts, Throughput};
use super::json::{JsonNode, JsonValue};
use super::reading::{ImportedFile, ImportedLevel, MILLISECONDS, text};

/// Known by a rate, a throughput, and the endpoint's type or the times' names.
pub fn knows(node: &JsonNode) -> bool {
    let loaded = node.has("request_rate") || node.has("max_concurrency");
    loaded
        && !node.has("dataset_name")
        && (node.has("request_throughput") || node.has("endpoint_type") && node.has("duration"))
}

/// Reads one run.
pub fn read(node: &JsonNode, reading: &mut ImportedFile) {
    let Some(load) = load(node, reading) else { return };
    let counts = OutcomeCounts {
        offered: reading.number(node, &["num_prompts"]),
        completed: reading.number(node, &["completed"]),
        failed: reading.number(node, &["failed"]),
        ..OutcomeCounts::default()
    };
    let tokens = |of: Option<f64>| Some(of? / counts.completed.filter(|completed| *completed > 0.0)?);
    // Milliseconds are in the names; InferenceX drops them and writes seconds.
    let unit = if node.members().iter().any(|(name, _)| name.ends_with("_ttft_ms")) { MILLISECONDS } else { 1.0 };
    let Some(requests) = reading.needed(node, &["request_throughput"]) else { return };
    let prompt_tokens = tokens(reading.number(node, &["total_input_tokens"]));
    let output_tokens = tokens(reading.number(node, &["total_output_tokens"]));
    let output = reading.number(node, &["output_throughput"]);
    let input = reading.number(node, &["input_throughput"]);
    let total = reading.number(node, &["total_token_throughput"]).or_else(|| Some(input? + output?));
    let level = Level {
        load,
        cap: reading.number(node, &["max_concurrency"]).filter(|_| matches!(load, LevelLoad::Rate(_))),
        duration: reading.number(node, &["duration"]),
        counts,
        whole: Throughput { requests: Some(requests), output_tokens: output, total_tokens: total },
        ttft: times(node, reading, "ttft", unit),
        itl: times(node, reading, "itl", unit),
        tpot: times(node, reading, "tpot", unit),
        e2e: times(node, reading, "e2el", unit),
        schedule_delay: times(node, reading, "client_queue_time", unit),
        goodput: reading.number(node, &["request_goodput"]),
        prompt_tokens,
        output_tokens,
        ..Level::default()
    };
    let environment = Environment {
        tool: Some("vllm bench serve".to_owned()),
        engine: text(node, &["backend"]).or_else(|| text(node, &["endpoint_type"])),
        model: text(node, &["model_id"]),
        gpu: text(node, &["gpu"]),
        gpus: gpus(node, reading),
        began: text(node, &["date"]),
        ..Environment::default()
    };
    reading.keep(node.line, ImportedLevel { environment, level, ..ImportedLevel::default() });
}

/// `request_rate` is a number, or "inf" with or without a cap on what is in flight.
pub fn load(node: &JsonNode, reading: &mut ImportedFile) -> Option<LevelLoad> {
    let cap = |reading: &mut ImportedFile| reading.number(node, &["max_concurrency"]).filter(|cap| *cap > 0.0);
    let Some(rate) = node.get("request_rate") else {
        return cap(reading).map(LevelLoad::Concurrency);
    };
    match &rate.value {
        JsonValue::Null => Some(cap(reading).map_or(LevelLoad::Burst, LevelLoad::Concurrency)),
        JsonValue::Number(rate) if *rate == f64::INFINITY => {
            Some(cap(reading).map_or(LevelLoad::Burst, LevelLoad::Concurrency))
        }
        JsonValue::Text(word) if word.eq_ignore_ascii_case("inf") => {
            Some(cap(reading).map_or(LevelLoad::Burst, LevelLoad::Concurrency))
        }
        _ => positive_rate(node, reading),
    }
}

fn positive_rate(node: &JsonNode, reading: &mut ImportedFile) -> Option<LevelLoad> {
    let rate = reading.needed(node, &["request_rate"])?;
    if rate <= 0.0 {
        reading.wrong(Some(node.line), "`request_rate` should be above 0; the level is left out");
    }
    (rate > 0.0).then_some(LevelLoad::Rate(rate))
}

fn times(node: &JsonNode, reading: &mut ImportedFile, of: &str, unit: f64) -> super::super::sweep::LatencySummary {
    let suffix = if unit == MILLISECONDS { "_ms" } else { "" };
    let name = |word: &str| format!("{word}_{of}{suffix}");
    let [mean, median, p50, p90, p99] = ["mean", "median", "p50", "p90", "p99"].map(name);
    reading.latency(node, [&[&[&mean]], &[&[&median], &[&p50]], &[&[&p90]], &[&[&p99]]], unit)
}

/// From `--metadata gpus=4` or `tp=4`, which vLLM writes as text.
fn gpus(node: &JsonNode, reading: &mut ImportedFile) -> Option<f64> {
    ["gpus", "num_gpus", "tp", "tensor_parallel_size"].iter().find_map(|key| match &node.get(key)?.value {
        JsonValue::Text(typed) => typed.parse().ok().filter(|gpus| (1.0..=MOST_GPUS).contains(gpus)),
        _ => reading.number(node, &[key]).filter(|gpus| (1.0..=MOST_GPUS).contains(gpus)),
    })
}

/// More GPUs than any one system has.
const MOST_GPUS: f64 = 1e6;
