//! Books with something in them.

use std::sync::Arc;

use weir::backend::BackendId;
use weir::measure::{Account, Arrival, BackendNames, BucketSettings, CodeClass, End, Entry, Ledger, Outcome, Priority};
use weir::slo::Slo;
use weir::time::Timestamp;

/// One backend, one model, one completed request and one in flight.
pub fn ledger() -> Arc<Ledger> {
    let names = [BackendNames { name: "gpu-0".into(), model_name: Some("m0".into()) }];
    let ledger = Ledger::new(1, &names, Slo::default(), BucketSettings::default(), None);
    let account = Account { backend: BackendId(0), model: ledger.model(BackendId(0), None) };
    let arrival = Arrival {
        at: Timestamp::ZERO,
        stream: true,
        trace: false,
        dialect: "openai.chat",
        prompt_tokens: None,
        max_output: None,
        choices: 1,
    };
    for finished in [true, false] {
        let mut entry = Entry::offer(&ledger.shard(0), account, Priority::Default, arrival);
        entry.admit(Timestamp::ZERO);
        entry.on_emission(Timestamp::from_nanos(5), 1, false);
        if finished {
            let end =
                End { outcome: Outcome::Completed, code: CodeClass::Ok2xx, at: Timestamp::from_nanos(9), usage: None };
            entry.finish(end);
        } else {
            std::mem::forget(entry);
        }
    }
    ledger
}
