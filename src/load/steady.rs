//! The steady window of a level: from the end of its ramp to the moment when no request waits any more.
//!
//! Ramp and drain are left out: they are why a finite run under-reads (loadgen's N / (N/R + tail)). The window ends with
//! the last first token and not with the last send: past the knee requests go on waiting after the last one was sent, and
//! until the last of them is admitted the server is as full as before. It holds no judgement.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::record::{LoadOutcome, LoadRecord};
use crate::vocabulary::time::Timestamp;

/// What happened in the steady window. Rates are per second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SteadyRates {
    /// Start of the window, seconds from the start of the level.
    pub from: f64,
    /// Length, seconds.
    pub length: f64,
    /// Requests completed in it.
    pub completed: u64,
    /// Completions a second.
    pub request_throughput: f64,
    /// Output tokens of those completions a second.
    pub output_token_throughput: f64,
    /// Prompt and output tokens of those completions a second.
    pub total_token_throughput: f64,
    /// Requests in flight, mean over the window.
    pub in_flight: f64,
    /// Those of them that had their first token and not their end, mean: what the engine's batch held.
    pub decoding: f64,
}

impl SteadyRates {
    /// None when ramp and drain leave too little of the level.
    pub fn of(records: &[LoadRecord]) -> Option<Self> {
        let window = SteadyBounds::of(records)?;
        let within = || completed(records).filter(|record| window.holds(record.end));
        let count = within().count() as u64;
        if count < LEAST_STEADY {
            return None;
        }
        let seconds = window.length().as_secs_f64();
        let a_second = |amount: u64| amount as f64 / seconds;
        let output: u64 = within().map(LoadRecord::output_tokens).sum();
        let input: u64 = within().map(LoadRecord::input_tokens).sum();
        let busy = |since: fn(&LoadRecord) -> Option<Timestamp>| {
            let inside = |record| Some(window.share(since(record)?, record.end).as_secs_f64());
            records.iter().filter_map(inside).sum::<f64>() / seconds
        };
        Some(Self {
            from: window.from.since(Timestamp::ZERO).as_secs_f64(),
            length: seconds,
            completed: count,
            request_throughput: a_second(count),
            output_token_throughput: a_second(output),
            total_token_throughput: a_second(input + output),
            in_flight: busy(|record| record.sent),
            decoding: busy(|record| record.first_token),
        })
    }
}

struct SteadyBounds {
    from: Timestamp,
    until: Timestamp,
}

impl SteadyBounds {
    fn of(records: &[LoadRecord]) -> Option<Self> {
        let first = records.iter().filter_map(|record| record.sent).min()?;
        let last = records.iter().filter_map(|record| record.sent).max()?;
        let until = last_first_token(records).unwrap_or(last);
        let from = first + ramp(records)?;
        let window = Self { from, until };
        (window.length() >= until.since(first).mul_f64(LEAST_STEADY_SHARE)).then_some(window)
    }

    fn length(&self) -> Duration {
        self.until.since(self.from)
    }

    fn holds(&self, at: Timestamp) -> bool {
        at > self.from && at <= self.until
    }

    fn share(&self, since: Timestamp, to: Timestamp) -> Duration {
        to.min(self.until).since(since.max(self.from))
    }
}

/// When the last request got its first token. Only answers that stream count: in a whole one the first token is at its end.
fn last_first_token(records: &[LoadRecord]) -> Option<Timestamp> {
    records.iter().filter(|record| record.content_events > 1).filter_map(|record| record.first_token).max()
}

/// Until every request that found an empty server has been replaced.
///
/// Measured in service times, first token to end, and not end to end: past the knee the latter is mostly waiting.
fn ramp(records: &[LoadRecord]) -> Option<Duration> {
    let since = |record: &LoadRecord| if record.content_events > 1 { record.first_token } else { record.sent };
    let services = || completed(records).filter_map(|record| Some(record.end.since(since(record)?)));
    let count = u32::try_from(services().count()).ok().filter(|count| *count > 0)?;
    let mean = services().sum::<Duration>() / count;
    let least_wait = completed(records).filter_map(LoadRecord::ttft_from_send).min().unwrap_or_default();
    Some(mean.mul_f64(RAMP_IN_SERVICES) + least_wait)
}

fn completed(records: &[LoadRecord]) -> impl Iterator<Item = &LoadRecord> {
    records.iter().filter(|record| record.outcome == LoadOutcome::Completed)
}

/// The ramp, in mean times of service: where a few answers are very long, the mean knows it and the median does not.
const RAMP_IN_SERVICES: f64 = 2.0;

/// Completions below which a window's throughput is noise (20 have a Poisson error of 22 %).
const LEAST_STEADY: u64 = 20;

/// Share of the time until the last first token that must be left after the ramp.
const LEAST_STEADY_SHARE: f64 = 0.25;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::workload::Workload;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(millis * 1_000_000)
    }

    /// A server of `slots`, each answer one second, one request every `gap` milliseconds.
    fn level(count: u64, gap: u64, slots: usize) -> Vec<LoadRecord> {
        let mut free = vec![0; slots];
        let serve = |id: u64| {
            let mut record = LoadRecord::offered(&Workload::default().draw(id), at(id * gap));
            record.sent = Some(at(id * gap));
            let slot = free.iter_mut().min()?;
            let start = (id * gap).max(*slot);
            *slot = start + 1000;
            record.on_emission(at(start + 10), 1, false);
            record.on_emission(at(start + 1000), 1, false);
            record.end = at(start + 1000);
            record.outcome = LoadOutcome::Completed;
            Some(record)
        };
        (0..count).filter_map(serve).collect()
    }

    #[test]
    fn below_the_knee_it_reads_the_rate_and_what_is_in_flight() {
        let steady = SteadyRates::of(&level(200, 100, 1000)).unwrap();
        assert!((steady.request_throughput - 10.0).abs() < 0.1, "{steady:?}");
        assert!((steady.in_flight - 10.0).abs() < 0.1 && (steady.decoding - 9.9).abs() < 0.1, "{steady:?}");
    }

    #[test]
    fn past_the_knee_it_reads_the_capacity_and_the_batch() {
        // 20 a second at a server of 8: the sends are over after 10 s, the waiting after 25.
        let steady = SteadyRates::of(&level(200, 50, 8)).unwrap();
        assert!((steady.request_throughput - 8.0).abs() < 0.3, "{steady:?}");
        assert!((steady.decoding - 8.0).abs() < 0.2, "{steady:?}");
        assert!(steady.length > 15.0 && steady.in_flight > 20.0, "{steady:?}");
    }

    #[test]
    fn a_short_level_has_none() {
        assert_eq!(SteadyRates::of(&level(15, 100, 1000)), None);
        assert_eq!(SteadyRates::of(&level(30, 10, 1000)), None, "sent before the first answer was complete");
        assert_eq!(SteadyRates::of(&[]), None);
    }
}
