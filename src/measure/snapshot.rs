//! The stats at one moment: all shards added up.

use std::ops::Deref;
use std::sync::Arc;

use super::account_stats::AccountStats;
use super::ledger::Account;
use super::shard::ShardState;
use super::window::{Window, WindowView};
use crate::vocabulary::backend_id::{BackendId, ModelId};
use crate::vocabulary::outcome::MalformedReason;
use crate::vocabulary::time::Timestamp;

/// Everything that was booked until `at`.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub at: Timestamp,
    /// Names of the backends, in the order of their places.
    pub backends: Vec<Arc<str>>,
    /// The place of each: what others keep per backend is found by it.
    pub places: Vec<BackendId>,
    /// The model that each is configured to serve, for families that describe a backend; `unknown` without one.
    pub served: Vec<Arc<str>>,
    /// The last minute of each backend.
    pub recent: Vec<WindowView>,
    /// In the order of backend and model.
    pub accounts: Vec<AccountSnapshot>,
    pub malformed: [u64; MalformedReason::COUNT],
    /// Entries that were dropped without an explicit end: each of them was a panic or a cancelled task.
    pub dropped: u64,
    /// Journal records that found no room.
    pub unjournalled: u64,
    /// Model names folded into `other`.
    pub overflow: u64,
    windows: Vec<Window>,
}

/// One account's stats with its names.
#[derive(Clone, Debug, PartialEq)]
pub struct AccountSnapshot {
    pub account: Account,
    pub backend: Arc<str>,
    pub model: Arc<str>,
    pub stats: AccountStats,
}

impl Deref for AccountSnapshot {
    type Target = AccountStats;

    fn deref(&self) -> &AccountStats {
        &self.stats
    }
}

impl Snapshot {
    pub(super) fn new(at: Timestamp, places: Vec<BackendId>, backends: Vec<Arc<str>>, served: Vec<Arc<str>>) -> Self {
        let windows = backends.iter().map(|_| Window::new()).collect();
        Self {
            at,
            backends,
            places,
            served,
            recent: Vec::new(),
            accounts: Vec::new(),
            malformed: Default::default(),
            dropped: 0,
            unjournalled: 0,
            overflow: 0,
            windows,
        }
    }

    /// Adds one shard, under its lock.
    pub(super) fn add(&mut self, state: &ShardState, name: impl Fn(ModelId) -> Arc<str>) {
        for (account, stats) in &state.rows {
            // Of a backend that is gone.
            let Ok(place) = self.places.binary_search(&account.backend) else { continue };
            match self.accounts.iter_mut().find(|known| known.account == *account) {
                Some(known) => known.stats.add(stats),
                None => {
                    self.accounts.push(AccountSnapshot {
                        account: *account,
                        backend: self.backends[place].clone(),
                        model: name(account.model),
                        stats: stats.clone(),
                    });
                }
            }
        }
        for (window, place) in self.windows.iter_mut().zip(&self.places) {
            if let Some(backend) = state.backends.get(place.index()) {
                window.merge(&backend.window);
            }
        }
        self.malformed.iter_mut().zip(state.malformed).for_each(|(mine, theirs)| *mine += theirs);
        self.dropped += state.dropped;
        self.unjournalled += state.unjournalled;
    }

    pub(super) fn finish(&mut self) {
        self.recent = self.windows.iter().map(|window| window.view(self.at)).collect();
        self.windows = Vec::new();
        self.accounts.sort_by_key(|account| account.account);
    }

    /// What `by_place` holds of each backend of this snapshot, in its order.
    pub fn pick<T: Clone + Default>(&self, by_place: &[T]) -> Vec<T> {
        self.places.iter().map(|place| by_place.get(place.index()).cloned().unwrap_or_default()).collect()
    }

    /// The identities, for every account.
    ///
    /// # Errors
    /// The first account whose stats do not balance, and how.
    pub fn check(&self) -> Result<(), String> {
        self.accounts.iter().try_for_each(|account| {
            account.check().map_err(|what| format!("backend {}, model {}: {what}", account.backend, account.model))
        })
    }
}
