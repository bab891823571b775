//! An engine's metrics page, whatever it sends: no panic, and no count that is not a finite number from 0.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weir::engine_metrics::settings::{EngineKind, Series};
use weir::engine_metrics::table::SeriesTable;

fuzz_target!(|body: &[u8]| {
    let recognised = SeriesTable::recognise(body);
    for engine in ENGINES {
        let Some(report) = SeriesTable::of(engine, &Series::default()).and_then(|table| table.read(body)) else {
            continue;
        };
        let counts = [report.running, report.kv_usage, report.kv_tokens, report.max_num_seqs];
        for count in counts.into_iter().chain(report.waiting).flatten() {
            // A sum of finite counts may overflow to infinity, but it is never negative and never NaN.
            assert!(count >= 0.0, "{engine:?}: {report:?}");
        }
        assert!(report.kv_usage.is_none_or(|share| share <= 1.0));
        // What a table reads, its engine's names are in; TGI is never recognised.
        assert!(recognised.is_some() || engine == EngineKind::Tgi, "{engine:?}: {report:?}");
    }
});

const ENGINES: [EngineKind; 6] = [
    EngineKind::Vllm,
    EngineKind::Sglang,
    EngineKind::TrtllmServe,
    EngineKind::Triton,
    EngineKind::Llamacpp,
    EngineKind::Tgi,
];
