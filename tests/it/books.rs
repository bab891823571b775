//! Books with something in them.

use std::sync::Arc;
use std::time::Duration;

use weir::measure::{
    Account, Arrival, BackendNames, BucketSettings, Class, CodeClass, Entry, EntryEnd, Ledger, Outcome, OverheadStage,
    RetryReason, ShedReason, Snapshot, Usage,
};
use weir::vocabulary::backend_id::BackendId;
use weir::vocabulary::slo::Slo;
use weir::vocabulary::time::Timestamp;

/// One backend, one model, one completed request and one in flight.
pub fn ledger() -> Arc<Ledger> {
    let (ledger, account) = one_model("m0");
    for finished in [true, false] {
        let mut entry = Entry::offer(&ledger.shard(0), account, Class::Default, arrival(Timestamp::ZERO, true));
        entry.admit(Timestamp::ZERO);
        entry.on_emission(Timestamp::from_nanos(5), 1, false);
        if finished {
            entry.finish(end(Outcome::Completed, CodeClass::Ok2xx, Timestamp::from_nanos(9)));
        } else {
            std::mem::forget(entry);
        }
    }
    ledger
}

/// One backend and `models` models, each with every outcome, every refusal and something in every state.
pub fn busy(models: usize) -> Snapshot {
    let names = [BackendNames { name: "gpu-0".into(), model_name: None }];
    let ledger = Ledger::new(2, &names, Slo::default(), BucketSettings::default(), None);
    for model in 0..models {
        let model = ledger.model(BackendId(0), Some(&format!("m{model}")));
        fill(&ledger, Account { backend: BackendId(0), model });
    }
    ledger.shard(1).malformed(431);
    ledger.snapshot(at(60_000))
}

/// `backends` backends that serve `models` models each, as busy.
pub fn fleet(backends: u16, models: usize) -> Arc<Ledger> {
    let name = |i| BackendNames { name: format!("gpu-{i}").into(), model_name: Some("m0".into()) };
    let names: Vec<_> = (0..backends).map(name).collect();
    let ledger = Ledger::new(2, &names, Slo::default(), BucketSettings::default(), None);
    for backend in (0..backends).map(BackendId) {
        for model in 0..models {
            let model = ledger.model(backend, Some(&format!("m{model}")));
            fill(&ledger, Account { backend, model });
        }
    }
    ledger
}

/// One completed request of a model of this name.
pub fn of_model(name: &str) -> Snapshot {
    let (ledger, account) = one_model(name);
    let mut entry = Entry::offer(&ledger.shard(0), account, Class::Default, arrival(Timestamp::ZERO, true));
    entry.admit(Timestamp::ZERO);
    entry.finish(end(Outcome::Completed, CodeClass::Ok2xx, at(1)));
    ledger.snapshot(at(2))
}

fn one_model(name: &str) -> (Arc<Ledger>, Account) {
    let names = [BackendNames { name: "gpu-0".into(), model_name: Some(name.into()) }];
    let ledger = Ledger::new(1, &names, Slo::default(), BucketSettings::default(), None);
    let account = Account { backend: BackendId(0), model: ledger.model(BackendId(0), None) };
    (ledger, account)
}

fn fill(ledger: &Ledger, account: Account) {
    for (i, priority) in Class::ALL.into_iter().enumerate() {
        let shard = ledger.shard(i);
        let offer = |ms, stream| Entry::offer(&shard, account, priority, arrival(at(ms), stream));
        for outcome in Outcome::ALL {
            for code in CodeClass::ALL.into_iter().filter(|code| outcome.can_end_with(*code)) {
                let mut entry = offer(10, i % 2 == 0);
                entry.admit(at(12));
                entry.on_overhead(OverheadStage::Request, Duration::from_micros(30));
                entry.on_overhead(OverheadStage::FirstByte, Duration::from_micros(20));
                entry.retry(RetryReason::Connect);
                entry.on_emission(at(100), 1, false);
                entry.on_emission(at(120), 1, false);
                entry.finish(end(outcome, code, at(130)));
            }
        }
        for reason in ShedReason::ALL {
            offer(20, true).shed(reason, at(25));
        }
        offer(30, true).abandon(at(35));
        let mut decoding = offer(40, true);
        decoding.admit(at(41));
        decoding.on_emission(at(90), 1, false);
        let mut pending = offer(40, true);
        pending.admit(at(41));
        for open in [decoding, pending, offer(50, true)] {
            std::mem::forget(open);
        }
    }
}

fn arrival(at: Timestamp, stream: bool) -> Arrival {
    Arrival {
        at,
        stream,
        assembled: false,
        trace: false,
        dialect: "openai.chat",
        prompt_tokens: None,
        max_output: None,
        choices: 1,
        slo_ttft: Some(Slo::default().ttft),
    }
}

fn end(outcome: Outcome, code: CodeClass, at: Timestamp) -> EntryEnd {
    let usage = Some(Usage { input: Some(10), output: Some(2), cached: None });
    EntryEnd { outcome, code, at, usage: usage.filter(|_| outcome == Outcome::Completed) }
}

fn at(ms: u64) -> Timestamp {
    Timestamp::ZERO + Duration::from_millis(ms)
}
