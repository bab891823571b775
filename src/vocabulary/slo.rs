//! The objectives for latency (SLO) that a request is judged by.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The objectives of one request; both are upper limits of elapsed time as the client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slo {
    /// Arrival to first content token.
    pub ttft: Duration,
    /// Gap between content events divided by the tokens in the event, mean over the request.
    pub itl: Duration,
}

/// The objectives in force; a reload changes them while other threads read.
#[derive(Debug)]
pub struct InForce {
    /// Nanoseconds. Read one by one: for the length of a store a request may be judged by one old and one new objective.
    ttft: AtomicU64,
    itl: AtomicU64,
}

impl InForce {
    /// Starts with `slo`.
    pub fn new(slo: Slo) -> Self {
        Self { ttft: AtomicU64::new(nanos(slo.ttft)), itl: AtomicU64::new(nanos(slo.itl)) }
    }

    /// Replaces the objectives.
    pub fn set(&self, slo: Slo) {
        self.ttft.store(nanos(slo.ttft), Relaxed);
        self.itl.store(nanos(slo.itl), Relaxed);
    }

    /// The objectives now.
    pub fn now(&self) -> Slo {
        let span = |nanos: &AtomicU64| Duration::from_nanos(nanos.load(Relaxed));
        Slo { ttft: span(&self.ttft), itl: span(&self.itl) }
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

impl Default for Slo {
    fn default() -> Self {
        Self { ttft: Duration::from_secs(1), itl: Duration::from_millis(200) }
    }
}
