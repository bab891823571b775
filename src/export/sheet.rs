//! A sheet of samples: metric families being filled from one snapshot, then written as Prometheus' text.
//!
//! It stands between our families and the `prometheus` crate, so that a change of library or format stays in this file.
//! Children are not kept from scrape to scrape: the ledger is the memory. It knows no family by name.

use std::collections::HashSet;

use prometheus::proto::{self, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Error, TextEncoder};

use crate::measure::histogram::Buckets;

/// Name, type and meaning of a family, as metrics.md lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Name, unit and suffix included.
    pub name: &'static str,
    /// What its samples are.
    pub kind: Kind,
    /// One sentence for `# HELP`.
    pub help: &'static str,
}

/// What the samples of a family are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
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
pub struct Sheet<'a> {
    families: Vec<MetricFamily>,
    disabled: &'a HashSet<String>,
}

/// One family being filled.
pub struct Column {
    kind: Kind,
    samples: Vec<Metric>,
}

impl<'a> Sheet<'a> {
    /// An empty sheet that leaves out these families.
    pub fn new(disabled: &'a HashSet<String>) -> Self {
        Self { families: Vec::new(), disabled }
    }

    /// Lets `fill` give the samples of a family. A family without samples is absent.
    pub fn column(&mut self, family: &Family, fill: impl FnOnce(&mut Column)) {
        if self.disabled.contains(family.name) {
            return;
        }
        let mut column = Column { kind: family.kind, samples: Vec::new() };
        fill(&mut column);
        if column.samples.is_empty() {
            return;
        }
        let mut ready = MetricFamily::default();
        ready.set_name(family.name.into());
        ready.set_help(family.help.into());
        ready.set_field_type(match family.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        ready.set_metric(column.samples);
        self.families.push(ready);
    }

    /// A family of one sample without labels.
    pub fn single(&mut self, family: &Family, value: f64) {
        self.column(family, |column| column.value(&[], value));
    }

    /// Adds families made by the `prometheus` crate itself.
    pub fn extend(&mut self, families: Vec<MetricFamily>) {
        self.families.extend(families.into_iter().filter(|family| !self.disabled.contains(family.name())));
    }

    /// The text exposition. Fails only if a family has no name, which ours have.
    pub fn write(&self) -> Result<String, Error> {
        TextEncoder::new().encode_to_string(&self.families)
    }
}

impl Column {
    /// A sample of a counter or a gauge.
    pub fn value(&mut self, labels: &[Label<'_>], value: f64) {
        let mut sample = Metric::from_label(pairs(labels));
        match self.kind {
            Kind::Counter => {
                let mut counter = proto::Counter::default();
                counter.set_value(value);
                sample.set_counter(counter);
            }
            Kind::Gauge => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(value);
                sample.set_gauge(gauge);
            }
            Kind::Histogram => debug_assert!(false, "a histogram is filled from buckets"),
        }
        self.samples.push(sample);
    }

    /// A sample of a counter or a gauge that counts; exact up to 2^53.
    pub fn count(&mut self, labels: &[Label<'_>], value: u64) {
        self.value(labels, value as f64);
    }

    /// A histogram's samples: every bound, `+Inf`, sum and count.
    pub fn histogram(&mut self, labels: &[Label<'_>], buckets: &Buckets) {
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets.cumulative().map(bucket).collect());
        histogram.set_sample_count(buckets.count());
        histogram.set_sample_sum(buckets.sum_outward());
        let mut sample = Metric::from_label(pairs(labels));
        sample.set_histogram(histogram);
        self.samples.push(sample);
    }
}

fn bucket((upper, below): (f64, u64)) -> proto::Bucket {
    let mut bucket = proto::Bucket::default();
    bucket.set_upper_bound(upper);
    bucket.set_cumulative_count(below);
    bucket
}

fn pairs(labels: &[Label<'_>]) -> Vec<LabelPair> {
    let pair = |(name, value): &Label<'_>| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).into());
        pair.set_value((*value).into());
        pair
    };
    labels.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::histogram::Bounds;

    const DEPTH: Family = Family { name: "weir_queue_depth", kind: Kind::Gauge, help: "Requests held." };

    #[test]
    fn a_hostile_label_value_stays_one_value() {
        let none = HashSet::new();
        let mut sheet = Sheet::new(&none);
        sheet.column(&DEPTH, |out| out.count(&[("model_name", "a\"} 1\nforged{x=\"\\")], 2));
        let text = sheet.write().unwrap();
        assert_eq!(text.lines().count(), 3);
        assert!(text.ends_with("weir_queue_depth{model_name=\"a\\\"} 1\\nforged{x=\\\"\\\\\"} 2\n"), "{text}");
    }

    #[test]
    fn a_disabled_family_is_not_computed() {
        let off = HashSet::from([DEPTH.name.to_owned()]);
        let mut sheet = Sheet::new(&off);
        sheet.column(&DEPTH, |_| unreachable!("it is switched off"));
        assert_eq!(sheet.write().unwrap(), "");
    }

    #[test]
    fn a_histogram_is_cumulative_and_ends_in_inf() {
        let none = HashSet::new();
        let mut sheet = Sheet::new(&none);
        let mut buckets = Buckets::new(&Bounds::seconds(&[0.5, 1.0]));
        [100_000_000, 600_000_000, 2_000_000_000].into_iter().for_each(|nanos| buckets.record(nanos));
        let family = Family { name: "x_seconds", kind: Kind::Histogram, help: "x" };
        sheet.column(&family, |out| out.histogram(&[], &buckets));
        let expected = "x_seconds_bucket{le=\"0.5\"} 1\nx_seconds_bucket{le=\"1\"} 2\n\
                        x_seconds_bucket{le=\"+Inf\"} 3\nx_seconds_sum 2.7\nx_seconds_count 3\n";
        assert!(sheet.write().unwrap().ends_with(expected));
    }
}
