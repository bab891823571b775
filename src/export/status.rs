//! `/status`: the state of everything as one JSON object, for people and small programs.
//!
//! The shape is stable: a value without a source yet is null or `unknown`, never a missing key. A backend's models are
//! added up. It is made from the same snapshot as `/metrics` and keeps nothing between two calls.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Facts, Handles};
use crate::measure::histogram::LogHistogram;
use crate::measure::snapshot::{AccountBooks, Rates, Snapshot};
use crate::measure::{AbandonPhase, Outcome, Phase, ShedReason};

/// The status now, as one line of JSON.
pub fn render(handles: &Handles) -> String {
    let snapshot = handles.ledger.snapshot(handles.clock.now());
    format!("{}\n", describe(&snapshot, &handles.facts.facts(), handles.drain.draining()))
}

/// The status of one snapshot. The process's clock starts with the process, so its `at` is the uptime.
pub fn describe(snapshot: &Snapshot, facts: &Facts, draining: bool) -> Value {
    let backends = snapshot.backends.iter().enumerate().map(|(place, name)| {
        let accounts: Vec<_> = snapshot.accounts.iter().filter(|books| books.backend == *name).collect();
        backend(name, facts.up.get(place).copied().unwrap_or(false), &accounts, snapshot)
    });
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "mode": facts.mode.as_str(),
        "draining": draining,
        "uptime_s": snapshot.at.as_nanos() as f64 / 1e9,
        "backends": backends.collect::<Vec<_>>(),
    })
}

fn backend(name: &str, up: bool, accounts: &[&AccountBooks], snapshot: &Snapshot) -> Value {
    let phase = |phase: Phase| sum(accounts, |books| books.in_flight[phase.index()]);
    let oldest = accounts.iter().filter_map(|books| books.oldest_queued).min();
    let oldest = oldest.map_or(Duration::ZERO, |since| snapshot.at.since(since));
    json!({
        "name": name,
        "up": up,
        "rates_10s": rates(accounts, |books| &books.recent.rates_10s),
        "rates_60s": rates(accounts, |books| &books.recent.rates_60s),
        "in_flight": phase(Phase::Prefill) + phase(Phase::Decode),
        "pending": sum(accounts, |books| books.pending),
        "decoding": phase(Phase::Decode),
        "queue": { "depth": sum(accounts, |books| books.queued.iter().sum()), "oldest_s": oldest.as_secs_f64() },
        "ttft_s": quantiles(accounts, |books| &books.recent.ttft),
        "upstream_ttft_s": quantiles(accounts, |books| &books.recent.upstream_ttft),
        "itl_s": quantiles(accounts, |books| &books.recent.itl),
        "e2e_s": quantiles(accounts, |books| &books.recent.e2e),
        "saturation": { "state": "unknown", "ratio": null, "since_s": null },
        "limits": { "first_token_window": null, "kv_cap_tokens": null },
        "totals": totals(accounts),
    })
}

fn totals(accounts: &[&AccountBooks]) -> Value {
    let finished = |outcome: Outcome| sum(accounts, |books| books.finished[outcome.index()].iter().sum());
    let shed = |reason: ShedReason| sum(accounts, |books| books.shed.iter().map(|counts| counts[reason.index()]).sum());
    let abandoned = |phase: AbandonPhase| sum(accounts, |books| books.abandoned[phase.index()]);
    json!({
        "offered": sum(accounts, |books| books.offered.iter().sum()),
        "admitted": sum(accounts, |books| books.admitted.iter().sum()),
        "completed": finished(Outcome::Completed),
        "shed": object(ShedReason::ALL.map(|reason| (reason.as_str(), shed(reason)))),
        "abandoned": object(AbandonPhase::ALL.map(|phase| (phase.as_str(), abandoned(phase)))),
        "finished": object(Outcome::ALL.map(|outcome| (outcome.as_str(), finished(outcome)))),
    })
}

fn rates(accounts: &[&AccountBooks], of: fn(&AccountBooks) -> &Rates) -> Value {
    let sum = |rate: fn(&Rates) -> f64| accounts.iter().map(|books| rate(of(books))).fold(0.0, |a, b| a + b);
    json!({
        "offered": sum(|rates| rates.offered),
        "admitted": sum(|rates| rates.admitted),
        "completed": sum(|rates| rates.completed),
        "shed": sum(|rates| rates.shed),
        "output_tokens": sum(|rates| rates.output_tokens),
    })
}

/// p50, p90 and p99 in seconds; null when nothing was seen.
fn quantiles(accounts: &[&AccountBooks], of: fn(&AccountBooks) -> &LogHistogram) -> Value {
    let mut merged = LogHistogram::new();
    accounts.iter().for_each(|books| merged.merge(of(books)));
    let quantile = |q| merged.quantile(q).map(|nanos| nanos as f64 / 1e9);
    json!({ "p50": quantile(0.5), "p90": quantile(0.9), "p99": quantile(0.99) })
}

fn sum(accounts: &[&AccountBooks], count: impl Fn(&AccountBooks) -> u64) -> u64 {
    accounts.iter().map(|books| count(books)).sum()
}

fn object<const N: usize>(counts: [(&str, u64); N]) -> Value {
    counts.into_iter().map(|(key, count)| (key.to_owned(), Value::from(count))).collect::<Map<_, _>>().into()
}
