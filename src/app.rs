//! The composition root: a configuration becomes running parts, and running parts come to their end.

mod gpus;
mod told;
mod watch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;

use crate::backend::BackendId;
use crate::balance::Pool;
use crate::clock::Clock;
use crate::config::{Config, Server};
use crate::export::admin::AdminPort;
use crate::export::journal::{Journal, JournalFile};
use crate::export::settings::Passthrough;
use crate::export::{self, visitor};
use crate::measure::{BackendNames, Bounds, BucketSettings, Ledger};
use crate::probe;
use crate::proxy::Budget;
use crate::proxy::drain::{Drain, Phase};
use crate::proxy::gateway::{Facts, Gateway, RetryBudget, Worker};
use crate::proxy::health::{self, Check, Vitals};
use crate::proxy::listener::{self, Addresses};
use crate::proxy::rules::Rules;
use crate::proxy::upstream::Target;

/// A weir that runs.
pub struct Running {
    /// Where clients connect.
    pub address: SocketAddr,
    /// Where the admin port listens.
    pub admin: SocketAddr,
    pub gateway: Arc<Gateway>,
    workers: Vec<JoinHandle<()>>,
    port: Option<AdminPort>,
    journal: Option<JournalFile>,
    watch: Option<watch::Watch>,
    told: Option<told::Told>,
}

/// Serves until a signal ends it.
///
/// # Errors
/// A port cannot be bound, a thread cannot be started, or the log is set up already.
pub fn serve(config: Config) -> anyhow::Result<()> {
    export::logging::init(config.log.format, config.log.level)?;
    let served = serve_until_a_signal(config);
    export::stderr::flush();
    served
}

fn serve_until_a_signal(config: Config) -> anyhow::Result<()> {
    let panics = Arc::default();
    export::logging::on_panic(Arc::clone(&panics));
    let drain = config.drain.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before anything runs: whoever has read that weir is serving may send a signal at once, and means a drain.
    let mut signals = runtime.block_on(async { Signals::new() })?;
    let running = start(config, |gateway| gateway.facts.panics = panics)?;
    tracing::info!(listen = %running.address, admin = %running.admin, "weir is serving");
    runtime.block_on(async {
        signals.next().await;
        running.gateway.drain.make_final();
        tracing::info!("draining");
        tokio::select! {
            empty = running.gateway.drain.run(drain.min_delay, drain.timeout) => tracing::info!(empty, "drained"),
            () = signals.next() => {}
        }
    });
    running.stop();
    Ok(())
}

/// SIGTERM and SIGINT, caught from the moment this is made.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Starts every part. `adjust` may change the gateway before it is shared: that is how tests set their hook.
///
/// # Errors
/// A port cannot be bound or a thread cannot be started.
pub fn start(config: Config, adjust: impl FnOnce(&mut Gateway)) -> anyhow::Result<Running> {
    let clock = Clock::start();
    let names: Vec<BackendNames> = config.backends.iter().map(names).collect();
    let (journal, file) = match &config.journal.path {
        Some(path) => {
            let epoch = unix_time() - clock.now().as_nanos() as f64 / 1e9;
            let (journal, file) =
                Journal::open(path, epoch).with_context(|| format!("cannot open {}", path.display()))?;
            (Some(journal), Some(file))
        }
        None => (None, None),
    };
    let workers = config.workers.get();
    let sink = journal.as_ref().map(Journal::sender);
    let ledger = Ledger::new(workers, &names, config.slo, bounds(&config), sink);
    let told = told::Told::start(&config, clock)?;
    let mut gateway = Gateway {
        clock,
        limits: config.limits.clone(),
        ledger: ledger.clone(),
        pool: Pool::new(config.balance, config.backends.len(), config.admission.settings()),
        rules: rules(&config),
        targets: config.backends.iter().map(target).collect(),
        drain: Drain::new(),
        memory: Arc::new(Budget::new(config.limits.body_memory)),
        connections: Arc::new(Semaphore::new(connection_cap(config.limits.max_connections))),
        trust: config.admission.trust.clone().into(),
        passes_metrics: config.metrics.passthrough == Passthrough::Engine,
        traces: config.journal.path.is_some(),
        access_log: config.log.access,
        sampling: told.sampling(),
        reports: told.wanted(),
        facts: Facts::default(),
        via_id: rand::random(),
        retries: RetryBudget::default(),
        vitals: config.backends.iter().map(|_| Vitals::default()).collect(),
        addresses: Arc::new(Addresses::new(config.limits.max_connections_per_address)),
        hook: |_| {},
    };
    adjust(&mut gateway);
    let gateway = Arc::new(gateway);
    let admin = std::net::TcpListener::bind(config.admin.listen)
        .with_context(|| format!("the admin port cannot be bound to {}", config.admin.listen))?;
    let epoch = unix_time() - clock.now().as_nanos() as f64 / 1e9;
    let watch = watch::Watch::start(&config, &gateway, journal.clone(), epoch)?;
    told.engines(watch.seen());
    let handles = handles(&config, &gateway, journal, &watch, told.reports());
    // In this order, so that nobody hears `ready` before the data port is bound.
    let (address, threads) = start_workers(&config, &gateway)?;
    let port = AdminPort::start(admin, admission(&config.admin), handles)?;
    Ok(Running {
        address,
        admin: port.address(),
        gateway,
        workers: threads,
        port: Some(port),
        journal: file,
        watch: Some(watch),
        told: Some(told),
    })
}

/// Plays a simulated engine until Ctrl-C.
///
/// # Errors
/// The profile or its file is not known, or the port cannot be bound.
pub fn engine(flags: &crate::cli::Engine) -> anyhow::Result<()> {
    use crate::engine::profile::Setup;
    use crate::engine::server::{self, Family, Settings};
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
        crate::cli::EngineDialect::Openai => Family::OpenAi,
        crate::cli::EngineDialect::Ollama => Family::Ollama,
        crate::cli::EngineDialect::Anthropic => Family::Anthropic,
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

impl Running {
    /// What the estimate says of each backend now, in the configuration's order.
    pub fn judged(&self) -> Vec<Option<export::saturation::Judged>> {
        self.watch.as_ref().map_or_else(Vec::new, |watch| watch.seen().judged(self.gateway.clock.now()))
    }

    /// Closes the listeners, ends what is open after a moment, and waits for every thread.
    pub fn stop(mut self) {
        self.gateway.drain.stop();
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::error!("a worker thread ended in a panic");
            }
        }
        drop(self.port.take());
        drop(self.watch.take());
        drop(self.gateway);
        if let Some(told) = self.told.take() {
            told.finish();
        }
        if let Some(journal) = self.journal.take() {
            journal.finish();
        }
    }
}

/// One thread, one reactor and one listening socket each, all on one port.
fn start_workers(config: &Config, gateway: &Arc<Gateway>) -> anyhow::Result<(SocketAddr, Vec<JoinHandle<()>>)> {
    let (bound, addresses) = std::sync::mpsc::channel();
    let mut address = config.listen;
    let mut threads = Vec::new();
    for index in 0..config.workers.get() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (gateway, bound) = (gateway.clone(), bound.clone());
        let checks: Vec<_> = config.backends.iter().map(check).collect();
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
                if index == 0 {
                    for (i, check) in checks.into_iter().enumerate() {
                        let backend = BackendId(u16::try_from(i).unwrap_or(u16::MAX));
                        tokio::spawn(health::watch(gateway.clone(), backend, check));
                    }
                }
                listener::accept_loop(listener, Worker::new(gateway, index, seed)).await;
            });
        })?;
        threads.push(thread);
        address = addresses.recv()?.with_context(|| format!("the data port cannot be bound to {address}"))?;
    }
    Ok((address, threads))
}

fn handles(
    config: &Config,
    gateway: &Arc<Gateway>,
    journal: Option<Journal>,
    watch: &watch::Watch,
    reports: Arc<export::reports::Reports>,
) -> export::Handles {
    let epoch = unix_time() - gateway.clock.now().as_nanos() as f64 / 1e9;
    let seen = Arc::new(Seen {
        gateway: gateway.clone(),
        journal,
        reports,
        drain: config.drain.clone(),
        started: unix_time(),
        epoch,
        watched: watch.seen(),
    });
    let effective = config.effective().to_string();
    let probe = prober(config, gateway, epoch, watch.seen());
    export::Handles {
        probe,
        clock: gateway.clock,
        ledger: gateway.ledger.clone(),
        facts: seen.clone(),
        readiness: seen.clone(),
        mode: seen.clone(),
        drain: seen,
        config: Arc::new(move || effective.clone()),
        disabled: config.metrics.disable.clone().into(),
    }
}

/// Synthetic load costs what clients pay for: without a token there is none.
fn prober(
    config: &Config,
    gateway: &Arc<Gateway>,
    epoch: f64,
    watched: watch::Seen,
) -> Option<Arc<dyn export::probe::ProbeControl>> {
    config.admin.token.as_ref()?;
    let (clock, drain) = (gateway.clock, gateway.drain.clone());
    let saturated = move || {
        let judged = watched.judged(clock.now());
        judged.iter().flatten().any(|judged| judged.reading.state == crate::estimate::State::Saturated)
    };
    let address = |server: &Server| {
        let url = &server.url;
        let host = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.to_string() };
        format!("http://{host}:{}{}", url.port, url.prefix)
    };
    let house = probe::run::House {
        clock,
        epoch,
        pool: gateway.pool.clone(),
        ledger: gateway.ledger.clone(),
        backends: config.backends.iter().map(address).collect(),
        saturated: Arc::new(saturated),
        draining: Arc::new(move || drain.phase() != Phase::Serving),
    };
    Some(Arc::new(probe::run::Prober::new(house, config.probe)))
}

/// The gateway as the admin port sees it.
struct Seen {
    gateway: Arc<Gateway>,
    journal: Option<Journal>,
    reports: Arc<export::reports::Reports>,
    drain: crate::proxy::settings::DrainSettings,
    started: f64,
    /// Unix time at which the clock stood at zero.
    epoch: f64,
    watched: watch::Seen,
}

impl export::ProcessFacts for Seen {
    fn facts(&self) -> export::Facts {
        let gateway = &self.gateway;
        export::Facts {
            mode: gateway.rules.mode(),
            up: gateway.pool.ups(),
            connections: gateway.facts.open_connections.load(Relaxed),
            accept_errors: gateway.facts.accept_errors.load(Relaxed),
            panics: gateway.facts.panics.load(Relaxed),
            body_memory: gateway.memory.used() as u64,
            journal: self.journal.as_ref().map(Journal::counts),
            spans: self.reports.spans.as_ref().map(export::otlp::Spans::counts),
            log_lost: export::stderr::lost(),
            access_lost: self.reports.access.as_ref().map(export::access::AccessLog::lost),
            reload_accepted: true,
            reload_accepted_at: self.started,
            epoch: self.epoch,
            judged: self.watched.judged(gateway.clock.now()),
            gates: self.gates(),
            reported: self.watched.reported(gateway.clock.now(), self.epoch),
            gpus: self.watched.gpus(gateway.clock.now()),
        }
    }
}

impl Seen {
    fn gates(&self) -> Vec<export::gate::Gate> {
        let (pool, now) = (&self.gateway.pool, self.gateway.clock.now());
        let backends = (0..pool.len()).map(|i| BackendId(u16::try_from(i).unwrap_or(u16::MAX)));
        let gate = |backend| {
            Some(export::gate::Gate {
                limits: pool.limits(backend)?,
                queued_bytes: pool.gauges(backend).queued_bytes,
                slo_ttft: self.gateway.ledger.slo().ttft.as_secs_f64(),
                would_shed: self.watched.would_shed(backend, now),
            })
        };
        backends.filter_map(gate).collect()
    }
}

impl export::ModeControl for Seen {
    fn mode(&self) -> export::Mode {
        self.gateway.rules.mode()
    }

    fn switch(&self, mode: export::Mode) {
        let before = self.gateway.rules.mode();
        self.gateway.rules.set_mode(mode);
        tracing::warn!(from = before.as_str(), to = mode.as_str(), "the mode was switched");
    }
}

impl export::Readiness for Seen {
    fn checks(&self) -> Vec<export::Check> {
        let serving = self.gateway.drain.phase() == Phase::Serving;
        vec![
            export::Check { name: "not draining".into(), passed: serving },
            export::Check { name: "a backend is up".into(), passed: self.gateway.pool.ups().contains(&true) },
        ]
    }
}

impl export::DrainControl for Seen {
    fn begin(&self) {
        let (drain, settings) = (self.gateway.drain.clone(), self.drain.clone());
        // This runs in the admin port's runtime, which lives until every worker has ended.
        if drain.begin() {
            tracing::info!(by = "admin", "draining");
            tokio::spawn(async move {
                let empty = drain.run(settings.min_delay, settings.timeout).await;
                if drain.phase() != Phase::Serving {
                    tracing::info!(empty, "drained");
                }
            });
        }
    }

    fn cancel(&self) -> bool {
        let cancelled = self.gateway.drain.undrain();
        if cancelled {
            tracing::info!("the drain was cancelled");
        }
        cancelled
    }

    fn draining(&self) -> bool {
        self.gateway.drain.phase() != Phase::Serving
    }

    fn underway(&self) -> usize {
        self.gateway.drain.underway()
    }

    fn drained(&self) -> std::pin::Pin<Box<dyn Future<Output = bool> + Send>> {
        let drain = self.gateway.drain.clone();
        Box::pin(async move { drain.drained().await })
    }
}

fn admission(admin: &export::settings::Admin) -> visitor::Admission {
    if admin.token.is_none() && !admin.listen.ip().is_loopback() {
        tracing::warn!(listen = %admin.listen, "the admin port is open to other machines, and admin.token is not set");
    }
    let token = admin.token.as_ref().map(|token| token.reveal().to_owned());
    visitor::Admission { hosts: admin.hosts.clone(), token, neighbours: Vec::new() }
}

fn rules(config: &Config) -> Rules {
    let mut rules = Rules::new(config.mode.into(), Some(config.slo.ttft));
    rules.routes = config.slo_routes.iter().map(|route| (route.path.as_str().into(), route.ttft)).collect();
    rules.max_wait = config.admission.queue.max_wait;
    rules.late_abort = config.admission.late_abort;
    rules.shed_status = config.admission.shed_status;
    // A request is turned before it has a backend, so one that must not be asked for a stream decides for all.
    rules.reassemble = config.backends.iter().all(|backend| backend.reassemble);
    rules
}

fn names(backend: &Server) -> BackendNames {
    BackendNames { name: backend.name.as_str().into(), model_name: backend.model_name.as_deref().map(Into::into) }
}

fn target(backend: &Server) -> Target {
    Target {
        name: backend.name.as_str().into(),
        host: backend.url.host.as_str().into(),
        port: backend.url.port,
        authority: backend.host.as_deref().map(Into::into),
        prefix: backend.url.prefix.as_str().into(),
    }
}

fn check(backend: &Server) -> Check {
    let health = &backend.health;
    Check { path: health.path.clone(), interval: health.interval, timeout: health.timeout }
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
