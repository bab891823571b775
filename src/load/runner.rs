//! One level of load against one target, open or closed loop.
//!
//! Open: a request starts when the schedule says, whatever happened to the others; a late one is sent at once and never
//! dropped or shifted, and nothing caps how many are in flight. Closed: a fixed number is in flight, each end starts the next.
//! Both are the same loop; they differ in what makes a request due. It holds no choice of levels.

use std::future::Future;
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use super::body::BodyTemplate;
use super::client::{Client, GiveUp, LoadTarget, PreparedRequest};
use super::record::{LoadOutcome, LoadRecord};
use super::schedule::{Arrivals, Extent, Rate, pinned, schedule};
use super::summary::{LevelSummary, RequestCounts};
use super::trace_file::TraceFile;
use super::workload::{Draw, Workload};
use crate::clock::Clock;
use crate::vocabulary::slo::Slo;
use crate::vocabulary::time::Timestamp;

/// One load level, complete: the same level and seed send the same requests at the same times.
#[derive(Clone, Debug)]
pub struct LoadLevel {
    /// What makes a request due.
    pub pace: Pacing,
    /// How long to go on sending.
    pub extent: Extent,
    /// Lengths, texts and their seed, which is also the seed of the schedule.
    pub workload: Workload,
    /// Requests given one by one, in place of the workload's laws.
    pub trace: Option<Arc<TraceFile>>,
    /// Stretch the drawn starts of an open loop so that they have the rate exactly ([`pinned`]).
    pub pinned: bool,
    /// Interface, model and flags.
    pub template: BodyTemplate,
    /// Header fields of every request.
    pub headers: HeaderMap,
    /// When each request's client hangs up on purpose.
    pub give_up: GiveUp,
    /// How long outstanding requests are awaited after the last send; then they are unfinished.
    pub grace: Duration,
    /// Keep every gap between events (8 bytes each); without them there are no ITL quantiles.
    pub keep_gaps: bool,
    /// What counts as goodput.
    pub slo: Option<Slo>,
}

/// What makes a request due.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pacing {
    /// The schedule.
    Open {
        /// Law of the gaps.
        arrivals: Arrivals,
        /// Mean rate.
        rate: Rate,
    },
    /// The times of the level's trace file, stretched so that their mean rate is this.
    Trace {
        /// Mean rate.
        rate: Rate,
    },
    /// The end of another request.
    Closed {
        /// Requests in flight.
        workers: NonZeroU32,
    },
}

/// How far a level has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelProgress {
    /// Since the start of the level.
    pub elapsed: Duration,
    /// Requests sent.
    pub sent: u64,
    /// Requests this level will send, where that is known.
    pub planned: Option<u64>,
    /// Requests ended, by outcome (`offered` counts the ended ones here).
    pub ended: RequestCounts,
    /// Output tokens of the ended ones.
    pub output_tokens: u64,
}

impl LevelProgress {
    pub const fn in_flight(&self) -> u64 {
        self.sent - self.ended.offered
    }
}

/// What a level left behind.
#[derive(Clone, Debug)]
pub struct LevelRun {
    /// Every request that was sent, by number.
    pub records: Vec<LoadRecord>,
    /// The level in figures.
    pub summary: LevelSummary,
}

/// Runs `level` against `target` on the current runtime.
///
/// `progress` is called a few times a second and once at the end. When `stop` resolves nothing more is sent, what is
/// running is unfinished, and the result so far is returned; pass `std::future::pending()` for a level that runs to its end.
pub async fn run_level(
    target: &LoadTarget,
    level: &LoadLevel,
    stop: impl Future<Output = ()>,
    mut progress: impl FnMut(&LevelProgress),
) -> LevelRun {
    let mut due = DueRequest::new(level);
    let mut run = LevelInFlight::new(target, level);
    let mut stop = pin!(stop);
    let mut tick = interval(PROGRESS_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut grace_over = None;
    while !(due.is_exhausted() && run.in_flight() == 0) {
        if due.is_exhausted() && grace_over.is_none() {
            grace_over = Some(run.clock().now() + level.grace);
        }
        let next = due.next().or(grace_over);
        tokio::select! {
            biased;
            () = &mut stop => break,
            () = wait_until(run.clock(), next) => match due.take(run.clock().now()) {
                Some((id, intended)) => run.start(id, intended),
                None if grace_over.is_some() => break,
                None => {}
            },
            Some(record) = run.ended.recv() => {
                run.on_end(record);
                due.on_end();
            }
            _ = tick.tick() => progress(&run.progress(due.planned())),
        }
    }
    let planned = due.planned();
    run.close(&mut progress, planned).await
}

impl LoadLevel {
    /// An open-loop Poisson level of the default workload: `count` requests at `rate`.
    pub fn open(rate: Rate, count: u64) -> Self {
        Self::of(Pacing::Open { arrivals: Arrivals::Poisson, rate }, Extent::Count(count))
    }

    /// A closed-loop level of the default workload: `count` requests, `workers` at a time.
    pub fn closed(workers: NonZeroU32, count: u64) -> Self {
        Self::of(Pacing::Closed { workers }, Extent::Count(count))
    }

    fn of(pace: Pacing, extent: Extent) -> Self {
        Self {
            pace,
            extent,
            workload: Workload::default(),
            trace: None,
            pinned: false,
            template: BodyTemplate::default(),
            headers: HeaderMap::new(),
            give_up: GiveUp::Never,
            grace: DEFAULT_GRACE,
            keep_gaps: true,
            slo: None,
        }
    }

    fn requested_rate(&self) -> Option<f64> {
        match self.pace {
            Pacing::Open { rate, .. } | Pacing::Trace { rate } => Some(rate.per_second()),
            Pacing::Closed { .. } => None,
        }
    }

    fn draw(&self, id: u64) -> Draw {
        let listed = self.trace.as_ref().and_then(|trace| trace.draw(id, self.workload.seed));
        listed.unwrap_or_else(|| self.workload.draw(id))
    }

    fn prepared(&self, draw: &Draw) -> PreparedRequest {
        let listed = self.trace.as_ref().and_then(|trace| trace.request(draw.id, self.workload.seed));
        let body = match listed {
            Some((draw, prompt)) => self.template.body_with(&prompt, draw.output_tokens),
            None => self.template.body(draw),
        };
        PreparedRequest {
            api: self.template.api,
            body: Bytes::from(body),
            give_up: self.give_up,
            keep_gaps: self.keep_gaps,
        }
    }

    /// When the requests of an open loop are meant to start.
    fn starts(&self, arrivals: Arrivals, rate: Rate) -> Vec<Duration> {
        let starts = schedule(arrivals, rate, self.extent, self.workload.seed);
        let stretched = self.pinned && matches!(self.extent, Extent::Count(_)) && arrivals != Arrivals::Constant;
        if stretched { pinned(starts, rate) } else { starts }
    }

    fn recorded_starts(&self, rate: Rate) -> Vec<Duration> {
        let mut starts = self.trace.as_ref().map(|trace| trace.starts(rate)).unwrap_or_default();
        match self.extent {
            Extent::Count(count) => starts.truncate(usize::try_from(count).unwrap_or(usize::MAX)),
            Extent::Time(length) => starts.retain(|start| *start < length),
        }
        starts
    }
}

/// Which request is due, and when.
enum DueRequest {
    /// Times drawn before the run.
    Scheduled { starts: Vec<Duration>, sent: usize },
    /// Free workers start at once, as long as the extent allows.
    OnDemand { free: u32, sent: u64, extent: Extent, over: bool },
}

impl DueRequest {
    fn new(level: &LoadLevel) -> Self {
        match level.pace {
            Pacing::Open { arrivals, rate } => Self::Scheduled { starts: level.starts(arrivals, rate), sent: 0 },
            Pacing::Trace { rate } => Self::Scheduled { starts: level.recorded_starts(rate), sent: 0 },
            Pacing::Closed { workers } => Self::OnDemand {
                free: workers.get(),
                sent: 0,
                extent: level.extent,
                over: level.extent == Extent::Count(0),
            },
        }
    }

    /// The request to start now, with its intended start. None when none is due.
    fn take(&mut self, now: Timestamp) -> Option<(u64, Timestamp)> {
        match self {
            Self::Scheduled { starts, sent } => {
                let intended = Timestamp::ZERO + *starts.get(*sent)?;
                let id = *sent as u64;
                (intended <= now).then(|| {
                    *sent += 1;
                    (id, intended)
                })
            }
            Self::OnDemand { free, sent, extent, over } => {
                *over = *over || matches!(extent, Extent::Time(length) if now.since(Timestamp::ZERO) >= *length);
                if *over || *free == 0 {
                    return None;
                }
                let id = *sent;
                *free -= 1;
                *sent += 1;
                *over = matches!(extent, Extent::Count(count) if *sent >= *count);
                Some((id, now))
            }
        }
    }

    fn on_end(&mut self) {
        if let Self::OnDemand { free, .. } = self {
            *free += 1;
        }
    }

    /// When the next request can be due; none while only an end can make one due.
    fn next(&self) -> Option<Timestamp> {
        match self {
            Self::Scheduled { starts, sent } => starts.get(*sent).map(|start| Timestamp::ZERO + *start),
            Self::OnDemand { over: true, .. } => None,
            Self::OnDemand { free, extent, .. } => match extent {
                _ if *free > 0 => Some(Timestamp::ZERO),
                Extent::Time(length) => Some(Timestamp::ZERO + *length),
                Extent::Count(_) => None,
            },
        }
    }

    fn is_exhausted(&self) -> bool {
        match self {
            Self::Scheduled { starts, sent } => *sent == starts.len(),
            Self::OnDemand { over, .. } => *over,
        }
    }

    fn planned(&self) -> Option<u64> {
        match self {
            Self::Scheduled { starts, .. } => Some(starts.len() as u64),
            Self::OnDemand { extent: Extent::Count(count), .. } => Some(*count),
            Self::OnDemand { extent: Extent::Time(_), .. } => None,
        }
    }
}

/// The requests of a level: those in flight, and the records of those that ended.
struct LevelInFlight {
    level: Arc<LoadLevel>,
    client: Arc<Client>,
    tasks: JoinSet<()>,
    sender: UnboundedSender<LoadRecord>,
    ended: UnboundedReceiver<LoadRecord>,
    records: Vec<LoadRecord>,
    progress: LevelProgress,
}

impl LevelInFlight {
    fn new(target: &LoadTarget, level: &LoadLevel) -> Self {
        let (sender, ended) = unbounded_channel();
        Self {
            level: Arc::new(level.clone()),
            client: Arc::new(Client::new(target.clone(), level.headers.clone(), Clock::start())),
            tasks: JoinSet::new(),
            sender,
            ended,
            records: Vec::new(),
            progress: LevelProgress::default(),
        }
    }

    fn start(&mut self, id: u64, intended: Timestamp) {
        self.progress.sent += 1;
        let draw = self.level.draw(id);
        let (client, level) = (Arc::clone(&self.client), Arc::clone(&self.level));
        let mut guard = RecordGuard::new(&draw, intended, client.clock(), self.sender.clone());
        self.tasks.spawn(async move {
            let prepared = level.prepared(&draw);
            if let Some(record) = &mut guard.record {
                client.exchange(&prepared, record).await;
            }
        });
    }

    fn on_end(&mut self, record: LoadRecord) {
        while self.tasks.try_join_next().is_some() {}
        self.progress.ended.add(&record.outcome);
        self.progress.output_tokens += record.output_tokens();
        self.records.push(record);
    }

    /// Gives up what is still running, and summarises the level.
    async fn close(mut self, progress: &mut impl FnMut(&LevelProgress), planned: Option<u64>) -> LevelRun {
        self.tasks.shutdown().await;
        while let Ok(record) = self.ended.try_recv() {
            self.on_end(record);
        }
        progress(&self.progress(planned));
        let mut records = self.records;
        records.sort_unstable_by_key(|record| record.id);
        let summary = LevelSummary::new(&records, self.level.requested_rate(), self.level.slo);
        LevelRun { records, summary }
    }

    fn clock(&self) -> Clock {
        self.client.clock()
    }

    fn in_flight(&self) -> u64 {
        self.progress.sent - self.progress.ended.offered
    }

    fn progress(&self, planned: Option<u64>) -> LevelProgress {
        LevelProgress { elapsed: self.clock().now().since(Timestamp::ZERO), planned, ..self.progress }
    }
}

/// Delivers a record however its request ends: completed, given up, or lost in a panic.
struct RecordGuard {
    record: Option<LoadRecord>,
    clock: Clock,
    ended: UnboundedSender<LoadRecord>,
}

impl RecordGuard {
    fn new(draw: &Draw, intended: Timestamp, clock: Clock, ended: UnboundedSender<LoadRecord>) -> Self {
        Self { record: Some(LoadRecord::offered(draw, intended)), clock, ended }
    }
}

impl Drop for RecordGuard {
    fn drop(&mut self) {
        if let Some(mut record) = self.record.take() {
            if record.outcome == LoadOutcome::Unfinished {
                record.end = self.clock.now();
            }
            // The level may be over already; then no one reads the record.
            let _ = self.ended.send(record);
        }
    }
}

/// Timers fire up to a millisecond late, never early: a request is never sent before its time.
async fn wait_until(clock: Clock, at: Option<Timestamp>) {
    match at {
        Some(at) if at > clock.now() => sleep_until(clock.instant(at)).await,
        Some(_) => {}
        None => std::future::pending().await,
    }
}

/// Outstanding requests are awaited this long unless the level says otherwise: several times the seed engine's answer.
const DEFAULT_GRACE: Duration = Duration::from_secs(60);

/// Often enough for a live table, seldom enough to cost nothing.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
