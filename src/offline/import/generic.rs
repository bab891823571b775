//! A table with one level a row and named columns: the CSV of users' own sweeps, and weir's `sweep.csv`.

use super::super::sweep::{
    Environment, LatencySummary, Level, LevelLoad, OutcomeCounts, Start, SteadyWindow, Throughput,
};
use super::csv::CsvRow;
use super::reading::{ImportedFile, ImportedLevel, MILLISECONDS, cut};

/// Whether a header is of this kind: some column is a load.
pub fn knows(header: &CsvRow) -> bool {
    let columns = Columns::of(header);
    LOADS.iter().any(|name| columns.index(name).is_some())
}

/// Reads the rows below the header.
pub fn read(rows: &[CsvRow], reading: &mut ImportedFile) {
    let Some((header, rest)) = rows.split_first() else { return };
    let columns = Columns::of(header);
    for row in rest.iter().filter(|row| !row.is_blank()) {
        CsvLine { columns: &columns, row, reading }.piece();
    }
    if rest.iter().all(CsvRow::is_blank) {
        reading.wrong(Some(header.line), "expected rows below the header, found none");
    }
}

/// What a header must have, for a sentence.
pub const EXPECTED: &str = "a column `request_rate`, `concurrency`, `max_concurrency` or `load`";

struct Columns(Vec<String>);

impl Columns {
    fn of(header: &CsvRow) -> Self {
        let name = |field: &String| field.trim_start_matches('\u{feff}').to_ascii_lowercase().replace([' ', '-'], "_");
        Self(header.fields.iter().map(name).collect())
    }

    fn index(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|column| column == name)
    }
}

struct CsvLine<'a> {
    columns: &'a Columns,
    row: &'a CsvRow,
    reading: &'a mut ImportedFile,
}

impl CsvLine<'_> {
    fn piece(mut self) {
        let Some(load) = self.load() else { return };
        let whole = Throughput {
            requests: self.number(&["request_throughput", "requests_per_second", "req_s"]),
            output_tokens: self.number(&["output_token_throughput", "output_throughput"]),
            total_tokens: self.number(&["total_token_throughput", "total_throughput"]),
        };
        let steady_length = self.number(&["steady_s"]);
        let steady = self.number(&["steady_request_throughput"]).zip(steady_length);
        let duration = self.number(&["duration_s", "duration"]);
        let counts = OutcomeCounts {
            offered: self.number(&["offered", "num_prompts"]),
            completed: self.number(&["completed"]),
            failed: self.number(&["failed", "errors"]),
            shed: self.number(&["shed"]),
            unfinished: self.number(&["unfinished"]),
        };
        if whole == Throughput::default() && (counts.completed.is_none() || duration.is_none()) {
            return self.reading.wrong(
                Some(self.row.line),
                "expected a number in `request_throughput`, in `output_token_throughput`, or in `completed` and `duration_s`",
            );
        }
        let level = Level {
            load,
            cap: self.number(&["cap"]),
            achieved_rate: self.number(&["achieved_send_rate", "achieved_rate"]),
            duration,
            counts,
            whole,
            steady: steady.map(|(requests, length)| SteadyWindow {
                length,
                throughput: Throughput {
                    requests: Some(requests),
                    output_tokens: self.number(&["steady_output_token_throughput"]),
                    total_tokens: None,
                },
            }),
            ttft: self.latency(&["ttft"]),
            ttft_from: if self.text("ttft_from") == Some("schedule") { Start::Schedule } else { Start::Send },
            itl: self.latency(&["itl"]),
            tpot: self.latency(&["tpot"]),
            e2e: self.latency(&["e2e", "e2el", "e2e_latency"]),
            schedule_delay: self.latency(&["schedule_delay"]),
            goodput: self.number(&["goodput", "request_goodput"]),
            in_flight: self.number(&["in_flight"]),
            prompt_tokens: self.number(&["prompt_tokens"]),
            output_tokens: self.number(&["output_tokens"]),
            client_limited: matches!(self.text("client_limited"), Some("true" | "1" | "yes")),
            ..Level::default()
        };
        let environment = self.environment();
        let sweep = self.text("sweep_id").or_else(|| self.text("sweep")).map(cut);
        self.reading.keep(self.row.line, ImportedLevel { sweep, environment, level, ..ImportedLevel::default() });
    }

    fn environment(&mut self) -> Environment {
        Environment {
            tool: self.text("tool").or_else(|| self.text("source")).map(cut),
            engine: self.text("engine").map(cut),
            model: self.text("model").map(cut),
            gpu: self.text("gpu").map(cut),
            gpus: self.number(&["gpus", "num_gpus"]),
            ..Environment::default()
        }
    }

    /// The load, in whichever column the table has it.
    fn load(&mut self) -> Option<LevelLoad> {
        let line = self.row.line;
        for name in ["request_rate", "rate"] {
            match self.text(name).map(str::to_ascii_lowercase).as_deref() {
                Some("inf" | "infinity") => {
                    return Some(self.number(&["max_concurrency"]).map_or(LevelLoad::Burst, LevelLoad::Concurrency));
                }
                Some(_) => return self.positive(&[name]).map(LevelLoad::Rate),
                None => {}
            }
        }
        if ["concurrency", "max_concurrency"].iter().any(|name| self.text(name).is_some()) {
            return self.positive(&["concurrency", "max_concurrency"]).map(LevelLoad::Concurrency);
        }
        match (self.text("load_kind").map(str::to_ascii_lowercase).as_deref(), self.text("load").is_some()) {
            (None | Some("rate" | "request_rate"), true) => self.positive(&["load"]).map(LevelLoad::Rate),
            (Some("concurrency"), true) => self.positive(&["load"]).map(LevelLoad::Concurrency),
            (Some(other), true) => {
                let other = super::json::short(other);
                self.reading.wrong(Some(line), format!("`load_kind` should be rate or concurrency, found \"{other}\""));
                None
            }
            (_, false) => {
                self.reading.wrong(Some(line), "expected a load in this row; it is left out");
                None
            }
        }
    }

    fn positive(&mut self, names: &[&str]) -> Option<f64> {
        let before = self.reading.problems.len();
        let value = self.number(names);
        if self.reading.problems.len() == before && value.is_none_or(|value| value <= 0.0) {
            self.reading.wrong(Some(self.row.line), format!("column `{}` should hold a load above 0", names[0]));
        }
        value.filter(|value| *value > 0.0)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.row.field(self.columns.index(name)?)
    }

    fn number(&mut self, names: &[&str]) -> Option<f64> {
        let name = names.iter().find(|name| self.text(name).is_some())?;
        let column = self.columns.index(name)?;
        self.reading.field(self.row.line, name, self.row.field(column))
    }

    /// `mean_ttft_ms`, `p99_ttft_s` and so on: the unit is the suffix.
    fn latency(&mut self, of: &[&str]) -> LatencySummary {
        let mut figure = |words: &[&str]| {
            let names = words.iter().flat_map(|word| of.iter().map(move |of| format!("{word}_{of}")));
            for name in names {
                for (suffix, unit) in [("_ms", MILLISECONDS), ("_s", 1.0)] {
                    if let Some(value) = self.number(&[&format!("{name}{suffix}")]) {
                        return Some(value * unit);
                    }
                }
            }
            None
        };
        LatencySummary {
            mean: figure(&["mean", "avg"]),
            p50: figure(&["p50", "median"]),
            p90: figure(&["p90"]),
            p99: figure(&["p99"]),
        }
    }
}

const LOADS: [&str; 5] = ["request_rate", "rate", "concurrency", "max_concurrency", "load"];
