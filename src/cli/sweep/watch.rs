//! What a sweep says while it runs: a bar on a terminal, plain lines elsewhere, to standard error.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use crate::load::runner::LevelProgress;
use crate::load::summary::{LevelSummary, Punctuality};
use crate::sweep::fill;
use crate::sweep::run::{Cut, SweepEnd, SweepEvent, Swept};
use crate::sweep::search::{SearchLoad, Trial, Worth};

/// Says what happens.
pub struct Watcher {
    bar: bool,
    level: Option<Trial>,
    /// Seconds that each level sends, where that was asked for.
    seconds: Option<f64>,
    title: String,
    header: bool,
    said_at: Duration,
}

impl Watcher {
    /// Nothing said yet.
    pub fn new(seconds: Option<f64>) -> Self {
        let bar = std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self { bar, level: None, seconds, title: String::new(), header: false, said_at: Duration::ZERO }
    }

    /// Says what there is to be said of it.
    pub fn on(&mut self, event: &SweepEvent<'_>) {
        match event {
            SweepEvent::WarmUp => eprintln!("warm-up"),
            SweepEvent::Begin { number, of, trial } => self.begin(*number, *of, *trial),
            SweepEvent::Progress(progress) => self.progress(progress),
            SweepEvent::End { load, run, cut, .. } => self.end(*load, &run.summary, *cut),
            SweepEvent::CoolDown => eprintln!("waiting for the target to drain"),
        }
    }

    fn begin(&mut self, number: usize, of: Option<usize>, trial: Trial) {
        if !std::mem::replace(&mut self.header, true) {
            eprintln!("{HEADER}");
        }
        let of = of.map(|of| format!("/{of}")).unwrap_or_default();
        self.title = format!("level {number}{of}, {}", load(trial.load));
        self.level = Some(trial);
        self.said_at = Duration::ZERO;
    }

    fn progress(&mut self, progress: &LevelProgress) {
        let pause = if self.bar { Duration::ZERO } else { QUIET };
        if progress.elapsed < self.said_at + pause || progress.sent == 0 {
            return;
        }
        self.said_at = progress.elapsed;
        let done = self.share(progress);
        let left = left(done, progress.elapsed).map(|left| format!(", {left} left")).unwrap_or_default();
        let facts = format!(
            "{} sent, {} in flight, {} completed{left}",
            progress.sent,
            progress.in_flight(),
            progress.ended.completed
        );
        if self.bar {
            let filled = ((done * BAR as f64) as usize).min(BAR);
            let (full, empty) = ("=".repeat(filled), " ".repeat(BAR - filled));
            // Nothing can be done about a closed terminal.
            let _ = write!(std::io::stderr(), "\r\x1b[K{} [{full}{empty}] {facts}", self.title);
        } else {
            eprintln!("{}: {:.0} %, {facts}", self.title, 100.0 * done);
        }
    }

    /// How much of the level is over. Sending an open one is the most of it; a closed one is over with its last answer.
    fn share(&self, progress: &LevelProgress) -> f64 {
        let by_count = |count: u64| progress.planned.map(|planned| count as f64 / planned.max(1) as f64);
        let share = match self.level.map(|level| level.load) {
            _ if self.seconds.is_some() => self.seconds.map(|seconds| progress.elapsed.as_secs_f64() / seconds),
            Some(SearchLoad::Closed(_)) => by_count(progress.ended.offered),
            _ => by_count(progress.sent.midpoint(progress.ended.offered)),
        };
        share.unwrap_or(0.0).clamp(0.0, 1.0)
    }

    fn end(&self, level: SearchLoad, summary: &LevelSummary, cut: Option<Cut>) {
        if self.bar {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
        eprintln!("{}", row(level, summary, cut));
    }
}

/// One line a level: what was sent, what was served, how long it took.
fn row(level: SearchLoad, summary: &LevelSummary, cut: Option<Cut>) -> String {
    let steady = summary.steady.map_or("-".to_owned(), |steady| format!("{:.2}", steady.request_throughput));
    let mut row = format!(
        "{:>14} {:>9.2} {:>9.2} {steady:>9} {:>10.1} {:>10.1} {:>9.1} {:>8.1}",
        load(level),
        summary.achieved_rate.unwrap_or(0.0),
        summary.request_throughput,
        1e3 * summary.ttft.mean,
        1e3 * summary.ttft.p99,
        summary.steady.map_or(summary.mean_in_flight, |steady| steady.in_flight),
        1e3 * summary.schedule_delay.p99,
    );
    for remark in remarks(summary, cut) {
        row.push_str("  ");
        row.push_str(&remark);
    }
    row
}

fn remarks(summary: &LevelSummary, cut: Option<Cut>) -> Vec<String> {
    let counts = summary.counts;
    let mut remarks = Vec::new();
    let mut count = |many: u64, what: &str| {
        if many > 0 {
            remarks.push(format!("{many} {what}"));
        }
    };
    count(counts.errors, "failed");
    count(counts.truncated, "truncated");
    count(counts.shed, "refused");
    count(counts.unfinished, "unfinished");
    count(counts.client_limited, "not sent for want of descriptors");
    match summary.pace {
        Punctuality::OnTime => {}
        Punctuality::Late => remarks.push("sent late".to_owned()),
        Punctuality::ClientLimited => remarks.push("REFUSED: the client could not offer this load".to_owned()),
    }
    match cut {
        Some(Cut::PilesUp) => remarks.push("ended early: requests pile up".to_owned()),
        Some(Cut::Fails) => remarks.push("ended early: most requests fail".to_owned()),
        Some(Cut::Interrupted) => remarks.push("interrupted".to_owned()),
        None => {}
    }
    remarks
}

/// Why there are no more levels, and what the search found.
pub fn ending(swept: &Swept) -> String {
    let mut text = match &swept.end {
        SweepEnd::Complete => "all levels have been run".to_owned(),
        SweepEnd::Search(why) => format!("stopped: {why}"),
        SweepEnd::Interrupted => "interrupted: what was measured is kept".to_owned(),
        SweepEnd::NoAnswer => "no answer".to_owned(),
    };
    let Some(search) = &swept.search else { return text };
    if let Some(found) = search.found() {
        text += &format!("\ncapacity {:.4} req/s with {:.1} in the engine's batch", found.capacity, found.in_flight);
        if found.overloaded < RETROGRADE * found.capacity {
            text += &format!("; overloaded it falls to {:.4} req/s: hold requests back", found.overloaded);
        }
    }
    text
}

/// Why nothing can be reported, when that is the levels' own fault.
pub fn refusal(swept: &Swept) -> Option<String> {
    let all = |worth: Worth| {
        !swept.levels.is_empty() && swept.levels.iter().all(|level| fill::worth(&level.summary) == worth)
    };
    if all(Worth::ClientLimited) {
        Some(
            "the client could not offer the load at any level: fewer requests a second, or a faster machine".to_owned(),
        )
    } else if all(Worth::Failed) {
        Some("requests failed at every level".to_owned())
    } else if swept.end == SweepEnd::Interrupted && swept.levels.len() < 2 {
        Some("interrupted before two levels were complete".to_owned())
    } else {
        None
    }
}

fn load(load: SearchLoad) -> String {
    match load {
        SearchLoad::Closed(clients) => format!("{clients} in flight"),
        SearchLoad::Open(rate) => format!("{rate:.3} req/s"),
    }
}

/// `None` until enough is done to extrapolate.
fn left(done: f64, elapsed: Duration) -> Option<String> {
    let left = elapsed.as_secs_f64() * (1.0 - done) / done;
    (done > 0.02 && left.is_finite()).then(|| {
        let seconds = left.round() as u64;
        format!("{}:{:02}", seconds / 60, seconds % 60)
    })
}

const HEADER: &str = "         load      sent    served    steady  TTFT mean   TTFT p99 in flight  late p99\n                  req/s     req/s     req/s         ms         ms      mean       ms";

/// Characters of the bar.
const BAR: usize = 24;

/// Time between two lines where standard error is not a terminal.
const QUIET: Duration = Duration::from_secs(15);

/// Below this share of the capacity an overload costs throughput.
const RETROGRADE: f64 = 0.95;
