//! The order in which the parts of a process are made.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::admin_backend::ProcessAdmin;
use super::backend_table::{self, BackendTable};
use super::backends::Backends;
use super::config_watcher::ConfigWatcher;
use super::engine_monitor::{EngineMonitor, MonitorHandle};
use super::from_config;
use super::reload::{ReloadParts, Reloader};
use super::telemetry::Telemetry;
use crate::admission::pool::Pool;
use crate::clock::Clock;
use crate::config::{Config, ConfigSource, Loaded, Origins};
use crate::estimate::SaturationState;
use crate::export;
use crate::export::admin::AdminPort;
use crate::export::journal::{JournalFile, JournalSender};
use crate::export::logging::LevelHandle;
use crate::export::settings::Passthrough;
use crate::measure::{BackendNames, Ledger};
use crate::probe::run::{ProbeContext, Prober};
use crate::proxy::Budget;
use crate::proxy::drain::{Drain, DrainPhase};
use crate::proxy::listener::{self, Addresses};
use crate::proxy::settings::DrainSettings;
use crate::proxy::state::{Counters, ProxyState, RetryBudget, Worker};
use crate::proxy::upstream::health::PassiveHealth;
use crate::proxy::upstream::target::Targets;

/// A weir that runs.
pub struct RunningServer {
    /// Where clients connect.
    pub address: SocketAddr,
    /// Where the admin port listens.
    pub admin: SocketAddr,
    pub proxy: Arc<ProxyState>,
    pub(super) workers: Vec<JoinHandle<()>>,
    pub(super) port: Option<AdminPort>,
    pub(super) journal: Option<JournalFile>,
    pub(super) monitor: Option<EngineMonitor>,
    pub(super) telemetry: Option<Telemetry>,
    pub(super) config_watcher: Option<ConfigWatcher>,
    pub(super) reloader: Arc<Reloader>,
    pub(super) drain: Arc<ArcSwap<DrainSettings>>,
}

/// Where the configuration and the log of a process came from, as far as a reload needs it.
#[derive(Default)]
pub struct StartedFrom {
    pub source: Option<ConfigSource>,
    pub log_level: Option<LevelHandle>,
}

/// Starts every part. `adjust` may change the proxy before it is shared: tests set their `test_hook` that way.
///
/// # Errors
/// A port cannot be bound or a thread cannot be started.
pub fn start(config: Config, adjust: impl FnOnce(&mut ProxyState)) -> anyhow::Result<RunningServer> {
    start_from(StartedFrom::default(), Loaded { config, origins: Origins::default() }, adjust)
}

/// As `start`, for a configuration that can be read again.
pub fn start_from(
    origin: StartedFrom,
    loaded: Loaded,
    adjust: impl FnOnce(&mut ProxyState),
) -> anyhow::Result<RunningServer> {
    let config = loaded.config.clone();
    let clock = Clock::start();
    let (journal, journal_file) = open_journal(&config, clock)?;
    let table = BackendTable::new(&config.backends, SLOTS);
    let telemetry = Telemetry::start(&config, clock, &table)?;
    let mut proxy = proxy_state(&config, clock, &table, journal.as_ref(), &telemetry);
    adjust(&mut proxy);
    let proxy = Arc::new(proxy);
    let admin_listener = std::net::TcpListener::bind(config.admin.listen)
        .with_context(|| format!("the admin port cannot be bound to {}", config.admin.listen))?;
    let monitor = EngineMonitor::start(&config, &proxy, &table, journal.clone())?;
    // Before the admin port answers, so that `/readyz` says ready only when the data port is bound.
    let (address, workers, health_runtime) = start_workers(&config, &proxy)?;
    let backends = Backends::start(proxy.clone(), table, monitor.handle(), health_runtime);
    let drain = Arc::new(ArcSwap::from_pointee(config.drain.clone()));
    let parts = ReloadParts {
        proxy: proxy.clone(),
        backends: backends.clone(),
        monitor: monitor.handle(),
        drain: drain.clone(),
        log_level: origin.log_level,
    };
    let reloader = Arc::new(Reloader::new(origin.source, loaded, parts));
    let config_watcher = ConfigWatcher::start(reloader.clone());
    let admin = ProcessAdmin {
        proxy: proxy.clone(),
        journal,
        sinks: telemetry.sinks(),
        drain: drain.clone(),
        reloader: Arc::downgrade(&reloader),
        monitor: monitor.handle(),
        prober: prober(&config, &proxy, monitor.handle(), backends),
    };
    let handles = export::Handles {
        clock,
        ledger: proxy.ledger.clone(),
        backend: Arc::new(admin),
        disabled: config.metrics.disable.clone().into(),
    };
    let port = AdminPort::start(admin_listener, from_config::access_policy(&config.admin), handles)?;
    Ok(RunningServer {
        address,
        admin: port.address(),
        proxy,
        workers,
        port: Some(port),
        journal: journal_file,
        monitor: Some(monitor),
        telemetry: Some(telemetry),
        config_watcher,
        reloader,
        drain,
    })
}

fn open_journal(config: &Config, clock: Clock) -> anyhow::Result<(Option<JournalSender>, Option<JournalFile>)> {
    let Some(path) = &config.journal.path else { return Ok((None, None)) };
    let (journal, file) = JournalSender::open(path, clock.epoch().as_secs_f64())
        .with_context(|| format!("cannot open {}", path.display()))?;
    Ok((Some(journal), Some(file)))
}

fn proxy_state(
    config: &Config,
    clock: Clock,
    backends: &BackendTable,
    journal: Option<&JournalSender>,
    telemetry: &Telemetry,
) -> ProxyState {
    let names: Vec<BackendNames> = config.backends.iter().map(backend_table::names).collect();
    let sink = journal.map(JournalSender::sender);
    let targets = Targets::new(backends.len());
    backends.iter().for_each(|backend| targets.set(backend.id, backend.target()));
    let pool = Pool::with_capacity(config.balance, config.backends.len(), backends.len(), config.admission.settings());
    ProxyState {
        clock,
        limits: ArcSwap::from_pointee(config.limits.clone()),
        ledger: Ledger::new(config.workers.get(), &names, config.slo, from_config::buckets(config), sink),
        pool,
        rules: ArcSwap::from_pointee(from_config::request_policy(config)),
        targets: Arc::new(targets),
        drain: Drain::new(),
        memory: Arc::new(Budget::new(config.limits.body_memory)),
        connections: Arc::new(Semaphore::new(from_config::connection_cap(config.limits.max_connections))),
        trust: ArcSwap::from_pointee(config.admission.trust.clone()),
        passes_metrics: AtomicBool::new(config.metrics.passthrough == Passthrough::Engine),
        traces: config.journal.path.is_some(),
        access_log: config.log.access,
        sampling: telemetry.sampling(),
        reports: telemetry.report_sink(),
        facts: Counters::default(),
        via_id: rand::random(),
        retries: RetryBudget::default(),
        passive_health: (0..backends.len()).map(|_| PassiveHealth::default()).collect(),
        addresses: Arc::new(Addresses::new(config.limits.max_connections_per_address)),
        test_hook: |_| {},
    }
}

/// One thread, one reactor and one listening socket each, all on one port.
fn start_workers(
    config: &Config,
    proxy: &Arc<ProxyState>,
) -> anyhow::Result<(SocketAddr, Vec<JoinHandle<()>>, Handle)> {
    let (bound, addresses) = std::sync::mpsc::channel();
    let mut address = config.listen;
    let (mut threads, mut health_runtime) = (Vec::new(), None);
    for index in 0..config.workers.get() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (proxy, bound) = (proxy.clone(), bound.clone());
        // Health checks run on the first one.
        health_runtime.get_or_insert_with(|| runtime.handle().clone());
        let seed = rand::random();
        let thread = std::thread::Builder::new().name(format!("weir-{index}")).spawn(move || {
            runtime.block_on(async move {
                let listener = match listener::bind(address) {
                    Ok(listener) => listener,
                    Err(e) => return drop(bound.send(Err(e))),
                };
                if bound.send(listener.local_addr()).is_err() {
                    return;
                }
                listener::accept_loop(listener, Worker::new(proxy, index, seed)).await;
            });
        })?;
        threads.push(thread);
        address = addresses.recv()?.with_context(|| format!("the data port cannot be bound to {address}"))?;
    }
    Ok((address, threads, health_runtime.context("there is no worker")?))
}

/// Synthetic load costs what clients pay for: without a token there is none.
fn prober(config: &Config, proxy: &Arc<ProxyState>, monitor: MonitorHandle, backends: Arc<Backends>) -> Option<Prober> {
    config.admin.token.as_ref()?;
    let (clock, drain) = (proxy.clock, proxy.drain.clone());
    let saturated = move || {
        let estimates = monitor.estimates(clock.now());
        estimates.iter().flatten().any(|estimate| estimate.reading.state == SaturationState::Saturated)
    };
    let addresses = move || backends.serving().iter().map(|backend| (backend.id, backend.base_url())).collect();
    let context = ProbeContext {
        clock,
        pool: proxy.pool.clone(),
        ledger: proxy.ledger.clone(),
        backends: Arc::new(addresses),
        saturated: Arc::new(saturated),
        draining: Arc::new(move || drain.phase() != DrainPhase::Serving),
    };
    Some(Prober::new(context, config.probe))
}

/// Backends of a configuration, and as many again that still drain.
const SLOTS: usize = 512;
