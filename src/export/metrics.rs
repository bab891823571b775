//! `/metrics`: one snapshot of the ledger and the process's facts, written as Prometheus' text.
//!
//! One snapshot a scrape is what makes the identities of metrics.md section 3 exact: nothing is read twice, and no counter
//! lives outside the ledger. Every child of a closed enumeration is written from the moment its backend and model are
//! known, so that `rate()` sees the first event. Duration is the exception: only outcomes seen are written, as a histogram
//! of zeros is eighteen series of nothing.

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

/// Media type of the exposition.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Writes expositions; keeps what does not change from scrape to scrape.
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
        let probe = handles.probe.as_ref().map(|probe| probe.status());
        self.write(&snapshot, &handles.facts.facts().of(&snapshot), handles.drain.draining(), probe.as_ref())
    }

    /// The exposition of one snapshot.
    pub fn write(
        &self,
        snapshot: &Snapshot,
        facts: &ProcessState,
        draining: bool,
        probe: Option<&probe::Status>,
    ) -> Result<String, prometheus::Error> {
        let mut exposition = ExpositionWriter::new(&self.disabled);
        write_ledger(&mut exposition, &snapshot.accounts);
        write_state(&mut exposition, snapshot, facts, draining);
        write_latency(&mut exposition, &snapshot.accounts);
        write_tokens(&mut exposition, &snapshot.accounts);
        saturation::write(&mut exposition, snapshot, &facts.judged, facts.epoch);
        probe::write(&mut exposition, snapshot, probe);
        write_process(&mut exposition, snapshot, facts);
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
        exposition.column(family, |out| {
            for books in accounts {
                per(out, books, label, values, counts(books));
            }
        });
    };
    split(exposition, &f::OFFERED, "priority", &priorities, |books| &books.offered);
    split(exposition, &f::ADMITTED, "priority", &priorities, |books| &books.admitted);
    exposition.column(&f::SHED, |out| accounts.iter().for_each(|books| write_shed(out, books)));
    split(exposition, &f::ABANDONED, "phase", &AbandonPhase::ALL.map(AbandonPhase::as_str), |books| &books.abandoned);
    exposition.column(&f::FINISHED, |out| accounts.iter().for_each(|books| write_finished(out, books)));
    exposition.column(&f::SLO, |out| accounts.iter().for_each(|books| write_slo(out, books)));
    split(exposition, &f::RETRIES, "reason", &RetryReason::ALL.map(RetryReason::as_str), |books| &books.retries);
    let reasons = NoTokenReason::ALL.map(NoTokenReason::as_str);
    split(exposition, &f::WITHOUT_FIRST_TOKEN, "reason", &reasons, |books| &books.without);
    split(exposition, &f::MOVED, "direction", &Direction::ALL.map(Direction::as_str), |books| &books.moved);
    one(exposition, &f::OPAQUE, accounts, |books| books.opaque);
    one(exposition, &f::STALLS, accounts, |books| books.stalls);
}

fn write_shed(out: &mut FamilyWriter, books: &AccountSnapshot) {
    for priority in Class::ALL {
        for reason in ShedReason::ALL {
            let labels = [("priority", priority.as_str()), ("reason", reason.as_str())];
            out.count(&common(books, labels), books.shed[priority.index()][reason.index()]);
        }
    }
}

fn write_finished(out: &mut FamilyWriter, books: &AccountSnapshot) {
    for outcome in Outcome::ALL {
        for code in CodeClass::ALL {
            let count = books.finished[outcome.index()][code.index()];
            if outcome.can_end_with(code) || count > 0 {
                out.count(&common(books, [("outcome", outcome.as_str()), ("code", code.as_str())]), count);
            }
        }
    }
}

fn write_slo(out: &mut FamilyWriter, books: &AccountSnapshot) {
    for objective in Objective::ALL {
        for verdict in ObjectiveResult::ALL {
            let labels = [("slo", objective.as_str()), ("result", verdict.as_str())];
            out.count(&common(books, labels), books.slo[objective.index()][verdict.index()]);
        }
    }
}

fn write_state(exposition: &mut ExpositionWriter<'_>, snapshot: &Snapshot, facts: &ProcessState, draining: bool) {
    let accounts = &snapshot.accounts;
    exposition.column(&f::MODE, |out| {
        for mode in Mode::ALL {
            out.count(&[("mode", mode.as_str())], u64::from(mode == facts.mode));
        }
    });
    exposition.column(&f::INFLIGHT, |out| {
        for books in accounts {
            per(out, books, "phase", &Phase::ALL.map(Phase::as_str), &books.in_flight);
        }
    });
    one(exposition, &f::PENDING, accounts, |books| books.pending);
    exposition.column(&f::QUEUE_DEPTH, |out| {
        for books in accounts {
            per(out, books, "priority", &Class::ALL.map(Class::as_str), &books.queued);
        }
    });
    exposition.column(&f::QUEUE_OLDEST, |out| {
        for books in &snapshot.accounts {
            let age = books.oldest_queued.map_or(Duration::ZERO, |since| snapshot.at.since(since));
            out.value(&common(books, []), age.as_secs_f64());
        }
    });
    gate_status::write(exposition, snapshot, &facts.gates);
    exposition.single(&f::DRAINING, f64::from(u8::from(draining)));
}

fn write_latency(exposition: &mut ExpositionWriter<'_>, accounts: &[AccountSnapshot]) {
    exposition.column(&f::TTFT, |out| {
        for books in accounts {
            for (streaming, buckets) in ["false", "true"].into_iter().zip(&books.ttft) {
                out.histogram(&common(books, [("streaming", streaming)]), buckets);
            }
        }
    });
    whole(exposition, &f::UPSTREAM_TTFT, accounts, |books| &books.upstream_ttft);
    whole(exposition, &f::ITL, accounts, |books| &books.itl);
    whole(exposition, &f::TPOT, accounts, |books| &books.tpot);
    whole(exposition, &f::GAP, accounts, |books| &books.gap);
    exposition.column(&f::DURATION, |out| {
        for books in accounts {
            for outcome in Outcome::ALL {
                let buckets = &books.duration[outcome.index()];
                if buckets.count() > 0 {
                    out.histogram(&common(books, [("outcome", outcome.as_str())]), buckets);
                }
            }
        }
    });
    exposition.column(&f::QUEUE_WAIT, |out| {
        for books in accounts {
            for exit in QueueExit::ALL {
                out.histogram(&common(books, [("outcome", exit.as_str())]), &books.queue_wait[exit.index()]);
            }
        }
    });
    exposition.column(&f::OVERHEAD, |out| {
        for books in accounts {
            for stage in OverheadStage::ALL {
                out.histogram(&common(books, [("stage", stage.as_str())]), &books.overhead[stage.index()]);
            }
        }
    });
}

fn write_tokens(exposition: &mut ExpositionWriter<'_>, accounts: &[AccountSnapshot]) {
    one(exposition, &f::INPUT_TOKENS, accounts, |books| books.input_tokens);
    exposition.column(&f::OUTPUT_TOKENS, |out| {
        for books in accounts {
            per(out, books, "source", &TokenSource::ALL.map(TokenSource::as_str), &books.output_tokens);
        }
    });
    whole(exposition, &f::REQUEST_INPUT, accounts, |books| &books.request_input);
    whole(exposition, &f::REQUEST_OUTPUT, accounts, |books| &books.request_output);
    one(exposition, &f::CHUNKS, accounts, |books| books.chunks);
}

fn write_process(exposition: &mut ExpositionWriter<'_>, snapshot: &Snapshot, facts: &ProcessState) {
    exposition.column(&f::BACKEND_UP, |out| {
        for (place, backend) in snapshot.backends.iter().enumerate() {
            let up = facts.up.get(place).copied().unwrap_or(false);
            out.count(&[("backend", backend)], u64::from(up));
        }
    });
    engine_report::write(exposition, snapshot, &facts.reported);
    gpu::write(exposition, &facts.gpus);
    exposition.column(&f::MALFORMED, |out| {
        for reason in MalformedReason::ALL {
            out.count(&[("code", reason.as_str())], snapshot.malformed[reason.index()]);
        }
    });
    exposition.single(&f::CONNECTIONS, facts.connections as f64);
    exposition.single(&f::ACCEPT_ERRORS, facts.accept_errors as f64);
    exposition.single(&f::PANICS, facts.panics as f64);
    exposition.single(&f::DROPPED, snapshot.dropped as f64);
    exposition.single(&f::BODY_MEMORY, facts.body_memory as f64);
    exposition.column(&f::JOURNAL, |out| {
        if let Some(journal) = facts.journal {
            out.count(&[("result", "written")], journal.written);
            // The books hand their records over themselves and count what found no room.
            out.count(&[("result", "dropped")], journal.dropped + snapshot.unjournalled);
            out.count(&[("result", "failed")], journal.failed);
        }
    });
    exposition.column(&f::SPANS, |out| {
        if let Some(spans) = facts.spans {
            out.count(&[("result", "sent")], spans.sent);
            out.count(&[("result", "dropped")], spans.dropped);
            out.count(&[("result", "failed")], spans.failed);
        }
    });
    exposition.column(&f::LOG_LOST, |out| {
        out.count(&[("kind", "log")], facts.log_lost);
        if let Some(lost) = facts.access_lost {
            out.count(&[("kind", "access")], lost);
        }
    });
    exposition.column(&f::LABEL_OVERFLOW, |out| out.count(&[("label", "model_name")], snapshot.overflow));
    exposition.single(&f::RELOAD_OK, f64::from(u8::from(facts.reload_accepted)));
    exposition.column(&f::RELOADS, |out| {
        out.count(&[("result", "accepted")], facts.reloads.0);
        out.count(&[("result", "refused")], facts.reloads.1);
    });
    exposition.single(&f::RELOAD_AT, facts.reload_accepted_at);
    exposition.column(&f::BUILD, |out| {
        let version = env!("CARGO_PKG_VERSION");
        out.count(&[("version", version), ("revision", REVISION), ("rustc", RUSTC)], 1);
    });
}

/// One sample an account.
fn one(
    exposition: &mut ExpositionWriter<'_>,
    family: &FamilyDescription,
    accounts: &[AccountSnapshot],
    count: fn(&AccountSnapshot) -> u64,
) {
    exposition.column(family, |out| {
        for books in accounts {
            out.count(&common(books, []), count(books));
        }
    });
}

/// One histogram an account.
fn whole(
    exposition: &mut ExpositionWriter<'_>,
    family: &FamilyDescription,
    accounts: &[AccountSnapshot],
    of: fn(&AccountSnapshot) -> &Buckets,
) {
    exposition.column(family, |out| {
        for books in accounts {
            out.histogram(&common(books, []), of(books));
        }
    });
}

/// One sample a value of a closed enumeration.
fn per(out: &mut FamilyWriter, books: &AccountSnapshot, label: &'static str, values: &[&str], counts: &[u64]) {
    for (value, count) in values.iter().zip(counts) {
        out.count(&common(books, [(label, value)]), *count);
    }
}

/// The common labels and `own`, in that order.
fn common<'a, const N: usize>(books: &'a AccountSnapshot, own: [Label<'a>; N]) -> Vec<Label<'a>> {
    let mut labels = vec![("backend", &*books.backend), ("model_name", &*books.model)];
    labels.extend(own);
    labels
}

/// Set by whoever builds a release; a plain checkout does not know.
const REVISION: &str = match option_env!("WEIR_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};
const RUSTC: &str = match option_env!("WEIR_RUSTC") {
    Some(rustc) => rustc,
    None => "unknown",
};
