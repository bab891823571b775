//! docs/operate/metrics.md is what the registry says: names, types, labels, units and meanings of every family.
//!
//! `make metric-table` writes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use weir::export::exposition::MetricKind;
use weir::export::families;

use crate::books;
use crate::exposition::{judged, render_with};
use crate::support::exposition::{Sample, Text};

/// Labels whose values come from a machine or a caller; the others have lists of weir's own.
const OPEN: [&str; 11] =
    ["backend", "model_name", "gpu", "uuid", "name", "version", "revision", "rustc", "le", "engine", "label"];

const HEAD: &str = "# Metrics

Every family of `GET /metrics` on the admin port (9902), in the order in which it is written there.
`make metric-table` makes this page from the program's own registry, and a test compares the two.
[metrics-additions.md](metrics-additions.md) says how many series there are.

A family or a series without a value is absent, and a number that is not known is NaN; neither is ever 0.
A histogram has `_bucket`, `_sum` and `_count`.
In the column Labels, `model` means two labels: `backend` and `model_name`.
`backend` is a backend's configured name.
`model_name` is the model that the request names; the first hundred names have a value each, and all others share `other`.
The values of the other labels are [below the table](#label-values).

| Name | Type | Labels | Unit | Meaning |
|---|---|---|---|---|
";

const VALUES_HEAD: &str = "
## Label values

";

fn page() -> String {
    let texts = [true, false].map(|knee| render_with(&books::busy(1), judged(knee)));
    let parsed = texts.each_ref().map(|text| Text::parse(text).unwrap());
    let samples: Vec<&Sample> = parsed.iter().flat_map(|text| &text.samples).collect();
    let mut page = HEAD.to_owned();
    let mut listed = Vec::new();
    for family in families::ALL {
        let kind = match family.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        let labels = labels(family.name, &samples);
        row(&mut page, family.name, kind, &label_names(&labels), family.help);
        listed.push((family.name, labels));
    }
    let helps = texts[0].lines().filter_map(|line| line.strip_prefix("# HELP process_"));
    for (name, help) in helps.filter_map(|line| line.split_once(' ')) {
        let name = format!("process_{name}");
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        row(&mut page, &name, kind, "", help);
    }
    page.push_str(VALUES_HEAD);
    label_values(&mut page, &listed);
    page
}

fn row(page: &mut String, name: &str, kind: &str, labels: &str, help: &str) {
    writeln!(page, "| `{name}` | {kind} | {labels} | {} | {} |", unit(name), help.replace('|', "\\|")).unwrap();
}

/// Label names in their order, each with the values that occur.
type Labels<'a> = Vec<(&'a str, BTreeSet<&'a str>)>;

fn labels<'a>(family: &str, samples: &[&'a Sample]) -> Labels<'a> {
    let parts = ["", "_bucket", "_sum", "_count"];
    let mut labels: Labels<'_> = Vec::new();
    for sample in
        samples.iter().filter(|sample| parts.iter().any(|part| sample.name.strip_suffix(part) == Some(family)))
    {
        for (name, value) in sample.labels.iter().filter(|(name, _)| *name != "le") {
            match labels.iter_mut().find(|(known, _)| *known == &**name) {
                Some((_, values)) => _ = values.insert(value),
                None => labels.push((name, BTreeSet::from([&**value]))),
            }
        }
    }
    labels
}

fn label_names(labels: &Labels<'_>) -> String {
    let names: Vec<String> = labels.iter().map(|(name, _)| format!("`{name}`")).collect();
    names.join(", ").replace("`backend`, `model_name`", "`model`")
}

/// The lists of weir's own values: one line for each label and list, with the families that have it.
fn label_values(page: &mut String, listed: &[(&str, Labels<'_>)]) {
    let mut lists: BTreeMap<(&str, String), Vec<&str>> = BTreeMap::new();
    for (family, labels) in listed {
        for (name, values) in labels.iter().filter(|(name, _)| !OPEN.contains(name)) {
            let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
            lists.entry((name, values.join(", "))).or_default().push(family);
        }
    }
    for ((label, values), families) in lists {
        let families: Vec<String> = families.iter().map(|family| format!("`{family}`")).collect();
        let is = if values.contains(", ") { "is one of" } else { "is" };
        writeln!(page, "- `{label}` {is} {values}.\n  In {}.", families.join(", ")).unwrap();
    }
}

/// By the name's own words, which end in the unit, or in what is counted.
fn unit(name: &str) -> &'static str {
    let bare = name.strip_suffix("_total").unwrap_or(name);
    let bare = bare.strip_suffix("_low").or_else(|| bare.strip_suffix("_high")).unwrap_or(bare);
    for (end, unit) in [
        ("_timestamp_seconds", "Unix time, seconds"),
        ("_start_time_seconds", "Unix time, seconds"),
        ("tokens_per_second", "tokens/s"),
        ("requests_per_second", "requests/s"),
        ("_seconds", "seconds"),
        ("_bytes", "bytes"),
        ("_ratio", "ratio"),
        ("_watts", "watts"),
        ("_hertz", "hertz"),
        ("_celsius", "degrees Celsius"),
        ("_tokens", "tokens"),
        ("_requests", "requests"),
        ("_requests_offered", "requests"),
        ("_requests_admitted", "requests"),
        ("_requests_shed", "requests"),
        ("_requests_would_shed", "requests"),
        ("_requests_moved", "requests"),
        ("_requests_abandoned", "requests"),
        ("_requests_finished", "requests"),
        ("_requests_malformed", "requests"),
        ("_retries", "attempts"),
        ("_without_first_token", "requests"),
        ("_opaque", "answers"),
        ("_bad_answers", "answers"),
        ("_stalls", "stalls"),
        ("_chunks", "events"),
        ("_updates", "estimates"),
        ("_changes", "changes"),
        ("_faulty", "samples"),
        ("_errors", "errors"),
        ("_panics", "panics"),
        ("_entries_dropped", "requests"),
        ("_records", "records"),
        ("_spans", "spans"),
        ("_lines_lost", "lines"),
        ("_overflow", "values"),
        ("_concurrency", "requests"),
        ("_concurrency_limit", "requests"),
        ("_pending", "requests"),
        ("_window", "requests"),
        ("_depth", "requests"),
        ("_in_flight_target", "requests"),
        ("_connections", "connections"),
        ("_fds", "descriptors"),
        ("_threads", "threads"),
    ] {
        if bare.ends_with(end) {
            return unit;
        }
    }
    "1"
}

fn path() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operate/metrics.md")
}

#[test]
#[expect(clippy::disallowed_methods, reason = "`make metric-table` asks this test to write what it compares")]
fn the_page_is_what_the_registry_says() {
    let page = page();
    if std::env::var("WEIR_WRITE_METRIC_TABLE").is_ok_and(|word| word == "1") {
        std::fs::write(path(), &page).unwrap();
    }
    let written = std::fs::read_to_string(path()).unwrap_or_default();
    assert!(written == page, "docs/operate/metrics.md is stale: `make metric-table` writes it");
}

#[test]
fn every_row_is_whole_and_lists_no_value_of_a_caller() {
    let page = page();
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| `")).collect();
    assert!(rows.len() > families::ALL.len(), "and those of the process");
    for row in rows {
        let cells: Vec<_> = row.replace("\\|", "/").split('|').map(|cell| cell.trim().to_owned()).collect();
        assert_eq!(cells.len(), 7, "{row}");
        assert!(!cells[2].is_empty() && !cells[4].is_empty() && !cells[5].is_empty(), "{row}");
        assert!(row.len() <= 160, "{} columns: {row}", row.len());
    }
    assert!(!page.contains("`gpu-0`") && !page.contains("`m0`"), "{page}");
    assert!(page.contains("| `weir_slo_requests_total` | counter | `model`, `slo`, `result` |"), "{page}");
    assert!(page.contains("- `result` is one of `met`, `missed`.\n  In `weir_slo_requests_total`."), "{page}");
}
