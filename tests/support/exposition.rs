//! A strict reader of Prometheus' text, and the identities as a scraper can check them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// One sample: family member name, labels in order, value.
#[derive(Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: Vec<(String, String)>,
    pub value: f64,
}

/// A parsed exposition: type by family, samples in order.
pub struct Text {
    pub kinds: BTreeMap<String, String>,
    pub samples: Vec<Sample>,
}

impl Text {
    /// Parses what Prometheus' text format 0.0.4 allows us to write, and fails on anything else.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parsed = Self { kinds: BTreeMap::new(), samples: Vec::new() };
        let mut family = String::new();
        if !text.ends_with('\n') {
            return Err("the last line has no end".into());
        }
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                family = rest.split(' ').next().unwrap_or_default().into();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').ok_or(line)?;
                if name != family || parsed.kinds.insert(name.into(), kind.into()).is_some() {
                    return Err(format!("TYPE out of place: {line}"));
                }
            } else {
                let sample = sample(line)?;
                let suffix = sample.name.strip_prefix(&family).ok_or_else(|| format!("not in {family}: {line}"))?;
                let kind = parsed.kinds.get(&family).ok_or_else(|| format!("no TYPE before {line}"))?;
                let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
                if !suffixes.contains(&suffix) {
                    return Err(format!("bad suffix: {line}"));
                }
                parsed.samples.push(sample);
            }
        }
        let distinct: BTreeSet<_> = parsed.samples.iter().map(|s| (&s.name, &s.labels)).collect();
        if distinct.len() < parsed.samples.len() { Err("a series is there twice".into()) } else { Ok(parsed) }
    }

    /// Sum over a family's samples per (backend, model_name), of those that `keep` accepts.
    pub fn sums(&self, name: &str, keep: impl Fn(&Sample) -> bool) -> BTreeMap<(String, String), f64> {
        let mut sums = BTreeMap::new();
        for sample in self.samples.iter().filter(|s| s.name == name) {
            let owner = (sample.labels[0].1.clone(), sample.labels[1].1.clone());
            *sums.entry(owner).or_insert(0.0) += if keep(sample) { sample.value } else { 0.0 };
        }
        sums
    }

    /// Sum over a family's samples of those that `keep` accepts.
    pub fn sum(&self, name: &str, keep: impl Fn(&Sample) -> bool) -> f64 {
        self.samples.iter().filter(|s| s.name == name && keep(s)).map(|s| s.value).sum()
    }

    /// The three identities, for every backend and model. Says how many accounts there were.
    pub fn identities(&self) -> Result<usize, String> {
        let all = |name: &str| self.sums(name, |_| true);
        let abandoned = |phases: &[&str]| {
            self.sums("weir_requests_abandoned_total", |s| phases.iter().any(|phase| s.has("phase", phase)))
        };
        let offered = all("weir_requests_offered_total");
        let (admitted, finished) = (all("weir_requests_admitted_total"), all("weir_requests_finished_total"));
        let (shed, queued) = (all("weir_requests_shed_total"), all("weir_queue_depth"));
        let in_flight = all("weir_inflight_requests");
        let cancelled = self.sums("weir_requests_finished_total", |s| s.has("outcome", "client_cancelled"));
        let (left, gone) = (abandoned(&["queue"]), abandoned(&["prefill", "decode"]));
        let moved = |direction: &str| self.sums("weir_requests_moved_total", |s| s.has("direction", direction));
        let (came, went) = (moved("in"), moved("out"));
        for (owner, offered) in &offered {
            let parts = admitted[owner] + shed[owner] + left[owner] + queued[owner];
            exact("offered", *offered + came[owner], parts + went[owner])?;
            exact("admitted", admitted[owner], finished[owner] + in_flight[owner])?;
            exact("client_cancelled", cancelled[owner], gone[owner])?;
        }
        Ok(offered.len())
    }
}

/// The same identities in `/status`, for every backend.
pub fn status_identities(status: &Value) -> Result<usize, String> {
    let backends = status["backends"].as_array().ok_or("no backends")?;
    for backend in backends {
        let totals = &backend["totals"];
        let sum = |value: &Value| value.as_object().into_iter().flatten().filter_map(|(_, n)| n.as_f64()).sum::<f64>();
        let one = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
        let abandoned = &totals["abandoned"];
        let parts = one(&totals["admitted"])
            + sum(&totals["shed"])
            + one(&abandoned["queue"])
            + one(&backend["queue"]["depth"]);
        let moved = &totals["moved"];
        exact("offered", one(&totals["offered"]) + one(&moved["in"]), parts + one(&moved["out"]))?;
        exact("admitted", one(&totals["admitted"]), sum(&totals["finished"]) + one(&backend["in_flight"]))?;
        let gone = one(&abandoned["prefill"]) + one(&abandoned["decode"]);
        exact("client_cancelled", one(&totals["finished"]["client_cancelled"]), gone)?;
    }
    Ok(backends.len())
}

/// Counts are whole numbers below 2^53, so equality of floats is equality. NaN, a key that is missing, equals nothing.
fn exact(what: &str, left: f64, right: f64) -> Result<(), String> {
    #[expect(clippy::float_cmp, reason = "whole numbers")]
    let equal = left == right;
    if equal { Ok(()) } else { Err(format!("{what}: {left} is not {right}")) }
}

impl Sample {
    pub fn has(&self, label: &str, value: &str) -> bool {
        self.labels.iter().any(|(l, v)| l == label && v == value)
    }
}

fn sample(line: &str) -> Result<Sample, String> {
    let bad = || format!("unreadable: {line}");
    let end = line.find(['{', ' ']).ok_or_else(bad)?;
    let (name, mut rest) = line.split_at(end);
    let well_named = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !name.is_empty();
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"").ok_or_else(bad)?;
            let (value, after) = quoted(after).ok_or_else(bad)?;
            labels.push((label.to_owned(), value));
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').and_then(|v| v.parse().ok()).filter(|_| well_named).ok_or_else(bad)?;
    Ok(Sample { name: name.into(), labels, value })
}

/// A label value up to its closing quote, unescaped, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let (mut value, mut chars) = (String::new(), text.char_indices());
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                c @ ('"' | '\\') => c,
                _ => return None,
            }),
            c => value.push(c),
        }
    }
    None
}
