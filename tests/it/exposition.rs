//! The exposition as a scraper sees it: a strict parser, the table of families, the identities, hostile names and the cost.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use weir::admission::Limits;
use weir::estimate::{
    EngineLimits, Estimate, Estimator, Knee, Prediction, Regime, SaturationState, Settings as EstimateSettings, Shift,
    ShiftKind, StepCosts,
};
use weir::export::engine_report::EngineReport;
use weir::export::exposition::MetricKind;
use weir::export::gate_status::GateStatus;
use weir::export::metrics::Exposition;
use weir::export::saturation::BackendEstimate;
use weir::export::status::describe;
use weir::export::{Mode, ProcessState};
use weir::export::{families, probe};
use weir::gpu::reading::{Device, Figures, Identity, ThrottleReason, Throttling, Xid};
use weir::measure::snapshot::Snapshot;
use weir::measure::{BucketSettings, Buckets};
use weir::vocabulary::time::Timestamp;

use crate::books;
use crate::support::exposition::{Text, status_identities};

/// Series of one backend and model with all four classes and every outcome seen, as docs/operate/metrics-additions.md says.
fn documented_series() -> usize {
    let page = include_str!("../../docs/operate/metrics-additions.md");
    let number = page.split_once("every outcome seen: ").and_then(|(_, rest)| rest.split_once(" series"));
    number.expect("the page says how many series an account has").0.parse().unwrap()
}

pub fn render(snapshot: &Snapshot) -> String {
    render_with(snapshot, judged(true))
}

pub fn render_with(snapshot: &Snapshot, judged: BackendEstimate) -> String {
    Exposition::new(&[]).write(snapshot, &facts(judged), false, Some(&probed())).unwrap()
}

pub fn probed() -> probe::Status {
    let knee = probe::SeenKnee {
        requests_per_second: 13.0,
        low: 12.9,
        high: 13.1,
        output_tokens_per_second: 2000.0,
        in_flight: 91.0,
    };
    let last = probe::RunSummary {
        stopped: "found",
        sentence: String::new(),
        at_least: Some(13.0),
        ended_at: 1.0,
        knee: Some(knee),
    };
    probe::Status {
        running: true,
        held: 7,
        backends: vec![probe::SyntheticShare { ended: [3, 2, 1], ttft: Buckets::new(&BucketSettings::default().ttft) }],
        last: Some(last),
        ..probe::Status::default()
    }
}

pub fn facts(judged: BackendEstimate) -> ProcessState {
    ProcessState {
        mode: Mode::Enforce,
        up: vec![true],
        bad_answers: vec![Default::default()],
        journal: Some(Default::default()),
        spans: Some(Default::default()),
        access_lost: Some(0),
        estimates: vec![Some(judged)],
        gates: vec![GateStatus {
            limits: Limits { concurrency: Some(7), ..Limits::new(Mode::Enforce) },
            queued_bytes: 100,
            slo_ttft: 1.0,
            would_shed: Default::default(),
        }],
        engine_reports: vec![Some(EngineReport {
            engine: "vllm",
            up: true,
            age: Some(Duration::from_millis(300)),
            read_at: Some(1e9),
            running: Some(3.0),
            waiting: vec![("capacity", 1.0), ("deferred", 0.0)],
            kv_usage: Some(0.5),
            kv_tokens: Some(4096.0),
            max_num_seqs: None,
            accord: "agrees",
            excess: Some(0.0),
        })],
        gpus: vec![gpu()],
        ..ProcessState::default()
    }
}

/// A GPU of which everything is known.
fn gpu() -> Device {
    let mut throttling = Throttling::default();
    throttling.on_reading(&[ThrottleReason::SwPowerCap], Timestamp::ZERO);
    let figures = Figures {
        utilization: Some(0.73),
        memory_used: Some(6e10),
        memory_total: Some(8e10),
        power: Some(512.0),
        power_limit: Some(700.0),
        temperature: Some(66.0),
        clock: [Some(1.755e9), Some(2.619e9)],
        clock_most: [Some(1.98e9), Some(2.619e9)],
        ecc: [Some(3), Some(0)],
        mig: Some(false),
    };
    let identity = Identity { gpu: "0".into(), uuid: "GPU-a".into(), name: "H100".into(), instance: false };
    let xid = Some(Xid { count: 1, last: Some((79, Timestamp::ZERO)) });
    Device { identity, backends: vec!["gpu-0".into()], up: true, figures, throttling: Some(throttling), xid }
}

/// A backend with everything known; without a knee, with what stands in for it.
pub fn judged(knee: bool) -> BackendEstimate {
    let mut reading = Estimator::new(
        EstimateSettings { slo_ttft: Duration::from_secs(1), engine: EngineLimits::default() },
        Timestamp::ZERO,
    )
    .reading();
    reading.state = SaturationState::Saturated;
    reading.upper_bound = Some(20.0);
    reading.lower_bound = Some(9.0);
    reading.costs = Some(StepCosts { step: 0.0135, decode: 0.000157, prefill_token: 0.000183 });
    reading.in_flight = 182;
    reading.prediction = Ok(Prediction {
        requests_per_second: Estimate::around(12.0, 1.0),
        in_flight: 90.0,
        regime: Regime::Slots,
        at_most: false,
    });
    if knee {
        reading.ratio = Some(2.0);
        reading.demand_ratio = Some(1.5);
        reading.knee = Ok(Knee {
            requests_per_second: Estimate::around(13.0, 0.65),
            best: 13.2,
            tokens_per_second: Estimate::around(2000.0, 100.0),
            in_flight: Estimate::around(91.0, 2.0),
            n95: Some(79.0),
            regime: Regime::Slots,
            blocks: 12,
            updated_at: Timestamp::ZERO,
            unexplained: 0.01,
        });
    }
    BackendEstimate { reading, lost: 0, late: 0 }
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
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        assert_eq!(table.get(family.name).map(|(kind, _)| *kind), Some(kind), "{}", family.name);
        assert_eq!(family.name.ends_with("_total"), family.kind == MetricKind::Counter, "{}", family.name);
    }
}

#[test]
fn every_listed_family_is_written_with_the_labels_of_the_table() {
    let texts = [true, false].map(|knee| Text::parse(&render_with(&books::busy(1), judged(knee))).unwrap());
    let table = table();
    for family in families::ALL {
        let first = texts.iter().flat_map(|text| &text.samples).find(|s| {
            s.name == family.name || (family.kind == MetricKind::Histogram && s.name == format!("{}_sum", family.name))
        });
        let labels: Vec<_> = first.unwrap_or_else(|| panic!("{} is missing", family.name)).labels.iter().collect();
        let names: Vec<_> = labels.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, table[family.name].1, "{}", family.name);
    }
    let unknown = texts
        .iter()
        .flat_map(|text| text.kinds.keys())
        .find(|name| !name.starts_with("process_") && !table.contains_key(name.as_str()));
    assert_eq!(unknown, None);
}

#[test]
fn what_is_unknown_is_nan_or_absent_and_never_zero() {
    let snapshot = books::busy(1);
    let names = |text: &str, part: &str| text.lines().filter(|l| !l.starts_with('#') && l.contains(part)).count();
    let known = render_with(&snapshot, judged(true));
    let ratio = |text: &str| text.lines().find(|l| l.starts_with("weir_saturation_ratio{")).map(str::to_owned).unwrap();
    assert!(ratio(&known).ends_with("} 2"), "{}", ratio(&known));
    assert_eq!((names(&known, "weir_knee_requests_per_second"), names(&known, "weir_capacity_predicted")), (3, 0));
    assert_eq!((names(&known, "weir_capacity_lower"), names(&known, "weir_capacity_upper")), (0, 1));
    let unknown = render_with(&snapshot, judged(false));
    assert!(ratio(&unknown).ends_with("} NaN"), "{}", ratio(&unknown));
    assert_eq!((names(&unknown, "weir_knee_"), names(&unknown, "weir_capacity_predicted")), (2, 3));
    assert_eq!(names(&unknown, "weir_capacity_lower"), 1);
    let mut at_most = judged(false);
    at_most.reading.prediction.as_mut().unwrap().at_most = true;
    assert_eq!(names(&render_with(&snapshot, at_most), "weir_capacity_predicted"), 0, "no point");
    let nothing = ProcessState { up: vec![true], ..ProcessState::default() };
    let nothing = Exposition::new(&[]).write(&snapshot, &nothing, false, None).unwrap();
    assert_eq!((names(&nothing, "weir_saturation"), names(&nothing, "weir_backend_reported")), (0, 0));
}

#[test]
fn a_figure_of_a_gpu_that_cannot_be_read_is_absent_and_null() {
    let snapshot = books::busy(1);
    let shown = |gpus: Vec<Device>| {
        let facts = ProcessState { gpus, ..ProcessState::default() };
        let text = Exposition::new(&[]).write(&snapshot, &facts, false, None).unwrap();
        let families: BTreeSet<_> = text
            .lines()
            .filter(|line| line.starts_with("weir_gpu_"))
            .map(|line| line.split('{').next().unwrap().to_owned())
            .collect();
        (families, describe(&snapshot, &facts, false)["gpus"].clone())
    };
    let (all, status) = shown(vec![gpu()]);
    assert_eq!(all.len(), 16);
    assert_eq!(status[0]["throttled"][0]["reason"], "sw_power_cap");
    for (family, key, without) in [
        ("weir_gpu_utilization_ratio", "utilization", Figures { utilization: None, ..gpu().figures }),
        ("weir_gpu_power_watts", "power_watts", Figures { power: None, ..gpu().figures }),
        ("weir_gpu_temperature_celsius", "temperature_celsius", Figures { temperature: None, ..gpu().figures }),
        ("weir_gpu_mig_enabled", "mig", Figures { mig: None, ..gpu().figures }),
    ] {
        let (families, status) = shown(vec![Device { figures: without, ..gpu() }]);
        assert_eq!(all.difference(&families).collect::<Vec<_>>(), [family]);
        assert!(status[0][key].is_null() && status[0]["uuid"] == "GPU-a", "{status}");
    }
    let (families, status) = shown(vec![gpu().silent()]);
    assert_eq!(families.into_iter().collect::<Vec<_>>(), ["weir_gpu_info", "weir_gpu_up"]);
    assert_eq!((&status[0]["up"], &status[0]["throttled"]), (&false.into(), &serde_json::Value::Null));
    assert_eq!(shown(Vec::new()), (BTreeSet::new(), serde_json::json!([])));
}

#[test]
fn knee_and_saturation_say_what_is_known_and_what_is_missing() {
    let snapshot = books::busy(1);
    let page = weir::export::knee::knee(&snapshot, &[Some(judged(true))], &[], 1e9);
    let backend = &page["backends"][0];
    assert_eq!(backend["knee"]["requests_per_second"], serde_json::json!({"value": 13.0, "low": 12.35, "high": 13.65}));
    assert_eq!((&backend["knee"]["regime"], &backend["knee"]["source"]), (&"slots".into(), &"online".into()));
    assert!((backend["knee"]["confidence"].as_f64().unwrap() - 0.95).abs() < 1e-9);
    let curve = backend["curve"].as_array().unwrap();
    let end = &curve[9];
    assert!((end["requests_per_second"].as_f64().unwrap() - 13.0).abs() < 1e-9, "it ends at the knee: {end}");
    assert!((end["in_flight"].as_f64().unwrap() - 91.0).abs() < 1e-9);
    assert!(curve.windows(2).all(|p| p[0]["requests_per_second"].as_f64() < p[1]["requests_per_second"].as_f64()));
    let page = weir::export::knee::knee(&snapshot, &[Some(judged(false))], &[], 1e9);
    let backend = &page["backends"][0];
    assert!(backend["shift"].is_null() && backend["throttled"] == serde_json::json!([]));
    let mut slower = judged(true);
    slower.reading.shift = Some(Shift { at: Timestamp::ZERO, kind: ShiftKind::Slower });
    let page = weir::export::knee::knee(&snapshot, &[Some(slower)], &[gpu()], 1e9);
    let beside = "GPU 0 throttled (power cap) since 2001-09-09T01:46:40Z";
    let shift = &page["backends"][0]["shift"];
    assert_eq!((&shift["kind"], &shift["at"], &shift["beside"][0]), (&"slower".into(), &1e9.into(), &beside.into()));
    assert!(backend["knee"].is_null() && !backend["missing"].as_array().unwrap().is_empty(), "{backend}");
    assert_eq!(backend["prediction"]["in_flight"], 90.0);

    let now = weir::export::knee::saturation(&snapshot, &[Some(judged(true))]);
    assert_eq!(now["state"], "saturated");
    assert_eq!((now["ratio"].as_f64(), now["suggested_in_flight"].as_f64()), (Some(2.0), Some(91.0)));
    assert_eq!(now["retry_after_s"], 7, "91 too many at 13 a second");
    let mut calm = judged(true);
    (calm.reading.state, calm.reading.in_flight) = (SaturationState::Healthy, 45);
    let now = weir::export::knee::saturation(&snapshot, &[Some(calm)]);
    assert_eq!((&now["state"], &now["retry_after_s"]), (&"healthy".into(), &0.into()));
    let now = weir::export::knee::saturation(&snapshot, &[None]);
    assert_eq!(now["state"], "unknown");
    assert!(now["ratio"].is_null() && now["suggested_in_flight"].is_null());
}

#[test]
fn the_identities_hold_in_the_text_and_in_the_status() {
    let snapshot = books::busy(5);
    assert_eq!(Text::parse(&render(&snapshot)).unwrap().identities(), Ok(5));
    assert_eq!(status_identities(&describe(&snapshot, &ProcessState::default(), false)), Ok(1));
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
    let mut status = describe(&books::busy(1), &ProcessState::default(), false);
    status["backends"][0]["totals"]["finished"]["deadline"] = 77.into();
    assert!(status_identities(&status).is_err());
}

#[test]
fn a_hostile_model_name_is_one_harmless_label_value() {
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
fn a_full_account_has_at_most_the_documented_series() {
    let series = |accounts| Text::parse(&render(&books::busy(accounts))).unwrap().samples.len();
    let (one, two) = (series(1), series(2));
    println!("{} series an account, {} for the process", two - one, 2 * one - two);
    assert!(
        two - one <= documented_series(),
        "{}, docs/operate/metrics-additions.md says how many there are",
        two - one
    );
}

#[test]
fn status_has_every_documented_key_and_agrees_with_metrics() {
    let snapshot = books::busy(3);
    let text = Text::parse(&render(&snapshot)).unwrap();
    let status = describe(&snapshot, &facts(judged(true)), false);
    let backend = &status["backends"][0];
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let set = |names: &str| names.split(' ').map(str::to_owned).collect::<BTreeSet<_>>();
    assert!(keys(&status).is_superset(&set("version mode draining uptime_s backends")), "{status}");
    let expected = "name up rates_10s rates_60s in_flight pending decoding queue ttft_s upstream_ttft_s itl_s e2e_s \
                    saturation limits totals engine bad_answers";
    assert!(keys(backend).is_superset(&set(expected)), "{backend}");
    assert!(keys(&backend["totals"]).is_superset(&set("offered admitted completed shed abandoned finished")));
    assert_eq!(keys(&backend["saturation"]), set("state ratio since_s demand_ratio reason"));
    assert_eq!(
        (backend["saturation"]["state"].as_str(), backend["saturation"]["ratio"].as_f64()),
        (Some("saturated"), Some(2.0))
    );
    assert_eq!(backend["bad_answers"]["framing"], 0);
    let unjudged = describe(&snapshot, &ProcessState::default(), false);
    assert_eq!(unjudged["backends"][0]["saturation"]["state"], "unknown");
    assert_eq!(keys(&unjudged["backends"][0]["saturation"]), keys(&backend["saturation"]));
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
