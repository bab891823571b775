//! Synthetic load on the admin port: start, stop, status, and its families. Absent: the load and its guard, which are behind the
//! trait.

use serde_json::{Value, json};

use super::exposition::{ExpositionWriter, FamilyDescription, Label};
use super::families as f;
use crate::measure::{Buckets, Snapshot};

/// Runs synthetic load.
pub trait ProbeControl: Send + Sync {
    /// Begins a run.
    ///
    /// # Errors
    /// A run is under way, or none can start: a sentence that says why.
    fn start(&self) -> Result<(), String>;

    /// Ends the run at once; `false` when there is none.
    fn stop(&self) -> bool;

    /// The run under way, and the result of the last one.
    fn status(&self) -> Status;
}

/// The state of synthetic load.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// A run is under way.
    pub running: bool,
    /// Synthetic requests in flight that the current step asks for.
    pub held: u64,
    /// Synthetic requests in flight.
    pub in_flight: u64,
    /// Each backend's share, in the configuration's order.
    pub backends: Vec<SyntheticShare>,
    /// The last run.
    pub last: Option<RunSummary>,
}

/// One backend's share of synthetic load.
#[derive(Clone, Debug, PartialEq)]
pub struct SyntheticShare {
    /// Synthetic requests that ended, in the order of [`SyntheticOutcome::ALL`].
    pub ended: [u64; SyntheticOutcome::ALL.len()],
    /// Their first-token times.
    pub ttft: Buckets,
}

/// How a synthetic request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyntheticOutcome {
    /// Completely.
    Completed,
    /// Refused, by weir or by the backend.
    Refused,
    /// Otherwise.
    Failed,
}

/// The result of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunSummary {
    /// Why it ended, in a word.
    pub stopped: &'static str,
    /// And in a sentence.
    pub sentence: String,
    /// Unix time of its end.
    pub ended_at: f64,
    /// Highest rate of served requests a second, of clients and run together: a lower bound of the capacity.
    pub at_least: Option<f64>,
    /// The knee, when it was reached.
    pub knee: Option<SeenKnee>,
}

/// A knee that a run measured, over all backends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SeenKnee {
    /// Requests a second, of the clients' own length.
    pub requests_per_second: f64,
    /// The lowest and highest step of the plateau.
    pub low: f64,
    /// See `low`.
    pub high: f64,
    /// Output tokens a second.
    pub output_tokens_per_second: f64,
    /// Streams past their first token.
    pub in_flight: f64,
}

impl SyntheticOutcome {
    /// All of them, in order.
    pub const ALL: [Self; 3] = [Self::Completed, Self::Refused, Self::Failed];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// What `/probe` answers.
pub fn render(status: &Status) -> Value {
    let total = |ended: SyntheticOutcome| status.backends.iter().map(|share| share.ended[ended as usize]).sum::<u64>();
    let ended: serde_json::Map<_, _> =
        SyntheticOutcome::ALL.iter().map(|ended| (ended.as_str().to_owned(), json!(total(*ended)))).collect();
    json!({
        "running": status.running,
        "held": status.held,
        "in_flight": status.in_flight,
        "requests": ended,
        "last": status.last.as_ref().map(|last| json!({
            "stopped": last.stopped,
            "reason": last.sentence,
            "ended_at": last.ended_at,
            "at_least_requests_per_second": last.at_least,
            "knee": last.knee.map(|knee| describe(&knee, last.ended_at)),
        })),
    })
}

/// A knee in the shape of `/knee`.
pub fn describe(knee: &SeenKnee, at: f64) -> Value {
    json!({
        "source": "probe",
        "requests_per_second": { "value": knee.requests_per_second, "low": knee.low, "high": knee.high },
        "output_tokens_per_second": knee.output_tokens_per_second,
        "in_flight": knee.in_flight,
        "updated_at": at,
    })
}

/// Writes the families, if synthetic load is enabled. A run covers all backends: each one has its share of the requests, and the
/// state of the run.
pub fn write(exposition: &mut ExpositionWriter<'_>, snapshot: &Snapshot, status: Option<&Status>) {
    let Some(status) = status else { return };
    let shares = snapshot.ids.iter().filter_map(|id| status.backends.get(id.index()));
    let known = snapshot.backends.iter().zip(&snapshot.served).zip(shares);
    let rows: Vec<([Label<'_>; 2], &SyntheticShare)> =
        known.map(|((backend, model), share)| ([("backend", &**backend), ("model_name", &**model)], share)).collect();
    let mut same = |family: &FamilyDescription, value: f64| {
        exposition.family(family, |out| rows.iter().for_each(|(labels, _)| out.value(labels, value)));
    };
    same(&f::PROBE_ACTIVE, f64::from(u8::from(status.running)));
    if let Some(last) = &status.last {
        same(&f::PROBE_LAST_AT, last.ended_at);
        same(&f::PROBE_LAST_OK, f64::from(u8::from(last.knee.is_some())));
    }
    exposition.single(&f::PROBE_HELD, status.held as f64);
    exposition.family(&f::PROBE_REQUESTS, |out| {
        for ([backend, model], share) in &rows {
            for (ended, count) in SyntheticOutcome::ALL.iter().zip(share.ended) {
                out.count(&[*backend, *model, ("outcome", ended.as_str())], count);
            }
        }
    });
    exposition.family(&f::PROBE_TTFT, |out| rows.iter().for_each(|(labels, share)| out.histogram(labels, &share.ttft)));
}
