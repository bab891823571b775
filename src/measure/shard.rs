//! One worker's part of the statistics, under a lock that only this worker and a scrape take.

use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::account::Account;
use super::account_stats::{AccountStats, BucketSettings};
use super::fnv::FewMap;
use super::journal::{JournalLine, JournalRecord};
use super::names::AccountNames;
use super::sample::RequestKey;
use super::sample_buffer::SampleBuffer;
use super::window::Window;
use crate::vocabulary::backend_id::{BackendId, ModelId};
use crate::vocabulary::outcome::MalformedReason;
use crate::vocabulary::slo::InForce;

/// The statistics of one worker's requests.
pub struct Shard {
    /// Its index among the shards; the upper part of its requests' keys.
    index: u64,
    state: Mutex<ShardState>,
    pub(super) bounds: BucketSettings,
    pub(super) slo: Arc<InForce>,
    journal: Option<SyncSender<JournalLine>>,
    pub(super) names: Arc<AccountNames>,
}

/// What is under the lock.
pub(super) struct ShardState {
    pub rows: Vec<(Account, AccountStats)>,
    /// Rows of removed backends; no request's record points there, and their account is [`NO_ACCOUNT`].
    free_rows: Vec<u32>,
    row_of: FewMap<Account, u32>,
    /// Requests offered, ever.
    keys: u64,
    pub backends: Vec<BackendAccounts>,
    pub malformed: [u64; MalformedReason::COUNT],
    /// Entries dropped without an explicit end.
    pub dropped: u64,
    /// Journal records dropped because the channel was full.
    pub unjournalled: u64,
}

/// What a shard keeps of one backend.
#[derive(Clone)]
pub(super) struct BackendAccounts {
    pub window: Window,
    /// Tokens that streams of this backend have delivered, ever.
    pub delivered: u64,
    pub decoding: u64,
    pub buffer: SampleBuffer,
}

impl Shard {
    pub(super) fn new(
        index: u64,
        backends: usize,
        bounds: BucketSettings,
        slo: Arc<InForce>,
        journal: Option<SyncSender<JournalLine>>,
        names: Arc<AccountNames>,
    ) -> Arc<Self> {
        let backends = (0..backends).map(|_| BackendAccounts::new()).collect();
        let state = ShardState {
            rows: Vec::new(),
            free_rows: Vec::new(),
            row_of: FewMap::default(),
            keys: 0,
            backends,
            malformed: Default::default(),
            dropped: 0,
            unjournalled: 0,
        };
        Arc::new(Self { index, state: Mutex::new(state), bounds, slo, journal, names })
    }

    /// A request was refused as malformed with `status`; it never enters the identities.
    pub fn malformed(&self, status: u16) {
        self.lock().malformed[MalformedReason::of_status(status).index()] += 1;
    }

    /// The statistics of `account` exist from now on, all of them zero.
    pub fn open(&self, account: Account) {
        self.lock().row(account, &self.bounds);
    }

    /// A backend with empty statistics has this index from now on.
    pub(super) fn add_backend(&self, backend: BackendId) {
        let (mut state, index) = (self.lock(), backend.index());
        while state.backends.len() <= index {
            state.backends.push(BackendAccounts::new());
        }
        state.backends[index] = BackendAccounts::new();
    }

    /// Requests of this backend that are queued or in flight.
    pub(super) fn open_at(&self, backend: BackendId) -> u64 {
        let state = self.lock();
        let own = state.rows.iter().filter(|(account, _)| account.backend == backend);
        own.map(|(_, stats)| stats.in_flight() + stats.queued.iter().sum::<u64>()).sum()
    }

    /// Forgets the statistics of a backend that has nothing open.
    pub(super) fn remove_backend(&self, backend: BackendId) {
        let mut state = self.lock();
        let ShardState { rows, free_rows, row_of, .. } = &mut *state;
        for (row, (account, stats)) in
            rows.iter_mut().enumerate().filter(|(_, (account, _))| account.backend == backend)
        {
            row_of.remove(account);
            *account = NO_ACCOUNT;
            *stats = AccountStats::new(&self.bounds);
            free_rows.push(u32::try_from(row).unwrap_or(u32::MAX));
        }
    }

    /// Moves the samples since the last call into `buffers`, one for each backend by its index.
    pub fn drain_samples(&self, buffers: &mut [SampleBuffer]) {
        let mut state = self.lock();
        state.backends.iter_mut().zip(buffers).for_each(|(backend, buffer)| backend.buffer.drain_into(buffer));
    }

    /// The next request's key, unique in the process.
    pub(super) fn make_key(&self, state: &mut ShardState) -> RequestKey {
        state.keys += 1;
        RequestKey(self.index << 48 | state.keys)
    }

    /// A poisoned lock is taken all the same: every transition is a few additions, and a panic cannot leave half of one.
    pub(super) fn lock(&self) -> MutexGuard<'_, ShardState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a record to the journal without ever waiting for it.
    pub(super) fn journal(&self, state: &mut ShardState, record: impl FnOnce() -> JournalRecord) {
        let Some(sink) = &self.journal else { return };
        match sink.try_send(JournalLine::Request(Box::new(record()))) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => state.unjournalled += 1,
        }
    }

    pub(super) fn keeps_journal(&self) -> bool {
        self.journal.is_some()
    }
}

impl ShardState {
    /// Row of `account`.
    pub fn row(&mut self, account: Account, bounds: &BucketSettings) -> u32 {
        let Self { rows, free_rows, row_of, .. } = self;
        *row_of.entry(account).or_insert_with(|| {
            if let Some(row) = free_rows.pop() {
                rows[row as usize].0 = account;
                return row;
            }
            rows.push((account, AccountStats::new(bounds)));
            u32::try_from(rows.len() - 1).unwrap_or(u32::MAX)
        })
    }
}

impl BackendAccounts {
    fn new() -> Self {
        Self { window: Window::new(), delivered: 0, decoding: 0, buffer: SampleBuffer::default() }
    }
}

/// The account of a free row.
pub(super) const NO_ACCOUNT: Account = Account { backend: BackendId(u16::MAX), model: ModelId(0) };
