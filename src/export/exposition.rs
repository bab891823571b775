//! A exposition of samples: metric families written from one snapshot as Prometheus' text, sample by sample.
//!
//! It stands between our families and the format, so that a change of format stays in this file. Children are not kept from scrape to
//! scrape: the ledger is the memory. Nothing is built that is only written once: with twenty backends and ten models a scrape is a hundred
//! thousand lines, and through the `prometheus` crate's own messages each of them cost a dozen allocations. It knows no family by name.

use std::collections::HashSet;
use std::fmt::Write;

use prometheus::proto::MetricFamily;
use prometheus::{Error, TextEncoder};

use crate::measure::histogram::Buckets;

/// Name, type and meaning of a family, as metrics.md lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilyDescription {
    /// Name, unit and suffix included.
    pub name: &'static str,
    /// What its samples are.
    pub kind: MetricKind,
    /// One sentence for `# HELP`.
    pub help: &'static str,
}

/// What the samples of a family are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// A state.
    Gauge,
    /// Classic buckets.
    Histogram,
}

/// A label and its value.
pub type Label<'a> = (&'static str, &'a str);

/// Families being filled; those switched off are not even computed.
pub struct ExpositionWriter<'a> {
    text: String,
    /// Made by the `prometheus` crate itself.
    foreign: Vec<MetricFamily>,
    disabled: &'a HashSet<String>,
}

/// One family being filled.
pub struct FamilyWriter {
    family: FamilyDescription,
    text: String,
    samples: usize,
    /// The bounds of the last histogram, and how they are written.
    edges: Vec<(f64, String)>,
}

impl<'a> ExpositionWriter<'a> {
    /// An empty exposition that leaves out these families.
    pub fn new(disabled: &'a HashSet<String>) -> Self {
        Self { text: String::new(), foreign: Vec::new(), disabled }
    }

    /// Lets `fill` give the samples of a family. A family without samples is absent.
    pub fn column(&mut self, family: &FamilyDescription, fill: impl FnOnce(&mut FamilyWriter)) {
        if self.disabled.contains(family.name) {
            return;
        }
        let begin = self.text.len();
        let mut column =
            FamilyWriter { family: *family, text: std::mem::take(&mut self.text), samples: 0, edges: Vec::new() };
        column.open();
        fill(&mut column);
        let empty = column.samples == 0;
        self.text = column.text;
        if empty {
            self.text.truncate(begin);
        }
    }

    /// A family of one sample without labels.
    pub fn single(&mut self, family: &FamilyDescription, value: f64) {
        self.column(family, |column| column.value(&[], value));
    }

    /// Adds families made by the `prometheus` crate itself.
    pub fn extend(&mut self, families: Vec<MetricFamily>) {
        self.foreign.extend(families.into_iter().filter(|family| !self.disabled.contains(family.name())));
    }

    /// The text exposition. Fails only if a family has no name, which those of the `prometheus` crate have.
    pub fn write(mut self) -> Result<String, Error> {
        TextEncoder::new().encode_utf8(&self.foreign, &mut self.text)?;
        Ok(self.text)
    }
}

impl FamilyWriter {
    /// A sample of a counter or a gauge.
    pub fn value(&mut self, labels: &[Label<'_>], value: f64) {
        self.start("", labels, None);
        self.number(value);
    }

    /// A sample of a counter or a gauge that counts.
    pub fn count(&mut self, labels: &[Label<'_>], value: u64) {
        self.start("", labels, None);
        self.whole(value);
    }

    /// A histogram's samples: every bound, `+Inf`, sum and count.
    pub fn histogram(&mut self, labels: &[Label<'_>], buckets: &Buckets) {
        debug_assert!(self.family.kind == MetricKind::Histogram);
        let mut edges = std::mem::take(&mut self.edges);
        let own = self.text.len();
        self.start("_bucket", labels, Some(""));
        // Everything before the bound is the same in each line.
        let front = self.text[own..self.text.len() - "\"} ".len()].to_owned();
        self.text.truncate(own);
        for (place, (upper, below)) in buckets.cumulative().enumerate() {
            if edges.get(place).is_none_or(|(known, _)| known.to_bits() != upper.to_bits()) {
                edges.truncate(place);
                edges.push((upper, upper.to_string()));
            }
            self.line(&front, &edges[place].1, below);
        }
        self.line(&front, "+Inf", buckets.count());
        self.start("_sum", labels, None);
        self.number(buckets.sum_outward());
        self.start("_count", labels, None);
        self.whole(buckets.count());
        self.edges = edges;
    }

    fn open(&mut self) {
        let FamilyDescription { name, kind, help } = self.family;
        let kind = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        for part in ["# HELP ", name, " ", help, "\n# TYPE ", name, " ", kind, "\n"] {
            self.text.push_str(part);
        }
    }

    /// A line up to its value.
    fn start(&mut self, suffix: &str, labels: &[Label<'_>], bound: Option<&str>) {
        self.samples += 1;
        self.text.push_str(self.family.name);
        self.text.push_str(suffix);
        let mut opening = '{';
        for (name, value) in labels.iter().copied().chain(bound.map(|bound| ("le", bound))) {
            self.text.push(opening);
            self.text.push_str(name);
            self.text.push_str("=\"");
            push_escaped(&mut self.text, value);
            self.text.push('"');
            opening = ',';
        }
        self.text.push_str(if opening == ',' { "} " } else { " " });
    }

    fn line(&mut self, front: &str, bound: &str, below: u64) {
        self.text.push_str(front);
        self.text.push_str(bound);
        self.text.push_str("\"} ");
        self.whole(below);
    }

    fn whole(&mut self, value: u64) {
        if value == 0 {
            self.text.push_str("0\n");
        } else {
            // Writing into a string cannot fail.
            let _ = writeln!(self.text, "{value}");
        }
    }

    fn number(&mut self, value: f64) {
        match value {
            f64::INFINITY => self.text.push_str("+Inf\n"),
            f64::NEG_INFINITY => self.text.push_str("-Inf\n"),
            value => drop(writeln!(self.text, "{value}")),
        }
    }
}

fn push_escaped(text: &mut String, value: &str) {
    if memchr::memchr3(b'\\', b'\n', b'"', value.as_bytes()).is_none() {
        return text.push_str(value);
    }
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' => text.push_str("\\\""),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::histogram::Bounds;

    const DEPTH: FamilyDescription =
        FamilyDescription { name: "weir_queue_depth", kind: MetricKind::Gauge, help: "Requests held." };

    #[test]
    fn a_hostile_label_value_stays_one_value() {
        let none = HashSet::new();
        let mut exposition = ExpositionWriter::new(&none);
        exposition.column(&DEPTH, |out| out.count(&[("model_name", "a\"} 1\nforged{x=\"\\")], 2));
        let text = exposition.write().unwrap();
        assert_eq!(text.lines().count(), 3);
        assert!(text.ends_with("weir_queue_depth{model_name=\"a\\\"} 1\\nforged{x=\\\"\\\\\"} 2\n"), "{text}");
    }

    #[test]
    fn a_disabled_family_is_not_computed() {
        let off = HashSet::from([DEPTH.name.to_owned()]);
        let mut exposition = ExpositionWriter::new(&off);
        exposition.column(&DEPTH, |_| unreachable!("it is switched off"));
        assert_eq!(exposition.write().unwrap(), "");
    }

    #[test]
    fn a_histogram_is_cumulative_and_ends_in_inf() {
        let none = HashSet::new();
        let mut exposition = ExpositionWriter::new(&none);
        let mut buckets = Buckets::new(&Bounds::seconds(&[0.5, 1.0]));
        [100_000_000, 600_000_000, 2_000_000_000].into_iter().for_each(|nanos| buckets.record(nanos));
        let family = FamilyDescription { name: "x_seconds", kind: MetricKind::Histogram, help: "x" };
        exposition.column(&family, |out| out.histogram(&[], &buckets));
        let expected = "x_seconds_bucket{le=\"0.5\"} 1\nx_seconds_bucket{le=\"1\"} 2\n\
                        x_seconds_bucket{le=\"+Inf\"} 3\nx_seconds_sum 2.7\nx_seconds_count 3\n";
        assert!(exposition.write().unwrap().ends_with(expected));
    }
}
