//! The statistics at one moment: the sum of all shards.

use std::ops::Deref;
use std::sync::Arc;

use super::account::Account;
use super::account_stats::AccountStats;
use super::shard::ShardState;
use super::window::{Window, WindowView};
use crate::vocabulary::backend_id::{BackendId, ModelId};
use crate::vocabulary::outcome::MalformedReason;
use crate::vocabulary::time::Timestamp;

/// The statistics until `at`.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub at: Timestamp,
    /// Names of the backends, in the order of their indices.
    pub backends: Vec<Arc<str>>,
    /// The id of each, with which tables of other modules are indexed.
    pub ids: Vec<BackendId>,
    /// The model that each is configured to serve, for families that describe a backend; `unknown` without one.
    pub served: Vec<Arc<str>>,
    /// The last minute of each backend.
    pub recent: Vec<WindowView>,
    /// In the order of backend and model.
    pub accounts: Vec<AccountSnapshot>,
    pub malformed: [u64; MalformedReason::COUNT],
    /// Entries that were dropped without an explicit end: each of them was a panic or a cancelled task.
    pub dropped: u64,
    /// Journal records dropped because the channel was full.
    pub unjournalled: u64,
    /// Model names folded into `other`.
    pub overflow: u64,
    windows: Vec<Window>,
}

/// One account's statistics with its names.
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
    pub(super) fn new(at: Timestamp, ids: Vec<BackendId>, backends: Vec<Arc<str>>, served: Vec<Arc<str>>) -> Self {
        let windows = backends.iter().map(|_| Window::new()).collect();
        Self {
            at,
            backends,
            ids,
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
            // A row of a removed backend is left out.
            let Ok(index) = self.ids.binary_search(&account.backend) else { continue };
            match self.accounts.iter_mut().find(|known| known.account == *account) {
                Some(known) => known.stats.add(stats),
                None => {
                    self.accounts.push(AccountSnapshot {
                        account: *account,
                        backend: self.backends[index].clone(),
                        model: name(account.model),
                        stats: stats.clone(),
                    });
                }
            }
        }
        for (window, id) in self.windows.iter_mut().zip(&self.ids) {
            if let Some(backend) = state.backends.get(id.index()) {
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

    /// The elements of `by_index` for the backends of this snapshot, in its order.
    pub fn pick<T: Clone + Default>(&self, by_index: &[T]) -> Vec<T> {
        self.ids.iter().map(|id| by_index.get(id.index()).cloned().unwrap_or_default()).collect()
    }

    /// The identities, for every account.
    ///
    /// # Errors
    /// The first account whose identities do not hold, and which one.
    pub fn check(&self) -> Result<(), String> {
        self.accounts.iter().try_for_each(|account| {
            account.check().map_err(|what| format!("backend {}, model {}: {what}", account.backend, account.model))
        })
    }
}
