//! The engine's own count of requests compared with weir's.
//!
//! The two counts are never taken at the same instant, so one read proves nothing: a result counts after `PERSISTENT` reads in a row.
//! Absent: the log and a clock.

use super::table::MetricsReport;

/// How the engine's count compares with weir's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accord {
    /// Not read often enough, or the engine does not count.
    #[default]
    Unjudged,
    Agrees,
    /// The engine has more than weir sent: another client uses it.
    ForeignLoad,
    /// The engine has less than weir sent: it is not the engine behind this backend, or a proxy in between queues requests.
    Fewer,
}

impl Accord {
    /// The word in `/status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unjudged => "unjudged",
            Self::Agrees => "agrees",
            Self::ForeignLoad => "foreign_load",
            Self::Fewer => "fewer",
        }
    }
}

/// weir's own requests in flight, just before and just after the read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Own {
    pub before: u32,
    pub after: u32,
}

/// The verdict in force, and a candidate for the next one.
#[derive(Debug, Default)]
pub struct Judge {
    accord: Accord,
    candidate: Accord,
    streak: u32,
}

impl Judge {
    /// One read. `Some` when the verdict changed.
    pub fn on_read(&mut self, report: &MetricsReport, own: Own) -> Option<Accord> {
        let found = verdict(report, own);
        self.streak = if found == self.candidate { self.streak.saturating_add(1) } else { 1 };
        self.candidate = found;
        let changes = self.streak >= PERSISTENT && found != self.accord && found != Accord::Unjudged;
        if changes {
            self.accord = found;
        }
        changes.then_some(found)
    }

    /// The verdict in force.
    pub fn accord(&self) -> Accord {
        self.accord
    }
}

/// Requests that the engine has beyond weir's; negative when it has fewer.
pub fn excess(report: &MetricsReport, own: Own) -> Option<f64> {
    let total = report.running? + report.waiting().unwrap_or(0.0);
    let (least, most) = (f64::from(own.before.min(own.after)), f64::from(own.before.max(own.after)));
    Some(if total > most { total - most } else { (total - least).min(0.0) })
}

fn verdict(report: &MetricsReport, own: Own) -> Accord {
    let Some(excess) = excess(report, own) else { return Accord::Unjudged };
    let (least, most) = (f64::from(own.before.min(own.after)), f64::from(own.before.max(own.after)));
    if excess >= (MORE * most).max(FEW) {
        Accord::ForeignLoad
    } else if report.waiting().is_some() && -excess >= (LESS * least).max(FEW) {
        Accord::Fewer
    } else {
        Accord::Agrees
    }
}

/// Reads in a row before a verdict changes: 5 s, longer than an aborted request stays in an engine.
const PERSISTENT: u32 = 5;
/// Differences below this are requests on their way.
const FEW: f64 = 2.0;
/// Share of weir's count by which the engine's may exceed it.
const MORE: f64 = 0.1;
/// Share of weir's requests that may be missing: requests being sent, tokenised, or answered but not yet read to the end.
const LESS: f64 = 0.25;

#[cfg(test)]
mod tests {
    use super::*;

    fn says(running: f64, waiting: Option<f64>) -> MetricsReport {
        MetricsReport { running: Some(running), waiting: [None, None, waiting], ..MetricsReport::default() }
    }

    fn after(reads: u32, report: &MetricsReport, own: u32) -> Accord {
        let mut judge = Judge::default();
        for _ in 0..reads {
            judge.on_read(report, Own { before: own, after: own });
        }
        judge.accord()
    }

    #[test]
    fn more_running_than_ours_is_foreign_load_once_it_persists() {
        assert_eq!(after(4, &says(12.0, Some(3.0)), 10), Accord::Unjudged);
        assert_eq!(after(5, &says(12.0, Some(3.0)), 10), Accord::ForeignLoad);
        assert_eq!(after(5, &says(2.0, None), 0), Accord::ForeignLoad);
    }

    #[test]
    fn small_and_passing_differences_are_no_foreign_load() {
        assert_eq!(after(9, &says(11.0, Some(0.0)), 10), Accord::Agrees);
        assert_eq!(after(9, &says(105.0, Some(0.0)), 100), Accord::Agrees);
        let mut judge = Judge::default();
        for read in 0..50 {
            let total = if read % 5 == 4 { 10.0 } else { 30.0 };
            judge.on_read(&says(total, Some(0.0)), Own { before: 10, after: 10 });
        }
        assert_ne!(judge.accord(), Accord::ForeignLoad, "never five in a row");
        let moving = Own { before: 10, after: 30 };
        assert_eq!(verdict(&says(28.0, Some(0.0)), moving), Accord::Agrees, "it lies between our two counts");
    }

    #[test]
    fn fewer_requests_count_only_if_the_engine_counts_waiting() {
        assert_eq!(after(5, &says(4.0, Some(0.0)), 20), Accord::Fewer);
        assert_eq!(after(5, &says(4.0, None), 20), Accord::Agrees);
        assert_eq!(after(5, &says(4.0, Some(13.0)), 20), Accord::Agrees);
    }

    #[test]
    fn the_verdict_reverts_and_each_change_is_returned_once() {
        let mut judge = Judge::default();
        let own = Own { before: 10, after: 10 };
        let reports = [says(30.0, Some(0.0)), says(10.0, Some(0.0))];
        let changes: Vec<_> = (0..40).filter_map(|i| judge.on_read(&reports[i / 20], own)).collect();
        assert_eq!(changes, [Accord::ForeignLoad, Accord::Agrees]);
    }

    #[test]
    fn an_engine_that_does_not_count_is_not_judged() {
        assert_eq!(after(9, &MetricsReport { kv_usage: Some(0.4), ..MetricsReport::default() }, 10), Accord::Unjudged);
    }
}
