//! The engine's own metrics as families and as a part of `/status`. They never replace weir's own counts.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::exposition::{ExpositionWriter, Label};
use super::families as f;
use crate::measure::snapshot::Snapshot;

/// One engine's own metrics. The caller leaves out readings older than three intervals.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineReport {
    /// The label `engine`.
    pub engine: &'static str,
    /// Whether the last read worked.
    pub up: bool,
    /// Age of the fields below; `None` when none of them is fresh.
    pub age: Option<Duration>,
    /// Unix time of the last good read, however old.
    pub read_at: Option<f64>,
    pub running: Option<f64>,
    /// By reason.
    pub waiting: Vec<(&'static str, f64)>,
    pub kv_usage: Option<f64>,
    pub kv_tokens: Option<f64>,
    pub max_num_seqs: Option<f64>,
    /// How its count compares with weir's.
    pub accord: &'static str,
    /// Requests that it has beyond weir's.
    pub excess: Option<f64>,
}

/// The families of "Backend and corroboration"; what an engine does not offer is absent.
pub fn write(exposition: &mut ExpositionWriter<'_>, snapshot: &Snapshot, reports: &[Option<EngineReport>]) {
    let engines = || {
        let known = snapshot.backends.iter().zip(&snapshot.served).zip(reports);
        known.filter_map(|((backend, model), report)| Some((backend, model, report.as_ref()?)))
    };
    exposition.family(&f::SCRAPE_UP, |out| {
        for (backend, model, report) in engines() {
            let own = ("engine", report.engine);
            out.count(&[("backend", &**backend), ("model_name", &**model), own], u64::from(report.up));
        }
    });
    let mut gauge = |family, value: fn(&EngineReport) -> Option<f64>| {
        exposition.family(family, |out| {
            for (backend, model, report) in engines() {
                if let Some(value) = value(report) {
                    out.value(&[("backend", &**backend), ("model_name", &**model)], value);
                }
            }
        });
    };
    gauge(&f::SCRAPE_AT, |report| report.read_at);
    gauge(&f::REPORTED_RUNNING, |report| report.running);
    gauge(&f::REPORTED_KV_USAGE, |report| report.kv_usage);
    exposition.family(&f::REPORTED_WAITING, |out| {
        for (backend, model, report) in engines() {
            for (reason, count) in &report.waiting {
                let labels: [Label<'_>; 3] = [("backend", backend), ("model_name", model), ("reason", reason)];
                out.value(&labels, *count);
            }
        }
    });
}

/// The part of `/status`; null while no engine is recognised and none is configured.
pub fn describe(report: Option<&EngineReport>) -> Value {
    let Some(report) = report else { return Value::Null };
    let waiting: Map<_, _> =
        report.waiting.iter().map(|(reason, count)| ((*reason).to_owned(), Value::from(*count))).collect();
    json!({
        "kind": report.engine,
        "scrape_up": report.up,
        "age_s": report.age.map(|age| age.as_secs_f64()),
        "running": report.running,
        "waiting": waiting,
        "kv_cache_usage": report.kv_usage,
        "kv_tokens": report.kv_tokens,
        "max_num_seqs": report.max_num_seqs,
        "accord": report.accord,
        "excess": report.excess,
    })
}
