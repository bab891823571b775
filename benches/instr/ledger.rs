//! The ledger: one value into each kind of histogram, and one emission of a stream from stamp to shard.

use std::hint::black_box;
use std::time::Duration;

use weir::measure::{
    Account, Arrival, BackendNames, Bounds, BucketSettings, Buckets, Class, Entry, Ledger, LogHistogram, SampleBuffer,
};
use weir::vocabulary::backend_id::BackendId;
use weir::vocabulary::slo::Slo;
use weir::vocabulary::time::Timestamp;

use crate::{Heap, Unit};

pub const UNITS: &[Unit] = &[
    Unit { name: "histogram_buckets", per: "value", count: 20_000, heap: Heap::Untouched, run: buckets },
    Unit { name: "histogram_log", per: "value", count: 20_000, heap: Heap::Untouched, run: log },
    Unit { name: "emission", per: "emission", count: 20_000, heap: Heap::Untouched, run: |n| emissions(n, false) },
    Unit {
        name: "emission_sampled",
        per: "emission",
        count: 20_000,
        heap: Heap::Untouched,
        run: |n| emissions(n, true),
    },
];

fn buckets(values: u64) {
    let mut histogram = Buckets::new(&Bounds::seconds(&SECONDS));
    for value in nanoseconds(values) {
        histogram.record(black_box(value));
    }
    black_box(histogram);
}

fn log(values: u64) {
    let mut histogram = LogHistogram::new();
    for value in nanoseconds(values) {
        histogram.record(black_box(value));
    }
    black_box(histogram);
}

/// One long stream, one token every 20 ms. `sampled`: also as samples, drained every 100 ms.
fn emissions(count: u64, sampled: bool) {
    let names = [BackendNames { name: "gpu-0".into(), model_name: None }];
    let slo = Slo { ttft: Duration::from_secs(1), itl: Duration::from_millis(200) };
    let ledger = Ledger::new(1, &names, slo, BucketSettings::default(), None);
    let account = Account { backend: BackendId(0), model: ledger.model(BackendId(0), Some("m")) };
    let arrival = Arrival {
        at: Timestamp::from_nanos(0),
        stream: true,
        assembled: false,
        trace: false,
        dialect: "openai_chat",
        prompt_tokens: Some(40),
        max_output: None,
        choices: 1,
        slo_ttft: Some(slo.ttft),
    };
    let mut entry = Entry::offer(&ledger.shard(0), account, Class::Default, arrival);
    entry.admit(Timestamp::from_nanos(1_000));
    let mut buffers = [SampleBuffer::default()];
    for n in 1..=count {
        entry.on_emission(Timestamp::from_nanos(n * GAP), black_box(1), false);
        if sampled && n % 5 == 0 {
            ledger.shard(0).drain_samples(&mut buffers);
            black_box(&buffers);
        }
    }
    black_box(&entry);
}

/// Values that walk over four decades, the same in every run.
fn nanoseconds(count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(|n| 100_000 + n.wrapping_mul(7_919_117) % 1_000_000_000)
}

/// Nanoseconds between two tokens.
const GAP: u64 = 20_000_000;

/// As many bounds as an exported latency has.
const SECONDS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0];
