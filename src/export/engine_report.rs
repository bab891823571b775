//! What an engine reports of itself, as families and as a part of `/status`. It never stands in for our own counts.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::exposition::{ExpositionWriter, Label};
use super::families as f;
use crate::measure::snapshot::Snapshot;

/// One engine's own words. What is older than three intervals is left out by whoever fills this in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineReport {
    /// The label `engine`.
    pub engine: &'static str,
    /// Whether the last read worked.
    pub up: bool,
    /// Age of what follows; `None` when there is nothing fresh.
    pub age: Option<Duration>,
    /// Unix time of the last good read, however old.
    pub read_at: Option<f64>,
    pub running: Option<f64>,
    /// By reason.
    pub waiting: Vec<(&'static str, f64)>,
    pub kv_usage: Option<f64>,
    pub kv_tokens: Option<f64>,
    pub max_num_seqs: Option<f64>,
    /// How its count stands to ours.
    pub accord: &'static str,
    /// Requests it has beyond ours.
    pub excess: Option<f64>,
}

/// The families of "Backend and corroboration"; what an engine does not offer is absent.
pub fn write(exposition: &mut ExpositionWriter<'_>, snapshot: &Snapshot, reported: &[Option<EngineReport>]) {
    let engines = || {
        let known = snapshot.backends.iter().zip(&snapshot.served).zip(reported);
        known.filter_map(|((backend, model), reported)| Some((backend, model, reported.as_ref()?)))
    };
    exposition.column(&f::SCRAPE_UP, |out| {
        for (backend, model, reported) in engines() {
            let own = ("engine", reported.engine);
            out.count(&[("backend", &**backend), ("model_name", &**model), own], u64::from(reported.up));
        }
    });
    let mut gauge = |family, value: fn(&EngineReport) -> Option<f64>| {
        exposition.column(family, |out| {
            for (backend, model, reported) in engines() {
                if let Some(value) = value(reported) {
                    out.value(&[("backend", &**backend), ("model_name", &**model)], value);
                }
            }
        });
    };
    gauge(&f::SCRAPE_AT, |reported| reported.read_at);
    gauge(&f::REPORTED_RUNNING, |reported| reported.running);
    gauge(&f::REPORTED_KV_USAGE, |reported| reported.kv_usage);
    exposition.column(&f::REPORTED_WAITING, |out| {
        for (backend, model, reported) in engines() {
            for (reason, count) in &reported.waiting {
                let labels: [Label<'_>; 3] = [("backend", backend), ("model_name", model), ("reason", reason)];
                out.value(&labels, *count);
            }
        }
    });
}

/// The part of `/status`; null while no engine is recognised and none is configured.
pub fn describe(reported: Option<&EngineReport>) -> Value {
    let Some(reported) = reported else { return Value::Null };
    let waiting: Map<_, _> =
        reported.waiting.iter().map(|(reason, count)| ((*reason).to_owned(), Value::from(*count))).collect();
    json!({
        "kind": reported.engine,
        "scrape_up": reported.up,
        "age_s": reported.age.map(|age| age.as_secs_f64()),
        "running": reported.running,
        "waiting": waiting,
        "kv_cache_usage": reported.kv_usage,
        "kv_tokens": reported.kv_tokens,
        "max_num_seqs": reported.max_num_seqs,
        "accord": reported.accord,
        "excess": reported.excess,
    })
}
