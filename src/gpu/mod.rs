//! GPU readings from NVIDIA's library: context for weir's own measurements, never a condition for a decision.
//!
//! A thread of its own reads, because a driver's answer may take long or never arrive; it publishes the latest round in
//! `GpuReadings`, whose readers never wait. Without a library there is one line in the log and nothing else.

pub mod nvml;
pub mod reading;
pub mod settings;
pub mod source;
pub mod track;

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;

use self::reading::Device;
use self::settings::{Enabled, Settings};
use self::source::{Driver, GpuSource, Unavailable};
use self::track::{GpuTenant, Tracker};
use crate::clock::Clock;
use crate::vocabulary::time::Timestamp;

/// The latest round of readings.
#[derive(Debug)]
pub struct GpuReadings {
    round: ArcSwap<PollRound>,
    freshness: Duration,
}

#[derive(Debug, Default)]
struct PollRound {
    at: Timestamp,
    devices: Vec<Device>,
}

impl GpuReadings {
    fn new(interval: Duration) -> Arc<Self> {
        Arc::new(Self { round: ArcSwap::default(), freshness: (interval * ROUNDS).max(LEAST_FRESHNESS) })
    }

    /// Readings without a GPU, for ever.
    pub fn empty() -> Arc<Self> {
        Self::new(Duration::ZERO)
    }

    /// The GPUs at `now`. When no round has ended for long, a call hangs, and only the identities are left.
    pub fn devices(&self, now: Timestamp) -> Vec<Device> {
        let round = self.round.load();
        if self.is_silent(now) {
            return round.devices.iter().map(Device::silent).collect();
        }
        round.devices.clone()
    }

    fn is_silent(&self, now: Timestamp) -> bool {
        let round = self.round.load();
        !round.devices.is_empty() && now.since(round.at) > self.freshness
    }
}

/// The thread that reads. Dropping it stops the thread and waits at most 250 ms: it may hang in the driver.
#[derive(Debug)]
pub struct GpuMonitor {
    latest: Arc<GpuReadings>,
    stop: Option<Sender<()>>,
    /// Behind a lock only so that the monitor is `Sync`; its drop has the only reference.
    ended: Mutex<Receiver<()>>,
}

impl GpuMonitor {
    /// Starts the thread; `None` where GPUs are not to be read.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        driver: impl Driver,
        settings: &Settings,
        tenants: Vec<GpuTenant>,
        clock: Clock,
    ) -> io::Result<Option<Self>> {
        if settings.enabled == Enabled::No {
            return Ok(None);
        }
        let latest = GpuReadings::new(settings.interval);
        let ((stop, stopped), (ending, ended)) = (mpsc::channel(), mpsc::channel());
        let poller = Poller { latest: latest.clone(), stopped, interval: settings.interval, tenants, clock };
        let expected = settings.enabled == Enabled::Yes;
        std::thread::Builder::new().name("weir-gpu".into()).spawn(move || {
            // Dropped at the end, also of a panic.
            let _ending: Sender<()> = ending;
            poller.run(&driver, expected);
        })?;
        Ok(Some(Self { latest, stop: Some(stop), ended: Mutex::new(ended) }))
    }

    /// Its readings.
    pub fn latest(&self) -> Arc<GpuReadings> {
        self.latest.clone()
    }
}

impl Drop for GpuMonitor {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Ok(ended) = self.ended.get_mut() {
            let _ = ended.recv_timeout(STOP_WAIT);
        }
    }
}

/// Logs when the thread hangs and when it answers again; runs until the task ends.
pub async fn guard(latest: Arc<GpuReadings>, clock: Clock) {
    let mut silent = false;
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        if latest.is_silent(clock.now()) != silent {
            silent = !silent;
            match silent {
                true => tracing::warn!("the GPU driver does not answer: its readings are left out until it does"),
                false => tracing::info!("the GPU driver answers again"),
            }
        }
    }
}

/// The thread's state.
struct Poller {
    latest: Arc<GpuReadings>,
    stopped: Receiver<()>,
    interval: Duration,
    tenants: Vec<GpuTenant>,
    clock: Clock,
}

impl Poller {
    /// Reads until it is stopped. Without a source at the first try it gives up, unless GPUs are `expected`.
    fn run(&self, driver: &impl Driver, expected: bool) {
        let (mut warned, mut ever) = (None, expected);
        loop {
            match driver.with_source(&mut |source| self.with_source(source)) {
                Ok(()) => (warned, ever) = (None, true),
                Err(why) if ever => warn_once(&mut warned, why),
                Err(why) => return tracing::info!(reason = %why, "no readings of GPUs: there is no library for them"),
            }
            if self.is_stopped_within(RETRY_INTERVAL) {
                return;
            }
        }
    }

    /// Round after round, until it is stopped or every GPU has been lost for long; then the library is opened again.
    fn with_source(&self, source: &mut dyn GpuSource) {
        let identities = source.identities();
        tracing::info!(gpus = identities.len(), "GPUs are read");
        let gpus = identities.len();
        let mut tracker = Tracker::new(identities, &self.tenants);
        let mut answered = self.clock.now();
        loop {
            for index in 0..gpus {
                let sample = source.sample(index);
                tracker.on_sample(index, sample, self.clock.now());
            }
            let at = self.clock.now();
            self.latest.round.store(Arc::new(PollRound { at, devices: tracker.devices() }));
            if !tracker.all_lost() {
                answered = at;
            }
            if at.since(answered) > RETRY_INTERVAL || self.is_stopped_within(self.interval) {
                return;
            }
        }
    }

    fn is_stopped_within(&self, span: Duration) -> bool {
        !matches!(self.stopped.recv_timeout(span), Err(RecvTimeoutError::Timeout))
    }
}

fn warn_once(warned: &mut Option<Unavailable>, why: Unavailable) {
    if warned.as_ref() != Some(&why) {
        tracing::warn!(reason = %why, "no readings of GPUs; the library is tried again every minute");
        *warned = Some(why);
    }
}

/// Intervals for which a round is shown.
const ROUNDS: u32 = 3;
/// A busy driver is slow.
const LEAST_FRESHNESS: Duration = Duration::from_secs(5);
/// Between two tries to open the library, and the time for which GPUs are lost before it is opened again.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);
/// The longest wait of a stop for the thread: the driver should not be in use while the process ends, but it may hang.
const STOP_WAIT: Duration = Duration::from_millis(250);
/// Between two checks of the thread.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
