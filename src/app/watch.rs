//! The thread beside the traffic: it turns the estimate's wheel and reads what engines say of themselves.
//!
//! A runtime of its own, so that neither a slow engine nor a long exposition takes time from a worker.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::gpus;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::backend::BackendId;
use crate::config::{Config, Server};
use crate::estimate::{EngineLimits, Transition};
use crate::export::journal::Journal;
use crate::export::reported::Reported;
use crate::export::saturation::Judged;
use crate::gpu;
use crate::gpu::reading::Device;
use crate::measure::journal::{Line, Turn};
use crate::proxy::gateway::Gateway;
use crate::scrape::client::Address;
use crate::scrape::settings::Engine;
use crate::scrape::table::Reason;
use crate::scrape::{self, Limits, Pace, Seat, Source};
use crate::steer::{Board, Gate, Published, Steer, WouldShed};
use crate::time::Timestamp;

/// The running thread. Dropping it stops it and waits for it.
pub struct Watch {
    seen: Seen,
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
    _gpus: Option<gpu::Watch>,
}

/// What the thread leaves for others to read, in the configuration's order of the backends.
#[derive(Clone)]
pub struct Seen {
    seats: Arc<[Arc<Seat>]>,
    board: Arc<Board>,
    gpus: Arc<gpu::Seat>,
}

impl Watch {
    /// Starts the thread.
    ///
    /// # Errors
    /// The runtime or the thread cannot be started.
    pub fn start(config: &Config, gateway: &Arc<Gateway>, journal: Option<Journal>, epoch: f64) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let pace = Pace::default();
        let seats: Arc<[Arc<Seat>]> = config.backends.iter().map(|_| Seat::new(pace)).collect();
        let stop = Arc::new(Notify::new());
        let library = gpu::nvml::Library::of(&config.gpu);
        let gpus = gpu::Watch::start(library, &config.gpu, gpus::tenants(config), gateway.clock)?;
        let seat = gpus.as_ref().map_or_else(gpu::Seat::empty, gpu::Watch::seat);
        let seen = Seen { seats, board: Board::new(config.backends.len()), gpus: seat };
        let steer = steer(config, gateway, &seen, journal);
        let (stopped, gateway) = (stop.clone(), gateway.clone());
        let sources: Vec<_> = config.backends.iter().map(source).zip(seen.seats.iter().cloned()).collect();
        let names: Vec<Arc<str>> = config.backends.iter().map(|server| server.name.as_str().into()).collect();
        let told = seen.clone();
        let thread = std::thread::Builder::new().name("weir-watch".into()).spawn(move || {
            runtime.block_on(async move {
                let mut tasks = JoinSet::new();
                tasks.spawn(steer.run(gateway.clock));
                tasks.spawn(gpu::guard(told.gpus.clone(), gateway.clock));
                tasks.spawn(gpus::say_shifts(told, names, gateway.clock, epoch));
                for (place, (source, seat)) in sources.into_iter().enumerate() {
                    let (gateway, clock) = (gateway.clone(), gateway.clock);
                    let backend = BackendId(u16::try_from(place).unwrap_or(u16::MAX));
                    if source.engine != Engine::None {
                        let own = move || gateway.pool.load(backend);
                        tasks.spawn(scrape::watch(source, seat, pace, clock, own));
                    }
                }
                stopped.notified().await;
            });
        })?;
        Ok(Self { seen, stop, thread: Some(thread), _gpus: gpus })
    }

    /// Where to read what it found.
    pub fn seen(&self) -> Seen {
        self.seen.clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the watching thread ended in a panic");
        }
    }
}

impl Seen {
    /// What the estimate says at `now`, for the admin port.
    pub fn judged(&self, now: Timestamp) -> Vec<Option<Judged>> {
        let judged = |published: Arc<Published>| Judged {
            reading: published.reading.clone(),
            lost: published.lost,
            late: published.late,
        };
        self.board.read_all(now).into_iter().map(|published| published.map(judged)).collect()
    }

    /// What enforcement would have refused at a backend.
    pub fn would_shed(&self, backend: BackendId, now: Timestamp) -> WouldShed {
        self.board.read(backend, now).map_or(WouldShed::default(), |published| published.would_shed)
    }

    /// The GPUs that are read, at `now`.
    pub fn gpus(&self, now: Timestamp) -> Vec<Device> {
        self.gpus.devices(now)
    }

    /// What engines say of themselves at `now`; `epoch` is the Unix time at which the clock stood at zero.
    pub fn reported(&self, now: Timestamp, epoch: f64) -> Vec<Option<Reported>> {
        self.seats.iter().map(|seat| reported(&seat.reading(now), now, epoch)).collect()
    }
}

fn steer(config: &Config, gateway: &Arc<Gateway>, seen: &Seen, journal: Option<Journal>) -> Steer {
    let configured: Vec<EngineLimits> = config.backends.iter().map(|server| server.inside.limits()).collect();
    let (seats, clock) = (seen.seats.clone(), gateway.clock);
    let limits_of = move |backend: BackendId| {
        let place = usize::from(backend.0);
        let reported = seats.get(place).map(|seat| seat.reading(clock.now()).limits);
        believed(configured.get(place).copied().unwrap_or_default(), reported.unwrap_or_default())
    };
    let names: Vec<String> = config.backends.iter().map(|server| server.name.clone()).collect();
    let on_transition = move |backend: BackendId, transition: &Transition| {
        if let (Some(journal), Some(name)) = (&journal, names.get(usize::from(backend.0))) {
            let Transition { at, from, to, reason } = transition;
            let (backend, from, to) = (name.clone().into(), from.word().into(), to.word().into());
            let transition = Turn { backend, at: *at, from, to, reason: reason.clone() };
            journal.offer(Line::Transition { transition });
        }
    };
    let (ledger, board) = (gateway.ledger.clone(), seen.board.clone());
    let switch = gateway.clone();
    let mode = Box::new(move || switch.rules.mode());
    let settings = config.admission.settings();
    let gate = Gate { pool: gateway.pool.clone(), policy: config.control, settings, mode };
    Steer::new(ledger, config.slo.ttft, board, gate, Box::new(limits_of), Box::new(on_transition), clock.now())
}

/// What was configured, and what the engine says where nothing was.
fn believed(configured: EngineLimits, reported: Limits) -> EngineLimits {
    EngineLimits {
        max_num_seqs: configured.max_num_seqs.or(reported.max_num_seqs),
        kv_tokens: configured.kv_tokens.or(reported.kv_tokens),
        max_num_batched_tokens: configured.max_num_batched_tokens,
    }
}

fn reported(reading: &scrape::Reading, now: Timestamp, epoch: f64) -> Option<Reported> {
    let (engine, up) = reading.up?;
    let report = reading.last.map(|(_, report)| report).unwrap_or_default();
    let waiting = Reason::ALL.map(|reason| (reason.as_str(), report.waiting[reason.index()]));
    Some(Reported {
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

fn source(server: &Server) -> Source {
    let inside = &server.inside;
    let at = inside.metrics_url.as_ref();
    let url = at.unwrap_or(&server.url);
    let port = inside.engine.metrics_port().filter(|_| at.is_none()).unwrap_or(url.port);
    let authority = if port == url.port { url.authority.clone() } else { format!("{}:{port}", url.host) };
    let path = at.map(|url| url.prefix.clone()).filter(|path| !path.is_empty());
    Source {
        name: server.name.as_str().into(),
        engine: inside.engine,
        series: inside.engine_metrics.clone(),
        address: Address { host: url.host.as_str().into(), port, authority: authority.into() },
        path,
        configured: Limits { max_num_seqs: inside.max_num_seqs, kv_tokens: inside.kv_tokens },
    }
}
