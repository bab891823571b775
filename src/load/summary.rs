//! What one level amounts to: rates, latencies, and how far its figures can be trusted.
//!
//! Pure arithmetic over the records of the level. It finds out when the client limited the level instead of the server; it holds
//! no comparison between levels and no knee.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::record::{FailureKind, LoadOutcome, LoadRecord};
pub use super::steady::SteadyRates;
use crate::vocabulary::slo::Slo;
use crate::vocabulary::time::Timestamp;

/// A level in figures. Rates are per second, latencies in seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LevelSummary {
    /// Requests a second that were asked for; none in a closed loop.
    pub requested_rate: Option<f64>,
    /// Requests a second of the times that were drawn: a finite draw misses the requested rate by chance.
    pub scheduled_rate: Option<f64>,
    /// Requests a second that were sent.
    pub achieved_rate: Option<f64>,
    /// First send to last end, drain included, as vLLM counts it.
    pub duration: f64,
    /// How many requests there were and how they ended.
    pub counts: RequestCounts,
    /// Completions a second over the whole run. A finite run under-reads: loadgen's N / (N/R + tail).
    pub request_throughput: f64,
    /// Output tokens of completed requests a second, over the whole run.
    pub output_token_throughput: f64,
    /// Prompt and output tokens of completed requests a second, over the whole run.
    pub total_token_throughput: f64,
    /// Completions within the SLO a second, when one was given.
    pub goodput: Option<f64>,
    /// Throughput between ramp and drain, when the run was long enough to have such a window.
    pub steady: Option<SteadyRates>,
    /// TTFT at the beginning and at the end of the level: whether it grew while the load stood still.
    pub drift: Drift,
    /// Mean requests in flight: sum of end-to-end times / duration (Little).
    pub mean_in_flight: f64,
    /// Intended start to first content token. Unfinished requests count with their age: a lower bound.
    pub ttft: Spread,
    /// Send to first content token, of the requests that had one.
    pub ttft_from_send: Spread,
    /// Gap between content events divided by the tokens in the event, once a token. Empty unless gaps were kept.
    pub itl: Spread,
    /// (last − first) / (tokens − 1), once a request.
    pub tpot: Spread,
    /// Intended start to the end, completed and unfinished: a lower bound when any is unfinished.
    pub e2e: Spread,
    /// Send to the end, completed only.
    pub e2e_from_send: Spread,
    /// Intended start to the send: the client's own lateness.
    pub schedule_delay: Spread,
    /// Whether the client kept up with its schedule.
    pub pace: Punctuality,
}

/// Requests by outcome; all but `offered` add up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestCounts {
    /// All of them.
    pub offered: u64,
    /// See [`LoadOutcome::Completed`].
    pub completed: u64,
    /// See [`LoadOutcome::Shed`].
    pub shed: u64,
    /// Failed by the server's fault.
    pub errors: u64,
    /// Failed because the client had no descriptor or port left.
    pub client_limited: u64,
    /// See [`LoadOutcome::Truncated`].
    pub truncated: u64,
    /// See [`LoadOutcome::Unfinished`].
    pub unfinished: u64,
    /// See [`LoadOutcome::Cancelled`].
    pub cancelled: u64,
}

/// A distribution in seconds; all zero when `count` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Weight it rests on: requests, or tokens for the ITL.
    pub count: u64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

/// Mean TTFT of the first and of the last third of a level's requests, by intended start, seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    /// Of the first third.
    pub early: f64,
    /// Of the last.
    pub late: f64,
}

/// Whether the figures are the server's or the client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Punctuality {
    /// Sends were on time.
    OnTime,
    /// Late enough to change the figures.
    Late,
    /// The client could not offer the load: the level proves nothing about the server.
    ClientLimited,
}

impl LevelSummary {
    /// Summarises a level. `requested_rate` is none for a closed loop.
    pub fn new(records: &[LoadRecord], requested_rate: Option<f64>, slo: Option<Slo>) -> Self {
        let counts = RequestCounts::of(records);
        let sends: Vec<Timestamp> = sorted(records.iter().filter_map(|record| record.sent));
        let first_send = sends.first().copied().unwrap_or_default();
        let last_end = records.iter().map(|record| record.end).max().unwrap_or_default();
        let duration = last_end.since(first_send).as_secs_f64();
        let a_second = |amount: u64| if duration > 0.0 { amount as f64 / duration } else { 0.0 };
        let completed = || records.iter().filter(|record| record.outcome == LoadOutcome::Completed);
        let output: u64 = completed().map(LoadRecord::output_tokens).sum();
        let input: u64 = completed().map(LoadRecord::input_tokens).sum();
        let intended = sorted(records.iter().map(|record| record.intended));
        let scheduled_rate = requested_rate.and_then(|_| rate_of(&intended));
        let achieved_rate = rate_of(&sends);
        let ttft = Spread::of(records.iter().filter_map(ttft_or_age));
        let schedule_delay = Spread::of(records.iter().filter_map(LoadRecord::schedule_delay));
        let busy: Duration = records.iter().map(|record| record.end.since(record.sent.unwrap_or(record.end))).sum();
        let e2e = Spread::of(records.iter().filter(|record| is_served_or_waiting(record)).map(LoadRecord::e2e));
        let goodput = slo.map(|slo| a_second(completed().filter(|record| meets(record, slo)).count() as u64));
        Self {
            requested_rate,
            scheduled_rate,
            achieved_rate,
            duration,
            counts,
            request_throughput: a_second(counts.completed),
            output_token_throughput: a_second(output),
            total_token_throughput: a_second(input + output),
            goodput,
            steady: SteadyRates::of(records),
            drift: Drift::of(records),
            mean_in_flight: if duration > 0.0 { busy.as_secs_f64() / duration } else { 0.0 },
            ttft,
            ttft_from_send: Spread::of(completed().filter_map(LoadRecord::ttft_from_send)),
            itl: Spread::weighted(records.iter().flat_map(gaps_per_token).collect()),
            tpot: Spread::of(completed().filter_map(LoadRecord::tpot)),
            e2e,
            e2e_from_send: Spread::of(completed().filter_map(|record| Some(record.end.since(record.sent?)))),
            schedule_delay,
            pace: match scheduled_rate {
                Some(asked) => Punctuality::open(&schedule_delay, &ttft, asked, achieved_rate),
                None => Punctuality::closed(&schedule_delay, &e2e),
            }
            .unless(counts.client_limited > 0),
        }
    }
}

impl RequestCounts {
    fn of(records: &[LoadRecord]) -> Self {
        let mut counts = Self::default();
        for record in records {
            counts.add(&record.outcome);
        }
        counts
    }

    /// Counts one more request.
    pub fn add(&mut self, outcome: &LoadOutcome) {
        self.offered += 1;
        let count = match outcome {
            LoadOutcome::Completed => &mut self.completed,
            LoadOutcome::Shed { .. } => &mut self.shed,
            LoadOutcome::Error(FailureKind::ClientLimit) => &mut self.client_limited,
            LoadOutcome::Error(_) => &mut self.errors,
            LoadOutcome::Truncated => &mut self.truncated,
            LoadOutcome::Unfinished => &mut self.unfinished,
            LoadOutcome::Cancelled => &mut self.cancelled,
        };
        *count += 1;
    }
}

impl Spread {
    /// The distribution of some times, each counted once.
    pub fn of(times: impl Iterator<Item = Duration>) -> Self {
        Self::weighted(times.map(|time| (time.as_secs_f64(), 1)).collect())
    }

    /// Values in seconds with whole weights. A quantile q is the first value at which q of the weight is reached.
    fn weighted(mut values: Vec<(f64, u64)>) -> Self {
        values.sort_unstable_by(|left, right| left.0.total_cmp(&right.0));
        let count: u64 = values.iter().map(|(_, weight)| weight).sum();
        let Some(&(max, _)) = values.last().filter(|_| count > 0) else { return Self::default() };
        let mean = values.iter().map(|(value, weight)| value * *weight as f64).sum::<f64>() / count as f64;
        let mut ranks = [0.5, 0.9, 0.99].map(|q| ((q * count as f64).ceil() as u64, max));
        let mut passed = 0;
        let mut next = 0;
        for (value, weight) in values {
            passed += weight;
            while next < ranks.len() && passed >= ranks[next].0 {
                ranks[next].1 = value;
                next += 1;
            }
        }
        let [p50, p90, p99] = ranks.map(|(_, value)| value);
        Self { count, mean, p50, p90, p99, max }
    }
}

impl Drift {
    fn of(records: &[LoadRecord]) -> Self {
        let mut waits: Vec<(Timestamp, f64)> =
            records.iter().filter_map(|record| Some((record.intended, ttft_or_age(record)?.as_secs_f64()))).collect();
        waits.sort_unstable_by_key(|(intended, _)| *intended);
        let third = waits.len() / 3;
        let mean = |waits: &[(Timestamp, f64)]| {
            if waits.is_empty() { 0.0 } else { waits.iter().map(|(_, wait)| wait).sum::<f64>() / waits.len() as f64 }
        };
        Self { early: mean(&waits[..third]), late: mean(&waits[waits.len() - third..]) }
    }
}

impl Punctuality {
    /// A schedule that was not kept hides waiting.
    fn open(delay: &Spread, ttft: &Spread, scheduled: f64, achieved: Option<f64>) -> Self {
        let tolerable = TOLERABLE_DELAY.max(TOLERABLE_SHARE * ttft.p50);
        let falls_behind = achieved.is_some_and(|sent| sent < LEAST_ACHIEVED * scheduled);
        Self::judged(delay.p99, tolerable, HOPELESS * tolerable, falls_behind)
    }

    /// A closed loop has no schedule to keep, and begins with a burst of its own; but between an end and the next send fewer are
    /// in flight than intended.
    fn closed(delay: &Spread, e2e: &Spread) -> Self {
        let tolerable = TOLERABLE_DELAY.max(TOLERABLE_GAP * e2e.mean);
        Self::judged(delay.mean, tolerable, HOPELESS_GAP * tolerable, false)
    }

    fn judged(delay: f64, tolerable: f64, hopeless: f64, falls_behind: bool) -> Self {
        if falls_behind || delay > hopeless {
            Self::ClientLimited
        } else if delay > tolerable {
            Self::Late
        } else {
            Self::OnTime
        }
    }

    const fn unless(self, out_of_descriptors: bool) -> Self {
        if out_of_descriptors { Self::ClientLimited } else { self }
    }
}

/// Time to the first token, or the age at which an unfinished request was given up without one.
pub(super) fn ttft_or_age(record: &LoadRecord) -> Option<Duration> {
    match record.outcome {
        LoadOutcome::Unfinished => Some(record.ttft().unwrap_or_else(|| record.e2e())),
        _ => record.ttft(),
    }
}

pub(super) const fn is_served_or_waiting(record: &LoadRecord) -> bool {
    matches!(record.outcome, LoadOutcome::Completed | LoadOutcome::Unfinished)
}

fn meets(record: &LoadRecord, slo: Slo) -> bool {
    record.ttft().is_some_and(|ttft| ttft <= slo.ttft) && record.tpot().is_none_or(|tpot| tpot <= slo.itl)
}

/// Seconds per token of each gap, weighted by its tokens; where the usage has more tokens than the events, every
/// event is taken to hold its share.
pub(super) fn gaps_per_token(record: &LoadRecord) -> impl Iterator<Item = (f64, u64)> + '_ {
    let scale = record.tokens_per_counted();
    record.gaps.iter().map(move |gap| {
        let tokens = f64::from(gap.tokens) * scale;
        (f64::from(gap.micros) / 1e6 / tokens, (tokens.round() as u64).max(1))
    })
}

/// Events a second of ordered times: their number less one over the time between first and last.
fn rate_of(times: &[Timestamp]) -> Option<f64> {
    let length = times.last()?.since(*times.first()?).as_secs_f64();
    (length > 0.0).then(|| (times.len() - 1) as f64 / length)
}

fn sorted(times: impl Iterator<Item = Timestamp>) -> Vec<Timestamp> {
    let mut times: Vec<Timestamp> = times.collect();
    times.sort_unstable();
    times
}

/// Delay at the 99th percentile that does not matter to a TTFT, seconds.
const TOLERABLE_DELAY: f64 = 0.010;

/// The same, as a share of the median TTFT; the larger counts.
const TOLERABLE_SHARE: f64 = 0.05;

/// Times the tolerable delay at which the open loop has become a closed one.
const HOPELESS: f64 = 10.0;

/// Mean delay of a closed loop that does not matter, as a share of the mean end-to-end time; and times that which is too much.
const TOLERABLE_GAP: f64 = 0.01;
const HOPELESS_GAP: f64 = 5.0;

/// Share of the scheduled rate that must have been sent.
const LEAST_ACHIEVED: f64 = 0.95;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::record::Gap;
    use crate::load::workload::Workload;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(millis * 1_000_000)
    }

    /// Intended at `start`, sent `late` after, first token 100 ms and end 500 ms after the send.
    fn served(id: u64, start: u64, late: u64) -> LoadRecord {
        let mut record = LoadRecord::offered(&Workload::default().draw(id), at(start));
        record.sent = Some(at(start + late));
        record.on_emission(at(start + late + 100), 1, true);
        record.on_emission(at(start + late + 500), 1, true);
        record.output_usage = Some(5);
        record.end = at(start + late + 500);
        record.outcome = LoadOutcome::Completed;
        record
    }

    fn level(late: u64) -> Vec<LoadRecord> {
        (0..101).map(|id| served(id, id * 100, late)).collect()
    }

    fn summary(records: &[LoadRecord]) -> LevelSummary {
        LevelSummary::new(records, Some(10.0), Some(Slo::default()))
    }

    fn close(left: f64, right: f64) -> bool {
        (left - right).abs() < 1e-6
    }

    #[test]
    fn a_finite_run_under_reads_and_the_steady_window_does_not() {
        let summary = summary(&level(0));
        assert!(close(summary.duration, 10.5));
        assert!(close(summary.request_throughput, 101.0 / 10.5));
        assert!(close(summary.output_token_throughput, 505.0 / 10.5));
        assert!(close(summary.achieved_rate.unwrap(), 10.0));
        assert!(close(summary.steady.unwrap().request_throughput, 10.0));
        assert!(close(summary.goodput.unwrap(), 101.0 / 10.5));
        assert_eq!(summary.pace, Punctuality::OnTime);
    }

    #[test]
    fn the_clients_lateness_is_in_the_ttft_from_the_schedule_only() {
        let summary = summary(&level(40));
        assert!(close(summary.ttft.p50, 0.140));
        assert!(close(summary.ttft_from_send.p50, 0.100));
        assert!(close(summary.schedule_delay.p99, 0.040));
        assert_eq!(summary.pace, Punctuality::Late);
    }

    #[test]
    fn a_client_without_descriptors_or_far_behind_limits_the_level() {
        let mut records = level(0);
        records[5].outcome = LoadOutcome::Error(FailureKind::ClientLimit);
        assert_eq!(summary(&records).pace, Punctuality::ClientLimited);
        assert_eq!(summary(&level(4000)).pace, Punctuality::ClientLimited);
    }

    #[test]
    fn a_closed_loop_may_begin_with_a_burst_but_not_send_late() {
        let closed = |late: u64| LevelSummary::new(&level(late), None, None).pace;
        let mut burst = level(0);
        burst[..5].clone_from_slice(&level(300)[..5]);
        assert_eq!(LevelSummary::new(&burst, None, None).pace, Punctuality::Late);
        assert_eq!(
            (closed(0), closed(8), closed(400)),
            (Punctuality::OnTime, Punctuality::OnTime, Punctuality::ClientLimited)
        );
    }

    #[test]
    fn every_outcome_is_counted_apart_and_they_add_up() {
        let mut records = level(0);
        records[0].outcome = LoadOutcome::Shed { status: 429, retry_after: None };
        records[1].outcome = LoadOutcome::Error(FailureKind::Status);
        records[2].outcome = LoadOutcome::Truncated;
        records[3].outcome = LoadOutcome::Cancelled;
        records[4].outcome = LoadOutcome::Unfinished;
        let RequestCounts { offered, completed, shed, errors, client_limited, truncated, unfinished, cancelled } =
            summary(&records).counts;
        assert_eq!((offered, completed, client_limited), (101, 96, 0));
        assert_eq!(offered, completed + shed + errors + truncated + unfinished + cancelled);
    }

    #[test]
    fn an_unfinished_request_counts_with_its_age() {
        let mut waiting = LoadRecord::offered(&Workload::default().draw(0), at(0));
        waiting.sent = Some(at(0));
        waiting.end = at(30_000);
        let mut refused = waiting.clone();
        refused.outcome = LoadOutcome::Shed { status: 503, retry_after: None };
        let summary = summary(&[waiting, refused]);
        assert_eq!((summary.ttft.count, summary.e2e.count), (1, 1));
        assert!(close(summary.ttft.max, 30.0));
    }

    #[test]
    fn itl_is_divided_by_the_tokens_of_the_event() {
        let mut record = served(0, 0, 0);
        record.output_usage = None;
        record.gaps = vec![Gap { micros: 30_000, tokens: 3 }, Gap { micros: 20_000, tokens: 1 }];
        let itl = summary(&[record]).itl;
        assert_eq!(itl.count, 4);
        assert!(close(itl.mean, 0.0125));
        assert!(close(itl.p50, 0.010) && close(itl.max, 0.020));
    }

    #[test]
    fn drift_shows_a_ttft_that_grows_under_a_load_that_does_not() {
        let steady = summary(&level(0)).drift;
        assert!(close(steady.early, 0.1) && close(steady.late, 0.1));
        let growing: Vec<_> = (0..90).map(|id| served(id, id * 100, id * 10)).collect();
        let drift = summary(&growing).drift;
        assert!(close(drift.early, 0.1 + 0.145) && close(drift.late, 0.1 + 0.745), "{drift:?}");
        assert_eq!(LevelSummary::new(&[], None, None).drift, Drift::default());
    }

    #[test]
    fn an_empty_level_is_all_zero_and_not_nan() {
        let summary = LevelSummary::new(&[], None, None);
        assert_eq!((summary.request_throughput, summary.ttft), (0.0, Spread::default()));
        assert_eq!((summary.achieved_rate, summary.steady), (None, None));
    }
}
