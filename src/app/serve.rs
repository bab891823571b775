//! `weir serve`: from the first line of the log to the exit status, with its signals.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::start::{RunningServer, StartedFrom, start_from};
use super::systemd;
use crate::config::{ConfigSource, Loaded};
use crate::estimate::SaturationState;
use crate::export;
use crate::export::logging::LevelHandle;
use crate::export::saturation::BackendEstimate;
use crate::proxy::drain::DrainPhase;

/// Serves until a signal ends it.
///
/// # Errors
/// A port cannot be bound, a thread cannot be started, or the log is set up already.
pub fn serve(source: ConfigSource) -> anyhow::Result<()> {
    let loaded = source.load()?;
    let log_level = export::logging::init(loaded.config.log.format, loaded.config.log.level)?;
    let served = serve_until_signal(source, loaded, log_level);
    export::stderr::flush();
    served
}

fn serve_until_signal(source: ConfigSource, loaded: Loaded, log_level: LevelHandle) -> anyhow::Result<()> {
    let panics = std::sync::Arc::default();
    export::logging::on_panic(std::sync::Arc::clone(&panics));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before anything runs: a signal may arrive as soon as the log says that weir is serving, and it means a drain.
    let mut signals = runtime.block_on(async { ProcessSignals::new() })?;
    let origin = StartedFrom { source: Some(source), log_level: Some(log_level) };
    let running = start_from(origin, loaded, |proxy| proxy.facts.panics = panics)?;
    tracing::info!(listen = %running.address, admin = %running.admin, "weir is serving");
    runtime.block_on(async {
        systemd::ready(&running.status());
        let ProcessSignals { terminate, interrupt, hangup } = &mut signals;
        let stop = tokio::select! {
            stop = next(terminate, interrupt) => stop,
            () = running.run(hangup) => StopSignal::AtOnce,
        };
        systemd::stopping("draining");
        running.proxy.drain.make_final();
        if stop == StopSignal::AtOnce {
            return tracing::info!("stopping at once");
        }
        tracing::info!("draining");
        let drain = running.drain.load_full();
        tokio::select! {
            empty = running.proxy.drain.run(drain.min_delay, drain.timeout) => tracing::info!(empty, "drained"),
            _ = next(terminate, interrupt) => tracing::info!("stopping at once"),
            () = running.run(hangup) => {}
        }
    });
    running.stop();
    Ok(())
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> StopSignal {
    tokio::select! {
        _ = terminate.recv() => StopSignal::Drain,
        _ = interrupt.recv() => StopSignal::AtOnce,
    }
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StopSignal {
    /// SIGTERM.
    Drain,
    /// SIGINT.
    AtOnce,
}

/// SIGTERM, SIGINT and SIGHUP, caught from the moment this is made.
struct ProcessSignals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl ProcessSignals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

impl RunningServer {
    /// The estimate of each backend now, in the configuration's order.
    pub fn estimates(&self) -> Vec<Option<BackendEstimate>> {
        let now = self.proxy.clock.now();
        self.monitor.as_ref().map_or_else(Vec::new, |monitor| monitor.handle().estimates(now))
    }

    /// Reloads at SIGHUP and keeps systemd informed; never returns.
    async fn run(&self, hangup: &mut Signal) {
        let (mut statuses, mut sent) = (tokio::time::interval(STATUS_INTERVAL), self.status());
        let watchdog = systemd::watchdog_interval();
        let mut alive = tokio::time::interval(watchdog.unwrap_or(NEVER));
        loop {
            tokio::select! {
                _ = hangup.recv() => {
                    systemd::reloading();
                    // An error is in the log.
                    let _ = self.reloader.reload("SIGHUP");
                    systemd::ready(&self.status());
                }
                _ = statuses.tick() => {
                    let status = self.status();
                    if status != sent {
                        systemd::status(&status);
                        sent = status;
                    }
                }
                // A worker that has ended accepts no connections: without this message systemd starts the process again.
                _ = alive.tick(), if watchdog.is_some() && self.workers.iter().all(|worker| !worker.is_finished()) => systemd::alive(),
            }
        }
    }

    /// One line: mode, the worst state of any backend, requests in flight.
    fn status(&self) -> String {
        let states = self.estimates().into_iter().flatten().map(|estimate| estimate.reading.state);
        let worst = states.max_by_key(|state| severity(*state));
        let (mode, in_flight) = (self.proxy.rules.load().mode().as_str(), self.proxy.drain.underway());
        let draining = if self.proxy.drain.phase() == DrainPhase::Serving { "" } else { ", draining" };
        format!("{mode}, {}, {in_flight} in flight{draining}", worst.map_or("unknown", SaturationState::word))
    }

    /// Closes the listeners, ends what is open after a moment, and waits for every thread.
    pub fn stop(mut self) {
        self.proxy.drain.stop();
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::error!("a worker thread ended in a panic");
            }
        }
        drop(self.config_watcher.take());
        drop(self.port.take());
        drop(self.monitor.take());
        // Both hold the proxy, and with it the journal.
        drop((self.reloader, self.proxy));
        if let Some(telemetry) = self.telemetry.take() {
            telemetry.finish();
        }
        if let Some(journal) = self.journal.take() {
            journal.finish();
        }
    }
}

/// The order of states in the line for systemd: the highest of all backends is shown.
fn severity(state: SaturationState) -> u8 {
    match state {
        SaturationState::Unknown => 0,
        SaturationState::Healthy => 1,
        SaturationState::Recovering => 2,
        SaturationState::Approaching => 3,
        SaturationState::Saturated => 4,
    }
}

/// Time between two looks whether the line for `systemctl status` has changed.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);
/// The period of a timer that is not used.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);
