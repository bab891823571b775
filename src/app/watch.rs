//! The thread beside the traffic: it reads what engines say of themselves.
//!
//! A runtime of its own, so that neither a slow engine nor a long exposition takes time from a worker.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::backend::BackendId;
use crate::config::{Config, Server};
use crate::export::reported::Reported;
use crate::proxy::gateway::Gateway;
use crate::scrape::client::Address;
use crate::scrape::settings::Engine;
use crate::scrape::table::Reason;
use crate::scrape::{self, Pace, Seat, Source};
use crate::time::Timestamp;

/// The running thread. Dropping it stops it and waits for it.
pub struct Watch {
    engines: Arc<Engines>,
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

/// What every engine says of itself, in the configuration's order.
pub struct Engines(Vec<Arc<Seat>>);

impl Watch {
    /// Starts the thread.
    ///
    /// # Errors
    /// The runtime or the thread cannot be started.
    pub fn start(config: &Config, gateway: &Arc<Gateway>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let pace = Pace::default();
        let engines = Arc::new(Engines(config.backends.iter().map(|_| Seat::new(pace)).collect()));
        let stop = Arc::new(Notify::new());
        let (stopped, gateway) = (stop.clone(), gateway.clone());
        let seats: Vec<(Source, Arc<Seat>)> = config.backends.iter().map(source).zip(engines.0.clone()).collect();
        let thread = std::thread::Builder::new().name("weir-watch".into()).spawn(move || {
            runtime.block_on(async move {
                let mut tasks = JoinSet::new();
                for (place, (source, seat)) in seats.into_iter().enumerate() {
                    let (gateway, clock) = (gateway.clone(), gateway.clock);
                    let backend = BackendId(u16::try_from(place).unwrap_or(u16::MAX));
                    if source.engine != Engine::None {
                        let own = move || gateway.pool.load(backend).0;
                        tasks.spawn(scrape::watch(source, seat, pace, clock, own));
                    }
                }
                stopped.notified().await;
            });
        })?;
        Ok(Self { engines, stop, thread: Some(thread) })
    }

    /// Where to read what the engines say.
    pub fn engines(&self) -> Arc<Engines> {
        self.engines.clone()
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

impl Engines {
    /// What is known at `now`, for the admin port; `epoch` is the Unix time at which the clock stood at zero.
    pub fn reported(&self, now: Timestamp, epoch: f64) -> Vec<Option<Reported>> {
        self.0.iter().map(|seat| reported(&seat.reading(now), now, epoch)).collect()
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
    }
}
