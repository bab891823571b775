//! The whole of the stats: names, and one shard per worker.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use super::account_stats::BucketSettings;
use super::fnv::FewMap;
use super::journal::JournalLine;
use super::shard::Shard;
use super::snapshot::Snapshot;
use crate::vocabulary::backend_id::{BackendId, ModelId};
use crate::vocabulary::slo::{InForce, Slo};
use crate::vocabulary::time::Timestamp;

/// Whose stats a request is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Account {
    pub backend: BackendId,
    pub model: ModelId,
}

/// A backend's configured names.
#[derive(Clone, Debug)]
pub struct BackendNames {
    /// The label value.
    pub name: Arc<str>,
    /// The model that it is configured to serve.
    pub model_name: Option<Arc<str>>,
}

/// The stats of the process.
pub struct Ledger {
    shards: Box<[Arc<Shard>]>,
    names: Arc<AccountNames>,
    slo: Arc<InForce>,
    overflow: AtomicU64,
}

/// What the indices of an account stand for; shared with the shards, whose journal speaks of names.
pub(super) struct AccountNames {
    /// By place; a place without a backend has none.
    backends: ArcSwap<Vec<Option<BackendNames>>>,
    models: RwLock<Models>,
}

#[derive(Debug, Default)]
struct Models {
    names: Vec<Arc<str>>,
    ids: FewMap<Arc<str>, ModelId>,
}

impl Ledger {
    /// Books with one shard for each worker. Names of `backends` are pinned: they are never folded into `other`.
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
        let seated = ArcSwap::from_pointee(backends.iter().cloned().map(Some).collect());
        let names = Arc::new(AccountNames { backends: seated, models: RwLock::new(models) });
        let slo = Arc::new(InForce::new(slo));
        let shards = (0..workers.max(1) as u64).map(|place| {
            Shard::new(place, backends.len(), bounds.clone(), slo.clone(), journal.clone(), names.clone())
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
        let seated;
        let name = match name.filter(|name| !name.is_empty()) {
            Some(name) => name,
            None => {
                seated = self.names.backends.load();
                let names = seated.get(backend.index()).and_then(Option::as_ref);
                names.and_then(|names| names.model_name.as_deref()).unwrap_or(UNKNOWN)
            }
        };
        let (known, cleaned) = self.names.models.read().unwrap_or_else(PoisonError::into_inner).look_up(name);
        // A full table is only read: whoever invents names must not make every request wait for a writer.
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

    /// Everything, added up.
    pub fn snapshot(&self, now: Timestamp) -> Snapshot {
        let (places, names): (Vec<_>, Vec<_>) = self.roster().into_iter().map(|(at, names)| (at, names.name)).unzip();
        let served = places.iter().map(|backend| self.model_name(self.model(*backend, None))).collect();
        let mut snapshot = Snapshot::new(now, places, names, served);
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

    /// Judges by these from now on. The bound that the objectives have in the histograms stays where it was.
    pub fn set_slo(&self, slo: Slo) {
        self.slo.set(slo);
    }

    /// The backends that have stats, with their places, in the order of the places.
    pub fn roster(&self) -> Vec<(BackendId, BackendNames)> {
        let seated = self.names.backends.load();
        let seated = seated.iter().enumerate();
        seated.filter_map(|(i, names)| Some((BackendId(u16::try_from(i).ok()?), names.clone()?))).collect()
    }

    /// A backend of these names stands at a free place from now on. One writer at a time.
    pub fn add_backend(&self, backend: BackendId, names: BackendNames) {
        self.shards.iter().for_each(|shard| shard.add_backend(backend));
        let pinned = names.model_name.clone();
        self.rename(backend, Some(names));
        if let Some(name) = pinned {
            self.pin(&name);
            self.shards[0].open(Account { backend, model: self.model(backend, Some(&name)) });
        }
    }

    /// Other names for a backend that stays at its place.
    pub fn relabel(&self, backend: BackendId, names: BackendNames) {
        if let Some(name) = &names.model_name {
            self.pin(name);
        }
        self.rename(backend, Some(names));
    }

    fn rename(&self, backend: BackendId, names: Option<BackendNames>) {
        let (mut seated, place) = ((**self.names.backends.load()).clone(), backend.index());
        seated.resize(seated.len().max(place + 1), None);
        seated[place] = names;
        self.names.backends.store(Arc::new(seated));
    }

    /// Forgets a backend and its stats. `false`: something of it is still open, and nothing happened.
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

impl AccountNames {
    /// The name of a backend, as in labels.
    pub fn backend(&self, backend: BackendId) -> Arc<str> {
        let seated = self.backends.load();
        let names = seated.get(backend.index()).and_then(Option::as_ref);
        names.map_or_else(|| UNKNOWN.into(), |names| names.name.clone())
    }

    /// The name of a model, as in labels.
    pub fn model(&self, model: ModelId) -> Arc<str> {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        models.names.get(usize::from(model.0)).cloned().unwrap_or_else(|| OTHER.into())
    }
}

impl Models {
    /// The index of `name`, which is `other` for an unknown one in a full table, and the name as a label.
    fn look_up<'a>(&self, name: &'a str) -> (Option<ModelId>, Cow<'a, str>) {
        if let Some(id) = self.ids.get(name) {
            return (Some(*id), name.into());
        }
        let cleaned = label(name);
        let known = self.ids.get(&*cleaned).copied().or_else(|| self.is_full().then_some(OTHER_ID));
        (known, cleaned.into())
    }

    fn is_full(&self) -> bool {
        self.names.len() >= MODEL_LIMIT + RESERVED
    }

    fn add(&mut self, name: &str) -> ModelId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = ModelId(u16::try_from(self.names.len()).unwrap_or(u16::MAX));
        let name: Arc<str> = name.into();
        self.names.push(name.clone());
        self.ids.insert(name, id);
        id
    }
}

/// A label value that is safe in every sink: no control characters, and of bounded length.
fn label(name: &str) -> String {
    let mut label: String = name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    let mut end = label.len().min(NAME_LIMIT);
    while !label.is_char_boundary(end) {
        end -= 1;
    }
    label.truncate(end);
    label
}

/// Where names over the limit go.
const OTHER: &str = "other";
const OTHER_ID: ModelId = ModelId(0);
/// A request that names no model, at a backend that is configured with none.
const UNKNOWN: &str = "unknown";
const RESERVED: usize = 2;
const MODEL_LIMIT: usize = 100;
const NAME_LIMIT: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Arc<Ledger> {
        let names = [BackendNames { name: "gpu-0".into(), model_name: Some("pinned".into()) }];
        Ledger::new(1, &names, Slo::default(), BucketSettings::default(), None)
    }

    const A: BackendId = BackendId(0);

    #[test]
    fn names_over_the_limit_fold_into_other_and_pinned_ones_do_not() {
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
    fn a_hostile_name_becomes_a_bounded_label_without_control_characters() {
        let ledger = ledger();
        let name = ledger.model_name(ledger.model(A, Some(&format!("a\n\0{}", "\u{20ac}".repeat(100)))));
        assert!(name.len() <= 128 && !name.chars().any(char::is_control));
    }

    #[test]
    fn a_full_table_is_never_written_to_whatever_names_come() {
        let ledger = ledger();
        (1..MODEL_LIMIT).for_each(|i| _ = ledger.model(A, Some(&i.to_string())));
        let reader = ledger.names.models.read().unwrap();
        let (done, told) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let long = "x".repeat(NAME_LIMIT + 1);
                let ids = ["new", &long, "1", "pinned", "other"].map(|name| ledger.model(A, Some(name)));
                done.send(ids).unwrap();
            });
            let ids = told.recv_timeout(std::time::Duration::from_secs(10));
            drop(reader);
            let [new, long, first, pinned, other] = ids.expect("it waits for a lock");
            assert_eq!([new, long, other], [OTHER_ID; 3]);
            assert!(first != OTHER_ID && pinned != OTHER_ID);
        });
        assert_eq!(ledger.overflow.load(Relaxed), 2, "a model that is called `other` is no overflow");
    }
}
