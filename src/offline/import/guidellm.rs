//! GuideLLM: `benchmarks[]` in one JSON file (0.5 and before name the strategy elsewhere), or a CSV with three header rows.
//!
//! `mean` is used of its rates: their quantiles are over intervals between events. Its `time_per_output_token_ms` includes
//! the first token, so `inter_token_latency_ms` is the TPOT here. `request_latency` is in seconds.

use super::super::sweep::{Environment, LatencySummary, Level, LevelLoad, OutcomeCounts, Throughput};
use super::csv::CsvRow;
use super::json::{JsonNode, JsonValue, documents};
use super::reading::{ImportedFile, ImportedLevel, MILLISECONDS, text};

/// Known by its list of benchmarks.
pub fn knows(node: &JsonNode) -> bool {
    node.has("benchmarks")
}

/// Whether a table is of this kind: its first row names groups of columns.
pub fn knows_table(header: &CsvRow) -> bool {
    header.field(0) == Some("Run Info") && header.fields.iter().any(|group| group == "Benchmark")
}

/// Reads all benchmarks of a file.
pub fn read(node: &JsonNode, reading: &mut ImportedFile) {
    let benchmarks = node.get("benchmarks").map(JsonNode::items).unwrap_or_default();
    if benchmarks.is_empty() {
        return reading.wrong(Some(node.line), "expected a list of benchmarks in `benchmarks`, found none");
    }
    let model = text(node, &["config", "spec", "backend", "model"]).or_else(|| text(node, &["args", "model"]));
    let target = text(node, &["config", "spec", "backend", "target"]).or_else(|| text(node, &["args", "target"]));
    for benchmark in benchmarks {
        read_one(benchmark, model.clone(), target.clone(), reading);
    }
}

fn read_one(node: &JsonNode, model: Option<String>, target: Option<String>, reading: &mut ImportedFile) {
    let strategy = [&["config", "strategy"][..], &["args", "strategy"], &["scheduler", "strategy"]]
        .iter()
        .find_map(|path| node.at(path));
    let Some(strategy) = strategy else {
        return reading
            .wrong(Some(node.line), "expected the load in `config.strategy` (or, up to 0.5, `args.strategy`)");
    };
    let Some(load) = load(strategy, reading) else { return };
    let Some(metrics) = node.get("metrics") else {
        return reading.wrong(Some(node.line), "expected `metrics` in the benchmark");
    };
    let Some(requests) = mean_rate(metrics, "requests_per_second", reading) else {
        return reading.wrong(
            Some(metrics.line),
            "expected a number in `metrics.requests_per_second.successful.mean`; the level is left out",
        );
    };
    let count = |reading: &mut ImportedFile, key: &str| reading.number(metrics, &["request_totals", key]);
    let mean = |reading: &mut ImportedFile, key: &str| reading.number(metrics, &[key, "successful", "mean"]);
    let level = Level {
        load,
        cap: reading.number(strategy, &["max_concurrency"]).filter(|_| matches!(load, LevelLoad::Rate(_))),
        duration: reading.number(node, &["duration"]),
        counts: OutcomeCounts {
            offered: count(reading, "total"),
            completed: count(reading, "successful"),
            failed: count(reading, "errored"),
            unfinished: count(reading, "incomplete"),
            shed: None,
        },
        whole: Throughput {
            requests: Some(requests),
            output_tokens: mean_rate(metrics, "output_tokens_per_second", reading),
            total_tokens: mean_rate(metrics, "tokens_per_second", reading),
        },
        ttft: times(metrics, reading, "time_to_first_token_ms", MILLISECONDS),
        tpot: times(metrics, reading, "inter_token_latency_ms", MILLISECONDS),
        e2e: times(metrics, reading, "request_latency", 1.0),
        schedule_delay: times(metrics, reading, "request_dispatch_delay", 1.0),
        goodput: reading.number(metrics, &["request_goodput"]),
        in_flight: mean(reading, "request_concurrency"),
        prompt_tokens: mean(reading, "prompt_token_count"),
        output_tokens: mean(reading, "output_token_count"),
        ..Level::default()
    };
    reading
        .keep(node.line, ImportedLevel { environment: environment(model, target), level, ..ImportedLevel::default() });
}

fn environment(model: Option<String>, target: Option<String>) -> Environment {
    Environment { tool: Some("guidellm".to_owned()), model, target, ..Environment::default() }
}

fn mean_rate(metrics: &JsonNode, key: &str, reading: &mut ImportedFile) -> Option<f64> {
    reading.number(metrics, &[key, "successful", "mean"]).or_else(|| reading.number(metrics, &[key, "total", "mean"]))
}

fn load(strategy: &JsonNode, reading: &mut ImportedFile) -> Option<LevelLoad> {
    let kind = text(strategy, &["type_"]).or_else(|| text(strategy, &["kind"]));
    let positive = |value: Option<f64>| value.filter(|value| *value > 0.0);
    match kind.as_deref() {
        Some("synchronous") => Some(LevelLoad::Concurrency(1.0)),
        Some("concurrent") => {
            let held =
                reading.number(strategy, &["streams"]).or_else(|| reading.number(strategy, &["max_concurrency"]));
            positive(held).map(LevelLoad::Concurrency)
        }
        Some("throughput") => Some(
            positive(reading.number(strategy, &["max_concurrency"])).map_or(LevelLoad::Burst, LevelLoad::Concurrency),
        ),
        Some("constant" | "poisson" | "async") => positive(reading.needed(strategy, &["rate"])).map(LevelLoad::Rate),
        other => {
            let other = super::json::short(other.unwrap_or("nothing"));
            let what = format!(
                "`strategy.type_` should be synchronous, concurrent, throughput, constant or poisson, found {other}"
            );
            reading.wrong(Some(strategy.line), what);
            None
        }
    }
}

fn times(metrics: &JsonNode, reading: &mut ImportedFile, key: &str, unit: f64) -> LatencySummary {
    let median: &[&[&str]] = &[&[key, "successful", "median"]];
    let p90: &[&[&str]] = &[&[key, "successful", "percentiles", "p90"]];
    let p99: &[&[&str]] = &[&[key, "successful", "percentiles", "p99"]];
    reading.latency(metrics, [&[&[key, "successful", "mean"]], median, p90, p99], unit)
}

/// Reads the table: a group, a name and a figure stand above each other over every column.
pub fn read_table(rows: &[CsvRow], reading: &mut ImportedFile) {
    let [groups, names, figures, levels @ ..] = rows else {
        return reading.wrong(Some(1), "expected three header rows and the levels below them");
    };
    let heads = Heads { groups, names, figures };
    let mut found = false;
    for row in levels.iter().filter(|row| !row.is_blank()) {
        found = true;
        heads.read(row, reading);
    }
    if !found {
        reading.wrong(Some(1), "expected levels below the three header rows, found none");
    }
}

struct Heads<'a> {
    groups: &'a CsvRow,
    names: &'a CsvRow,
    figures: &'a CsvRow,
}

impl Heads<'_> {
    fn read(&self, row: &CsvRow, reading: &mut ImportedFile) {
        let strategy = self.text(row, "Benchmark", "Strategy", "");
        let Some(load) = strategy.and_then(|strategy| strategy_load(strategy, row.line, reading)) else {
            return reading.wrong(Some(row.line), "expected the strategy of the level in column `Benchmark, Strategy`");
        };
        let mut of = |group: &str, name: &str, figure: &str| {
            let text = self.text(row, group, name, figure);
            reading.field(row.line, &format!("{group}, {name}, {figure}"), text)
        };
        let mut times = |group: &str, name: &str, unit: f64| {
            let (p90, p99) = quantiles(self.text(row, group, name, "Percentiles"));
            LatencySummary { mean: of(group, name, "Mean"), p50: of(group, name, "Median"), p90, p99 }.scaled(unit)
        };
        let e2e = times("Request Latency", "Successful Sec", 1.0);
        let ttft = times("Time to First Token", "Successful ms", MILLISECONDS);
        let tpot = times("Inter Token Latency", "Successful ms", MILLISECONDS);
        let schedule_delay = times("Dispatch Delay", "Successful Sec", 1.0);
        let requests = of("Server Throughput", "Successful Requests/Sec", "Mean");
        let in_flight = of("Server Throughput", "Successful Concurrency", "Mean");
        let prompt_tokens = of("Token Metrics", "Successful Input Tokens", "Mean");
        let output_tokens = of("Token Metrics", "Successful Output Tokens", "Mean");
        let output = of("Token Throughput", "Successful Output Tokens/Sec", "Mean");
        let total = of("Token Throughput", "Successful Total Tokens/Sec", "Mean");
        let counts = OutcomeCounts {
            offered: of("Request Counts", "Total", ""),
            completed: of("Request Counts", "Successful", ""),
            failed: of("Request Counts", "Errored", ""),
            unfinished: of("Request Counts", "Incomplete", ""),
            shed: None,
        };
        let duration = of("Timings", "Duration", "Sec").or_else(|| of("Timings", "Duration", ""));
        let Some(requests) = requests else {
            return reading.wrong(
                Some(row.line),
                "expected a number in column `Server Throughput, Successful Requests/Sec, Mean`",
            );
        };
        let level = Level {
            load,
            duration,
            counts,
            whole: Throughput { requests: Some(requests), output_tokens: output, total_tokens: total },
            ttft,
            tpot,
            e2e,
            schedule_delay,
            in_flight,
            prompt_tokens,
            output_tokens,
            ..Level::default()
        };
        reading
            .keep(row.line, ImportedLevel { environment: environment(None, None), level, ..ImportedLevel::default() });
    }

    fn text<'a>(&self, row: &'a CsvRow, group: &str, name: &str, figure: &str) -> Option<&'a str> {
        let place = (0..self.groups.fields.len()).find(|place| {
            let stands = |heads: &CsvRow, word: &str| heads.fields.get(*place).is_some_and(|field| field == word);
            stands(self.groups, group)
                && stands(self.names, name)
                && (figure.is_empty() || stands(self.figures, figure))
        })?;
        row.field(place)
    }
}

/// The 90th and the 99th of a cell with eleven quantiles: 0.1, 1, 5, 10, 25, 50, 75, 90, 95, 99 and 99.9 %.
fn quantiles(cell: Option<&str>) -> (Option<f64>, Option<f64>) {
    let (nodes, _) = documents(cell.unwrap_or_default());
    let Some(list) = nodes.first().map(JsonNode::items).filter(|list| list.len() == 11) else { return (None, None) };
    let at = |place: usize| match list[place].value {
        JsonValue::Number(time) if (0.0..=1e12).contains(&time) => Some(time),
        _ => None,
    };
    (at(7), at(9))
}

/// The column holds the strategy as JSON, or only its name.
fn strategy_load(cell: &str, line: u32, reading: &mut ImportedFile) -> Option<LevelLoad> {
    let (nodes, _) = documents(cell);
    match nodes.first() {
        Some(strategy) if strategy.value.is_map() => load(strategy, reading),
        _ => {
            let (kind, number) = cell.split_once('@').unwrap_or((cell, ""));
            let number = number.trim_end_matches(|c: char| !c.is_ascii_digit());
            match (
                kind.trim(),
                reading.field(line, "Benchmark, Strategy", Some(number).filter(|number| !number.is_empty())),
            ) {
                ("synchronous", _) => Some(LevelLoad::Concurrency(1.0)),
                ("concurrent", Some(held)) if held > 0.0 => Some(LevelLoad::Concurrency(held)),
                ("throughput", held) => {
                    Some(held.filter(|held| *held > 0.0).map_or(LevelLoad::Burst, LevelLoad::Concurrency))
                }
                ("constant" | "poisson" | "async", Some(rate)) if rate > 0.0 => Some(LevelLoad::Rate(rate)),
                _ => None,
            }
        }
    }
}
