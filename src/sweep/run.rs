//! Runs a sweep: a warm-up, then level by level, each from a target that has drained.
//!
//! The levels come from a list or from the search. A level that can prove nothing more is ended early, unless its length was
//! given. A callback gets every step; when the caller's `stop` resolves, the level under way is cut short and the result so far
//! is returned. It holds no terminal, no files and no verdict.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::fill;
use super::search::{Search, SearchEnd, SearchLoad, SearchResult, SearchStep, Trial};
use crate::load::client::LoadTarget;
use crate::load::runner::{LevelProgress, LevelRun, LoadLevel, Pacing, run_level};
use crate::load::schedule::{Arrivals, Extent, Rate};
use crate::load::summary::LevelSummary;

/// A sweep to run.
#[derive(Clone, Debug)]
pub struct SweepJob {
    /// Everything of a level but its load and its length.
    pub level: LoadLevel,
    /// The law of the gaps of open levels; a level whose trace file has times uses those.
    pub arrivals: Arrivals,
    /// Which levels.
    pub plan: LevelPlan,
    /// The length of every level, where it was given.
    pub extent: Option<Extent>,
    /// When levels begin, where several processes are to send at once.
    pub timetable: Option<Timetable>,
}

/// When levels begin, as several processes have agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timetable {
    /// When the first level begins.
    pub first: Instant,
    /// How long after its predecessor each of the others begins; a late one begins at once.
    pub every: Duration,
}

/// Which levels to run.
#[derive(Clone, Debug)]
pub enum LevelPlan {
    /// These, in this order.
    Given(Vec<SearchLoad>),
    /// Those that the search asks for.
    Auto(Search),
}

/// A step of a sweep, for the caller's callback.
#[derive(Debug)]
pub enum SweepEvent<'a> {
    /// Some requests that are not counted.
    WarmUp,
    /// A level begins: its number from 1, the number of levels where it is known, and what it asks for.
    Begin { number: usize, of: Option<usize>, trial: Trial },
    /// How far it has come; a few times a second.
    Progress(&'a LevelProgress),
    /// It is over.
    End { number: usize, load: SearchLoad, run: &'a LevelRun, cut: Option<Cut> },
    /// The target still works on what the level left.
    CoolDown,
}

/// Why a level was ended before its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// More and more are in flight: it is past the knee, and the longer it lasts the more is left over.
    PilesUp,
    /// Too many failed.
    Fails,
    /// The caller stopped it.
    Interrupted,
}

/// A level that was run, without its requests: those are in [`SweepEvent::End`] only.
#[derive(Clone, Debug)]
pub struct CompletedLevel {
    /// What it asked for.
    pub load: SearchLoad,
    /// Its summary.
    pub summary: LevelSummary,
    /// Whether it was ended early.
    pub cut: Option<Cut>,
}

/// What a sweep left.
#[derive(Clone, Debug)]
pub struct Swept {
    /// The levels, in the order in which they were run.
    pub levels: Vec<CompletedLevel>,
    /// Why there are no more.
    pub end: SweepEnd,
    /// What the search found, when there was one.
    pub search: Option<Search>,
}

/// Why there are no more levels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SweepEnd {
    /// All that were asked for.
    Complete,
    /// The search has ended.
    Search(SearchEnd),
    /// The caller stopped it.
    Interrupted,
    /// Nothing is answered: warm-up failed.
    NoAnswer,
}

/// Runs the sweep on the current runtime, until `stop` is true.
pub async fn run(
    target: &LoadTarget,
    job: SweepJob,
    stop: watch::Receiver<bool>,
    mut on: impl FnMut(SweepEvent<'_>),
) -> Swept {
    let mut sweep = RunningSweep { target, job, stop, levels: Vec::new(), usual_ttft: Duration::ZERO };
    on(SweepEvent::WarmUp);
    let end = if sweep.warm_up().await { sweep.run(&mut on).await } else { sweep.unanswered() };
    let search = match sweep.job.plan {
        LevelPlan::Auto(search) => Some(search),
        LevelPlan::Given(_) => None,
    };
    Swept { levels: sweep.levels, end, search }
}

struct RunningSweep<'a> {
    target: &'a LoadTarget,
    job: SweepJob,
    stop: watch::Receiver<bool>,
    levels: Vec<CompletedLevel>,
    /// TTFT of a request that is alone.
    usual_ttft: Duration,
}

impl RunningSweep<'_> {
    async fn run(&mut self, on: &mut impl FnMut(SweepEvent<'_>)) -> SweepEnd {
        loop {
            let (trial, of) = match self.next() {
                Ok(next) => next,
                Err(end) => return end,
            };
            let number = self.levels.len() + 1;
            self.wait_for_its_start().await;
            if self.is_stopped() {
                return SweepEnd::Interrupted;
            }
            on(SweepEvent::Begin { number, of, trial });
            let (run, cut) = self.level(number, trial, on).await;
            on(SweepEvent::End { number, load: trial.load, run: &run, cut });
            if let LevelPlan::Auto(search) = &mut self.job.plan {
                search.on_level(fill::observation(trial.load, &run.summary, self.job.level.template.stream));
            }
            let left = run.summary.counts.unfinished > 0;
            self.levels.push(CompletedLevel { load: trial.load, summary: run.summary, cut });
            if self.is_stopped() {
                return SweepEnd::Interrupted;
            }
            if left {
                on(SweepEvent::CoolDown);
                self.cool_down().await;
            }
        }
    }

    async fn wait_for_its_start(&self) {
        let Some(timetable) = self.job.timetable else { return };
        // Levels are at most some dozens: the product does not saturate.
        let before = u32::try_from(self.levels.len()).unwrap_or(u32::MAX);
        tokio::select! {
            () = sleep_until(timetable.first + timetable.every.saturating_mul(before)) => {}
            () = stopped(self.stop.clone()) => {}
        }
    }

    /// The next level and how many there will be.
    fn next(&self) -> Result<(Trial, Option<usize>), SweepEnd> {
        match &self.job.plan {
            LevelPlan::Given(loads) => {
                let load = loads.get(self.levels.len()).ok_or(SweepEnd::Complete)?;
                Ok((Trial { load: *load, requests: usual_requests(*load) }, Some(loads.len())))
            }
            LevelPlan::Auto(search) => match search.next() {
                SearchStep::Try(trial) => Ok((trial, None)),
                SearchStep::Stop(why) => Err(SweepEnd::Search(why)),
            },
        }
    }

    async fn level(&self, number: usize, trial: Trial, on: &mut impl FnMut(SweepEvent<'_>)) -> (LevelRun, Option<Cut>) {
        let level = self.level_of(number, trial);
        let mut watch = LevelWatch::new(trial, self.job.extent.is_none(), self.knee());
        let (enough, cut) = (Notify::new(), Cell::new(None));
        let ended = async {
            tokio::select! {
                () = enough.notified() => {}
                () = stopped(self.stop.clone()) => cut.set(Some(Cut::Interrupted)),
            }
        };
        let run = run_level(self.target, &level, ended, |progress| {
            on(SweepEvent::Progress(progress));
            if let Some(why) = watch.on_progress(progress) {
                cut.set(Some(why));
                enough.notify_one();
            }
        })
        .await;
        (run, cut.get())
    }

    fn level_of(&self, number: usize, trial: Trial) -> LoadLevel {
        let mut level = self.job.level.clone();
        // Other prompts at every level: a prefix cache must find nothing that the workload did not put there.
        level.workload.seed = level.workload.seed.wrapping_add(number as u64);
        level.extent = self.job.extent.unwrap_or(Extent::Count(trial.requests));
        level.pace = self.pace(trial.load);
        level
    }

    fn pace(&self, load: SearchLoad) -> Pacing {
        match load {
            SearchLoad::Closed(clients) => {
                Pacing::Closed { workers: NonZeroU32::new(clients).unwrap_or(NonZeroU32::MIN) }
            }
            SearchLoad::Open(rate) => {
                // Rates are from the command line or the search, and both have positive ones only.
                let rate = Rate::new(rate).unwrap_or(Rate::ONE);
                let recorded = self.job.level.trace.as_ref().is_some_and(|trace| trace.rate().is_some());
                if recorded { Pacing::Trace { rate } } else { Pacing::Open { arrivals: self.job.arrivals, rate } }
            }
        }
    }

    /// A few requests one after the other, not counted: they fill connections and caches and give the TTFT of a lone request.
    /// Returns whether any was answered.
    async fn warm_up(&mut self) -> bool {
        let run = self.alone(WARM_UP_REQUESTS).await;
        let usual = run.records.iter().filter_map(|record| record.ttft_from_send()).min();
        self.usual_ttft = usual.unwrap_or_default();
        run.summary.counts.completed > 0
    }

    /// Until a lone request is answered about as fast as in the warm-up.
    async fn cool_down(&self) {
        for _ in 0..COOL_DOWN_TRIES {
            let run = self.alone(1).await;
            let ttft = run.records.iter().filter_map(|record| record.ttft_from_send()).min();
            if self.is_stopped() || ttft.is_some_and(|ttft| ttft <= self.usual_ttft.mul_f64(COOL) + COOL_SLACK) {
                return;
            }
            sleep(COOL_DOWN_PAUSE).await;
        }
    }

    async fn alone(&self, requests: u64) -> LevelRun {
        let mut level = self.job.level.clone();
        level.workload.seed = !level.workload.seed;
        level.pace = Pacing::Closed { workers: NonZeroU32::MIN };
        level.extent = Extent::Count(requests);
        run_level(self.target, &level, stopped(self.stop.clone()), |_| {}).await
    }

    fn knee(&self) -> Option<SearchResult> {
        match &self.job.plan {
            LevelPlan::Auto(search) => search.found(),
            LevelPlan::Given(_) => None,
        }
    }

    fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    fn unanswered(&self) -> SweepEnd {
        if self.is_stopped() { SweepEnd::Interrupted } else { SweepEnd::NoAnswer }
    }
}

/// Checks whether a level under way can still prove anything.
struct LevelWatch {
    open: bool,
    may_be_cut: bool,
    knee: Option<SearchResult>,
    planned: u64,
    /// (sent, in flight) at every progress report.
    history: Vec<(u64, u64)>,
}

impl LevelWatch {
    fn new(trial: Trial, may_be_cut: bool, knee: Option<SearchResult>) -> Self {
        let open = matches!(trial.load, SearchLoad::Open(_));
        Self { open, may_be_cut, knee, planned: trial.requests, history: Vec::new() }
    }

    fn on_progress(&mut self, progress: &LevelProgress) -> Option<Cut> {
        let ended = progress.ended;
        let lost = ended.errors + ended.truncated + ended.client_limited;
        if ended.offered >= ENOUGH_ENDED && lost as f64 > MOST_LOST * ended.offered as f64 {
            return Some(Cut::Fails);
        }
        self.history.push((progress.sent, progress.in_flight()));
        (self.may_be_cut && self.open && self.piles_up(progress)).then_some(Cut::PilesUp)
    }

    /// Half of the level is over, and what is in flight has doubled since a third of that and is far above the knee.
    fn piles_up(&self, progress: &LevelProgress) -> bool {
        let now = progress.in_flight();
        let batch = self.knee.map_or(now as f64 / 3.0, |knee| knee.in_flight);
        let before = self.history.iter().find(|(sent, _)| *sent >= progress.sent / 3).map_or(now, |(_, held)| *held);
        let noise = 4.0 * (progress.sent as f64).sqrt();
        2 * progress.sent >= self.planned
            && now >= 2 * before
            && (now - before) as f64 > noise.max(LEAST_PILE)
            && now as f64 > 2.5 * batch
    }
}

/// Requests of a level whose length was not given: a minute of an open one.
fn usual_requests(load: SearchLoad) -> u64 {
    match load {
        SearchLoad::Open(rate) => ((60.0 * rate) as u64).clamp(200, 20_000),
        SearchLoad::Closed(clients) => 5 * u64::from(clients) + 100,
    }
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        // The sender is dropped: it can no longer be stopped.
        std::future::pending().await
    }
}

const WARM_UP_REQUESTS: u64 = 5;

/// A lone request may take this many times its usual TTFT, and this much longer, and the target still counts as drained.
const COOL: f64 = 1.5;
const COOL_SLACK: Duration = Duration::from_millis(50);
const COOL_DOWN_TRIES: u32 = 60;
const COOL_DOWN_PAUSE: Duration = Duration::from_millis(500);

/// With more than this share lost after this many ended, a level shows nothing of the load.
const ENOUGH_ENDED: u64 = 50;
const MOST_LOST: f64 = 0.5;

/// Requests that must have piled up, whatever the noise.
const LEAST_PILE: f64 = 30.0;
