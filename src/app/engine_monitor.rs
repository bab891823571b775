//! The thread beside the traffic: it turns the estimate's wheel and reads what engines say of themselves.
//!
//! A runtime of its own, so that neither a slow engine nor a long exposition takes time from a worker.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;

use super::gpus;
use crate::config::{BackendConfig, Config};
use crate::control_loop::{Command, CommandQueue, ControlLoop, GateControl, Published, PublishedReadings};
use crate::engine_metrics;
use crate::engine_metrics::client::Address;
use crate::engine_metrics::settings::EngineKind;
use crate::engine_metrics::table::WaitingReason;
use crate::engine_metrics::{LatestReading, MetricsSource, PollPace, ReportedLimits};
use crate::estimate::{EngineLimits, Transition};
use crate::export::engine_report::EngineReport;
use crate::export::journal::JournalSender;
use crate::export::saturation::BackendEstimate;
use crate::gpu;
use crate::gpu::reading::Device;
use crate::measure::journal::{JournalLine, StateTransition};
use crate::proxy::state::ProxyState;
use crate::vocabulary::backend_id::BackendId;
use crate::vocabulary::time::Timestamp;
use crate::vocabulary::would_shed::WouldShed;

/// The running thread. Dropping it stops it and waits for it.
pub struct EngineMonitor {
    seen: MonitorHandle,
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
    _gpus: Option<gpu::GpuMonitor>,
}

/// What the thread leaves for others to read, by the backends' places, and where it is told of others.
#[derive(Clone)]
pub struct MonitorHandle {
    engines: Arc<ArcSwap<Vec<MonitoredEngine>>>,
    readings: Arc<PublishedReadings>,
    commands: Arc<CommandQueue>,
    readers: UnboundedSender<MonitorCommand>,
    gpus: Arc<gpu::GpuReadings>,
}

/// One place.
#[derive(Clone)]
struct MonitoredEngine {
    latest: Arc<LatestReading>,
    /// What was configured of its engine.
    limits: EngineLimits,
}

/// What is told to the thread about reading an engine.
enum MonitorCommand {
    /// From now on, and nothing else at this place.
    Start(BackendId, Box<MetricsSource>, Arc<LatestReading>),
    Stop(BackendId),
}

impl EngineMonitor {
    /// Starts the thread.
    ///
    /// # Errors
    /// The runtime or the thread cannot be started.
    pub fn start(
        config: &Config,
        proxy: &Arc<ProxyState>,
        journal: Option<JournalSender>,
        epoch: f64,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stop = Arc::new(Notify::new());
        let library = gpu::nvml::Library::of(&config.gpu);
        let gpus = gpu::GpuMonitor::start(library, &config.gpu, gpus::tenants(config), proxy.clock)?;
        let latest = gpus.as_ref().map_or_else(gpu::GpuReadings::empty, gpu::GpuMonitor::latest);
        let (readers, told) = tokio::sync::mpsc::unbounded_channel();
        let (engines, commands) = (Arc::default(), Arc::default());
        let seen = MonitorHandle {
            engines,
            readings: PublishedReadings::new(proxy.targets.places()),
            commands,
            readers,
            gpus: latest,
        };
        for (place, server) in config.backends.iter().enumerate() {
            seen.read(BackendId(u16::try_from(place).unwrap_or(u16::MAX)), server);
        }
        let control_loop = control_loop(config, proxy, &seen, journal);
        let (stopped, proxy, read) = (stop.clone(), proxy.clone(), seen.clone());
        let thread = std::thread::Builder::new().name("weir-watch".into()).spawn(move || {
            runtime.block_on(async move {
                let mut tasks = JoinSet::new();
                tasks.spawn(control_loop.run(proxy.clock));
                tasks.spawn(gpu::guard(read.gpus.clone(), proxy.clock));
                tasks.spawn(gpus::say_shifts(read, proxy.clone(), epoch));
                tokio::select! {
                    () = stopped.notified() => {}
                    () = keep_reading(told, &proxy) => {}
                }
            });
        })?;
        Ok(Self { seen, stop, thread: Some(thread), _gpus: gpus })
    }

    /// Where to read what it found.
    pub fn seen(&self) -> MonitorHandle {
        self.seen.clone()
    }
}

impl Drop for EngineMonitor {
    fn drop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the watching thread ended in a panic");
        }
    }
}

impl MonitorHandle {
    /// What the estimate says at `now`, for the admin port.
    pub fn judged(&self, now: Timestamp) -> Vec<Option<BackendEstimate>> {
        let judged = |published: Arc<Published>| BackendEstimate {
            reading: published.reading.clone(),
            lost: published.lost,
            late: published.late,
        };
        self.readings.read_all(now).into_iter().map(|published| published.map(judged)).collect()
    }

    /// What enforcement would have refused at a backend.
    pub fn would_shed(&self, backend: BackendId, now: Timestamp) -> WouldShed {
        self.readings.read(backend, now).map_or(WouldShed::default(), |published| published.would_shed)
    }

    /// The GPUs that are read, at `now`.
    pub fn gpus(&self, now: Timestamp) -> Vec<Device> {
        self.gpus.devices(now)
    }

    /// What engines say of themselves at `now`; `epoch` is the Unix time at which the clock stood at zero.
    pub fn reported(&self, now: Timestamp, epoch: f64) -> Vec<Option<EngineReport>> {
        self.engines.load().iter().map(|engines| reported(&engines.latest.reading(now), now, epoch)).collect()
    }

    /// Reads the engine behind `server` from now on, which stands at `backend`. One writer at a time.
    pub fn read(&self, backend: BackendId, server: &BackendConfig) {
        let (mut engines, place) = ((**self.engines.load()).clone(), usize::from(backend.0));
        let empty =
            || MonitoredEngine { latest: LatestReading::new(PollPace::default()), limits: EngineLimits::default() };
        engines.resize_with(engines.len().max(place + 1), empty);
        engines[place] = MonitoredEngine { limits: server.inside.limits(), ..empty() };
        let latest = engines[place].latest.clone();
        self.engines.store(Arc::new(engines));
        // The thread is gone only when the process is on its way out.
        let _ = self.readers.send(MonitorCommand::Start(backend, Box::new(source(server)), latest));
    }

    /// Reads the engine at `backend` no more.
    pub fn leave(&self, backend: BackendId) {
        let _ = self.readers.send(MonitorCommand::Stop(backend));
    }

    /// Tells the wheel.
    pub fn send(&self, change: Command) {
        self.commands.push(change);
    }
}

/// One task a backend, for as long as somebody may say otherwise.
async fn keep_reading(mut told: UnboundedReceiver<MonitorCommand>, proxy: &Arc<ProxyState>) {
    let mut tasks: HashMap<BackendId, JoinSet<()>> = HashMap::new();
    while let Some(told) = told.recv().await {
        match told {
            // Dropping a set ends what is in it.
            MonitorCommand::Stop(backend) => _ = tasks.remove(&backend),
            MonitorCommand::Start(backend, source, latest) => {
                let mut task = JoinSet::new();
                if source.engine != EngineKind::None {
                    let (proxy, clock) = (proxy.clone(), proxy.clock);
                    let own = move || proxy.pool.load(backend);
                    task.spawn(engine_metrics::watch(*source, latest, PollPace::default(), clock, own));
                }
                tasks.insert(backend, task);
            }
        }
    }
}

fn control_loop(
    config: &Config,
    proxy: &Arc<ProxyState>,
    seen: &MonitorHandle,
    journal: Option<JournalSender>,
) -> ControlLoop {
    let (engines, clock) = (seen.engines.clone(), proxy.clock);
    let limits_of = move |backend: BackendId| match engines.load().get(usize::from(backend.0)) {
        Some(engines) => believed(engines.limits, engines.latest.reading(clock.now()).limits),
        None => EngineLimits::default(),
    };
    let named = proxy.clone();
    let on_transition = move |backend: BackendId, transition: &Transition| {
        if let Some(journal) = &journal {
            let name = named.targets.name(backend);
            let Transition { at, from, to, reason } = transition;
            let (backend, from, to) = (String::from(&*name).into(), from.word().into(), to.word().into());
            let transition = StateTransition { backend, at: *at, from, to, reason: reason.clone() };
            journal.offer(JournalLine::Transition { transition });
        }
    };
    let (ledger, readings) = (proxy.ledger.clone(), seen.readings.clone());
    let switch = proxy.clone();
    let mode = Box::new(move || switch.rules.load().mode());
    let settings = config.admission.settings();
    let gate = GateControl { pool: proxy.pool.clone(), policy: config.control, settings, mode };
    let (limits_of, on_transition) = (Box::new(limits_of), Box::new(on_transition));
    ControlLoop::new(ledger, config.slo.ttft, readings, gate, limits_of, on_transition, clock.now())
        .with_commands(seen.commands.clone())
}

/// What was configured, and what the engine says where nothing was.
fn believed(configured: EngineLimits, reported: ReportedLimits) -> EngineLimits {
    EngineLimits {
        max_num_seqs: configured.max_num_seqs.or(reported.max_num_seqs),
        kv_tokens: configured.kv_tokens.or(reported.kv_tokens),
        max_num_batched_tokens: configured.max_num_batched_tokens,
    }
}

fn reported(reading: &engine_metrics::EngineReading, now: Timestamp, epoch: f64) -> Option<EngineReport> {
    let (engine, up) = reading.up?;
    let report = reading.last.map(|(_, report)| report).unwrap_or_default();
    let waiting = WaitingReason::ALL.map(|reason| (reason.as_str(), report.waiting[reason.index()]));
    Some(EngineReport {
        engine: engine.as_str(),
        up,
        age: reading.last.map(|(at, _)| now.since(at)),
        read_at: reading.read_at.map(|at| epoch + at.as_nanos() as f64 / 1e9),
        running: report.running,
        waiting: waiting.into_iter().filter_map(|(reason, count)| Some((reason, count?))).collect(),
        kv_usage: report.kv_usage,
        kv_tokens: report.kv_tokens,
        max_num_seqs: report.max_num_seqs,
        accord: reading.accord.as_str(),
        excess: reading.excess,
    })
}

fn source(server: &BackendConfig) -> MetricsSource {
    let inside = &server.inside;
    let at = inside.metrics_url.as_ref();
    let url = at.unwrap_or(&server.url);
    let port = inside.engine.metrics_port().filter(|_| at.is_none()).unwrap_or(url.port);
    let authority = if port == url.port { url.authority.clone() } else { format!("{}:{port}", url.host) };
    let path = at.map(|url| url.prefix.clone()).filter(|path| !path.is_empty());
    MetricsSource {
        name: server.name.as_str().into(),
        engine: inside.engine,
        series: inside.engine_metrics.clone(),
        address: Address { host: url.host.as_str().into(), port, authority: authority.into() },
        path,
        configured: ReportedLimits { max_num_seqs: inside.max_num_seqs, kv_tokens: inside.kv_tokens },
    }
}
