//! Prometheus' text format: metric families written from one snapshot, sample by sample.
//!
//! A change of the format stays in this file. Samples are not kept from scrape to scrape, because the ledger has them; and they are
//! written straight into the text: a scrape of twenty backends with ten models is a hundred thousand lines, and the messages of the
//! `prometheus` crate cost a dozen allocations for each. Absent: the name of any family.

use std::collections::HashSet;
use std::fmt::Write;

use prometheus::proto::MetricFamily;
use prometheus::{Error, TextEncoder};

use crate::measure::histogram::Buckets;

/// Name, type and help text of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilyDescription {
    /// Name, unit and suffix included.
    pub name: &'static str,
    pub kind: MetricKind,
    /// One sentence for `# HELP`.
    pub help: &'static str,
}

/// The type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
    /// With classic buckets.
    Histogram,
}

/// A label and its value.
pub type Label<'a> = (&'static str, &'a str);

/// An exposition that is being written; disabled families are not even computed.
pub struct ExpositionWriter<'a> {
    text: String,
    /// Made by the `prometheus` crate itself.
    foreign: Vec<MetricFamily>,
    disabled: &'a HashSet<String>,
}

/// One family that is being written.
pub struct FamilyWriter {
    family: FamilyDescription,
    text: String,
    samples: usize,
    /// The bounds of the last histogram, and how they are written.
    edges: Vec<(f64, String)>,
}

impl<'a> ExpositionWriter<'a> {
    /// An empty exposition that leaves out the `disabled` families.
    pub fn new(disabled: &'a HashSet<String>) -> Self {
        Self { text: String::new(), foreign: Vec::new(), disabled }
    }

    /// Writes a family with the samples that `fill` writes. A family without samples is absent.
    pub fn family(&mut self, family: &FamilyDescription, fill: impl FnOnce(&mut FamilyWriter)) {
        if self.disabled.contains(family.name) {
            return;
        }
        let begin = self.text.len();
        let mut writer =
            FamilyWriter { family: *family, text: std::mem::take(&mut self.text), samples: 0, edges: Vec::new() };
        writer.open();
        fill(&mut writer);
        let empty = writer.samples == 0;
        self.text = writer.text;
        if empty {
            self.text.truncate(begin);
        }
    }

    /// A family of one sample without labels.
    pub fn single(&mut self, family: &FamilyDescription, value: f64) {
        self.family(family, |out| out.value(&[], value));
    }

    /// Adds families made by the `prometheus` crate itself.
    pub fn extend(&mut self, families: Vec<MetricFamily>) {
        self.foreign.extend(families.into_iter().filter(|family| !self.disabled.contains(family.name())));
    }

    /// The text.
    ///
    /// # Errors
    /// A family of the `prometheus` crate has no name, which does not happen.
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
        // The part of a line before its bound is the same in each line.
        let front = self.text[own..self.text.len() - "\"} ".len()].to_owned();
        self.text.truncate(own);
        for (i, (upper, below)) in buckets.cumulative().enumerate() {
            if edges.get(i).is_none_or(|(known, _)| known.to_bits() != upper.to_bits()) {
                edges.truncate(i);
                edges.push((upper, upper.to_string()));
            }
            self.line(&front, &edges[i].1, below);
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
        FamilyDescription { name: "weir_queue_depth", kind: MetricKind::Gauge, help: "Queued requests." };

    #[test]
    fn a_hostile_label_value_stays_one_value() {
        let none = HashSet::new();
        let mut exposition = ExpositionWriter::new(&none);
        exposition.family(&DEPTH, |out| out.count(&[("model_name", "a\"} 1\nforged{x=\"\\")], 2));
        let text = exposition.write().unwrap();
        assert_eq!(text.lines().count(), 3);
        assert!(text.ends_with("weir_queue_depth{model_name=\"a\\\"} 1\\nforged{x=\\\"\\\\\"} 2\n"), "{text}");
    }

    #[test]
    fn a_disabled_family_is_not_computed() {
        let off = HashSet::from([DEPTH.name.to_owned()]);
        let mut exposition = ExpositionWriter::new(&off);
        exposition.family(&DEPTH, |_| unreachable!("it is disabled"));
        assert_eq!(exposition.write().unwrap(), "");
    }

    #[test]
    fn a_histogram_is_cumulative_and_ends_in_inf() {
        let none = HashSet::new();
        let mut exposition = ExpositionWriter::new(&none);
        let mut buckets = Buckets::new(&Bounds::seconds(&[0.5, 1.0]));
        [100_000_000, 600_000_000, 2_000_000_000].into_iter().for_each(|nanos| buckets.record(nanos));
        let family = FamilyDescription { name: "x_seconds", kind: MetricKind::Histogram, help: "x" };
        exposition.family(&family, |out| out.histogram(&[], &buckets));
        let expected = "x_seconds_bucket{le=\"0.5\"} 1\nx_seconds_bucket{le=\"1\"} 2\n\
                        x_seconds_bucket{le=\"+Inf\"} 3\nx_seconds_sum 2.7\nx_seconds_count 3\n";
        assert!(exposition.write().unwrap().ends_with(expected));
    }
}
