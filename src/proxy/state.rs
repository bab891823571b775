//! What all connections share, and what each worker has for itself.
//!
//! `ProxyState` is process-wide; what a reload changes in it is swapped whole, the rest is immutable but for counters. A worker is
//! one thread with its own reactor, its own idle connections to the backends and its own shard of the statistics, so that
//! nothing crosses threads while a request lives.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio::sync::Semaphore;

use super::address_cap::Addresses;
use super::budget::Budget;
use super::drain::Drain;
use super::policy::RequestPolicy;
use super::request::request_id::RequestId;
use super::settings::ProxyLimits;
use super::spans::Sampling;
use super::upstream::passive_health::PassiveHealth;
use super::upstream::pool::IdlePool;
pub use super::upstream::retry_budget::RetryBudget;
use super::upstream::target::Targets;
use crate::admission::pool::Pool;
use crate::clock::Clock;
use crate::measure::{Ledger, ReportSink, Shard};
use crate::vocabulary::backend_id::BackendId;
use crate::vocabulary::time::Timestamp;

/// The process-wide side of the data port.
pub struct ProxyState {
    pub clock: Clock,
    pub limits: ArcSwap<ProxyLimits>,
    pub ledger: Arc<Ledger>,
    pub pool: Arc<Pool>,
    pub rules: ArcSwap<RequestPolicy>,
    pub targets: Arc<Targets>,
    pub drain: Arc<Drain>,
    /// Bytes held for clients: request bodies and unsent answers.
    pub memory: Arc<Budget>,
    pub connections: Arc<Semaphore>,
    /// Peers whose forwarding, priority, tenant and SLO headers are believed.
    pub trust: ArcSwap<Vec<IpNet>>,
    /// `/metrics` on the data port is passed to the engine; otherwise it is not served there.
    pub passes_metrics: AtomicBool,
    /// Emission stamps are kept for the journal.
    pub traces: bool,
    /// Every request that ends is reported to `reports`.
    pub access_log: bool,
    /// Which spans of measured requests are reported to `reports`; `None`: none.
    pub sampling: Option<Sampling>,
    /// Gets a report of each request that ends.
    pub reports: Option<Arc<dyn ReportSink>>,
    pub facts: Counters,
    /// Distinguishes this process from every other weir.
    pub via_id: u64,
    pub retries: RetryBudget,
    /// What traffic shows of each backend.
    pub passive_health: Box<[PassiveHealth]>,
    pub addresses: Arc<Addresses>,
    /// Called at each phase of a request. A test makes it panic; in a running process it does nothing.
    pub test_hook: fn(HookPoint),
}

/// Where a request is when `ProxyState::test_hook` is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookPoint {
    /// The head was read and is valid.
    Head,
    /// The body is complete and the route is known.
    Arrived,
    /// It has a connection to the backend.
    Dispatched,
    /// The answer has ended, and the statistics are still open.
    Ended,
}

/// Counters of the data port that belong to no request.
#[derive(Debug, Default)]
pub struct Counters {
    pub open_connections: AtomicU64,
    pub accept_errors: AtomicU64,
    /// Counted by the process's panic hook (`export::logging`), whatever task it was.
    pub panics: Arc<AtomicU64>,
}

impl ProxyState {
    /// Whether what `peer` says about others is believed. On a socket for both families an IPv4 peer comes as IPv6.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trust.load().iter().any(|net| net.contains(&peer))
    }

    /// Writes the log lines on bad answers that are due, for every backend.
    fn report_bad_answers(&self, now: Timestamp) {
        for (slot, passive_health) in self.passive_health.iter().enumerate() {
            let name = || self.targets.name(BackendId::from_index(slot));
            passive_health.bad_answers.report(name, now);
        }
    }
}

/// What one worker thread owns.
pub struct Worker {
    pub proxy: Arc<ProxyState>,
    pub shard: Arc<Shard>,
    pub idle: IdlePool,
    date: ArcSwap<[u8; 29]>,
    ids: AtomicU64,
    id_seed: u64,
    via: Box<str>,
}

impl Worker {
    /// Worker number `index`. `id_seed` makes request ids differ between processes.
    pub fn new(proxy: Arc<ProxyState>, index: usize, id_seed: u64) -> Arc<Self> {
        let shard = proxy.ledger.shard(index);
        let idle = IdlePool::new(proxy.targets.places());
        // The pseudonym distinguishes it from another weir on the path; a comment would not do, because any hop may remove it.
        let via = format!("1.1 weir-{:016x}", proxy.via_id).into();
        let id_seed = id_seed.rotate_left(7).wrapping_add(index as u64);
        let worker =
            Self { proxy, shard, idle, date: ArcSwap::from_pointee([b' '; 29]), ids: AtomicU64::new(0), id_seed, via };
        worker.tick();
        Arc::new(worker)
    }

    /// Once a second: closes old connections, writes the log lines on bad answers, renews the `Date` value.
    pub fn tick(&self) {
        let now = self.proxy.clock.now();
        self.idle.sweep(now);
        self.proxy.report_bad_answers(now);
        #[expect(clippy::disallowed_methods, reason = "the Date field is wall-clock time")]
        let text = httpdate::fmt_http_date(std::time::SystemTime::now());
        if let Ok(date) = text.into_bytes().try_into() {
            self.date.store(Arc::new(date));
        }
    }

    /// The value of a `Date` field.
    pub fn date(&self) -> [u8; 29] {
        **self.date.load()
    }

    /// This process's element of a `Via` field.
    pub fn via(&self) -> &str {
        &self.via
    }

    /// A request id of our own: unique in this process, and with the seed as good as unique among processes.
    pub fn make_id(&self) -> RequestId {
        RequestId::make(self.id_seed, self.ids.fetch_add(1, Relaxed))
    }
}

/// The textual address put into `X-Forwarded-For`.
pub fn address_text(peer: IpAddr) -> String {
    peer.to_canonical().to_string()
}
