//! inference-perf: one `stage_N_lifecycle_metrics.json` a level; all times in seconds.
//!
//! `requests_per_sec` includes the drain. The client's workers cap what is in flight without a message; `schedule_delay` shows
//! it. `summary_lifecycle_metrics.json` adds unequal stages up and is ignored.

use super::super::sweep::{Environment, LatencySummary, Level, LevelLoad, OutcomeCounts, Throughput};
use super::json::JsonNode;
use super::reading::{ImportedFile, ImportedLevel};

/// Known by the two halves of its report.
pub fn knows(node: &JsonNode) -> bool {
    node.has("load_summary") && node.has("successes")
}

/// The stages added up.
pub fn is_a_summary(node: &JsonNode) -> bool {
    knows(node)
        && node.at(&["load_summary", "requested_rate"]).is_none()
        && node.at(&["load_summary", "concurrency"]).is_none()
}

/// Reads one stage.
pub fn read(node: &JsonNode, reading: &mut ImportedFile) {
    let rate =
        reading.number(node, &["load_summary", "requested_rate"]).filter(|rate| *rate > 0.0).map(LevelLoad::Rate);
    let held = || node.at(&["load_summary", "concurrency"]).is_some();
    let load = match rate {
        Some(load) => load,
        None if held() => match reading.needed(node, &["load_summary", "concurrency"]).filter(|held| *held > 0.0) {
            Some(held) => LevelLoad::Concurrency(held),
            None => return,
        },
        None => return reading.wrong(Some(node.line), "expected a number above 0 in `load_summary.requested_rate`"),
    };
    let throughput = ["successes", "throughput"];
    let Some(requests) = reading.needed(node, &[throughput[0], throughput[1], "requests_per_sec"]) else { return };
    let completed = reading.number(node, &["successes", "count"]);
    let tokens = |reading: &mut ImportedFile, keys: &[&str]| {
        keys.iter().find_map(|key| reading.number(node, &["successes", key, "mean"]))
    };
    let ran = reading.number(node, &["benchmark_time_seconds"]);
    let level = Level {
        load,
        achieved_rate: reading.number(node, &["load_summary", "achieved_rate"]).filter(|rate| *rate > 0.0),
        duration: ran.or_else(|| Some(completed? / Some(requests).filter(|requests| *requests > 0.0)?)),
        send_duration: reading.number(node, &["load_summary", "send_duration"]),
        counts: OutcomeCounts {
            offered: reading.number(node, &["load_summary", "count"]),
            completed,
            failed: reading.number(node, &["failures", "count"]),
            ..OutcomeCounts::default()
        },
        whole: Throughput {
            requests: Some(requests),
            output_tokens: reading.number(node, &["successes", "throughput", "output_tokens_per_sec"]),
            total_tokens: reading.number(node, &["successes", "throughput", "total_tokens_per_sec"]),
        },
        ttft: times(node, reading, &["successes", "latency", "time_to_first_token"]),
        itl: times(node, reading, &["successes", "latency", "inter_token_latency"]),
        tpot: times(node, reading, &["successes", "latency", "time_per_output_token"]),
        e2e: times(node, reading, &["successes", "latency", "request_latency"]),
        schedule_delay: delays(node, reading),
        prompt_tokens: tokens(reading, &["prompt_tokens", "prompt_len"]),
        output_tokens: tokens(reading, &["output_tokens", "output_len"]),
        ..Level::default()
    };
    let environment = Environment { tool: Some("inference-perf".to_owned()), ..Environment::default() };
    reading.keep(node.line, ImportedLevel { environment, level, ..ImportedLevel::default() });
}

fn times(node: &JsonNode, reading: &mut ImportedFile, path: &[&str; 3]) -> LatencySummary {
    let [a, b, c] = *path;
    reading.latency(
        node,
        [&[&[a, b, c, "mean"]], &[&[a, b, c, "median"]], &[&[a, b, c, "p90"]], &[&[a, b, c, "p99"]]],
        1.0,
    )
}

/// A send a millisecond early is on time: small delays are negative at times.
fn delays(node: &JsonNode, reading: &mut ImportedFile) -> LatencySummary {
    let mut of = |figure: &str| {
        let path = ["load_summary", "schedule_delay", figure];
        let early = matches!(node.at(&path).map(|delay| &delay.value), Some(super::json::JsonValue::Number(delay)) if *delay < 0.0);
        if early { Some(0.0) } else { reading.number(node, &path) }
    };
    LatencySummary { mean: of("mean"), p50: of("median"), p90: of("p90"), p99: of("p99") }
}
