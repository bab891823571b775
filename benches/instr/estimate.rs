//! The estimator: what one emission of one of many streams costs it, including steps, rows, the length test and ticks.

use std::hint::black_box;
use std::time::Duration;

use weir::estimate::{EngineLimits, Estimator, Settings};
use weir::measure::{Class, RequestKey, Sample, What};
use weir::vocabulary::time::Timestamp;

use crate::{Heap, Unit};

pub const UNITS: &[Unit] = &[
    Unit { name: "estimate_emission", per: "emission", count: 200_000, heap: Heap::Untouched, run: emissions },
    Unit { name: "estimate_request", per: "request", count: 4_000, heap: Heap::Used, run: requests },
    Unit { name: "estimate_reading", per: "reading", count: 400, heap: Heap::Used, run: readings },
];

/// Ninety-one streams without end, a step every 20 ms.
fn emissions(count: u64) {
    let mut estimator = started();
    let mut now = 1_000_000;
    for n in 0..count {
        if n % STREAMS == 0 {
            now += STEP;
            if now % TICK < STEP {
                estimator.on_tick(Timestamp::from_nanos(now));
            }
        }
        let what = What::Emission { tokens: black_box(1), limited: false };
        estimator.on_sample(&Sample { at: Timestamp::from_nanos(now), request: RequestKey(n % STREAMS), what });
    }
    black_box(&estimator);
}

/// From offer to end with one emission.
fn requests(count: u64) {
    let mut estimator = started();
    for n in 0..count {
        let at = Timestamp::from_nanos(2_000_000 + n * STEP);
        let request = RequestKey(STREAMS + n);
        for what in [
            What::Offered { prompt: Some(100 + (n % 64) as u32), stream: true, priority: Class::Default },
            What::Admitted,
            What::Emission { tokens: 1, limited: false },
            What::Finished { completed: true, input: None, output: None, cached: None },
        ] {
            estimator.on_sample(black_box(&Sample { at, request, what }));
        }
    }
    black_box(&estimator);
}

fn readings(count: u64) {
    let mut estimator = started();
    (0..20_000).for_each(|n| {
        let at = Timestamp::from_nanos(2_000_000 + n / STREAMS * STEP);
        let what = What::Emission { tokens: 1, limited: false };
        estimator.on_sample(&Sample { at, request: RequestKey(n % STREAMS), what });
    });
    (0..count).for_each(|_| {
        black_box(estimator.reading());
    });
}

/// All streams under way.
fn started() -> Estimator {
    let engine = EngineLimits { max_num_seqs: Some(91), kv_tokens: Some(400_000), max_num_batched_tokens: Some(2048) };
    let mut estimator = Estimator::new(Settings { slo_ttft: Duration::from_secs(1), engine }, Timestamp::ZERO);
    for request in (0..STREAMS).map(RequestKey) {
        let at = Timestamp::from_nanos(1_000);
        estimator.on_sample(&Sample {
            at,
            request,
            what: What::Offered { prompt: Some(162), stream: true, priority: Class::Default },
        });
        estimator.on_sample(&Sample { at, request, what: What::Admitted });
    }
    estimator
}

const STREAMS: u64 = 91;
/// Nanoseconds.
const STEP: u64 = 20_000_000;
const TICK: u64 = 100_000_000;
