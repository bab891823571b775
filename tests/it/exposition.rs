//! The exposition as a scraper sees it: a strict parser, the table of families, the identities, hostile names and the cost.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use weir::export::families;
use weir::export::metrics::Exposition;
use weir::export::reported::Reported;
use weir::export::sheet::Kind;
use weir::export::status::describe;
use weir::export::{Facts, Mode};
use weir::measure::snapshot::Snapshot;

use crate::books;
use crate::support::exposition::{Text, status_identities};

/// docs/metrics-additions.md, one backend and model, all four classes, every outcome seen, no further SLO boundary.
const DOCUMENTED: usize = 499;

fn render(snapshot: &Snapshot) -> String {
    Exposition::new(&[]).write(snapshot, &full(), false).unwrap()
}

/// Facts that leave nothing out: what is new in `Facts` is filled in here, so that its family is written.
fn full() -> Facts {
    let reported = Reported {
        engine: "vllm",
        up: true,
        read_at: Some(1.0),
        running: Some(2.0),
        waiting: vec![("capacity", 3.0)],
        kv_usage: Some(0.5),
        ..Reported::default()
    };
    let (reported, journal) = (vec![Some(reported)], Some(Default::default()));
    Facts { mode: Mode::Enforce, up: vec![true], journal, reported, ..Facts::default() }
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
fn the_identities_hold_in_the_text_and_in_the_status() {
    let snapshot = books::busy(5);
    assert_eq!(Text::parse(&render(&snapshot)).unwrap().identities(), Ok(5));
    assert_eq!(status_identities(&describe(&snapshot, &Facts::default(), false)), Ok(1));
}

#[test]
fn books_that_do_not_balance_are_noticed() {
    let text = render(&books::busy(1));
    for (family, labels) in [
        ("weir_requests_offered_total", "priority=\"default\""),
        ("weir_requests_admitted_total", "priority=\"bulk\""),
        ("weir_requests_abandoned_total", "phase=\"decode\""),
        ("weir_inflight_requests", "phase=\"prefill\""),
        ("weir_queue_depth", "priority=\"system\""),
    ] {
        let line = text.lines().find(|line| line.starts_with(family) && line.contains(labels)).unwrap();
        let forged = text.replace(line, &format!("{line}0"));
        assert!(Text::parse(&forged).unwrap().identities().is_err(), "{line}");
    }
    let mut status = describe(&books::busy(1), &Facts::default(), false);
    status["backends"][0]["totals"]["finished"]["deadline"] = 77.into();
    assert!(status_identities(&status).is_err());
}

#[test]
fn a_hostile_model_name_is_one_label_value_without_control_characters() {
    let name = "a\"} 1\nweir_forged{x=\"\\\u{202e}\u{1b}[2J 😀";
    let text = Text::parse(&render(&books::of_model(name))).unwrap();
    let shown: String = name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    assert!(text.samples.iter().any(|s| s.has("model_name", &shown)));
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
    assert!(keys(&status).is_superset(&set("version mode draining uptime_s backends")), "{status}");
    let expected = "name up rates_10s rates_60s in_flight pending decoding queue ttft_s upstream_ttft_s itl_s e2e_s \
                    saturation limits totals";
    assert!(keys(backend).is_superset(&set(expected)), "{backend}");
    assert!(keys(&backend["totals"]).is_superset(&set("offered admitted completed shed abandoned finished")));
    assert_eq!(backend["saturation"]["state"], "unknown");
    let offered: f64 = text.sums("weir_requests_offered_total", |_| true).values().sum();
    assert_eq!(backend["totals"]["offered"].as_f64(), Some(offered));
}

#[test]
fn promtool_finds_nothing_to_say() {
    let text = render(&books::busy(2));
    let spawned = Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).spawn();
    let Ok(mut promtool) = spawned else {
        return println!(
            "SKIPPED promtool_finds_nothing_to_say: promtool is not installed (apt-get install prometheus)"
        );
    };
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
