//! The composition root: a configuration becomes running parts, and running parts come to their end.

mod backends;
mod config_watcher;
mod engine_monitor;
mod gpus;
mod reload;
mod systemd;
mod telemetry;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;

use self::backends::Backends;
use self::reload::{Parts, Reloader};
use crate::admission::pool::Pool;
use crate::clock::Clock;
use crate::config::{BackendConfig, Config, ConfigSource, Loaded, Origins};
use crate::estimate::SaturationState;
use crate::export;
use crate::export::admin::AdminPort;
use crate::export::auth;
use crate::export::journal::{JournalFile, JournalSender};
use crate::export::logging::LevelHandle;
use crate::export::settings::Passthrough;
use crate::measure::{BackendNames, Bounds, BucketSettings, Ledger};
use crate::probe;
use crate::proxy::Budget;
use crate::proxy::drain::{Drain, DrainPhase};
use crate::proxy::listener::{self, Addresses};
use crate::proxy::policy::RequestPolicy;
use crate::proxy::settings::DrainSettings;
use crate::proxy::state::{Counters, ProxyState, RetryBudget, Worker};
use crate::proxy::upstream::health::{HealthCheck, PassiveHealth};
use crate::proxy::upstream::target::{Target, Targets};
use crate::vocabulary::backend_id::BackendId;

/// A weir that runs.
pub struct RunningServer {
    /// Where clients connect.
    pub address: SocketAddr,
    /// Where the admin port listens.
    pub admin: SocketAddr,
    pub proxy: Arc<ProxyState>,
    workers: Vec<JoinHandle<()>>,
    port: Option<AdminPort>,
    journal: Option<JournalFile>,
    watch: Option<engine_monitor::EngineMonitor>,
    told: Option<telemetry::Telemetry>,
    notice: Option<config_watcher::ConfigWatcher>,
    reloader: Arc<Reloader>,
    drain: Arc<ArcSwap<DrainSettings>>,
}

/// Serves until a signal ends it.
///
/// # Errors
/// A port cannot be bound, a thread cannot be started, or the log is set up already.
pub fn serve(source: ConfigSource) -> anyhow::Result<()> {
    let loaded = source.load()?;
    let loudness = export::logging::init(loaded.config.log.format, loaded.config.log.level)?;
    let served = serve_until_a_signal(source, loaded, loudness);
    export::stderr::flush();
    served
}

fn serve_until_a_signal(source: ConfigSource, loaded: Loaded, loudness: LevelHandle) -> anyhow::Result<()> {
    let panics = Arc::default();
    export::logging::on_panic(Arc::clone(&panics));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before anything runs: whoever has read that weir is serving may send a signal at once, and means a drain.
    let mut signals = runtime.block_on(async { Signals::new() })?;
    let origin = StartedFrom { source: Some(source), loudness: Some(loudness) };
    let running = start_from(origin, loaded, |proxy| proxy.facts.panics = panics)?;
    tracing::info!(listen = %running.address, admin = %running.admin, "weir is serving");
    runtime.block_on(async {
        systemd::ready(&running.status());
        let Signals { terminate, interrupt, hangup } = &mut signals;
        let ended = tokio::select! {
            ended = next(terminate, interrupt) => ended,
            () = running.attend(hangup) => StopSignal::AtOnce,
        };
        systemd::stopping("draining");
        running.proxy.drain.make_final();
        if ended == StopSignal::AtOnce {
            return tracing::info!("stopping at once");
        }
        tracing::info!("draining");
        let drain = running.drain.load_full();
        tokio::select! {
            empty = running.proxy.drain.run(drain.min_delay, drain.timeout) => tracing::info!(empty, "drained"),
            _ = next(terminate, interrupt) => tracing::info!("stopping at once"),
            () = running.attend(hangup) => {}
        }
    });
    running.stop();
    Ok(())
}

/// What a running process was started by, as far as a reload needs it.
#[derive(Default)]
struct StartedFrom {
    source: Option<ConfigSource>,
    loudness: Option<LevelHandle>,
}

/// Which state is told when backends differ.
fn gravity(state: SaturationState) -> u8 {
    match state {
        SaturationState::Unknown => 0,
        SaturationState::Healthy => 1,
        SaturationState::Recovering => 2,
        SaturationState::Approaching => 3,
        SaturationState::Saturated => 4,
    }
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> StopSignal {
    tokio::select! {
        _ = terminate.recv() => StopSignal::Drained,
        _ = interrupt.recv() => StopSignal::AtOnce,
    }
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StopSignal {
    /// SIGTERM.
    Drained,
    /// SIGINT.
    AtOnce,
}

/// SIGTERM, SIGINT and SIGHUP, caught from the moment this is made.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Starts every part. `adjust` may change the proxy before it is shared: that is how tests set their test_hook.
///
/// # Errors
/// A port cannot be bound or a thread cannot be started.
pub fn start(config: Config, adjust: impl FnOnce(&mut ProxyState)) -> anyhow::Result<RunningServer> {
    start_from(StartedFrom::default(), Loaded { config, origins: Origins::default() }, adjust)
}

fn start_from(
    origin: StartedFrom,
    loaded: Loaded,
    adjust: impl FnOnce(&mut ProxyState),
) -> anyhow::Result<RunningServer> {
    let config = loaded.config.clone();
    let clock = Clock::start();
    let names: Vec<BackendNames> = config.backends.iter().map(names).collect();
    let (journal, file) = match &config.journal.path {
        Some(path) => {
            let epoch = unix_time() - clock.now().as_nanos() as f64 / 1e9;
            let (journal, file) =
                JournalSender::open(path, epoch).with_context(|| format!("cannot open {}", path.display()))?;
            (Some(journal), Some(file))
        }
        None => (None, None),
    };
    let workers = config.workers.get();
    let sink = journal.as_ref().map(JournalSender::sender);
    let ledger = Ledger::new(workers, &names, config.slo, bounds(&config), sink);
    let targets = Arc::new(targets(&config));
    let told = telemetry::Telemetry::start(&config, clock, &targets)?;
    let mut proxy = ProxyState {
        clock,
        limits: ArcSwap::from_pointee(config.limits.clone()),
        ledger: ledger.clone(),
        pool: Pool::with_capacity(config.balance, config.backends.len(), PLACES, config.admission.settings()),
        rules: ArcSwap::from_pointee(rules(&config)),
        targets,
        drain: Drain::new(),
        memory: Arc::new(Budget::new(config.limits.body_memory)),
        connections: Arc::new(Semaphore::new(connection_cap(config.limits.max_connections))),
        trust: ArcSwap::from_pointee(config.admission.trust.clone()),
        passes_metrics: AtomicBool::new(config.metrics.passthrough == Passthrough::Engine),
        traces: config.journal.path.is_some(),
        access_log: config.log.access,
        sampling: told.sampling(),
        reports: told.wanted(),
        facts: Counters::default(),
        via_id: rand::random(),
        retries: RetryBudget::default(),
        passive_health: (0..PLACES).map(|_| PassiveHealth::default()).collect(),
        addresses: Arc::new(Addresses::new(config.limits.max_connections_per_address)),
        test_hook: |_| {},
    };
    adjust(&mut proxy);
    let proxy = Arc::new(proxy);
    let admin = std::net::TcpListener::bind(config.admin.listen)
        .with_context(|| format!("the admin port cannot be bound to {}", config.admin.listen))?;
    let epoch = unix_time() - clock.now().as_nanos() as f64 / 1e9;
    let watch = engine_monitor::EngineMonitor::start(&config, &proxy, journal.clone(), epoch)?;
    told.engines(watch.seen());
    // In this order, so that nobody hears `ready` before the data port is bound.
    let (address, threads, health_runtime) = start_workers(&config, &proxy)?;
    let fleet = Backends::start(proxy.clone(), watch.seen(), health_runtime, &config.backends);
    let drain = Arc::new(ArcSwap::from_pointee(config.drain.clone()));
    let parts = Parts {
        proxy: proxy.clone(),
        fleet: fleet.clone(),
        watched: watch.seen(),
        drain: drain.clone(),
        loudness: origin.loudness,
    };
    let reloader = Arc::new(Reloader::new(origin.source, loaded, parts));
    let notice = config_watcher::ConfigWatcher::start(reloader.clone());
    let handles = handles(&config, &proxy, journal, &watch, told.reports(), (fleet, reloader.clone(), drain.clone()));
    let port = AdminPort::start(admin, admission(&config.admin), handles)?;
    Ok(RunningServer {
        address,
        admin: port.address(),
        proxy,
        workers: threads,
        port: Some(port),
        journal: file,
        watch: Some(watch),
        told: Some(told),
        notice,
        reloader,
        drain,
    })
}

/// Plays a simulated engine until Ctrl-C.
///
/// # Errors
/// The profile or its file is not known, or the port cannot be bound.
pub fn engine(flags: &crate::cli::EngineArgs) -> anyhow::Result<()> {
    use crate::engine::profile::Setup;
    use crate::engine::server::{self, ServedFamily, Settings};
    let clock = Clock::start();
    let mut settings = match &flags.params {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            Settings::setup("params", Setup::parse(&text)?, clock)
        }
        None => Settings::profile(&flags.profile, clock)?,
    };
    settings.seed = flags.seed;
    settings.speed = flags.speed;
    settings.faults = flags.faults;
    settings.dialect = match flags.dialect {
        crate::cli::DialectArg::Openai => ServedFamily::OpenAi,
        crate::cli::DialectArg::Ollama => ServedFamily::Ollama,
        crate::cli::DialectArg::Anthropic => ServedFamily::Anthropic,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(flags.listen)
            .await
            .with_context(|| format!("the engine cannot be bound to {}", flags.listen))?;
        eprintln!("{}", settings.sentence(listener.local_addr()?));
        let stop = async {
            let _ = tokio::signal::ctrl_c().await;
        };
        Ok(server::serve(listener, settings, stop).await?)
    })
}

/// The demonstration: see `demo`.
///
/// # Errors
/// The profile is not known, or a part cannot be started.
pub fn demo(flags: &crate::cli::Demo) -> anyhow::Result<()> {
    crate::demo::run(flags)
}

impl RunningServer {
    /// What the estimate says of each backend now, in the configuration's order.
    pub fn judged(&self) -> Vec<Option<export::saturation::BackendEstimate>> {
        self.watch.as_ref().map_or_else(Vec::new, |watch| watch.seen().judged(self.proxy.clock.now()))
    }

    /// Reloads at SIGHUP, and tells systemd how it goes, for as long as every worker lives.
    async fn attend(&self, hangup: &mut Signal) {
        let (mut statuses, mut said) = (tokio::time::interval(STATUS), self.status());
        let watchdog = systemd::watchdog();
        let mut pulse = tokio::time::interval(watchdog.unwrap_or(NEVER));
        loop {
            tokio::select! {
                _ = hangup.recv() => {
                    systemd::reloading();
                    // Why not is in the log.
                    let _ = self.reloader.reload("SIGHUP");
                    systemd::ready(&self.status());
                }
                _ = statuses.tick() => {
                    let status = self.status();
                    if status != said {
                        systemd::status(&status);
                        said = status;
                    }
                }
                // A worker that is gone takes no connections: whoever watches may start us anew.
                _ = pulse.tick(), if watchdog.is_some() && self.workers.iter().all(|worker| !worker.is_finished()) => systemd::alive(),
            }
        }
    }

    /// One line: mode, the worst state of any backend, requests in flight.
    fn status(&self) -> String {
        let state =
            self.judged().iter().flatten().map(|judged| judged.reading.state).max_by_key(|state| gravity(*state));
        let (mode, in_flight) = (self.proxy.rules.load().mode().as_str(), self.proxy.drain.underway());
        let draining = if self.proxy.drain.phase() == DrainPhase::Serving { "" } else { ", draining" };
        format!("{mode}, {}, {in_flight} in flight{draining}", state.map_or("unknown", SaturationState::word))
    }

    /// Closes the listeners, ends what is open after a moment, and waits for every thread.
    pub fn stop(mut self) {
        self.proxy.drain.stop();
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::error!("a worker thread ended in a panic");
            }
        }
        drop(self.notice.take());
        drop(self.port.take());
        drop(self.watch.take());
        // Both hold on to the proxy, and with it to the journal.
        drop((self.reloader, self.proxy));
        if let Some(told) = self.told.take() {
            told.finish();
        }
        if let Some(journal) = self.journal.take() {
            journal.finish();
        }
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

fn handles(
    config: &Config,
    proxy: &Arc<ProxyState>,
    journal: Option<JournalSender>,
    watch: &engine_monitor::EngineMonitor,
    reports: Arc<export::sinks::ReportSinks>,
    (fleet, reloader, drain): (Arc<Backends>, Arc<Reloader>, Arc<ArcSwap<DrainSettings>>),
) -> export::Handles {
    let epoch = unix_time() - proxy.clock.now().as_nanos() as f64 / 1e9;
    let seen = Arc::new(AdminState {
        proxy: proxy.clone(),
        journal,
        reports,
        drain,
        reloader: Arc::downgrade(&reloader),
        epoch,
        watched: watch.seen(),
    });
    let probe = prober(config, proxy, epoch, watch.seen(), fleet);
    let text = Arc::downgrade(&reloader);
    export::Handles {
        probe,
        clock: proxy.clock,
        ledger: proxy.ledger.clone(),
        facts: seen.clone(),
        readiness: seen.clone(),
        mode: seen.clone(),
        drain: seen.clone(),
        reload: seen,
        config: Arc::new(move || text.upgrade().map(|reloader| reloader.text()).unwrap_or_default()),
        disabled: config.metrics.disable.clone().into(),
    }
}

/// Synthetic load costs what clients pay for: without a token there is none.
fn prober(
    config: &Config,
    proxy: &Arc<ProxyState>,
    epoch: f64,
    watched: engine_monitor::MonitorHandle,
    fleet: Arc<Backends>,
) -> Option<Arc<dyn export::probe::ProbeControl>> {
    config.admin.token.as_ref()?;
    let (clock, drain) = (proxy.clock, proxy.drain.clone());
    let saturated = move || {
        let judged = watched.judged(clock.now());
        judged.iter().flatten().any(|judged| judged.reading.state == SaturationState::Saturated)
    };
    let address = |server: &BackendConfig| {
        let url = &server.url;
        let host = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.to_string() };
        format!("http://{host}:{}{}", url.port, url.prefix)
    };
    let house = probe::run::ProbeContext {
        clock,
        epoch,
        pool: proxy.pool.clone(),
        ledger: proxy.ledger.clone(),
        backends: Arc::new(move || fleet.addresses().iter().map(|(place, server)| (*place, address(server))).collect()),
        saturated: Arc::new(saturated),
        draining: Arc::new(move || drain.phase() != DrainPhase::Serving),
    };
    Some(Arc::new(probe::run::Prober::new(house, config.probe)))
}

/// The proxy as the admin port sees it.
struct AdminState {
    proxy: Arc<ProxyState>,
    journal: Option<JournalSender>,
    reports: Arc<export::sinks::ReportSinks>,
    drain: Arc<ArcSwap<DrainSettings>>,
    /// Weak: the pages must not keep the process's parts when it ends.
    reloader: Weak<Reloader>,
    /// Unix time at which the clock stood at zero.
    epoch: f64,
    watched: engine_monitor::MonitorHandle,
}

impl export::ReadProcessState for AdminState {
    fn facts(&self) -> export::ProcessState {
        let proxy = &self.proxy;
        let reloads = self.reloader.upgrade().map(|reloader| reloader.tally());
        export::ProcessState {
            mode: proxy.rules.load().mode(),
            up: proxy.pool.ups(),
            connections: proxy.facts.open_connections.load(Relaxed),
            accept_errors: proxy.facts.accept_errors.load(Relaxed),
            panics: proxy.facts.panics.load(Relaxed),
            body_memory: proxy.memory.used() as u64,
            journal: self.journal.as_ref().map(JournalSender::counts),
            spans: self.reports.spans.as_ref().map(export::otlp::Spans::counts),
            log_lost: export::stderr::lost(),
            access_lost: self.reports.access.as_ref().map(export::access::AccessLog::lost),
            reload_accepted: reloads.is_none_or(|reloads| reloads.accepted),
            reload_accepted_at: reloads.map_or(0.0, |reloads| reloads.accepted_at),
            reloads: reloads.map_or((0, 0), |reloads| (reloads.accepts, reloads.refusals)),
            epoch: self.epoch,
            judged: self.watched.judged(proxy.clock.now()),
            gates: self.gates(),
            reported: self.watched.reported(proxy.clock.now(), self.epoch),
            gpus: self.watched.gpus(proxy.clock.now()),
        }
    }
}

impl AdminState {
    fn gates(&self) -> Vec<export::gate_status::GateStatus> {
        let (pool, now) = (&self.proxy.pool, self.proxy.clock.now());
        let backends = (0..pool.len()).map(|i| BackendId(u16::try_from(i).unwrap_or(u16::MAX)));
        let gate = |backend| {
            Some(export::gate_status::GateStatus {
                limits: pool.limits(backend)?,
                queued_bytes: pool.gauges(backend).queued_bytes,
                slo_ttft: self.proxy.ledger.slo().ttft.as_secs_f64(),
                would_shed: self.watched.would_shed(backend, now),
            })
        };
        backends.filter_map(gate).collect()
    }
}

impl export::ModeControl for AdminState {
    fn mode(&self) -> export::Mode {
        self.proxy.rules.load().mode()
    }

    fn switch(&self, mode: export::Mode) {
        let rules = self.proxy.rules.load();
        let before = rules.mode();
        rules.set_mode(mode);
        tracing::warn!(from = before.as_str(), to = mode.as_str(), "the mode was switched");
    }
}

impl export::Readiness for AdminState {
    fn checks(&self) -> Vec<export::ReadinessCheck> {
        let serving = self.proxy.drain.phase() == DrainPhase::Serving;
        vec![
            export::ReadinessCheck { name: "not draining".into(), passed: serving },
            export::ReadinessCheck { name: "a backend is up".into(), passed: self.proxy.pool.ups().contains(&true) },
        ]
    }
}

impl export::DrainControl for AdminState {
    fn begin(&self) {
        let (drain, settings) = (self.proxy.drain.clone(), self.drain.load_full());
        // This runs in the admin port's runtime, which lives until every worker has ended.
        if drain.begin() {
            tracing::info!(by = "admin", "draining");
            tokio::spawn(async move {
                let empty = drain.run(settings.min_delay, settings.timeout).await;
                if drain.phase() != DrainPhase::Serving {
                    tracing::info!(empty, "drained");
                }
            });
        }
    }

    fn cancel(&self) -> bool {
        let cancelled = self.proxy.drain.undrain();
        if cancelled {
            tracing::info!("the drain was cancelled");
        }
        cancelled
    }

    fn draining(&self) -> bool {
        self.proxy.drain.phase() != DrainPhase::Serving
    }

    fn underway(&self) -> usize {
        self.proxy.drain.underway()
    }

    fn drained(&self) -> std::pin::Pin<Box<dyn Future<Output = bool> + Send>> {
        let drain = self.proxy.drain.clone();
        Box::pin(async move { drain.drained().await })
    }
}

impl export::ReloadControl for AdminState {
    fn reload(&self) -> Result<(Vec<String>, Vec<String>), String> {
        let reloader = self.reloader.upgrade().ok_or_else(|| "the process is ending".to_owned())?;
        reloader.reload("POST").map(|done| (done.changed, done.needs_restart))
    }
}

fn admission(admin: &export::settings::Admin) -> auth::AccessPolicy {
    if admin.token.is_none() && !admin.listen.ip().is_loopback() {
        tracing::warn!(listen = %admin.listen, "the admin port is open to other machines, and admin.token is not set");
    }
    let token = admin.token.as_ref().map(|token| token.reveal().to_owned());
    auth::AccessPolicy { hosts: admin.hosts.clone(), token, neighbours: Vec::new() }
}

fn rules(config: &Config) -> RequestPolicy {
    let mut rules = RequestPolicy::new(config.mode.into(), Some(config.slo.ttft));
    rules.routes = config.slo_routes.iter().map(|route| (route.path.as_str().into(), route.ttft)).collect();
    rules.max_wait = config.admission.queue.max_wait;
    rules.late_abort = config.admission.late_abort;
    rules.shed_status = config.admission.shed_status;
    // A request is turned before it has a backend, so one that must not be asked for a stream decides for all.
    rules.reassemble = config.backends.iter().all(|backend| backend.reassemble);
    rules
}

fn names(backend: &BackendConfig) -> BackendNames {
    BackendNames { name: backend.name.as_str().into(), model_name: backend.model_name.as_deref().map(Into::into) }
}

fn targets(config: &Config) -> Targets {
    let targets = Targets::new(PLACES);
    for (i, server) in config.backends.iter().enumerate() {
        targets.set(BackendId(u16::try_from(i).unwrap_or(u16::MAX)), target(server));
    }
    targets
}

fn target(backend: &BackendConfig) -> Target {
    Target {
        name: backend.name.as_str().into(),
        host: backend.url.host.as_str().into(),
        port: backend.url.port,
        authority: backend.host.as_deref().map(Into::into),
        prefix: backend.url.prefix.as_str().into(),
    }
}

fn check(backend: &BackendConfig) -> HealthCheck {
    let health = &backend.health;
    HealthCheck { path: health.path.clone(), interval: health.interval, timeout: health.timeout }
}

fn bounds(config: &Config) -> BucketSettings {
    let mut bounds = BucketSettings::default();
    let typed = &config.metrics.buckets;
    let set = |slot: &mut Bounds, typed: &Option<Vec<f64>>| {
        if let Some(upper) = typed {
            *slot = Bounds::seconds(upper);
        }
    };
    set(&mut bounds.ttft, &typed.ttft);
    set(&mut bounds.itl, &typed.itl);
    set(&mut bounds.gap, &typed.gap);
    set(&mut bounds.duration, &typed.duration);
    set(&mut bounds.wait, &typed.wait);
    set(&mut bounds.overhead, &typed.overhead);
    if let Some(upper) = &typed.tokens {
        bounds.tokens = Bounds::tokens(&upper.iter().map(|n| *n as u64).collect::<Vec<_>>());
    }
    bounds
}

/// Every exchange needs two descriptors; what is left over is for the admin port, health checks and files.
fn connection_cap(configured: usize) -> usize {
    let hard = rlimit::Resource::NOFILE.get_hard().unwrap_or(u64::MAX);
    let _ = rlimit::Resource::NOFILE.set(hard, hard);
    let _ = rlimit::Resource::CORE.set(0, 0);
    let descriptors = usize::try_from(hard).unwrap_or(usize::MAX);
    let fits = descriptors.saturating_sub(DESCRIPTOR_RESERVE) / 10 * 8 / 2;
    if fits < configured {
        tracing::warn!(configured, fits, "fewer descriptors than limits.max_connections needs; the cap is lowered");
    }
    configured.min(fits).clamp(1, Semaphore::MAX_PERMITS)
}

#[expect(clippy::disallowed_methods, reason = "a Unix time for people and Prometheus")]
fn unix_time() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

const DESCRIPTOR_RESERVE: usize = 256;
/// Backends of a configuration, and as many again that still drain.
const PLACES: usize = 512;
/// How often the line for `systemctl status` is made anew.
const STATUS: std::time::Duration = std::time::Duration::from_secs(5);
/// A timer that nobody waits for.
const NEVER: std::time::Duration = std::time::Duration::from_secs(365 * 24 * 3600);
