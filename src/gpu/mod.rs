//! What NVIDIA's library says of the GPUs: context beside what weir measures itself, never a condition for anything.
//!
//! A thread of its own asks, as a driver's answer may take long or never come; it leaves what it learnt on a `Seat` whose
//! readers never wait. Without a library there is one line in the log and nothing else.

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

/// Where the last round lies.
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

    /// A latest on which nothing will ever lie.
    pub fn empty() -> Arc<Self> {
        Self::new(Duration::ZERO)
    }

    /// The GPUs at `now`. When no round has ended for long, only who they are is left: a question hangs.
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

/// The thread that asks. Dropping it asks the thread to end, and waits only a moment: it may hang in the driver.
#[derive(Debug)]
pub struct GpuMonitor {
    latest: Arc<GpuReadings>,
    stop: Option<Sender<()>>,
    /// Behind a lock only so that a `Watch` can be shared; whoever drops it has it alone.
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
        let asker = Asker { latest: latest.clone(), stopped, interval: settings.interval, tenants, clock };
        let expected = settings.enabled == Enabled::Yes;
        std::thread::Builder::new().name("weir-gpu".into()).spawn(move || {
            // Dropped at the end, also of a panic.
            let _ending: Sender<()> = ending;
            asker.run(&driver, expected);
        })?;
        Ok(Some(Self { latest, stop: Some(stop), ended: Mutex::new(ended) }))
    }

    /// Where to read what it found.
    pub fn latest(&self) -> Arc<GpuReadings> {
        self.latest.clone()
    }
}

impl Drop for GpuMonitor {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Ok(ended) = self.ended.get_mut() {
            let _ = ended.recv_timeout(PARTING);
        }
    }
}

/// Says in the log when the thread hangs, and when it answers again; runs for as long as somebody lets it.
pub async fn guard(latest: Arc<GpuReadings>, clock: Clock) {
    let mut silent = false;
    loop {
        tokio::time::sleep(GUARD).await;
        if latest.is_silent(clock.now()) != silent {
            silent = !silent;
            match silent {
                true => tracing::warn!("the GPU driver does not answer: its readings are left out until it does"),
                false => tracing::info!("the GPU driver answers again"),
            }
        }
    }
}

/// What the thread does.
struct Asker {
    latest: Arc<GpuReadings>,
    stopped: Receiver<()>,
    interval: Duration,
    tenants: Vec<GpuTenant>,
    clock: Clock,
}

impl Asker {
    /// Asks until it is stopped. Where nothing answers at first it gives up, unless GPUs are `expected`.
    fn run(&self, driver: &impl Driver, expected: bool) {
        let (mut said, mut ever) = (None, expected);
        loop {
            match driver.attend(&mut |source| self.attend(source)) {
                Ok(()) => (said, ever) = (None, true),
                Err(why) if ever => warn_once(&mut said, why),
                Err(why) => return tracing::info!(reason = %why, "no readings of GPUs: there is no library for them"),
            }
            if self.is_stopped_within(AGAIN) {
                return;
            }
        }
    }

    /// Round after round, until it is stopped or every GPU has been lost for long: then the library is opened anew.
    fn attend(&self, source: &mut dyn GpuSource) {
        let identities = source.identities();
        tracing::info!(gpus = identities.len(), "GPUs are read");
        let places = identities.len();
        let mut tracker = Tracker::new(identities, &self.tenants);
        let mut answered = self.clock.now();
        loop {
            for place in 0..places {
                let sample = source.sample(place);
                tracker.on_sample(place, sample, self.clock.now());
            }
            let at = self.clock.now();
            self.latest.round.store(Arc::new(PollRound { at, devices: tracker.devices() }));
            if !tracker.all_lost() {
                answered = at;
            }
            if at.since(answered) > AGAIN || self.is_stopped_within(self.interval) {
                return;
            }
        }
    }

    fn is_stopped_within(&self, span: Duration) -> bool {
        !matches!(self.stopped.recv_timeout(span), Err(RecvTimeoutError::Timeout))
    }
}

fn warn_once(said: &mut Option<Unavailable>, why: Unavailable) {
    if said.as_ref() != Some(&why) {
        tracing::warn!(reason = %why, "no readings of GPUs; the library is tried again every minute");
        *said = Some(why);
    }
}

/// A round is shown for so many intervals.
const ROUNDS: u32 = 3;
/// A busy driver takes its time.
const LEAST_FRESHNESS: Duration = Duration::from_secs(5);
/// Between two tries to open the library, and how long GPUs are lost before it is opened anew.
const AGAIN: Duration = Duration::from_secs(60);
/// How long a stop waits for the thread: the driver should not be in use while the process ends, but it may hang.
const PARTING: Duration = Duration::from_millis(250);
/// How often the thread is looked after.
const GUARD: Duration = Duration::from_secs(1);
