//! One worker's part of the stats: a lock that only its worker and a scraper ever take.

use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::account_stats::{AccountStats, BucketSettings};
use super::fnv::FewMap;
use super::journal::{JournalLine, JournalRecord};
use super::ledger::{Account, AccountNames};
use super::sample::RequestKey;
use super::sample_buffer::SampleBuffer;
use super::window::Window;
use crate::vocabulary::backend_id::{BackendId, ModelId};
use crate::vocabulary::outcome::MalformedReason;
use crate::vocabulary::slo::InForce;

/// Where one worker's requests are booked.
pub struct Shard {
    /// Its place among the shards; the upper part of its requests' keys.
    place: u64,
    state: Mutex<ShardState>,
    pub(super) bounds: BucketSettings,
    pub(super) slo: Arc<InForce>,
    journal: Option<SyncSender<JournalLine>>,
    pub(super) names: Arc<AccountNames>,
}

/// What is under the lock.
pub(super) struct ShardState {
    pub rows: Vec<(Account, AccountStats)>,
    /// Rows of backends that are gone; nobody's line points there, and their account is [`NOBODY`].
    vacant: Vec<u32>,
    places: FewMap<Account, u32>,
    /// Requests offered, ever.
    keys: u64,
    pub backends: Vec<BackendAccounts>,
    pub malformed: [u64; MalformedReason::COUNT],
    /// Entries dropped without an explicit end.
    pub dropped: u64,
    /// Journal records that found no room.
    pub unjournalled: u64,
}

/// What is kept per backend.
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
        place: u64,
        backends: usize,
        bounds: BucketSettings,
        slo: Arc<InForce>,
        journal: Option<SyncSender<JournalLine>>,
        names: Arc<AccountNames>,
    ) -> Arc<Self> {
        let backends = (0..backends).map(|_| BackendAccounts::new()).collect();
        let state = ShardState {
            rows: Vec::new(),
            vacant: Vec::new(),
            places: FewMap::default(),
            keys: 0,
            backends,
            malformed: Default::default(),
            dropped: 0,
            unjournalled: 0,
        };
        Arc::new(Self { place, state: Mutex::new(state), bounds, slo, journal, names })
    }

    /// A request was refused as malformed with `status`; it never enters the identities.
    pub fn malformed(&self, status: u16) {
        self.lock().malformed[MalformedReason::of_status(status).index()] += 1;
    }

    /// The stats of `account` exist from now on, all of them zero.
    pub fn open(&self, account: Account) {
        self.lock().place(account, &self.bounds);
    }

    /// A backend stands at this place from now on, with nothing behind it.
    pub(super) fn add_backend(&self, backend: BackendId) {
        let (mut state, place) = (self.lock(), backend.index());
        while state.backends.len() <= place {
            state.backends.push(BackendAccounts::new());
        }
        state.backends[place] = BackendAccounts::new();
    }

    /// Requests of this backend that are queued or in flight.
    pub(super) fn open_at(&self, backend: BackendId) -> u64 {
        let state = self.lock();
        let own = state.rows.iter().filter(|(account, _)| account.backend == backend);
        own.map(|(_, stats)| stats.in_flight() + stats.queued.iter().sum::<u64>()).sum()
    }

    /// Forgets the stats of a backend that has nothing open.
    pub(super) fn remove_backend(&self, backend: BackendId) {
        let mut state = self.lock();
        let ShardState { rows, vacant, places, .. } = &mut *state;
        for (row, (account, stats)) in
            rows.iter_mut().enumerate().filter(|(_, (account, _))| account.backend == backend)
        {
            places.remove(account);
            *account = NOBODY;
            *stats = AccountStats::new(&self.bounds);
            vacant.push(u32::try_from(row).unwrap_or(u32::MAX));
        }
    }

    /// Takes the samples since the last call, one buffer a backend in the configuration's order, in exchange for `buffers`.
    pub fn swap(&self, buffers: &mut [SampleBuffer]) {
        let mut state = self.lock();
        state.backends.iter_mut().zip(buffers).for_each(|(backend, buffer)| backend.buffer.swap(buffer));
    }

    /// The next request's key, unique in the process.
    pub(super) fn make_key(&self, state: &mut ShardState) -> RequestKey {
        state.keys += 1;
        RequestKey(self.place << 48 | state.keys)
    }

    /// A poisoned lock is taken all the same: every transition is a few additions, and a panic cannot leave half of one.
    pub(super) fn lock(&self) -> MutexGuard<'_, ShardState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a record to the journal without ever waiting for it.
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
    pub fn place(&mut self, account: Account, bounds: &BucketSettings) -> u32 {
        let Self { rows, vacant, places, .. } = self;
        *places.entry(account).or_insert_with(|| {
            if let Some(row) = vacant.pop() {
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

/// The account of a row that is free.
pub(super) const NOBODY: Account = Account { backend: BackendId(u16::MAX), model: ModelId(0) };
