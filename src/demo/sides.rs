//! The same overload twice, side by side: as clients felt it without enforcement and with it.

use std::fmt::Write as _;
use std::time::Duration;

use crate::load::record::{LoadOutcome, LoadRecord};
use crate::vocabulary::time::Timestamp;

/// One run of the overload, between its ramp and its last request.
#[derive(Clone, Copy, Debug)]
pub struct OverloadSide {
    /// Requests sent, a second.
    offered: f64,
    /// Answered with the first token inside the objective, a second.
    in_time: f64,
    /// Answered, and late.
    late: f64,
    /// Refused, or given up before their first token.
    refused: f64,
    /// Of those that were answered; `None` where none was.
    ttft: Option<[Duration; 2]>,
}

impl OverloadSide {
    /// Of a level's requests: those that were due from `ramp` until `end` after the first.
    pub fn of(records: &[LoadRecord], objective: Duration, ramp: Duration, end: Duration) -> Self {
        let start = records.iter().map(|record| record.intended).min().unwrap_or_default();
        let (from, to) = (start + ramp, start + end);
        let span = to.since(from).as_secs_f64();
        let within: Vec<&LoadRecord> = records.iter().filter(|r| (from..to).contains(&r.intended)).collect();
        let mut ttft: Vec<Duration> = within.iter().filter_map(|record| answered(record)).collect();
        ttft.sort_unstable();
        let quantile = |q: f64| ttft.get((ttft.len() as f64 * q) as usize).or(ttft.last()).copied();
        let late = ttft.iter().filter(|ttft| **ttft > objective).count();
        let rate = |count: usize| count as f64 / span;
        Self {
            offered: rate(within.len()),
            in_time: rate(ttft.len() - late),
            late: rate(late),
            refused: rate(within.len() - ttft.len()),
            ttft: quantile(0.5).zip(quantile(0.99)).map(|(p50, p99)| [p50, p99]),
        }
    }
}

/// Both sides, against a capacity and an objective.
pub fn beside(without: &OverloadSide, with: &OverloadSide, share: f64, capacity: f64, objective: Duration) -> String {
    let mut out =
        format!("{share:.0}x the capacity, objective {} ms      without enforcement   with\n", objective.as_millis());
    let mut row = |name: &str, of: &dyn Fn(&OverloadSide) -> String| {
        // Writing into a String cannot fail.
        let _ = writeln!(out, "  {name:<38} {:>19} {:>6}", of(without), of(with));
    };
    row("sent, req/s", &|side| format!("{:.1}", side.offered));
    row("answered in time, req/s", &|side| format!("{:.1}", side.in_time));
    row("answered in time, share of capacity", &|side| format!("{:.2}", side.in_time / capacity));
    row("answered late, req/s", &|side| format!("{:.1}", side.late));
    row("refused with a time to come back, req/s", &|side| format!("{:.1}", side.refused));
    for (name, place) in [("TTFT of the answered, p50 ms", 0), ("TTFT of the answered, p99 ms", 1)] {
        row(name, &|side| side.ttft.map_or("-".to_owned(), |ttft| format!("{}", ttft[place].as_millis())));
    }
    out
}

/// Arrival to first token, of a request that was answered to its end.
fn answered(record: &LoadRecord) -> Option<Duration> {
    let first: Timestamp = record.first_token?;
    (record.outcome == LoadOutcome::Completed).then(|| first.since(record.intended))
}
