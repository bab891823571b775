//! llmperf: `*_summary.json`, flat, closed loops, all times in seconds; and the wrapper that keys such summaries by their
//! concurrency (philschmid/llmperf-bench), whose own short form is in milliseconds.
//!
//! Its requests are per minute. Its time between tokens includes the first token's, so it is neither ITL nor TPOT here; the
//! wrapper's `latency_ms_per_token` is the same figure.

use super::super::sweep::{Environment, LatencySummary, Level, LevelLoad, OutcomeCounts, Throughput};
use super::json::JsonNode;
use super::reading::{ImportedFile, ImportedLevel, MILLISECONDS, text};

/// Known by its flat names.
pub fn knows(node: &JsonNode) -> bool {
    node.has("results_ttft_s_mean") || node.has("results_ttft_s_quantiles_p50")
}

/// A wrapper: an object whose members are keyed by a number and are summaries.
pub fn knows_wrapper(node: &JsonNode) -> bool {
    let members = node.members();
    !members.is_empty()
        && members.iter().all(|(key, inner)| key.parse::<u32>().is_ok() && (knows(inner) || inner.has(SHORT_TTFT)))
}

/// Reads one summary.
pub fn read(node: &JsonNode, reading: &mut ImportedFile) {
    let Some(held) = reading.needed(node, &["num_concurrent_requests"]).filter(|held| *held > 0.0) else { return };
    let per_minute = reading.number(node, &["results_num_completed_requests_per_min"]);
    let output = reading.number(node, &["results_mean_output_throughput_token_per_s"]);
    let requests = per_minute.map(|per_minute| per_minute / SECONDS_A_MINUTE);
    if requests.is_none() && output.is_none() {
        return reading.wrong(
            Some(node.line),
            "expected a number in `results_num_completed_requests_per_min`; the level is left out",
        );
    }
    let completed = reading.number(node, &["results_num_completed_requests"]);
    let level = Level {
        load: LevelLoad::Concurrency(held),
        duration: completed
            .zip(requests)
            .filter(|(_, requests)| *requests > 0.0)
            .map(|(completed, requests)| completed / requests),
        counts: OutcomeCounts {
            offered: reading.number(node, &["results_num_requests_started"]),
            completed,
            failed: reading.number(node, &["results_number_errors"]),
            ..OutcomeCounts::default()
        },
        whole: Throughput { requests, output_tokens: output, total_tokens: None },
        ttft: times(node, reading, "ttft_s"),
        e2e: times(node, reading, "end_to_end_latency_s"),
        prompt_tokens: reading.number(node, &["results_number_input_tokens_mean"]),
        output_tokens: reading.number(node, &["results_number_output_tokens_mean"]),
        ..Level::default()
    };
    let environment = Environment {
        tool: Some("llmperf".to_owned()),
        engine: text(node, &["framework"]),
        model: text(node, &["model"]),
        ..Environment::default()
    };
    reading.keep(node.line, ImportedLevel { environment, level, ..ImportedLevel::default() });
}

/// Reads every member of a wrapper.
pub fn read_wrapper(node: &JsonNode, reading: &mut ImportedFile) {
    for (_, inner) in node.members() {
        if knows(inner) { read(inner, reading) } else { read_short(inner, reading) }
    }
}

fn read_short(node: &JsonNode, reading: &mut ImportedFile) {
    let Some(held) = reading.needed(node, &["concurrency"]).filter(|held| *held > 0.0) else { return };
    let Some(output) = reading.needed(node, &["throughput_token_per_s"]) else { return };
    let level = Level {
        load: LevelLoad::Concurrency(held),
        whole: Throughput { output_tokens: Some(output), ..Throughput::default() },
        ttft: reading.latency(node, [&[&[SHORT_TTFT]], &[], &[], &[]], MILLISECONDS),
        prompt_tokens: reading.number(node, &["input_token_length"]),
        output_tokens: reading.number(node, &["output_token_length"]),
        ..Level::default()
    };
    let environment = Environment { tool: Some("llmperf".to_owned()), ..Environment::default() };
    reading.keep(node.line, ImportedLevel { environment, level, ..ImportedLevel::default() });
}

fn times(node: &JsonNode, reading: &mut ImportedFile, of: &str) -> LatencySummary {
    let name = |word: &str| format!("results_{of}_{word}");
    let [mean, p50, p90, p99] = ["mean", "quantiles_p50", "quantiles_p90", "quantiles_p99"].map(name);
    reading.latency(node, [&[&[&mean]], &[&[&p50]], &[&[&p90]], &[&[&p99]]], 1.0)
}

const SHORT_TTFT: &str = "first-time-to-token_mean_in_ms";
const SECONDS_A_MINUTE: f64 = 60.0;
