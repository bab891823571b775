//! Replays a journal: the samples that the proxy's estimator received, which lead to the same verdicts.
//!
//! A journal holds ended requests only, in the order of their ends, so all of it is in memory before the first sample is
//! replayed. Absent: requests that were in flight when it was written, and emissions beyond what a record holds.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use super::observed_estimator::ObservedEstimator;
use super::outcome::SimulationOutcome;
use super::play::TICK;
use crate::admission::policy::{Control, ControlPolicy};
use crate::admission::{GateStats, Mode};
use crate::estimate::Settings;
use crate::measure::journal::{JournalRecord, JournalVerdict};
use crate::measure::{self, CodeClass, RequestKey, Sample, What};
use crate::vocabulary::time::Timestamp;

/// Replays the records of each backend through an estimator of its own; backends in the order of their names.
pub fn replay<'a>(records: &'a [JournalRecord], settings: &Settings) -> BTreeMap<&'a str, SimulationOutcome> {
    let mut backends: BTreeMap<&str, Vec<&JournalRecord>> = BTreeMap::new();
    for record in records {
        backends.entry(&record.backend).or_default().push(record);
    }
    backends.into_iter().map(|(backend, records)| (backend, replay_backend(&records, settings))).collect()
}

/// The records of each process that wrote into the file: a journal is appended to, and every process's clock starts at 0.
///
/// Records are in the order of their ends, except where several workers end requests at once: an end long before the one
/// before it is another process's.
pub fn lives(records: &[JournalRecord]) -> impl Iterator<Item = &[JournalRecord]> {
    records.chunk_by(|earlier, later| {
        let end = |record: &JournalRecord| record.timeline.ended.unwrap_or(record.timeline.arrived);
        end(earlier).since(end(later)) < RESTART
    })
}

fn replay_backend(records: &[&JournalRecord], settings: &Settings) -> SimulationOutcome {
    let mut samples = Samples::new(records).peekable();
    // Ticks fall on whole tenths of a second of the journal's clock.
    let first = samples.peek().map_or(0, |first| first.at.as_nanos());
    let mut now = Timestamp::from_nanos(first - first % TICK.as_nanos() as u64);
    let mut observed = ObservedEstimator::new(
        settings.clone(),
        Control::new(ControlPolicy::FirstTokenWindow, settings.slo_ttft),
        None,
        now,
    );
    for sample in samples {
        while now + TICK <= sample.at {
            now = now + TICK;
            observed.on_tick(&GateStats::default(), Mode::Observe, now);
        }
        observed.on_sample(&sample);
    }
    observed.on_tick(&GateStats::default(), Mode::Observe, now + TICK);
    observed.outcome
}

/// The samples of several records in the order of time; of one instant, in the order of the file.
struct Samples<'a> {
    records: &'a [&'a JournalRecord],
    /// Each record's next event.
    due: BinaryHeap<Reverse<ReplayEvent>>,
}

/// An event of a record: `step` 0 is its arrival, 1 its admission, from 2 on its emissions and then its end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct ReplayEvent {
    at: Timestamp,
    record: usize,
    step: usize,
}

impl<'a> Samples<'a> {
    fn new(records: &'a [&'a JournalRecord]) -> Self {
        let arrival =
            |(record, of): (usize, &&JournalRecord)| Reverse(ReplayEvent { at: of.timeline.arrived, record, step: 0 });
        Self { records, due: records.iter().enumerate().map(arrival).collect() }
    }
}

impl Iterator for Samples<'_> {
    type Item = Sample;

    fn next(&mut self) -> Option<Sample> {
        let Reverse(ReplayEvent { at, record: number, step }) = self.due.pop()?;
        let record = self.records[number];
        if let Some((at, step)) = following(record, at, step) {
            self.due.push(Reverse(ReplayEvent { at, record: number, step }));
        }
        Some(Sample { at, request: RequestKey(number as u64), what: what(record, step) })
    }
}

/// The event after `step`, which was at `at`; `None` after the last. Time never runs backwards within a record.
fn following(record: &JournalRecord, at: Timestamp, step: usize) -> Option<(Timestamp, usize)> {
    let end = last(record);
    let ended = record.timeline.ended.unwrap_or(at).max(at);
    if step == end {
        return None;
    }
    let (due, step) = match step {
        0 if record.timeline.admitted.is_none() => (ended, end),
        0 => (record.timeline.admitted.unwrap_or(at), 1),
        1 if end == 2 => (ended, end),
        1 => (record.timeline.first_token.unwrap_or(at), 2),
        _ if step + 1 == end => (ended, end),
        _ => (at + Duration::from_nanos(record.emissions[step - 1].gap), step + 1),
    };
    Some((due.max(at), step))
}

/// The number of a record's last event.
fn last(record: &JournalRecord) -> usize {
    2 + record.emissions.len()
}

fn what(record: &JournalRecord, step: usize) -> What {
    match step {
        0 => {
            What::Offered { prompt: record.prompt_tokens.map(tokens), stream: record.stream, priority: record.priority }
        }
        _ if step == last(record) => end(record),
        1 => What::Admitted,
        _ => {
            let emission = record.emissions[step - 2];
            What::Emission { tokens: emission.tokens, limited: emission.limited }
        }
    }
}

fn end(record: &JournalRecord) -> What {
    if record.timeline.admitted.is_none() {
        let shed = matches!(record.verdict, JournalVerdict::Shed { reason } if reason.is_congestion());
        return What::Left { shed };
    }
    let JournalVerdict::Finished { outcome, code, usage } = record.verdict else {
        return What::Finished { completed: false, input: None, output: None, cached: None };
    };
    let usage = usage.unwrap_or_default();
    What::Finished {
        completed: outcome == measure::Outcome::Completed && code == CodeClass::Ok2xx,
        input: usage.input.map(tokens),
        output: usage.output.map(tokens),
        cached: usage.cached.map(tokens),
    }
}

fn tokens(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// More than workers can lie apart in ending their requests, less than any run that is worth a replay.
const RESTART: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimate::SaturationState;
    use crate::measure::journal::EmissionRecord;
    use crate::measure::{Class, ShedReason, Timeline};
    use crate::simulation::Scenario;
    use crate::simulation::play::{ReplicaStage, play_observed, settings};

    fn at(ms: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_millis(ms)
    }

    fn record(
        arrived: u64,
        admitted: Option<u64>,
        emissions: &[u64],
        ended: u64,
        verdict: JournalVerdict,
    ) -> JournalRecord {
        let first_token = emissions.first().map(|&ms| at(ms));
        let gap = |pair: &[u64]| Duration::from_millis(pair[1] - pair[0]).as_nanos() as u64;
        let gaps = std::iter::once(0).chain(emissions.windows(2).map(gap));
        JournalRecord {
            backend: "gpu-0".into(),
            model: "m".into(),
            priority: Class::Default,
            timeline: Timeline {
                arrived: at(arrived),
                admitted: admitted.map(at),
                first_token,
                ended: Some(at(ended)),
                ..Timeline::default()
            },
            status: 200,
            dialect: "openai.chat".into(),
            stream: true,
            opaque: false,
            prompt_tokens: Some(7),
            max_output: None,
            choices: 1,
            retries: Default::default(),
            overhead: Default::default(),
            emissions: gaps
                .take(emissions.len())
                .map(|gap| EmissionRecord { gap, tokens: 1, limited: false })
                .collect(),
            truncated: false,
            verdict,
        }
    }

    fn completed() -> JournalVerdict {
        JournalVerdict::Finished { outcome: measure::Outcome::Completed, code: CodeClass::Ok2xx, usage: None }
    }

    fn samples(records: &[JournalRecord]) -> Vec<(u64, u64, What)> {
        let records: Vec<&JournalRecord> = records.iter().collect();
        let millis = |sample: &Sample| sample.at.since(Timestamp::ZERO).as_millis() as u64;
        Samples::new(&records).map(|sample| (millis(&sample), sample.request.0, sample.what)).collect()
    }

    #[test]
    fn records_become_samples_in_the_order_of_time() {
        let emission = What::Emission { tokens: 1, limited: false };
        let offered = What::Offered { prompt: Some(7), stream: true, priority: Class::Default };
        let finished = What::Finished { completed: true, input: None, output: None, cached: None };
        let records = [record(5, Some(6), &[20, 40], 45, completed()), record(1, Some(2), &[30], 60, completed())];
        assert_eq!(
            samples(&records),
            [
                (1, 1, offered),
                (2, 1, What::Admitted),
                (5, 0, offered),
                (6, 0, What::Admitted),
                (20, 0, emission),
                (30, 1, emission),
                (40, 0, emission),
                (45, 0, finished),
                (60, 1, finished),
            ]
        );
    }

    #[test]
    fn a_clock_that_starts_again_is_another_process() {
        let ended = |ms| record(ms, Some(ms), &[], ms, completed());
        let records = [ended(7_000), ended(9_000), ended(8_500), ended(100), ended(300)];
        assert_eq!(lives(&records).map(<[JournalRecord]>::len).collect::<Vec<_>>(), [3, 2]);
    }

    #[test]
    fn undispatched_requests_leave_and_broken_ones_do_not_complete() {
        let shed = JournalVerdict::Shed { reason: ShedReason::Saturated };
        assert_eq!(samples(&[record(0, None, &[], 9, shed)])[1], (9, 0, What::Left { shed: true }));
        let abandoned = samples(&[record(0, None, &[], 9, JournalVerdict::Abandoned)]);
        assert_eq!(abandoned[1], (9, 0, What::Left { shed: false }));
        let broken = samples(&[record(0, Some(1), &[], 9, JournalVerdict::Abandoned)]);
        assert!(matches!(broken[2], (9, 0, What::Finished { completed: false, .. })));
    }

    /// The journal of a simulation run gives the verdicts of the run: the samples are all that the estimator needs.
    #[test]
    fn a_replayed_run_comes_to_the_same_verdicts() {
        let text = "about = \"x\"\nengines = [\"slots16\"]\nseeds = [1]\ndrain = true\n\
            [[segment]]\nseconds = 30\nrate = 1.5\n[[segment]]\nseconds = 60\nrate = 10\n";
        let scenario = Scenario::parse("step", text).unwrap();
        let subject = &scenario.engines[0];
        let mut recorded = Vec::new();
        let stage = ReplicaStage { scenario: &scenario, subject, units: &[1.0, 1.0], concurrency: 1.0 };
        let outcome = play_observed(stage, 1, |sample| recorded.push(*sample));
        let records = as_records(&recorded);
        let replayed = &replay(&records, &settings(subject, scenario.sight.limits))["gpu-0"];
        assert!(outcome.transitions.iter().any(|change| change.to == SaturationState::Saturated));
        assert_eq!(replayed.transitions, outcome.transitions);
        let knee = |outcome: &SimulationOutcome| {
            let known = outcome.moments.iter().filter_map(|moment| moment.reading.knee.clone().ok());
            known.map(|knee| knee.requests_per_second.value).next_back().unwrap()
        };
        // Saturated blocks begin elsewhere: the estimator was started with the first arrival, not before it.
        assert!((knee(replayed) / knee(&outcome) - 1.0).abs() < 0.01, "{} {}", knee(replayed), knee(&outcome));
    }

    fn as_records(samples: &[Sample]) -> Vec<JournalRecord> {
        let mut records: BTreeMap<RequestKey, JournalRecord> = BTreeMap::new();
        for Sample { at, request, what } in samples.iter().copied() {
            if let What::Offered { prompt, .. } = what {
                let mut offered = record(0, None, &[], 0, completed());
                offered.timeline.arrived = at;
                offered.prompt_tokens = prompt.map(u64::from);
                records.insert(request, offered);
            }
            let record = records.get_mut(&request).unwrap();
            match what {
                What::Admitted => record.timeline.admitted = Some(at),
                What::Emission { tokens, limited } => {
                    let gap = record.timeline.last_token.map_or(0, |last| at.since(last).as_nanos() as u64);
                    record.emissions.push(EmissionRecord { gap, tokens, limited });
                    record.timeline.first_token.get_or_insert(at);
                    record.timeline.last_token = Some(at);
                }
                What::Finished { .. } => record.timeline.ended = Some(at),
                What::Offered { .. } | What::Left { .. } => {}
            }
        }
        records.into_values().collect()
    }
}
