//! SGLang's `bench_serving --output-file`: JSON Lines, one line a run, with `NaN` and `Infinity` as literals.
//!
//! Files of early 2025 have medians only and no `request_throughput`; it is then completed / duration. Output tokens are
//! those of the usage, not those that the client counted again.

use super::super::sweep::{Environment, LatencySummary, Level, LevelLoad, OutcomeCounts, Throughput};
use super::json::{JsonNode, JsonValue};
use super::reading::{ImportedFile, ImportedLevel, MILLISECONDS, text};

/// Known by the data set beside the backend.
pub fn knows(node: &JsonNode) -> bool {
    node.has("dataset_name") && node.has("backend") && (node.has("total_output_tokens") || node.has("request_rate"))
}

/// Reads one run.
pub fn read(node: &JsonNode, reading: &mut ImportedFile) {
    let load = match node.get("request_rate").map(|rate| &rate.value) {
        Some(JsonValue::Text(word)) if word == "trace" => Some(LevelLoad::Burst),
        _ => super::vllm::load(node, reading),
    };
    let Some(load) = load else { return };
    let (completed, duration) = (reading.needed(node, &["completed"]), reading.needed(node, &["duration"]));
    let (Some(completed), Some(duration)) = (completed, duration.filter(|duration| *duration > 0.0)) else {
        return reading.wrong(Some(node.line), "expected `completed` and a `duration` above 0; the level is left out");
    };
    let requests = reading.number(node, &["request_throughput"]).unwrap_or(completed / duration);
    let per_request = |tokens: Option<f64>| tokens.filter(|_| completed > 0.0).map(|tokens| tokens / completed);
    let (input, output) =
        (reading.number(node, &["total_input_tokens"]), reading.number(node, &["total_output_tokens"]));
    let total = reading.number(node, &["total_throughput"]).or_else(|| Some((input? + output?) / duration));
    let level = Level {
        load,
        cap: reading.number(node, &["max_concurrency"]).filter(|_| matches!(load, LevelLoad::Rate(_))),
        duration: Some(duration),
        counts: OutcomeCounts { completed: Some(completed), ..OutcomeCounts::default() },
        whole: Throughput {
            requests: Some(requests),
            output_tokens: reading.number(node, &["output_throughput"]),
            total_tokens: total,
        },
        ttft: times(node, reading, "ttft"),
        itl: times(node, reading, "itl"),
        tpot: times(node, reading, "tpot"),
        e2e: times(node, reading, "e2e_latency"),
        in_flight: reading.number(node, &["concurrency"]),
        prompt_tokens: per_request(input),
        output_tokens: per_request(output),
        ..Level::default()
    };
    let asked = |key: &str| match node.get(key).map(|length| &length.value) {
        Some(JsonValue::Number(length)) => format!("{length}"),
        _ => String::new(),
    };
    let shape = format!(
        "{}/{}/{}",
        text(node, &["dataset_name"]).unwrap_or_default(),
        asked("random_input_len"),
        asked("random_output_len")
    );
    let environment = Environment {
        tool: Some("sglang bench_serving".to_owned()),
        engine: text(node, &["backend"]),
        model: text(node, &["model_id"]).or_else(|| text(node, &["model"])),
        ..Environment::default()
    };
    reading.keep(node.line, ImportedLevel { shape, environment, level, ..ImportedLevel::default() });
}

fn times(node: &JsonNode, reading: &mut ImportedFile, of: &str) -> LatencySummary {
    let name = |word: &str| format!("{word}_{of}_ms");
    let [mean, median, p90, p99] = ["mean", "median", "p90", "p99"].map(name);
    reading.latency(node, [&[&[&mean]], &[&[&median]], &[&[&p90]], &[&[&p99]]], MILLISECONDS)
}
