//! Whether synthetic load may go on: its budget, and what it does to clients. Pure.
//!
//! Clients have precedence. The guard checks them ten times a second and stops the run at the first sign that they suffer: a queue
//! of theirs, missed objectives, saturation, or a burst of theirs that needs the capacity the run has taken. It holds no load and
//! no clock: it turns a [`GuardView`] into a [`StopReason`] or none.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use super::settings::{Hours, Settings};
use crate::vocabulary::time::Timestamp;

/// Input of the guard at one moment. Counts are totals since the process began, of clients alone unless noted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GuardView {
    /// Now.
    pub now: Timestamp,
    /// Time of day, UTC.
    pub time_of_day: Duration,
    /// Requests that arrived.
    pub offered: u64,
    /// Finished within the objective.
    pub met: u64,
    /// Finished beyond it, or refused.
    pub missed: u64,
    /// Waiting in weir's queues now.
    pub queued: u64,
    /// How long the first of them has waited.
    pub queued_for: Duration,
    /// Dispatched and without a first token now.
    pub pending: u64,
    /// A backend was saturated before the run had sent anything, or clients alone would saturate it.
    pub saturated: bool,
    /// The process drains.
    pub draining: bool,
    /// Output tokens that the run has used.
    pub tokens: u64,
    /// Synthetic requests that failed or were refused, and all that have ended.
    pub failed: u64,
    /// See `failed`.
    pub ended: u64,
}

/// Why a run is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// Throughput stopped growing: there is a result.
    Found,
    /// The largest allowed load did not reach the knee.
    NotReached,
    /// It was stopped through the admin port.
    Asked,
    /// Its output tokens are used up.
    Tokens,
    /// Its time is over.
    Time,
    /// The hours in which it may run are over.
    Hours,
    /// The process drains.
    Draining,
    /// Requests of clients wait in weir.
    ClientsQueue,
    /// Requests of clients miss their objective.
    ClientsMiss,
    /// Clients send much more than before.
    ClientsBurst,
    /// Requests of clients wait for their first token in the engine.
    ClientsWait,
    /// A backend is saturated by clients alone.
    Saturated,
    /// The synthetic requests fail.
    Fails,
}

/// Watches one run.
#[derive(Clone, Debug)]
pub struct Guard {
    settings: Settings,
    /// Views of the last [`MEMORY`], oldest first.
    recent: VecDeque<GuardView>,
    first: Option<GuardView>,
    /// The most requests of clients without a first token before the run.
    usual_pending: u64,
    /// The same of those in weir's queues: a gate makes requests wait for moments at any load.
    usual_queued: u64,
}

impl Guard {
    /// A guard before the first view.
    pub fn new(settings: Settings) -> Self {
        Self { settings, recent: VecDeque::new(), first: None, usual_pending: 0, usual_queued: 0 }
    }

    /// Before anything is sent: learns what clients do without the run. `Some`: the run may not begin.
    pub fn before(&mut self, view: &GuardView) -> Option<StopReason> {
        self.usual_pending = self.usual_pending.max(view.pending);
        self.usual_queued = self.usual_queued.max(view.queued);
        self.keep(view);
        self.forbidden(view)
    }

    /// During the run. `None`: go on.
    pub fn during(&mut self, view: &GuardView) -> Option<StopReason> {
        self.keep(view);
        self.forbidden(view).or_else(|| self.spent(view)).or_else(|| self.clients_suffer(view))
    }

    fn forbidden(&self, view: &GuardView) -> Option<StopReason> {
        if view.draining {
            Some(StopReason::Draining)
        } else if !self.settings.hours.is_none_or(|hours: Hours| hours.holds(view.time_of_day)) {
            Some(StopReason::Hours)
        } else if view.saturated {
            Some(StopReason::Saturated)
        } else if view.queued_for > LONGEST_QUEUED || view.queued > UNUSUAL * self.usual_queued + SLACK {
            Some(StopReason::ClientsQueue)
        } else {
            None
        }
    }

    fn spent(&self, view: &GuardView) -> Option<StopReason> {
        let began = self.first.map_or(view.now, |first| first.now);
        if view.tokens >= self.settings.max_tokens {
            Some(StopReason::Tokens)
        } else if view.now.since(began) >= self.settings.max_duration {
            Some(StopReason::Time)
        } else if view.ended >= ENOUGH_ENDED && 4 * view.failed > view.ended {
            Some(StopReason::Fails)
        } else {
            None
        }
    }

    fn clients_suffer(&self, view: &GuardView) -> Option<StopReason> {
        if self.bursts(view) {
            Some(StopReason::ClientsBurst)
        } else if view.pending > UNUSUAL * self.usual_pending + SLACK {
            Some(StopReason::ClientsWait)
        } else if self.misses(view) {
            Some(StopReason::ClientsMiss)
        } else {
            None
        }
    }

    /// More arrivals in the last moment than the rate of the whole run explains: 4.5 standard deviations of a Poisson count,
    /// which an hour of checks ten times a second does not reach by chance, and 4 more for burstiness.
    fn bursts(&self, view: &GuardView) -> bool {
        let Some((first, before)) = self.first.zip(self.since(view, BURST_WINDOW)) else { return false };
        let known = before.now.since(first.now).as_secs_f64();
        if known < LEAST_KNOWN {
            return false;
        }
        let rate = (before.offered - first.offered) as f64 / known;
        let expected = rate * view.now.since(before.now).as_secs_f64();
        (view.offered - before.offered) as f64 > expected + 4.5 * expected.sqrt() + 4.0
    }

    /// The share of objectives missed lately is above what is allowed and above what it was before.
    fn misses(&self, view: &GuardView) -> bool {
        let Some(before) = self.since(view, MISS_WINDOW) else { return false };
        let (met, missed) = (view.met - before.met, view.missed - before.missed);
        missed >= LEAST_MISSED && missed as f64 > self.settings.max_missed * (met + missed) as f64
    }

    fn since(&self, view: &GuardView, span: Duration) -> Option<&GuardView> {
        self.recent.iter().rev().find(|past| view.now.since(past.now) >= span)
    }

    fn keep(&mut self, view: &GuardView) {
        self.first.get_or_insert(*view);
        self.recent.push_back(*view);
        while self.recent.front().is_some_and(|oldest| view.now.since(oldest.now) > MEMORY) {
            self.recent.pop_front();
        }
    }
}

impl StopReason {
    /// Its word in answers and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::NotReached => "not_reached",
            Self::Asked => "asked",
            Self::Tokens => "tokens",
            Self::Time => "time",
            Self::Hours => "hours",
            Self::Draining => "draining",
            Self::ClientsQueue => "clients_queue",
            Self::ClientsMiss => "clients_miss",
            Self::ClientsBurst => "clients_burst",
            Self::ClientsWait => "clients_wait",
            Self::Saturated => "saturated",
            Self::Fails => "fails",
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Found => "throughput stopped growing",
            Self::NotReached => "the largest allowed load did not reach the knee",
            Self::Asked => "it was stopped through the admin port",
            Self::Tokens => "its output tokens are used up",
            Self::Time => "its time is over",
            Self::Hours => "it may not run at this time of day",
            Self::Draining => "the process drains",
            Self::ClientsQueue => "requests of clients wait in weir's queue",
            Self::ClientsMiss => "requests of clients miss their objective",
            Self::ClientsBurst => "clients send much more than before",
            Self::ClientsWait => "requests of clients wait for their first token",
            Self::Saturated => "clients alone saturate a backend",
            Self::Fails => "the synthetic requests fail",
        })
    }
}

/// Long enough to tell a burst from chance at a few requests a second, short enough to stop within a second of it.
const BURST_WINDOW: Duration = Duration::from_millis(700);

/// Seconds of arrivals that must be known before their rate counts.
const LEAST_KNOWN: f64 = 3.0;

/// Over how long missed objectives are counted.
const MISS_WINDOW: Duration = Duration::from_secs(5);
const LEAST_MISSED: u64 = 2;

/// Twice what was usual, and a few: a long prompt or two is no sign of the run.
const UNUSUAL: u64 = 2;
const SLACK: u64 = 4;

/// A short wait for the first-token window is the gate at work; a longer one is a delay that clients notice.
const LONGEST_QUEUED: Duration = Duration::from_millis(250);

/// Synthetic requests that must have ended before their failures count.
const ENOUGH_ENDED: u64 = 8;

/// How long views are kept.
const MEMORY: Duration = Duration::from_secs(6);

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten views a second of clients at `rate`, all of them within their objective.
    fn at(tenths: u64, rate: f64) -> GuardView {
        let offered = (tenths as f64 / 10.0 * rate) as u64;
        GuardView {
            now: Timestamp::ZERO + Duration::from_millis(100 * tenths),
            time_of_day: Duration::from_secs(3 * 3600),
            offered,
            met: offered,
            missed: 0,
            queued: 0,
            queued_for: Duration::ZERO,
            pending: 2,
            saturated: false,
            draining: false,
            tokens: 0,
            failed: 0,
            ended: 0,
        }
    }

    fn warm(settings: Settings) -> Guard {
        let mut guard = Guard::new(settings);
        assert!((0..50).all(|tenths| guard.before(&at(tenths, 8.0)).is_none()));
        guard
    }

    #[test]
    fn steady_clients_let_it_go_on() {
        let mut guard = warm(Settings::default());
        assert!((50..1000).all(|tenths| guard.during(&at(tenths, 8.0)).is_none()));
    }

    #[test]
    fn a_burst_of_clients_ends_it_within_a_second() {
        let mut guard = warm(Settings::default());
        let burst = |tenths: u64| GuardView { offered: at(200, 8.0).offered + 3 * (tenths - 200), ..at(tenths, 8.0) };
        assert!((50..200).all(|tenths| guard.during(&at(tenths, 8.0)).is_none()));
        let stopped = (200..300).find_map(|tenths| Some((tenths, guard.during(&burst(tenths))?)));
        assert!(matches!(stopped, Some((200..=210, StopReason::ClientsBurst))), "30 a second after 8: {stopped:?}");
    }

    #[test]
    fn each_sign_that_clients_suffer_ends_it_at_once() {
        let calm = at(60, 8.0);
        for (view, why) in [
            (GuardView { queued: 5, ..calm }, StopReason::ClientsQueue),
            (GuardView { queued: 1, queued_for: Duration::from_millis(300), ..calm }, StopReason::ClientsQueue),
            (GuardView { pending: 9, ..calm }, StopReason::ClientsWait),
            (GuardView { missed: 3, ..calm }, StopReason::ClientsMiss),
            (GuardView { saturated: true, ..calm }, StopReason::Saturated),
            (GuardView { draining: true, ..calm }, StopReason::Draining),
            (GuardView { tokens: 1_000_000, ..calm }, StopReason::Tokens),
            (GuardView { failed: 3, ended: 10, ..calm }, StopReason::Fails),
            (GuardView { now: Timestamp::ZERO + Duration::from_secs(901), ..calm }, StopReason::Time),
        ] {
            assert_eq!(warm(Settings::default()).during(&view), Some(why));
        }
        let moment = Duration::from_millis(100);
        for view in [
            GuardView { queued: 3, queued_for: moment, ..calm },
            GuardView { pending: 8, ..calm },
            GuardView { missed: 1, ..calm },
            GuardView { failed: 2, ended: 10, ..calm },
        ] {
            assert_eq!(warm(Settings::default()).during(&view), None, "{view:?}");
        }
    }

    #[test]
    fn it_runs_in_its_hours_only() {
        let hours: Hours = "22:00-04:00".parse().unwrap();
        let settings = Settings { hours: Some(hours), ..Settings::default() };
        let mut guard = warm(settings);
        assert_eq!(guard.during(&at(60, 8.0)), None);
        let later = GuardView { time_of_day: Duration::from_secs(4 * 3600), ..at(61, 8.0) };
        assert_eq!(guard.during(&later), Some(StopReason::Hours));
        assert_eq!(Guard::new(guard.settings).before(&later), Some(StopReason::Hours));
    }
}
