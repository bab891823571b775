//! Admission: what a request costs from its arrival at the pool to the return of its permit, in either mode.

use std::hint::black_box;
use std::time::Duration;

use weir::admission::pool::{Acquire, BalancePolicy, Pool};
use weir::admission::{AdmissionRequest, Limits, Mode, Settings};
use weir::vocabulary::backend_id::BackendId;
use weir::vocabulary::time::Timestamp;

use crate::{Heap, Unit};

pub const UNITS: &[Unit] = &[
    Unit {
        name: "permit_observed",
        per: "request",
        count: 4_000,
        heap: Heap::Used,
        run: |count| requests(count, Mode::Observe),
    },
    Unit {
        name: "permit_enforced",
        per: "request",
        count: 4_000,
        heap: Heap::Used,
        run: |count| requests(count, Mode::Enforce),
    },
];

/// Each is admitted, has its first token and ends, beside ninety that stay.
fn requests(count: u64, mode: Mode) {
    let pool = Pool::new(BalancePolicy::MostRoom, 1, Settings::default());
    let at = |n: u64| Timestamp::from_nanos(1_000_000 + n * 50_000);
    pool.publish(BackendId(0), Limits { window: 200.0, ..Limits::new(mode) }, at(0));
    let request =
        |n: u64| AdmissionRequest { slo: Some(Duration::from_secs(1)), ..AdmissionRequest::new(at(n), 162.0) };
    let stay: Vec<Acquire> = (0..90).map(|_| pool.arrive(request(0), None, at(0))).collect();
    for n in 0..count {
        let Acquire::Granted(mut permit) = pool.arrive(black_box(request(n)), None, at(n)) else { continue };
        permit.on_first_token(at(n));
        permit.on_tokens(16);
        permit.end(at(n));
    }
    black_box((&pool, &stay));
}
