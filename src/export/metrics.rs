//! `/metrics`: one snapshot of the ledger and the state of the process, written as Prometheus' text.
//!
//! One snapshot for each scrape makes the identities of the request counters exact: nothing is read twice, and no counter of
//! requests is outside the ledger. Every value of a closed enumeration is written from the moment its backend and model are known,
//! so that `rate()` sees the first event. Duration is the exception: only outcomes that happened are written, because a histogram
//! of zeros is eighteen useless series.

use std::collections::HashSet;
use std::time::Duration;

use super::exposition::{ExpositionWriter, FamilyDescription, FamilyWriter, Label};
use super::families as f;
use super::{Handles, Mode, ProcessState, engine_report, gate_status, gpu, probe, saturation};
use crate::measure::histogram::Buckets;
use crate::measure::snapshot::{AccountSnapshot, Snapshot};
use crate::measure::{
    AbandonPhase, Class, CodeClass, Direction, MalformedReason, NoTokenReason, Objective, ObjectiveResult, Outcome,
    OverheadStage, Phase, QueueExit, RetryReason, ShedReason, TokenSource,
};
use crate::vocabulary::bad_answer::BadAnswer;

/// Media type of the exposition.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Writes expositions.
pub struct Exposition {
    disabled: HashSet<String>,
    #[cfg(target_os = "linux")]
    process: prometheus::process_collector::ProcessCollector,
}

impl Exposition {
    /// An exposition without the families named in `disabled`.
    pub fn new(disabled: &[String]) -> Self {
        Self {
            disabled: disabled.iter().cloned().collect(),
            #[cfg(target_os = "linux")]
            process: prometheus::process_collector::ProcessCollector::for_self(),
        }
    }

    /// The exposition now.
    pub fn render(&self, handles: &Handles) -> Result<String, prometheus::Error> {
        let snapshot = handles.ledger.snapshot(handles.clock.now());
        let probe = handles.backend.probe().map(|probe| probe.status());
        self.write(&snapshot, &handles.backend.state().of(&snapshot), handles.backend.is_draining(), probe.as_ref())
    }

    /// The exposition of one snapshot.
    pub fn write(
        &self,
        snapshot: &Snapshot,
        process: &ProcessState,
        draining: bool,
        probe: Option<&probe::Status>,
    ) -> Result<String, prometheus::Error> {
        let mut exposition = ExpositionWriter::new(&self.disabled);
        write_ledger(&mut exposition, &snapshot.accounts);
        write_state(&mut exposition, snapshot, process, draining);
        write_latency(&mut exposition, &snapshot.accounts);
        write_tokens(&mut exposition, &snapshot.accounts);
        saturation::write(&mut exposition, snapshot, &process.estimates, process.epoch);
        probe::write(&mut exposition, snapshot, probe);
        write_process(&mut exposition, snapshot, process);
        #[cfg(target_os = "linux")]
        exposition.extend(prometheus::core::Collector::collect(&self.process));
        exposition.write()
    }
}

fn write_ledger(exposition: &mut ExpositionWriter<'_>, accounts: &[AccountSnapshot]) {
    let priorities = Class::ALL.map(Class::as_str);
    let split = |exposition: &mut ExpositionWriter<'_>,
                 family,
                 label,
                 values: &[&str],
                 counts: fn(&AccountSnapshot) -> &[u64]| {
        exposition.family(family, |out| {
            for account in accounts {
                per(out, account, label, values, counts(account));
            }
        });
    };
    split(exposition, &f::OFFERED, "priority", &priorities, |account| &account.offered);
    split(exposition, &f::ADMITTED, "priority", &priorities, |account| &account.admitted);
    exposition.family(&f::SHED, |out| accounts.iter().for_each(|account| write_shed(out, account)));
    split(exposition, &f::ABANDONED, "phase", &AbandonPhase::ALL.map(AbandonPhase::as_str), |account| {
        &account.abandoned
    });
    exposition.family(&f::FINISHED, |out| accounts.iter().for_each(|account| write_finished(out, account)));
    exposition.family(&f::SLO, |out| accounts.iter().for_each(|account| write_slo(out, account)));
    split(exposition, &f::RETRIES, "reason", &RetryReason::ALL.map(RetryReason::as_str), |account| &account.retries);
    let reasons = NoTokenReason::ALL.map(NoTokenReason::as_str);
    split(exposition, &f::WITHOUT_FIRST_TOKEN, "reason", &reasons, |account| &account.without);
    split(exposition, &f::MOVED, "direction", &Direction::ALL.map(Direction::as_str), |account| &account.moved);
    one(exposition, &f::OPAQUE, accounts, |account| account.opaque);
    one(exposition, &f::STALLS, accounts, |account| account.stalls);
}

fn write_shed(out: &mut FamilyWriter, account: &AccountSnapshot) {
    for priority in Class::ALL {
        for reason in ShedReason::ALL {
            let labels = [("priority", priority.as_str()), ("reason", reason.as_str())];
            out.count(&common(account, labels), account.shed[priority.index()][reason.index()]);
        }
    }
}

fn write_finished(out: &mut FamilyWriter, account: &AccountSnapshot) {
    for outcome in Outcome::ALL {
        for code in CodeClass::ALL {
            let count = account.finished[outcome.index()][code.index()];
            if outcome.can_end_with(code) || count > 0 {
                out.count(&common(account, [("outcome", outcome.as_str()), ("code", code.as_str())]), count);
            }
        }
    }
}

fn write_slo(out: &mut FamilyWriter, account: &AccountSnapshot) {
    for objective in Objective::ALL {
        for verdict in ObjectiveResult::ALL {
            let labels = [("slo", objective.as_str()), ("result", verdict.as_str())];
            out.count(&common(account, labels), account.slo[objective.index()][verdict.index()]);
        }
    }
}

fn write_state(exposition: &mut ExpositionWriter<'_>, snapshot: &Snapshot, process: &ProcessState, draining: bool) {
    let accounts = &snapshot.accounts;
    exposition.family(&f::MODE, |out| {
        for mode in Mode::ALL {
            out.count(&[("mode", mode.as_str())], u64::from(mode == process.mode));
        }
    });
    exposition.family(&f::INFLIGHT, |out| {
        for account in accounts {
            per(out, account, "phase", &Phase::ALL.map(Phase::as_str), &account.in_flight);
        }
    });
    one(exposition, &f::PENDING, accounts, |account| account.pending);
    exposition.family(&f::QUEUE_DEPTH, |out| {
        for account in accounts {
            per(out, account, "priority", &Class::ALL.map(Class::as_str), &account.queued);
        }
    });
    exposition.family(&f::QUEUE_OLDEST, |out| {
        for account in &snapshot.accounts {
            let age = account.oldest_queued.map_or(Duration::ZERO, |since| snapshot.at.since(since));
            out.value(&common(account, []), age.as_secs_f64());
        }
    });
    gate_status::write(exposition, snapshot, &process.gates);
    exposition.single(&f::DRAINING, f64::from(u8::from(draining)));
}

fn write_latency(exposition: &mut ExpositionWriter<'_>, accounts: &[AccountSnapshot]) {
    exposition.family(&f::TTFT, |out| {
        for account in accounts {
            for (streaming, buckets) in ["false", "true"].into_iter().zip(&account.ttft) {
                out.histogram(&common(account, [("streaming", streaming)]), buckets);
            }
        }
    });
    whole(exposition, &f::UPSTREAM_TTFT, accounts, |account| &account.upstream_ttft);
    whole(exposition, &f::ITL, accounts, |account| &account.itl);
    whole(exposition, &f::TPOT, accounts, |account| &account.tpot);
    whole(exposition, &f::GAP, accounts, |account| &account.gap);
    exposition.family(&f::DURATION, |out| {
        for account in accounts {
            for outcome in Outcome::ALL {
                let buckets = &account.duration[outcome.index()];
                if buckets.count() > 0 {
                    out.histogram(&common(account, [("outcome", outcome.as_str())]), buckets);
                }
            }
        }
    });
    exposition.family(&f::QUEUE_WAIT, |out| {
        for account in accounts {
            for exit in QueueExit::ALL {
                out.histogram(&common(account, [("outcome", exit.as_str())]), &account.queue_wait[exit.index()]);
            }
        }
    });
    exposition.family(&f::OVERHEAD, |out| {
        for account in accounts {
            for stage in OverheadStage::ALL {
                out.histogram(&common(account, [("stage", stage.as_str())]), &account.overhead[stage.index()]);
            }
        }
    });
}

fn write_tokens(exposition: &mut ExpositionWriter<'_>, accounts: &[AccountSnapshot]) {
    one(exposition, &f::INPUT_TOKENS, accounts, |account| account.input_tokens);
    exposition.family(&f::OUTPUT_TOKENS, |out| {
        for account in accounts {
            per(out, account, "source", &TokenSource::ALL.map(TokenSource::as_str), &account.output_tokens);
        }
    });
    whole(exposition, &f::REQUEST_INPUT, accounts, |account| &account.request_input);
    whole(exposition, &f::REQUEST_OUTPUT, accounts, |account| &account.request_output);
    one(exposition, &f::CHUNKS, accounts, |account| account.chunks);
}

fn write_process(exposition: &mut ExpositionWriter<'_>, snapshot: &Snapshot, process: &ProcessState) {
    exposition.family(&f::BACKEND_UP, |out| {
        for (i, backend) in snapshot.backends.iter().enumerate() {
            let up = process.up.get(i).copied().unwrap_or(false);
            out.count(&[("backend", backend)], u64::from(up));
        }
    });
    exposition.family(&f::BAD_ANSWERS, |out| {
        for (backend, counts) in snapshot.backends.iter().zip(&process.bad_answers) {
            for reason in BadAnswer::ALL {
                out.count(&[("backend", backend), ("reason", reason.as_str())], counts[reason.index()]);
            }
        }
    });
    engine_report::write(exposition, snapshot, &process.engine_reports);
    gpu::write(exposition, &process.gpus);
    exposition.family(&f::MALFORMED, |out| {
        for reason in MalformedReason::ALL {
            out.count(&[("code", reason.as_str())], snapshot.malformed[reason.index()]);
        }
    });
    exposition.single(&f::CONNECTIONS, process.connections as f64);
    exposition.single(&f::ACCEPT_ERRORS, process.accept_errors as f64);
    exposition.single(&f::PANICS, process.panics as f64);
    exposition.single(&f::DROPPED, snapshot.dropped as f64);
    exposition.single(&f::BODY_MEMORY, process.body_memory as f64);
    exposition.family(&f::JOURNAL, |out| {
        if let Some(journal) = process.journal {
            out.count(&[("result", "written")], journal.written);
            // The ledger sends its records itself and counts those that find the channel full.
            out.count(&[("result", "dropped")], journal.dropped + snapshot.unjournalled);
            out.count(&[("result", "failed")], journal.failed);
        }
    });
    exposition.family(&f::SPANS, |out| {
        if let Some(spans) = process.spans {
            out.count(&[("result", "sent")], spans.sent);
            out.count(&[("result", "dropped")], spans.dropped);
            out.count(&[("result", "failed")], spans.failed);
        }
    });
    exposition.family(&f::LOG_LOST, |out| {
        out.count(&[("kind", "log")], process.log_lost);
        if let Some(lost) = process.access_lost {
            out.count(&[("kind", "access")], lost);
        }
    });
    exposition.family(&f::LABEL_OVERFLOW, |out| out.count(&[("label", "model_name")], snapshot.overflow));
    exposition.single(&f::RELOAD_OK, f64::from(u8::from(process.reload_accepted)));
    exposition.family(&f::RELOADS, |out| {
        out.count(&[("result", "accepted")], process.reloads.0);
        out.count(&[("result", "refused")], process.reloads.1);
    });
    exposition.single(&f::RELOAD_AT, process.reload_accepted_at);
    exposition.family(&f::BUILD, |out| {
        let version = env!("CARGO_PKG_VERSION");
        out.count(&[("version", version), ("revision", REVISION), ("rustc", RUSTC)], 1);
    });
}

/// A family with one sample for each account.
fn one(
    exposition: &mut ExpositionWriter<'_>,
    family: &FamilyDescription,
    accounts: &[AccountSnapshot],
    count: fn(&AccountSnapshot) -> u64,
) {
    exposition.family(family, |out| {
        for account in accounts {
            out.count(&common(account, []), count(account));
        }
    });
}

/// A family with one histogram for each account.
fn whole(
    exposition: &mut ExpositionWriter<'_>,
    family: &FamilyDescription,
    accounts: &[AccountSnapshot],
    of: fn(&AccountSnapshot) -> &Buckets,
) {
    exposition.family(family, |out| {
        for account in accounts {
            out.histogram(&common(account, []), of(account));
        }
    });
}

/// One sample for each value of a closed enumeration.
fn per(out: &mut FamilyWriter, account: &AccountSnapshot, label: &'static str, values: &[&str], counts: &[u64]) {
    for (value, count) in values.iter().zip(counts) {
        out.count(&common(account, [(label, value)]), *count);
    }
}

/// The common labels and `own`, in that order.
fn common<'a, const N: usize>(account: &'a AccountSnapshot, own: [Label<'a>; N]) -> Vec<Label<'a>> {
    let mut labels = vec![("backend", &*account.backend), ("model_name", &*account.model)];
    labels.extend(own);
    labels
}

/// Set by the release build; a plain checkout has `unknown`.
const REVISION: &str = match option_env!("WEIR_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};
const RUSTC: &str = match option_env!("WEIR_RUSTC") {
    Some(rustc) => rustc,
    None => "unknown",
};
