//! Progress of a run, and the results of earlier ones.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::export::probe::{RunSummary, SyntheticOutcome, SyntheticShare};
use crate::measure::{BucketSettings, Buckets};
use crate::vocabulary::backend_id::BackendId;
use crate::vocabulary::time::Timestamp;

/// What a run writes and the admin port reads.
#[derive(Default)]
pub(super) struct ProbeProgress {
    pub running: AtomicBool,
    pub stop_requested: AtomicBool,
    pub held: AtomicU64,
    pub in_flight: AtomicU64,
    pub decoding: AtomicU64,
    pub sent: AtomicU64,
    pub tokens: AtomicU64,
    /// When the next request may be sent.
    pub next: Mutex<Timestamp>,
    history: Mutex<RunHistory>,
}

/// What is kept from run to run.
#[derive(Default)]
pub(super) struct RunHistory {
    pub backends: Vec<SyntheticShare>,
    pub last: Option<RunSummary>,
}

/// What runs have used so far.
#[derive(Clone, Copy)]
pub(super) struct ProbeTotals {
    pub tokens: u64,
    pub failed: u64,
    pub ended: u64,
}

impl ProbeTotals {
    pub fn of(progress: &ProbeProgress) -> Self {
        let history = progress.history();
        let count =
            |ended: SyntheticOutcome| history.backends.iter().map(|share| share.ended[ended as usize]).sum::<u64>();
        let failed = count(SyntheticOutcome::Failed) + count(SyntheticOutcome::Refused);
        Self { tokens: progress.tokens.load(Relaxed), failed, ended: failed + count(SyntheticOutcome::Completed) }
    }

    pub fn since(self, began: &Self) -> Self {
        Self { tokens: self.tokens - began.tokens, failed: self.failed - began.failed, ended: self.ended - began.ended }
    }
}

impl ProbeProgress {
    pub fn new(backends: usize) -> Self {
        let progress = Self::default();
        progress.history().backends = vec![no_share(); backends];
        progress
    }

    pub fn history(&self) -> MutexGuard<'_, RunHistory> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn on_end(&self, backend: BackendId, ended: SyntheticOutcome, ttft: Option<Duration>) {
        let (mut history, index) = (self.history(), backend.index());
        let shares = &mut history.backends;
        shares.resize_with(shares.len().max(index + 1), no_share);
        shares[index].ended[ended as usize] += 1;
        if let Some(ttft) = ttft {
            shares[index].ttft.record(u64::try_from(ttft.as_nanos()).unwrap_or(u64::MAX));
        }
    }
}

fn no_share() -> SyntheticShare {
    SyntheticShare { ended: Default::default(), ttft: Buckets::new(&BucketSettings::default().ttft) }
}
