//! What importers share: the file, numbers with their bounds, and the problems found.

use std::fmt;

use super::super::sweep::{Environment, LatencySummary, Level, LevelOrigin, Objectives};
use super::json::{JsonNode, JsonValue, short};

/// Something that could not be read, in one sentence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file, as it was named.
    pub file: String,
    /// The line, where there is one.
    pub line: Option<u32>,
    /// What was expected, and what was found.
    pub what: String,
}

/// A level as an importer found it, with what decides which sweep it belongs to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImportedLevel {
    /// The sweep's name, when the source gives one.
    pub sweep: Option<String>,
    /// The shape of its requests as they were asked for, such as `1024/128`.
    pub shape: String,
    /// What was measured.
    pub environment: Environment,
    /// What a good request is, when the source defines it.
    pub slo: Option<Objectives>,
    /// The level.
    pub level: Level,
}

/// One file while it is read.
#[derive(Debug)]
pub struct ImportedFile {
    file: String,
    /// What was found.
    pub pieces: Vec<ImportedLevel>,
    /// What was wrong.
    pub problems: Vec<Problem>,
}

impl ImportedFile {
    /// Nothing read yet.
    pub fn of(file: &str) -> Self {
        Self { file: file.to_owned(), pieces: Vec::new(), problems: Vec::new() }
    }

    /// Adds a problem; a file has [`MOST_PROBLEMS`] at most.
    pub fn wrong(&mut self, line: Option<u32>, what: impl Into<String>) {
        if self.problems.len() < MOST_PROBLEMS {
            self.problems.push(Problem { file: self.file.clone(), line, what: what.into() });
        }
    }

    /// Keeps a level, with where it was read.
    pub fn keep(&mut self, line: u32, mut piece: ImportedLevel) {
        if self.pieces.len() >= MOST_LEVELS {
            return self.wrong(Some(line), format!("more than {MOST_LEVELS} levels in one file; this one is left out"));
        }
        piece.level.origin = LevelOrigin { file: self.file.clone(), line: Some(line) };
        self.pieces.push(piece);
    }

    /// The number at the end of a path: finite, from 0, below 10^12. Absent, null and NaN are `None`; anything else is `None`
    /// and a problem.
    pub fn number(&mut self, node: &JsonNode, path: &[&str]) -> Option<f64> {
        let found = node.at(path)?;
        match &found.value {
            JsonValue::Null => None,
            JsonValue::Number(value) if value.is_nan() => None,
            JsonValue::Number(value) if plausible(*value) => Some(without_residue(*value)),
            other => {
                self.wrong(
                    Some(found.line),
                    format!("`{}` should be a number from 0 to 10^12, found {other}", path.join(".")),
                );
                None
            }
        }
    }

    /// A number without which there is no level.
    pub fn needed(&mut self, node: &JsonNode, path: &[&str]) -> Option<f64> {
        let before = self.problems.len();
        let found = self.number(node, path);
        if found.is_none() && self.problems.len() == before {
            let line = node.at(path).map_or(node.line, |found| found.line);
            self.wrong(Some(line), format!("expected a number in `{}`; the level is left out", path.join(".")));
        }
        found
    }

    /// The same of a field of a table.
    pub fn field(&mut self, line: u32, column: &str, text: Option<&str>) -> Option<f64> {
        let text = text?;
        match grouped(text).parse::<f64>() {
            Ok(value) if value.is_nan() => None,
            Ok(value) if plausible(value) => Some(without_residue(value)),
            _ => {
                self.wrong(
                    Some(line),
                    format!("column `{column}` should hold a number from 0 to 10^12, found \"{}\"", short(text)),
                );
                None
            }
        }
    }

    /// A distribution of times whose figures have their own names; a level without one of them has less.
    pub fn latency(&mut self, node: &JsonNode, names: [&[&[&str]]; 4], unit: f64) -> LatencySummary {
        let [mean, p50, p90, p99] = names.map(|paths| paths.iter().find_map(|path| node.at(path).map(|_| *path)));
        let mut figure = |path: Option<&[&str]>| path.and_then(|path| self.number(node, path));
        let figures = LatencySummary { mean: figure(mean), p50: figure(p50), p90: figure(p90), p99: figure(p99) };
        figures.scaled(unit)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(out, "{}:{line}: {}", self.file, self.what),
            None => write!(out, "{}: {}", self.file, self.what),
        }
    }
}

/// A text at the end of a path, cut to what a report can show.
pub fn text(node: &JsonNode, path: &[&str]) -> Option<String> {
    node.at(path).and_then(JsonNode::text).filter(|text| !text.is_empty()).map(cut)
}

/// At most [`MOST_NAME`] characters of a name.
pub fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MOST_NAME).collect()
}

/// Without separators between thousands (`1,400.00`), where that is what the commas are.
fn grouped(text: &str) -> String {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    let mut groups = whole.split(',');
    let first = groups.next().unwrap_or_default();
    let three = groups.all(|group| group.len() == 3 && group.bytes().all(|byte| byte.is_ascii_digit()));
    let are_thousands = three && (1..=3).contains(&first.len()) && !rest.contains(',');
    if are_thousands { text.replace(',', "") } else { text.to_owned() }
}

/// Finite, not negative, and small enough that no sum or product of some of them overflows.
fn plausible(value: f64) -> bool {
    (0.0..=MOST_VALUE).contains(&value)
}

/// What is below a billionth of anything that is measured here is 0, and its reciprocal no number.
fn without_residue(value: f64) -> f64 {
    if value < LEAST_VALUE { 0.0 } else { value }
}

/// Seconds in a millisecond.
pub const MILLISECONDS: f64 = 1e-3;

const MOST_VALUE: f64 = 1e12;
const LEAST_VALUE: f64 = 1e-9;
const MOST_PROBLEMS: usize = 100;
const MOST_LEVELS: usize = 10_000;
const MOST_NAME: usize = 200;
