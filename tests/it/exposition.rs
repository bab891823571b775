//! The exposition as a scraper sees it: a strict parser, the table of families, the identities, hostile names and the cost.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use weir::export::families;
use weir::export::metrics::Exposition;
use weir::export::sheet::Kind;
use weir::export::status::describe;
use weir::export::{Facts, Mode};
use weir::measure::snapshot::Snapshot;

use crate::books;

/// One sample: family member name, labels in order, value.
#[derive(Debug, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

/// A parsed exposition: type by family, samples in order.
struct Text {
    kinds: BTreeMap<String, String>,
    samples: Vec<Sample>,
}

impl Text {
    /// Parses what Prometheus' text format 0.0.4 allows us to write, and fails on anything else.
    fn parse(text: &str) -> Result<Self, String> {
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
                let suffixes: &[&str] =
                    if parsed.kinds[&family] == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
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
    fn sums(&self, name: &str, keep: impl Fn(&Sample) -> bool) -> BTreeMap<(String, String), f64> {
        let mut sums = BTreeMap::new();
        for sample in self.samples.iter().filter(|s| s.name == name) {
            let owner = (sample.labels[0].1.clone(), sample.labels[1].1.clone());
            *sums.entry(owner).or_insert(0.0) += if keep(sample) { sample.value } else { 0.0 };
        }
        sums
    }
}

impl Sample {
    fn has(&self, label: &str, value: &str) -> bool {
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

/// docs/metrics-additions.md, one backend and model, all four classes, every outcome seen, no further SLO boundary.
const DOCUMENTED: usize = 498;

fn render(snapshot: &Snapshot) -> String {
    let facts = Facts { mode: Mode::Enforce, up: vec![true], journal: Some(Default::default()), ..Facts::default() };
    Exposition::new(&[]).write(snapshot, &facts, false).unwrap()
}

/// Family, type and label names as the references list them.
fn table() -> BTreeMap<&'static str, (&'static str, Vec<&'static str>)> {
    let rows = include_str!("../data/families.tsv").lines().map(|row| row.split('\t').collect::<Vec<_>>());
    rows.map(|row| (row[0], (row[1], row[2].split(',').filter(|l| !l.is_empty()).collect()))).collect()
}

#[test]
fn every_family_is_in_the_table_with_its_type() {
    let table = table();
    for family in families::ALL {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        assert_eq!(table.get(family.name).map(|(kind, _)| *kind), Some(kind), "{}", family.name);
        assert_eq!(family.name.ends_with("_total"), family.kind == Kind::Counter, "{}", family.name);
    }
}

#[test]
fn every_listed_family_is_written_with_the_labels_of_the_table() {
    let text = Text::parse(&render(&books::busy(1))).unwrap();
    let table = table();
    for family in families::ALL {
        let first = text.samples.iter().find(|s| {
            s.name == family.name || (family.kind == Kind::Histogram && s.name == format!("{}_sum", family.name))
        });
        let labels: Vec<_> = first.unwrap_or_else(|| panic!("{} is missing", family.name)).labels.iter().collect();
        let names: Vec<_> = labels.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, table[family.name].1, "{}", family.name);
    }
    let unknown = text.kinds.keys().find(|name| !name.starts_with("process_") && !table.contains_key(name.as_str()));
    assert_eq!(unknown, None);
}

#[test]
fn the_identities_hold_in_the_text() {
    let text = Text::parse(&render(&books::busy(5))).unwrap();
    let all = |name: &str| text.sums(name, |_| true);
    let abandoned = |phases: &[&str]| {
        text.sums("weir_requests_abandoned_total", |s| phases.iter().any(|phase| s.has("phase", phase)))
    };
    let (offered, admitted, finished) =
        (all("weir_requests_offered_total"), all("weir_requests_admitted_total"), all("weir_requests_finished_total"));
    let (shed, queued, in_flight) =
        (all("weir_requests_shed_total"), all("weir_queue_depth"), all("weir_inflight_requests"));
    let cancelled = text.sums("weir_requests_finished_total", |s| s.has("outcome", "client_cancelled"));
    let (left, gone) = (abandoned(&["queue"]), abandoned(&["prefill", "decode"]));
    assert!(offered.values().sum::<f64>() > 0.0);
    for (owner, offered) in &offered {
        assert_eq!(*offered, admitted[owner] + shed[owner] + left[owner] + queued[owner], "{owner:?}");
        assert_eq!(admitted[owner], finished[owner] + in_flight[owner], "{owner:?}");
        assert_eq!(cancelled[owner], gone[owner], "{owner:?}");
    }
}

#[test]
fn a_hostile_model_name_is_one_label_value() {
    let name = "a\"} 1\nweir_forged{x=\"\\\u{202e}\u{1b}[2J 😀";
    let text = Text::parse(&render(&books::of_model(name))).unwrap();
    assert!(text.samples.iter().any(|s| s.has("model_name", name)));
    assert!(!text.samples.iter().any(|s| s.name == "weir_forged"));
}

#[test]
fn the_parser_refuses_what_prometheus_would() {
    for text in [
        "a 1",
        "# HELP a x\n# TYPE a gauge\na{b=\"c} 1\n",
        "# HELP a x\n# TYPE a gauge\na x\n",
        "# HELP a x\n# TYPE a gauge\na 1\na 1\n",
    ] {
        assert!(Text::parse(text).is_err(), "{text}");
    }
    assert!(Text::parse("# HELP a x\n# TYPE a gauge\na{b=\"c\\n\"} NaN\n").is_ok());
}

#[test]
fn a_fully_populated_account_stays_within_the_documented_number_of_series() {
    let series = |accounts| Text::parse(&render(&books::busy(accounts))).unwrap().samples.len();
    let (one, two) = (series(1), series(2));
    println!("{} series an account, {} for the process", two - one, 2 * one - two);
    assert!(two - one <= DOCUMENTED, "{}", two - one);
}

#[test]
fn status_has_every_key_of_the_contract_and_agrees_with_the_metrics() {
    let snapshot = books::busy(3);
    let text = Text::parse(&render(&snapshot)).unwrap();
    let status = describe(&snapshot, &Facts::default(), false);
    let backend = &status["backends"][0];
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let set = |names: &str| names.split(' ').map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(keys(&status), set("version mode draining uptime_s backends"));
    let expected = "name up rates_10s rates_60s in_flight pending decoding queue ttft_s upstream_ttft_s itl_s e2e_s \
                    saturation limits totals";
    assert_eq!(keys(backend), set(expected));
    assert_eq!(keys(&backend["totals"]), set("offered admitted completed shed abandoned finished"));
    assert_eq!(backend["saturation"]["state"], "unknown");
    let offered: f64 = text.sums("weir_requests_offered_total", |_| true).values().sum();
    assert_eq!(backend["totals"]["offered"].as_f64(), Some(offered));
}

#[test]
fn promtool_finds_nothing_to_say() {
    let text = render(&books::busy(2));
    let spawned = Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).spawn();
    let Ok(mut promtool) = spawned else { return println!("promtool is not installed: not checked") };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(promtool.wait().unwrap().success());
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test that measures a cost")]
fn a_scrape_of_five_thousand_series_is_cheap() {
    let snapshot = books::busy(12);
    let series = Text::parse(&render(&snapshot)).unwrap().samples.len();
    let start = std::time::Instant::now();
    (0..20).for_each(|_| drop(render(&snapshot)));
    let each = start.elapsed() / 20;
    println!("{series} series: {each:?} a scrape");
    // The goal of 10 ms is for a release build; an unoptimised one on a busy machine is given twenty times as much.
    assert!(series >= 5_000 && each.as_millis() < if cfg!(debug_assertions) { 200 } else { 10 });
}
