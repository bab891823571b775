//! The statistics of the process: names, and one shard for each worker.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::ArcSwap;

use super::account::Account;
use super::account_stats::BucketSettings;
use super::journal::JournalLine;
use super::names::{AccountNames, BackendNames, Models, OTHER, OTHER_ID, UNKNOWN, label};
use super::shard::Shard;
use super::snapshot::Snapshot;
use crate::vocabulary::backend_id::{BackendId, ModelId};
use crate::vocabulary::slo::{InForce, Slo};
use crate::vocabulary::time::Timestamp;

/// The statistics of the process.
pub struct Ledger {
    shards: Box<[Arc<Shard>]>,
    names: Arc<AccountNames>,
    slo: Arc<InForce>,
    overflow: AtomicU64,
}

impl Ledger {
    /// Empty, with one shard for each worker. Model names of `backends` are pinned: they are never folded into `other`.
    pub fn new(
        workers: usize,
        backends: &[BackendNames],
        slo: Slo,
        bounds: BucketSettings,
        journal: Option<SyncSender<JournalLine>>,
    ) -> Arc<Self> {
        let bounds = bounds.with_objectives(&slo);
        let mut models = Models::default();
        models.add(OTHER);
        models.add(UNKNOWN);
        for name in backends.iter().filter_map(|backend| backend.model_name.as_deref()) {
            models.add(&label(name));
        }
        let configured = ArcSwap::from_pointee(backends.iter().cloned().map(Some).collect());
        let names = Arc::new(AccountNames { backends: configured, models: RwLock::new(models) });
        let slo = Arc::new(InForce::new(slo));
        let shards = (0..workers.max(1) as u64).map(|index| {
            Shard::new(index, backends.len(), bounds.clone(), slo.clone(), journal.clone(), names.clone())
        });
        let ledger = Self { shards: shards.collect(), names, slo, overflow: AtomicU64::new(0) };
        for (i, backend) in backends.iter().enumerate().filter(|(_, backend)| backend.model_name.is_some()) {
            let account = BackendId::from_index(i);
            let model = ledger.model(account, backend.model_name.as_deref());
            ledger.shards[0].open(Account { backend: account, model });
        }
        Arc::new(ledger)
    }

    /// The index of a model's name. Without a name it is the one that `backend` is configured to serve, else `unknown`;
    /// past a hundred names it is `other`, and that is counted.
    pub fn model(&self, backend: BackendId, name: Option<&str>) -> ModelId {
        let configured;
        let name = match name.filter(|name| !name.is_empty()) {
            Some(name) => name,
            None => {
                configured = self.names.backends.load();
                let names = configured.get(backend.index()).and_then(Option::as_ref);
                names.and_then(|names| names.model_name.as_deref()).unwrap_or(UNKNOWN)
            }
        };
        let (known, cleaned) = self.names.models.read().unwrap_or_else(PoisonError::into_inner).look_up(name);
        // A full table is only read: a client that invents names must not make every request wait for a writer.
        if let Some(id) = known {
            if id == OTHER_ID && *cleaned != *OTHER {
                self.overflow.fetch_add(1, Relaxed);
            }
            return id;
        }
        let mut models = self.names.models.write().unwrap_or_else(PoisonError::into_inner);
        if models.is_full() && !models.ids.contains_key(&*cleaned) {
            self.overflow.fetch_add(1, Relaxed);
            return OTHER_ID;
        }
        models.add(&cleaned)
    }

    /// The name behind an index.
    pub fn model_name(&self, model: ModelId) -> Arc<str> {
        self.names.model(model)
    }

    /// The account of a backend and a model by their names; `None`: there is no such backend.
    pub fn account(&self, backend: &str, model: &str) -> Option<Account> {
        let backend = self.roster().into_iter().find(|(_, names)| *names.name == *backend)?.0;
        Some(Account { backend, model: self.model(backend, Some(model)) })
    }

    /// The shard of worker number `worker`.
    pub fn shard(&self, worker: usize) -> Arc<Shard> {
        self.shards[worker % self.shards.len()].clone()
    }

    /// All shards, in the order of the workers.
    pub fn shards(&self) -> &[Arc<Shard>] {
        &self.shards
    }

    /// The sum of all shards.
    pub fn snapshot(&self, now: Timestamp) -> Snapshot {
        let (ids, names): (Vec<_>, Vec<_>) = self.roster().into_iter().map(|(id, names)| (id, names.name)).unzip();
        let served = ids.iter().map(|backend| self.model_name(self.model(*backend, None))).collect();
        let mut snapshot = Snapshot::new(now, ids, names, served);
        for shard in &self.shards {
            let state = shard.lock();
            snapshot.add(&state, |model| self.model_name(model));
        }
        snapshot.overflow = self.overflow.load(Relaxed);
        snapshot.finish();
        snapshot
    }

    /// The objectives that a request without its own is judged by.
    pub fn slo(&self) -> Slo {
        self.slo.now()
    }

    /// Judges by `slo` from now on. The histograms keep the bounds of the first objectives.
    pub fn set_slo(&self, slo: Slo) {
        self.slo.set(slo);
    }

    /// The backends that have statistics, with their names, by index.
    pub fn roster(&self) -> Vec<(BackendId, BackendNames)> {
        let configured = self.names.backends.load();
        let configured = configured.iter().enumerate();
        configured.filter_map(|(i, names)| Some((BackendId(u16::try_from(i).ok()?), names.clone()?))).collect()
    }

    /// Adds a backend at a free index. One writer at a time.
    pub fn add_backend(&self, backend: BackendId, names: BackendNames) {
        self.shards.iter().for_each(|shard| shard.add_backend(backend));
        let pinned = names.model_name.clone();
        self.rename(backend, Some(names));
        if let Some(name) = pinned {
            self.pin(&name);
            self.shards[0].open(Account { backend, model: self.model(backend, Some(&name)) });
        }
    }

    /// Gives a backend other names; its index stays.
    pub fn relabel(&self, backend: BackendId, names: BackendNames) {
        if let Some(name) = &names.model_name {
            self.pin(name);
        }
        self.rename(backend, Some(names));
    }

    fn rename(&self, backend: BackendId, names: Option<BackendNames>) {
        let (mut configured, index) = ((**self.names.backends.load()).clone(), backend.index());
        configured.resize(configured.len().max(index + 1), None);
        configured[index] = names;
        self.names.backends.store(Arc::new(configured));
    }

    /// Forgets a backend and its statistics. `false`: a request of it is still open, and nothing changed.
    pub fn remove_backend(&self, backend: BackendId) -> bool {
        if self.shards.iter().any(|shard| shard.open_at(backend) > 0) {
            return false;
        }
        self.rename(backend, None);
        self.shards.iter().for_each(|shard| shard.remove_backend(backend));
        true
    }

    fn pin(&self, name: &str) {
        self.names.models.write().unwrap_or_else(PoisonError::into_inner).add(&label(name));
    }
}

#[cfg(test)]
mod tests {
    use super::super::names::{MODEL_LIMIT, NAME_LIMIT};
    use super::*;

    fn ledger() -> Arc<Ledger> {
        let names = [BackendNames { name: "gpu-0".into(), model_name: Some("pinned".into()) }];
        Ledger::new(1, &names, Slo::default(), BucketSettings::default(), None)
    }

    const A: BackendId = BackendId(0);

    #[test]
    fn names_over_the_limit_fold_into_other_but_pinned_ones() {
        let ledger = ledger();
        for i in 0..150 {
            ledger.model(A, Some(&format!("m{i}")));
        }
        assert_eq!(&*ledger.model_name(ledger.model(A, Some("m149"))), "other");
        assert_eq!(&*ledger.model_name(ledger.model(A, Some("m3"))), "m3");
        assert_eq!(&*ledger.model_name(ledger.model(A, Some("pinned"))), "pinned");
        assert_eq!(ledger.snapshot(Timestamp::ZERO).overflow, 52);
    }

    #[test]
    fn a_request_without_a_model_belongs_to_the_configured_one() {
        let ledger = ledger();
        assert_eq!(&*ledger.model_name(ledger.model(A, None)), "pinned");
        assert_eq!(&*ledger.model_name(ledger.model(BackendId(9), Some(""))), "unknown");
    }

    #[test]
    fn a_hostile_name_becomes_a_bounded_printable_label() {
        let ledger = ledger();
        let name = ledger.model_name(ledger.model(A, Some(&format!("a\n\0{}", "\u{20ac}".repeat(100)))));
        assert!(name.len() <= 128 && !name.chars().any(char::is_control));
    }

    #[test]
    fn a_full_table_is_never_written_to_whatever_names_come() {
        let ledger = ledger();
        (1..MODEL_LIMIT).for_each(|i| _ = ledger.model(A, Some(&i.to_string())));
        let reader = ledger.names.models.read().unwrap();
        let (done, answered) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let long = "x".repeat(NAME_LIMIT + 1);
                let ids = ["new", &long, "1", "pinned", "other"].map(|name| ledger.model(A, Some(name)));
                done.send(ids).unwrap();
            });
            let ids = answered.recv_timeout(std::time::Duration::from_secs(10));
            drop(reader);
            let [new, long, first, pinned, other] = ids.expect("it waits for a lock");
            assert_eq!([new, long, other], [OTHER_ID; 3]);
            assert!(first != OTHER_ID && pinned != OTHER_ID);
        });
        assert_eq!(ledger.overflow.load(Relaxed), 2, "a model that is called `other` is no overflow");
    }
}
