//! AIPerf and GenAI-Perf: `profile_export_aiperf.json`, `profile_export_genai_perf.json`, and the CSV of either.
//!
//! Every metric is `{unit, avg, p50, …}`, and the unit is taken as given. Their `inter_token_latency` is a TPOT; the gaps between
//! chunks are `inter_chunk_latency`. The tokens of the answer are the engine's usage where it is there: AIPerf's own count
//! can be twice as much.

use super::super::sweep::{Environment, LatencySummary, Level, LevelLoad, OutcomeCounts, Throughput};
use super::csv::CsvRow;
use super::json::{JsonNode, JsonValue};
use super::reading::{ImportedFile, ImportedLevel, MILLISECONDS, text};

/// Known by its version, or by values of the form `{unit, avg}`.
pub fn knows(node: &JsonNode) -> bool {
    node.has("aiperf_version")
        || node.at(&["request_throughput", "avg"]).is_some() && node.at(&["request_throughput", "unit"]).is_some()
}

/// Whether a table is of this kind.
pub fn knows_table(header: &CsvRow) -> bool {
    header.field(0) == Some("Metric") && header.field(1).is_some()
}

/// One request a line, not a summary.
pub fn is_a_record(node: &JsonNode) -> bool {
    node.has("metadata") && node.has("metrics") && node.at(&["metadata", "request_start_ns"]).is_some()
}

/// Reads a run from JSON.
pub fn read(node: &JsonNode, reading: &mut ImportedFile) {
    let Some(load) = load(node, reading) else {
        return reading.wrong(
            Some(node.line),
            "expected the load in `input_config.phases[].rate` or `.concurrency`, or in `--request-rate` or `--concurrency` of the command",
        );
    };
    let Some(requests) = reading.needed(node, &["request_throughput", "avg"]) else { return };
    let average = |reading: &mut ImportedFile, key: &str| reading.number(node, &[key, "avg"]);
    let completed = average(reading, "request_count");
    let duration = average(reading, "benchmark_duration");
    let usage = average(reading, "usage_completion_tokens");
    let output_tokens = usage.or_else(|| average(reading, "output_sequence_length"));
    let (output, total) = (average(reading, "output_token_throughput"), average(reading, "total_token_throughput"));
    let level = Level {
        load,
        cap: phase(node)
            .and_then(|phase| reading.number(phase, &["concurrency"]))
            .filter(|_| matches!(load, LevelLoad::Rate(_))),
        duration: duration.or_else(|| Some(completed? / Some(requests).filter(|requests| *requests > 0.0)?)),
        counts: OutcomeCounts {
            completed,
            failed: average(reading, "error_request_count"),
            ..OutcomeCounts::default()
        },
        whole: Throughput {
            requests: Some(requests),
            output_tokens: usage.map(|usage| usage * requests).or(output),
            total_tokens: average(reading, "usage_total_tokens").map(|tokens| tokens * requests).or(total),
        },
        ttft: times(node, reading, "time_to_first_token"),
        itl: times(node, reading, "inter_chunk_latency"),
        tpot: times(node, reading, "inter_token_latency"),
        e2e: times(node, reading, "request_latency"),
        schedule_delay: times(node, reading, "credit_to_start_latency"),
        goodput: average(reading, "goodput").or_else(|| average(reading, "request_goodput")),
        prompt_tokens: average(reading, "usage_prompt_tokens").or_else(|| average(reading, "input_sequence_length")),
        output_tokens,
        ..Level::default()
    };
    let tool = if node.has("aiperf_version") { "aiperf" } else { "genai-perf" };
    let environment = Environment {
        tool: Some(tool.to_owned()),
        model: model(node),
        target: node
            .at(&["input_config", "endpoint", "urls"])
            .and_then(|urls| urls.items().first())
            .and_then(JsonNode::text)
            .map(str::to_owned),
        began: text(node, &["start_time"]),
        arrivals: phase(node).and_then(|phase| text(phase, &["type"])),
        command: text(node, &["run_info", "cli_command"]),
        ..Environment::default()
    };
    reading.keep(node.line, ImportedLevel { environment, level, ..ImportedLevel::default() });
}

/// Reads a run from a table. It has no load, which is taken from the name of its folder: `…concurrency64`, `…request_rate10`.
pub fn read_table(rows: &[CsvRow], file: &str, reading: &mut ImportedFile) {
    let Some(load) = load_in_name(file) else {
        return reading.wrong(
            Some(1),
            "this table does not say its load; read the JSON that was written beside it, or name its folder `…concurrency64` or `…request_rate10`",
        );
    };
    let table = AiperfTable(rows);
    let number = |reading: &mut ImportedFile, metric: &str, column: &str| {
        let (line, text) = table.value(metric, column)?;
        reading.field(line, metric, Some(text))
    };
    let requests = ["Request Throughput (requests/sec)", "Request Throughput (per sec)"];
    let Some(requests) = requests.iter().find_map(|metric| number(reading, metric, "Value")) else {
        return reading.wrong(Some(1), "expected a row `Request Throughput (requests/sec)`");
    };
    let usage = number(reading, "Usage Completion Tokens (tokens)", "avg");
    let mut times = |metric: &str| {
        let mut of = |column: &str| number(reading, metric, column);
        LatencySummary { mean: of("avg"), p50: of("p50"), p90: of("p90"), p99: of("p99") }.scaled(MILLISECONDS)
    };
    let first = |one: LatencySummary, other: LatencySummary| if one.is_empty() { other } else { one };
    let ttft = times("Time to First Token (ms)");
    let ttft = first(ttft, times("Time To First Token (ms)"));
    let (itl, tpot) = (times("Inter Chunk Latency (ms)"), times("Inter Token Latency (ms)"));
    let (e2e, schedule_delay) = (times("Request Latency (ms)"), times("Credit-to-Start Latency (ms)"));
    let completed =
        ["Request Count", "Request Count (count)"].iter().find_map(|metric| number(reading, metric, "Value"));
    let output = ["Output Token Throughput (tokens/sec)", "Output Token Throughput (per sec)"]
        .iter()
        .find_map(|metric| number(reading, metric, "Value"));
    let all = number(reading, "Usage Total Tokens (tokens)", "avg");
    let total = number(reading, "Total Token Throughput (tokens/sec)", "Value");
    let level = Level {
        load,
        duration: number(reading, "Benchmark Duration (sec)", "Value"),
        counts: OutcomeCounts { completed, ..OutcomeCounts::default() },
        whole: Throughput {
            requests: Some(requests),
            output_tokens: usage.map(|usage| usage * requests).or(output),
            total_tokens: all.map(|tokens| tokens * requests).or(total),
        },
        ttft,
        itl,
        tpot,
        e2e,
        schedule_delay,
        prompt_tokens: number(reading, "Input Sequence Length (tokens)", "avg"),
        output_tokens: usage.or_else(|| number(reading, "Output Sequence Length (tokens)", "avg")),
        ..Level::default()
    };
    let environment = Environment { tool: Some("aiperf".to_owned()), ..Environment::default() };
    reading.keep(1, ImportedLevel { environment, level, ..ImportedLevel::default() });
}

/// Several tables below each other, each with a header of its own.
struct AiperfTable<'a>(&'a [CsvRow]);

impl AiperfTable<'_> {
    fn value(&self, metric: &str, column: &str) -> Option<(u32, &str)> {
        let mut header: Option<&CsvRow> = None;
        for row in self.0 {
            if row.field(0) == Some("Metric") {
                header = Some(row);
            } else if row.field(0) == Some(metric) {
                let place = header?.fields.iter().position(|field| field == column)?;
                return Some((row.line, row.field(place)?));
            }
        }
        None
    }
}

fn times(node: &JsonNode, reading: &mut ImportedFile, key: &str) -> LatencySummary {
    let Some(metric) = node.get(key) else { return LatencySummary::default() };
    let unit = match metric.get("unit").and_then(JsonNode::text) {
        Some("ms") | None => MILLISECONDS,
        Some("sec" | "s" | "seconds") => 1.0,
        Some("us") => 1e-6,
        Some("ns") => 1e-9,
        Some(other) => {
            let what = format!("`{key}.unit` should be ms, s, us or ns, found \"{}\"", super::json::short(other));
            reading.wrong(Some(metric.line), what);
            return LatencySummary::default();
        }
    };
    reading.latency(node, [&[&[key, "avg"]], &[&[key, "p50"]], &[&[key, "p90"]], &[&[key, "p99"]]], unit)
}

/// The last phase is the profiling one.
fn phase(node: &JsonNode) -> Option<&JsonNode> {
    node.at(&["input_config", "phases"])?.items().last()
}

fn load(node: &JsonNode, reading: &mut ImportedFile) -> Option<LevelLoad> {
    let positive = |value: Option<f64>| value.filter(|value| *value > 0.0);
    if let Some(phase) = phase(node) {
        if let Some(rate) = positive(reading.number(phase, &["rate"])) {
            return Some(LevelLoad::Rate(rate));
        }
        if let Some(held) = positive(reading.number(phase, &["concurrency"])) {
            return Some(LevelLoad::Concurrency(held));
        }
    }
    let stimulus = node.at(&["input_config", "perf_analyzer", "stimulus"]);
    if let Some(stimulus) = stimulus {
        if let Some(rate) = positive(reading.number(stimulus, &["request_rate"])) {
            return Some(LevelLoad::Rate(rate));
        }
        if let Some(held) = positive(reading.number(stimulus, &["concurrency"])) {
            return Some(LevelLoad::Concurrency(held));
        }
    }
    let loadgen = node.at(&["input_config", "loadgen"]);
    if let Some(loadgen) = loadgen {
        if let Some(rate) = positive(reading.number(loadgen, &["request_rate"])) {
            return Some(LevelLoad::Rate(rate));
        }
        if let Some(held) = positive(reading.number(loadgen, &["concurrency"])) {
            return Some(LevelLoad::Concurrency(held));
        }
    }
    let command = text_of_command(node)?;
    flag(&command, "--request-rate")
        .map(LevelLoad::Rate)
        .or_else(|| flag(&command, "--concurrency").map(LevelLoad::Concurrency))
}

/// The command as it was typed, long or not.
fn text_of_command(node: &JsonNode) -> Option<String> {
    node.at(&["run_info", "cli_command"]).and_then(JsonNode::text).map(str::to_owned)
}

fn flag(command: &str, name: &str) -> Option<f64> {
    let mut words = command.split([' ', '=']);
    words.find(|word| *word == name)?;
    words
        .next()?
        .trim_matches(['\'', '"'])
        .parse()
        .ok()
        .filter(|value: &f64| (f64::MIN_POSITIVE..=1e12).contains(value))
}

fn model(node: &JsonNode) -> Option<String> {
    let items = node.at(&["input_config", "models", "items"]).and_then(|items| items.items().first()?.get("name"));
    let names = || node.at(&["input_config", "model_names"]).and_then(|names| names.items().first());
    items.or_else(names).and_then(JsonNode::text).map(super::reading::cut)
}

fn load_in_name(file: &str) -> Option<LevelLoad> {
    let number = |word: &str| {
        let after = &file[file.rfind(word)? + word.len()..];
        let after = after.trim_start_matches(['_', '-', '=']);
        let digits = after.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(after.len());
        after[..digits]
            .trim_end_matches('.')
            .parse::<f64>()
            .ok()
            .filter(|value| (f64::MIN_POSITIVE..=1e12).contains(value))
    };
    number("request_rate").map(LevelLoad::Rate).or_else(|| number("concurrency").map(LevelLoad::Concurrency))
}

impl JsonValue {
    /// Whether it is an object, for recognition.
    pub const fn is_map(&self) -> bool {
        matches!(self, Self::Map(_))
    }
}
