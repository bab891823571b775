//! The thread beside the traffic: it runs the control loop and reads the engines' own metrics and the GPUs.
//!
//! It has a runtime of its own, so that neither a slow engine nor a long exposition takes time from a worker.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;

use super::backend_table::{Backend, BackendTable};
use super::gpus;
use crate::config::Config;
use crate::control_loop::{Command, CommandQueue, ControlLoop, GateControl, Published, PublishedReadings};
use crate::engine_metrics;
use crate::engine_metrics::PollPace;
use crate::engine_metrics::settings::EngineKind;
use crate::engine_metrics::table::WaitingReason;
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
    handle: MonitorHandle,
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
    _gpus: Option<gpu::GpuMonitor>,
}

/// What the thread publishes, and the way to send it commands.
#[derive(Clone)]
pub struct MonitorHandle {
    backends: Arc<BackendTable>,
    readings: Arc<PublishedReadings>,
    commands: Arc<CommandQueue>,
    readers: UnboundedSender<ReaderCommand>,
    gpus: Arc<gpu::GpuReadings>,
}

/// A command about the reading of an engine's metrics.
enum ReaderCommand {
    /// Replaces what was read at this index before.
    Start(Arc<Backend>),
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
        backends: &Arc<BackendTable>,
        journal: Option<JournalSender>,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stop = Arc::new(Notify::new());
        let library = gpu::nvml::Library::of(&config.gpu);
        let gpus = gpu::GpuMonitor::start(library, &config.gpu, gpus::tenants(config), proxy.clock)?;
        let (readers, commands) = tokio::sync::mpsc::unbounded_channel();
        let handle = MonitorHandle {
            backends: backends.clone(),
            readings: PublishedReadings::new(backends.len()),
            commands: Arc::default(),
            readers,
            gpus: gpus.as_ref().map_or_else(gpu::GpuReadings::empty, gpu::GpuMonitor::latest),
        };
        backends.iter().for_each(|backend| handle.start_reading(&backend));
        let control_loop = control_loop(config, proxy, &handle, journal);
        let (stopped, proxy, published) = (stop.clone(), proxy.clone(), handle.clone());
        let thread = std::thread::Builder::new().name("weir-watch".into()).spawn(move || {
            runtime.block_on(async move {
                let mut tasks = JoinSet::new();
                tasks.spawn(control_loop.run(proxy.clock));
                tasks.spawn(gpu::guard(published.gpus.clone(), proxy.clock));
                tasks.spawn(gpus::log_shifts(published, proxy.clock));
                tokio::select! {
                    () = stopped.notified() => {}
                    () = read_engines(commands, &proxy) => {}
                }
            });
        })?;
        Ok(Self { handle, stop, thread: Some(thread), _gpus: gpus })
    }

    pub fn handle(&self) -> MonitorHandle {
        self.handle.clone()
    }
}

impl Drop for EngineMonitor {
    fn drop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the control loop ended in a panic");
        }
    }
}

impl MonitorHandle {
    /// The estimate of each backend at `now`, for the admin port.
    pub fn estimates(&self, now: Timestamp) -> Vec<Option<BackendEstimate>> {
        let estimate = |published: Arc<Published>| BackendEstimate {
            reading: published.reading.clone(),
            lost: published.lost,
            late: published.late,
        };
        self.readings.read_all(now).into_iter().map(|published| published.map(estimate)).collect()
    }

    /// What enforcement would have refused at a backend.
    pub fn would_shed(&self, backend: BackendId, now: Timestamp) -> WouldShed {
        self.readings.read(backend, now).map_or(WouldShed::default(), |published| published.would_shed)
    }

    /// The GPUs that are read, at `now`.
    pub fn gpus(&self, now: Timestamp) -> Vec<Device> {
        self.gpus.devices(now)
    }

    /// What each engine reports of itself at `now`; `epoch` is the Unix time of the clock's zero, in seconds.
    pub fn engine_reports(&self, now: Timestamp, epoch: f64) -> Vec<Option<EngineReport>> {
        let report = |backend: Arc<Backend>| engine_report(&backend.engine.reading(now), now, epoch);
        self.backends.slots().map(|backend| report(backend?)).collect()
    }

    pub fn name(&self, backend: BackendId) -> Arc<str> {
        self.backends.name(backend)
    }

    /// Reads the engine of `backend` from now on, and no other one at its index.
    pub fn start_reading(&self, backend: &Arc<Backend>) {
        // Fails only when the thread has ended, and then the process ends too.
        let _ = self.readers.send(ReaderCommand::Start(backend.clone()));
    }

    pub fn stop_reading(&self, backend: BackendId) {
        let _ = self.readers.send(ReaderCommand::Stop(backend));
    }

    /// Sends the control loop a command.
    pub fn send(&self, command: Command) {
        self.commands.push(command);
    }
}

/// Runs one task a backend, until the last sender of commands is gone.
async fn read_engines(mut commands: UnboundedReceiver<ReaderCommand>, proxy: &Arc<ProxyState>) {
    let mut tasks: HashMap<BackendId, JoinSet<()>> = HashMap::new();
    while let Some(command) = commands.recv().await {
        match command {
            // Dropping a set ends its task.
            ReaderCommand::Stop(backend) => _ = tasks.remove(&backend),
            ReaderCommand::Start(backend) => {
                let (id, mut task) = (backend.id, JoinSet::new());
                let source = backend.metrics_source();
                if source.engine != EngineKind::None {
                    let (proxy, clock) = (proxy.clone(), proxy.clock);
                    let in_flight = move || proxy.pool.load(id);
                    let latest = backend.engine.clone();
                    task.spawn(engine_metrics::watch(source, latest, PollPace::default(), clock, in_flight));
                }
                tasks.insert(id, task);
            }
        }
    }
}

fn control_loop(
    config: &Config,
    proxy: &Arc<ProxyState>,
    handle: &MonitorHandle,
    journal: Option<JournalSender>,
) -> ControlLoop {
    let (backends, clock) = (handle.backends.clone(), proxy.clock);
    let limits_of = move |backend: BackendId| match backends.get(backend) {
        Some(backend) => backend.engine_limits(clock.now()),
        None => EngineLimits::default(),
    };
    let backends = handle.backends.clone();
    let on_transition = move |backend: BackendId, transition: &Transition| {
        if let Some(journal) = &journal {
            let Transition { at, from, to, reason } = transition;
            let (backend, from, to) = (backends.name(backend), from.word().into(), to.word().into());
            let backend = String::from(&*backend).into();
            let transition = StateTransition { backend, at: *at, from, to, reason: reason.clone() };
            journal.offer(JournalLine::Transition { transition });
        }
    };
    let policy = proxy.clone();
    let mode = Box::new(move || policy.rules.load().mode());
    let settings = config.admission.settings();
    let gate = GateControl { pool: proxy.pool.clone(), policy: config.control, settings, mode };
    let (ledger, readings) = (proxy.ledger.clone(), handle.readings.clone());
    let (limits_of, on_transition) = (Box::new(limits_of), Box::new(on_transition));
    ControlLoop::new(ledger, config.slo.ttft, readings, gate, limits_of, on_transition, clock.now())
        .with_commands(handle.commands.clone())
}

fn engine_report(reading: &engine_metrics::EngineReading, now: Timestamp, epoch: f64) -> Option<EngineReport> {
    let (engine, up) = reading.up?;
    let report = reading.last.map(|(_, report)| report).unwrap_or_default();
    let waiting = WaitingReason::ALL.map(|reason| (reason.as_str(), report.waiting[reason.index()]));
    Some(EngineReport {
        engine: engine.as_str(),
        up,
        age: reading.last.map(|(at, _)| now.since(at)),
        read_at: reading.read_at.map(|at| epoch + at.as_secs_f64()),
        running: report.running,
        waiting: waiting.into_iter().filter_map(|(reason, count)| Some((reason, count?))).collect(),
        kv_usage: report.kv_usage,
        kv_tokens: report.kv_tokens,
        max_num_seqs: report.max_num_seqs,
        accord: reading.accord.as_str(),
        excess: reading.excess,
    })
}
