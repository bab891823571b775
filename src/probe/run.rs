//! A run of synthetic load: N requests in flight, checked ten times a second, ended at once when the guard finds a reason.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

pub use super::context::ProbeContext;
use super::guard::{Guard, GuardView, StopReason};
use super::ladder::{HeldStep, Ladder, NextStep, ProbedKnee};
use super::progress::{ProbeProgress, ProbeTotals};
use super::senders::Senders;
use super::settings::Settings;
use crate::export::probe::{ProbeControl, RunSummary, SeenKnee, Status};
use crate::measure::snapshot::Snapshot;
use crate::measure::{AccountStats, Buckets, Objective, ObjectiveResult, Phase};

/// Starts and stops runs, one at a time.
pub struct Prober {
    context: ProbeContext,
    settings: Settings,
    progress: Arc<ProbeProgress>,
}

impl Prober {
    /// A prober that has never run.
    pub fn new(context: ProbeContext, settings: Settings) -> Self {
        let progress = Arc::new(ProbeProgress::new((context.backends)().len()));
        Self { context, settings, progress }
    }
}

impl ProbeControl for Prober {
    fn start(&self) -> Result<(), String> {
        if self.progress.running.swap(true, Relaxed) {
            return Err("a run is under way".to_owned());
        }
        self.progress.stop_requested.store(false, Relaxed);
        let run = ProbeRun { context: self.context.clone(), settings: self.settings, progress: self.progress.clone() };
        let progress = self.progress.clone();
        let thread = std::thread::Builder::new().name("weir-probe".into()).spawn(move || {
            let _guard = RunGuard(progress);
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(run.run()),
                Err(error) => tracing::error!(%error, "a probe could not begin"),
            }
        });
        thread.map(|_| ()).map_err(|error| {
            self.progress.running.store(false, Relaxed);
            format!("no thread for the run: {error}")
        })
    }

    fn stop(&self) -> bool {
        self.progress.stop_requested.store(true, Relaxed);
        self.progress.running.load(Relaxed)
    }

    fn status(&self) -> Status {
        let progress = &self.progress;
        let history = progress.history();
        Status {
            running: progress.running.load(Relaxed),
            held: progress.held.load(Relaxed),
            in_flight: progress.in_flight.load(Relaxed),
            backends: history.backends.clone(),
            last: history.last.clone(),
        }
    }
}

/// Marks the run as over when it is dropped, however the run ends.
struct RunGuard(Arc<ProbeProgress>);

impl Drop for RunGuard {
    fn drop(&mut self) {
        self.0.held.store(0, Relaxed);
        self.0.running.store(false, Relaxed);
    }
}

/// One run.
struct ProbeRun {
    context: ProbeContext,
    settings: Settings,
    progress: Arc<ProbeProgress>,
}

impl ProbeRun {
    async fn run(self) {
        tracing::info!("a probe begins");
        let began = ProbeTotals::of(&self.progress);
        let mut ladder = Ladder::new(self.settings.max_in_flight);
        let (stop, knee) = self.climb(&began, &mut ladder).await;
        tracing::info!(reason = stop.word(), "a probe ended: {stop}");
        let summary = self.summary(stop, knee, ladder.best());
        self.progress.history().last = Some(summary);
    }

    /// Watches clients for a while, then holds step after step until there is a reason to stop. Its requests end with `senders`.
    async fn climb(&self, began: &ProbeTotals, ladder: &mut Ladder) -> (StopReason, Option<ProbedKnee>) {
        let mut guard = Guard::new(self.settings);
        let alone = match self.watch(WATCHED_BEFORE, began, |view| guard.before(view)).await {
            Ok(watched) => watched,
            Err(stop) => return (stop, None),
        };
        let Ok(mut senders) = Senders::new(&self.context, self.settings, &self.progress).await else {
            return (StopReason::Fails, None);
        };
        loop {
            let held = match ladder.next(alone.batch) {
                NextStep::Hold(held) => held,
                NextStep::Found(knee) => return (StopReason::Found, Some(knee)),
                NextStep::NotReached => return (StopReason::NotReached, None),
            };
            let settle = self.settings.step / 3;
            senders.hold(held, settle / 2);
            self.progress.held.store(u64::from(held), Relaxed);
            for (span, counts) in [(settle, false), (self.settings.step - settle, true)] {
                match self.watch(span, began, |view| guard.during(view)).await {
                    Ok(Watched { batch, tokens }) if counts => ladder.on_step(HeldStep { held, batch, tokens }),
                    Ok(_) => {}
                    Err(stop) => return (stop, None),
                }
            }
        }
    }

    /// Checks ten times a second for `span`. `Err`: the guard or the admin port ends the run.
    async fn watch(
        &self,
        span: Duration,
        began: &ProbeTotals,
        mut guard: impl FnMut(&GuardView) -> Option<StopReason>,
    ) -> Result<Watched, StopReason> {
        let clock = self.context.clock;
        let (from, mut ticks, mut batch) = (clock.now(), 0_u32, 0.0);
        let events_before = self.events(&self.context.ledger.snapshot(from));
        let mut tick = interval(WATCH_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let now = clock.now();
            let snapshot = self.context.ledger.snapshot(now);
            if self.progress.stop_requested.load(Relaxed) {
                return Err(StopReason::Asked);
            }
            if let Some(stop) = guard(&self.view(&snapshot, began)) {
                return Err(stop);
            }
            let clients: u64 = snapshot.accounts.iter().map(|stats| stats.in_flight[Phase::Decode.index()]).sum();
            batch += (clients + self.progress.decoding.load(Relaxed)) as f64;
            ticks += 1;
            let seconds = now.since(from).as_secs_f64();
            if now.since(from) >= span {
                let events = self.events(&snapshot) - events_before;
                return Ok(Watched { batch: batch / f64::from(ticks), tokens: events / seconds });
            }
        }
    }

    /// Output tokens so far, of clients and run together. Events are counted as they arrive, usage only at a request's end:
    /// clients' events are scaled by the ratio of usage to events.
    fn events(&self, snapshot: &Snapshot) -> f64 {
        let sum = |of: fn(&AccountStats) -> u64| snapshot.accounts.iter().map(|stats| of(stats)).sum::<u64>() as f64;
        let (events, ended) = (sum(|stats| stats.chunks), sum(|stats| stats.output_tokens.iter().sum()));
        // A request in flight has events and no usage yet: a few per cent once thousands have ended.
        let tokens_per_event = if events > 0.0 { (ended / events).max(1.0) } else { 1.0 };
        events * tokens_per_event + self.progress.tokens.load(Relaxed) as f64
    }

    fn view(&self, snapshot: &Snapshot, began: &ProbeTotals) -> GuardView {
        let sum = |of: fn(&AccountStats) -> u64| snapshot.accounts.iter().map(|stats| of(stats)).sum::<u64>();
        let unix = self.context.clock.unix_seconds(snapshot.at);
        let totals = ProbeTotals::of(&self.progress).since(began);
        let oldest = snapshot.accounts.iter().filter_map(|stats| stats.oldest_queued).min();
        GuardView {
            now: snapshot.at,
            time_of_day: Duration::from_secs_f64(unix.max(0.0) % 86_400.0),
            offered: sum(|stats| stats.offered()),
            met: sum(|stats| stats.slo[Objective::Ttft.index()][ObjectiveResult::Met.index()]),
            missed: sum(|stats| stats.slo[Objective::Ttft.index()][ObjectiveResult::Missed.index()]),
            queued: sum(|stats| stats.queued.iter().sum()),
            queued_for: oldest.map_or(Duration::ZERO, |since| snapshot.at.since(since)),
            pending: sum(|stats| stats.pending),
            saturated: (self.context.saturated)(),
            draining: (self.context.draining)(),
            tokens: totals.tokens,
            failed: totals.failed,
            ended: totals.ended,
        }
    }

    /// The result: the knee in requests of the clients' own length, where that is known.
    fn summary(&self, stop: StopReason, knee: Option<ProbedKnee>, best: Option<f64>) -> RunSummary {
        let now = self.context.clock.now();
        let snapshot = self.context.ledger.snapshot(now);
        let lengths =
            |of: fn(&Buckets) -> f64| snapshot.accounts.iter().map(|stats| of(&stats.request_output)).sum::<f64>();
        let (count, tokens) = (lengths(|buckets| buckets.count() as f64), lengths(Buckets::sum_outward));
        let length = if count >= ENOUGH_LENGTHS { tokens / count } else { f64::from(self.settings.output_tokens) };
        RunSummary {
            stopped: stop.word(),
            sentence: stop.to_string(),
            at_least: best.map(|tokens| tokens / length),
            ended_at: self.context.clock.unix_seconds(now),
            knee: knee.map(|knee| SeenKnee {
                requests_per_second: knee.tokens / length,
                low: knee.spread.0 / length,
                high: knee.spread.1 / length,
                output_tokens_per_second: knee.tokens,
                in_flight: knee.batch,
            }),
        }
    }
}

/// Means over a watched span.
struct Watched {
    batch: f64,
    tokens: f64,
}

/// How long clients are watched before anything is sent.
const WATCHED_BEFORE: Duration = Duration::from_secs(5);
const WATCH_EVERY: Duration = Duration::from_millis(100);

/// Requests of clients that must have ended before their mean length is taken for theirs.
const ENOUGH_LENGTHS: f64 = 30.0;
