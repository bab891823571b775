//! weir's own `sweep.json`, which `offline/file` writes; times in seconds.

use super::super::sweep::{
    Environment, LatencySummary, Level, LevelLoad, Objectives, OutcomeCounts, SCHEMA, Start, SteadyWindow, Throughput,
};
use super::json::JsonNode;
use super::reading::{ImportedFile, ImportedLevel, text};

/// Known by its schema.
pub fn knows(node: &JsonNode) -> bool {
    node.get("schema").and_then(JsonNode::text).is_some_and(|schema| schema.starts_with("weir.sweep/"))
}

/// Reads a sweep.
pub fn read(node: &JsonNode, reading: &mut ImportedFile) {
    if text(node, &["schema"]).as_deref() != Some(SCHEMA) {
        let found = text(node, &["schema"]).unwrap_or_default();
        reading.wrong(
            Some(node.line),
            format!("expected schema {SCHEMA}, found {found}: it is read as far as it is understood"),
        );
    }
    let word = |key: &str| text(node, &["environment", key]);
    let environment = Environment {
        tool: word("tool"),
        engine: word("engine"),
        model: word("model"),
        gpu: word("gpu"),
        gpus: reading.number(node, &["environment", "gpus"]),
        target: word("target"),
        began: word("began"),
        arrivals: word("arrivals"),
        command: word("command"),
    };
    let slo = reading
        .number(node, &["slo", "ttft"])
        .map(|ttft| Objectives { ttft, itl: reading.number(node, &["slo", "itl"]) });
    let sweep = text(node, &["sweep_id"]);
    let levels = node.get("levels").map(JsonNode::items).unwrap_or_default();
    if levels.is_empty() {
        reading.wrong(Some(node.line), "expected a list of levels in `levels`, found none");
    }
    for level in levels {
        let Some(read) = level_of(level, reading) else { continue };
        let piece = ImportedLevel {
            sweep: sweep.clone(),
            environment: environment.clone(),
            slo,
            level: read,
            ..ImportedLevel::default()
        };
        reading.keep(level.line, piece);
    }
}

fn level_of(node: &JsonNode, reading: &mut ImportedFile) -> Option<Level> {
    let load = reading.needed(node, &["load", "value"]);
    let load = match (text(node, &["load", "kind"]).as_deref(), load) {
        (Some("rate"), Some(rate)) if rate > 0.0 => LevelLoad::Rate(rate),
        (Some("concurrency"), Some(held)) if held > 0.0 => LevelLoad::Concurrency(held),
        _ => {
            reading.wrong(
                Some(node.line),
                "expected `load.kind` rate or concurrency and a `load.value` above 0; the level is left out",
            );
            return None;
        }
    };
    let mut count = |key: &str| reading.number(node, &["counts", key]);
    let counts = OutcomeCounts {
        offered: count("offered"),
        completed: count("completed"),
        failed: count("failed"),
        shed: count("shed"),
        unfinished: count("unfinished"),
    };
    let steady = reading.number(node, &["steady", "length"]);
    let ttft_from =
        if text(node, &["ttft_from"]).as_deref() == Some("schedule") { Start::Schedule } else { Start::Send };
    Some(Level {
        load,
        cap: reading.number(node, &["cap"]),
        achieved_rate: reading.number(node, &["achieved_rate"]).filter(|rate| *rate > 0.0),
        duration: reading.number(node, &["duration"]),
        send_duration: reading.number(node, &["send_duration"]),
        counts,
        whole: throughput(node, &["whole"], reading),
        steady: steady
            .map(|length| SteadyWindow { length, throughput: throughput(node, &["steady", "throughput"], reading) }),
        ttft: times(node, "ttft", reading),
        ttft_from,
        itl: times(node, "itl", reading),
        tpot: times(node, "tpot", reading),
        e2e: times(node, "e2e", reading),
        schedule_delay: times(node, "schedule_delay", reading),
        goodput: reading.number(node, &["goodput"]),
        in_flight: reading.number(node, &["in_flight"]),
        prompt_tokens: reading.number(node, &["prompt_tokens"]),
        output_tokens: reading.number(node, &["output_tokens"]),
        client_limited: matches!(
            node.get("client_limited").map(|limited| &limited.value),
            Some(super::json::JsonValue::Bool(true))
        ),
        ..Level::default()
    })
}

fn throughput(node: &JsonNode, path: &[&str], reading: &mut ImportedFile) -> Throughput {
    let mut of = |key: &str| reading.number(node, &[path, &[key]].concat());
    Throughput { requests: of("requests"), output_tokens: of("output_tokens"), total_tokens: of("total_tokens") }
}

fn times(node: &JsonNode, key: &str, reading: &mut ImportedFile) -> LatencySummary {
    reading.latency(node, [&[&[key, "mean"]], &[&[key, "p50"]], &[&[key, "p90"]], &[&[key, "p99"]]], 1.0)
}
