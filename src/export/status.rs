//! `/status`: the state of the process and its backends as one JSON object, for people and small programs.
//!
//! The shape is stable: a value that is not known yet is null or `unknown`, never a missing key. The models of a backend are summed.
//! It is made from the same snapshot as `/metrics` and keeps nothing between two calls.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Handles, ProcessState, engine_report, gate_status, gpu};
use crate::estimate::Reading;
use crate::measure::snapshot::{AccountSnapshot, Snapshot};
use crate::measure::{AbandonPhase, Direction, Outcome, Phase, Quantiles, Rates, ShedReason, WindowView};
use crate::vocabulary::bad_answer::BadAnswer;
use crate::vocabulary::time::Timestamp;

/// The status now, as one line of JSON.
pub fn render(handles: &Handles) -> String {
    let snapshot = handles.ledger.snapshot(handles.clock.now());
    format!("{}\n", describe(&snapshot, &handles.backend.state().of(&snapshot), handles.backend.is_draining()))
}

/// The status of one snapshot. The clock starts with the process, so the snapshot's `at` is the uptime.
pub fn describe(snapshot: &Snapshot, process: &ProcessState, draining: bool) -> Value {
    let backends = snapshot.backends.iter().enumerate().map(|(i, name)| {
        let accounts: Vec<_> = snapshot.accounts.iter().filter(|account| account.backend == *name).collect();
        let recent = snapshot.recent.get(i).cloned().unwrap_or_default();
        let mut described = backend(name, process.up.get(i).copied().unwrap_or(false), &accounts, &recent, snapshot);
        if let Some(Some(estimate)) = process.estimates.get(i) {
            described["saturation"] = saturation(&estimate.reading, snapshot.at);
        }
        let bad_answers = process.bad_answers.get(i).copied().unwrap_or_default();
        described["bad_answers"] = object(BadAnswer::ALL.map(|reason| (reason.as_str(), bad_answers[reason.index()])));
        described["limits"] = gate_status::describe(process.gates.get(i));
        described["engine"] = engine_report::describe(process.engine_reports.get(i).and_then(Option::as_ref));
        described
    });
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "mode": process.mode.as_str(),
        "draining": draining,
        "uptime_s": snapshot.at.as_secs_f64(),
        "backends": backends.collect::<Vec<_>>(),
        "gpus": gpu::describe(&process.gpus, snapshot.at, process.epoch),
    })
}

fn backend(name: &str, up: bool, accounts: &[&AccountSnapshot], recent: &WindowView, snapshot: &Snapshot) -> Value {
    let phase = |phase: Phase| sum(accounts, |account| account.in_flight[phase.index()]);
    let oldest = accounts.iter().filter_map(|account| account.oldest_queued).min();
    let oldest = oldest.map_or(Duration::ZERO, |since| snapshot.at.since(since));
    json!({
        "name": name,
        "up": up,
        "rates_10s": rates(&recent.rates_10s),
        "rates_60s": rates(&recent.rates_60s),
        "in_flight": phase(Phase::Prefill) + phase(Phase::Decode),
        "pending": sum(accounts, |account| account.pending),
        "decoding": phase(Phase::Decode),
        "queue": { "depth": sum(accounts, |account| account.queued.iter().sum()), "oldest_s": oldest.as_secs_f64() },
        "ttft_s": quantiles(recent.ttft),
        "upstream_ttft_s": quantiles(recent.upstream_ttft),
        "itl_s": quantiles(recent.itl),
        "e2e_s": quantiles(recent.e2e),
        "saturation": { "state": "unknown", "ratio": null, "since_s": null, "demand_ratio": null, "reason": null },
        "limits": null,
        "totals": totals(accounts),
    })
}

fn saturation(reading: &Reading, now: Timestamp) -> Value {
    json!({
        "state": reading.state.word(),
        "ratio": reading.ratio,
        "since_s": now.since(reading.since).as_secs_f64(),
        "demand_ratio": reading.demand_ratio,
        "reason": reading.reason,
    })
}

fn totals(accounts: &[&AccountSnapshot]) -> Value {
    let finished = |outcome: Outcome| sum(accounts, |account| account.finished[outcome.index()].iter().sum());
    let shed =
        |reason: ShedReason| sum(accounts, |account| account.shed.iter().map(|counts| counts[reason.index()]).sum());
    let moved = |direction: Direction| sum(accounts, |account| account.moved[direction.index()]);
    let abandoned = |phase: AbandonPhase| sum(accounts, |account| account.abandoned[phase.index()]);
    json!({
        "offered": sum(accounts, |account| account.offered.iter().sum()),
        "admitted": sum(accounts, |account| account.admitted.iter().sum()),
        "completed": finished(Outcome::Completed),
        "shed": object(ShedReason::ALL.map(|reason| (reason.as_str(), shed(reason)))),
        "abandoned": object(AbandonPhase::ALL.map(|phase| (phase.as_str(), abandoned(phase)))),
        "moved": object(Direction::ALL.map(|direction| (direction.as_str(), moved(direction)))),
        "finished": object(Outcome::ALL.map(|outcome| (outcome.as_str(), finished(outcome)))),
    })
}

fn rates(rates: &Rates) -> Value {
    json!({
        "offered": rates.offered,
        "admitted": rates.admitted,
        "completed": rates.completed,
        "shed": rates.shed,
        "output_tokens": rates.output_tokens,
    })
}

/// p50, p90 and p99 in seconds; null without observations.
fn quantiles(of: Option<Quantiles>) -> Value {
    json!({ "p50": of.map(|q| q.p50), "p90": of.map(|q| q.p90), "p99": of.map(|q| q.p99) })
}

fn sum(accounts: &[&AccountSnapshot], count: impl Fn(&AccountSnapshot) -> u64) -> u64 {
    accounts.iter().map(|account| count(account)).sum()
}

fn object<const N: usize>(counts: [(&str, u64); N]) -> Value {
    counts.into_iter().map(|(key, count)| (key.to_owned(), Value::from(count))).collect::<Map<_, _>>().into()
}
