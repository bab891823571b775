//! The number behind an expectation, for one outcome, and what several seeds' numbers come to.

use std::time::Duration;

use super::expectation::{Expectation, Measure, Of};
use super::experience::Experience;
use super::machine::{Lengths, Machine};
use super::outcome::{Observation, SimulationOutcome};
use super::scenario::{Scenario, Segment, Until};
use super::truth::{self, Truth};
use crate::vocabulary::time::Timestamp;

/// What a number is taken from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence<'a> {
    pub scenario: &'a Scenario,
    pub outcome: &'a SimulationOutcome,
    /// The outcome without a gate, if an expectation needs it.
    pub twin: Option<&'a SimulationOutcome>,
    pub machine: &'a Machine,
    /// Of every segment's mix, speed and replicas.
    pub truths: &'a [Truth],
    /// What the level of each segment counts in, in requests per second.
    pub units: &'a [f64],
    pub slo_ttft: Duration,
}

impl Evidence<'_> {
    /// The expectation's number; `None` when there is none.
    pub fn value(&self, expectation: &Expectation) -> Option<f64> {
        if expectation.measure.has_moment() { self.read(expectation) } else { self.count(expectation) }
    }

    /// A figure of one reading.
    fn read(&self, expectation: &Expectation) -> Option<f64> {
        let begins = self.scenario.begins(expectation.segment);
        let at = begins + expectation.at.unwrap_or(self.segment(expectation).length());
        let reading = &self.outcome.at(at)?.reading;
        let truth = &self.truths[expectation.segment];
        let (best, ungated) = (truth.best, truth.ungated);
        let knee = reading.knee.as_ref().ok();
        let prediction = reading.prediction.as_ref().ok();
        let off = |value: f64, truth: f64| value / truth - 1.0;
        let is = |word: &str| expectation.is.iter().any(|name| name == word);
        match expectation.measure {
            Measure::State => Some(yes(is(reading.state.word()))),
            Measure::Regime => knee.map(|knee| yes(is(knee.regime.word()))),
            Measure::KneeKnown => Some(yes(knee.is_some())),
            Measure::KneeError => knee.map(|knee| off(knee.requests_per_second.value, ungated.requests_per_second)),
            Measure::KneeSampleError => {
                let sampled = self.of_sample(expectation.segment, at)?;
                knee.map(|knee| off(knee.requests_per_second.value, sampled))
            }
            Measure::KneeCovered => knee.map(|knee| yes(knee.requests_per_second.covers(ungated.requests_per_second))),
            Measure::KneeWidth => {
                knee.map(|knee| knee.requests_per_second).map(|knee| (knee.high - knee.low) / (2.0 * knee.value))
            }
            Measure::BestError => knee.map(|knee| off(knee.best, best.requests_per_second)),
            Measure::TokensError => knee.map(|knee| off(knee.tokens_per_second.value, ungated.tokens_per_second)),
            Measure::InFlightError => knee.map(|knee| off(knee.in_flight.value, ungated.decodes)),
            Measure::N95Error => knee.and_then(|knee| knee.n95).map(|n95| off(n95, truth.clients_at_95)),
            Measure::PredictionError => {
                prediction.map(|prediction| off(prediction.requests_per_second.value, best.requests_per_second))
            }
            Measure::PredictionCovered => {
                prediction.map(|prediction| yes(prediction.requests_per_second.covers(best.requests_per_second)))
            }
            Measure::PredictionKnown => Some(yes(prediction.is_some())),
            Measure::UpperBound => reading.upper_bound.map(|bound| bound / best.requests_per_second),
            Measure::LowerBound => reading.lower_bound.map(|bound| bound / best.requests_per_second),
            _ => None,
        }
    }

    /// A figure of a whole segment.
    fn count(&self, expectation: &Expectation) -> Option<f64> {
        let segment = self.segment(expectation);
        let from = self.scenario.begins(expectation.segment);
        let to = from + segment.length();
        let alarms = || self.outcome.alarms(from, to);
        match expectation.measure {
            Measure::Alarms => Some(alarms().count() as f64),
            Measure::AlarmsPerHour => Some(alarms().count() as f64 / (to - from).as_secs_f64() * 3600.0),
            Measure::Detection => alarms().next().map(|at| (at - from).as_secs_f64()),
            Measure::Share => self.share(from, to, &expectation.is),
            Measure::SpeedChanges => Some(self.grown(from, to, speed_changes)),
            Measure::SpeedChange => self.first_growth(from, to, speed_changes),
            Measure::MixChanges => Some(self.grown(from, to, |moment| moment.reading.mix_changes)),
            Measure::Stalls => Some(self.grown(from, to, |moment| moment.reading.stalls)),
            Measure::Goodput => Some(self.goodput(expectation.segment, from, to)),
            Measure::GoodputRatio => {
                let twin = Evidence { outcome: self.twin?, ..*self };
                Some(self.goodput(expectation.segment, from, to) / twin.goodput(expectation.segment, from, to))
            }
            Measure::TtftRatio => Some(
                self.experience(expectation, self.outcome).ttft(0.5)?
                    / self.experience(expectation, self.twin?).ttft(0.5)?,
            ),
            Measure::TtftP99 => {
                let p99 = self.experience(expectation, self.outcome).ttft(0.99)?;
                Some(p99 / self.slo_ttft.as_secs_f64())
            }
            Measure::WouldShed => {
                let offered = self.grown(from, to, |moment| moment.offered);
                Some(self.grown(from, to, |moment| moment.would_shed) / offered)
            }
            Measure::OnTime => self.experience(expectation, self.outcome).on_time(),
            Measure::Shed => self.experience(expectation, self.outcome).shed(),
            Measure::Late => self.experience(expectation, self.outcome).late(),
            Measure::ServedClients => self.experience(expectation, self.outcome).served_clients(),
            Measure::Tries => self.experience(expectation, self.outcome).tries(),
            Measure::Throughput => Some(self.throughput(from, to)),
            Measure::Ttft => self.ttft(segment, from, to),
            _ => None,
        }
    }

    /// What the engine keeps up of the requests that it had started by `at`, of all segments with this one's mix before
    /// it without a break.
    fn of_sample(&self, number: usize, at: Duration) -> Option<f64> {
        let segments = &self.scenario.segments;
        let segment = &segments[number];
        let same = |other: &Segment| (other.prompt, other.output) == (segment.prompt, segment.output);
        let first = segments[..number].iter().rposition(|other| !same(other)).map_or(0, |other| other + 1);
        let began = self.scenario.begins(first);
        let started: Vec<Lengths> = self
            .outcome
            .requests
            .iter()
            .filter(|request| request.arrived.since(Timestamp::ZERO) >= began)
            .filter(|request| request.first_token.is_some_and(|first| first.since(Timestamp::ZERO) <= at))
            .map(|request| request.lengths)
            .collect();
        let replicas = f64::from(segment.replicas.unwrap_or(self.scenario.replicas));
        Some(truth::of_sample(self.machine, &started)? * replicas / segment.slowdown)
    }

    fn experience<'b>(&self, expectation: &'b Expectation, outcome: &'b SimulationOutcome) -> Experience<'b> {
        let begins = self.scenario.begins(expectation.segment);
        let to = begins + self.segment(expectation).length();
        let from = (begins + SETTLING).min(to);
        Experience { requests: &outcome.requests, expectation, from, to, slo: self.slo_ttft }
    }

    fn share(&self, from: Duration, to: Duration, words: &[String]) -> Option<f64> {
        let within: Vec<bool> = self
            .outcome
            .moments
            .iter()
            .filter(|moment| (from..=to).contains(&moment.at.since(Timestamp::ZERO)))
            .map(|moment| words.iter().any(|word| word == moment.reading.state.word()))
            .collect();
        (!within.is_empty()).then(|| within.iter().filter(|is| **is).count() as f64 / within.len() as f64)
    }

    fn segment(&self, expectation: &Expectation) -> &Segment {
        &self.scenario.segments[expectation.segment]
    }

    /// How much a counter grew within `[from, to]`.
    fn grown(&self, from: Duration, to: Duration, counter: impl Fn(&Observation) -> u64) -> f64 {
        let count = |at| self.outcome.at(at).map_or(0, &counter);
        count(to).saturating_sub(count(from)) as f64
    }

    /// Seconds from `from` to the first reading in which a counter had grown.
    fn first_growth(&self, from: Duration, to: Duration, counter: impl Fn(&Observation) -> u64) -> Option<f64> {
        let before = self.outcome.at(from).map_or(0, &counter);
        let grown = self
            .outcome
            .moments
            .iter()
            .find(|moment| (from..=to).contains(&moment.at.since(Timestamp::ZERO)) && counter(moment) > before)?;
        Some((grown.at.since(Timestamp::ZERO) - from).as_secs_f64())
    }

    /// Goodput over what could have been had: the offered load, but no more than the capacity.
    fn goodput(&self, segment: usize, from: Duration, to: Duration) -> f64 {
        let settled = from + SETTLING;
        let good = self.outcome.requests.iter().filter(|request| {
            let done = request.completed.map(|at| at.since(Timestamp::ZERO));
            done.is_some_and(|done| (settled..to).contains(&done))
                && request.ttft().is_some_and(|ttft| ttft <= self.slo_ttft)
        });
        let capacity = self.truths[segment].best.requests_per_second;
        let level = self.scenario.segments[segment].level.times(self.units[segment]);
        let servable = |part: f64| (level.from + (level.to - level.from) * part).min(capacity);
        let parts = (0..PARTS).map(|part| servable((f64::from(part) + 0.5) / f64::from(PARTS)));
        let servable = parts.sum::<f64>() / f64::from(PARTS);
        good.count() as f64 / (servable * to.saturating_sub(settled).as_secs_f64())
    }

    fn throughput(&self, from: Duration, to: Duration) -> f64 {
        let done = self.outcome.requests.iter().filter_map(|request| request.completed);
        if self.scenario.drain {
            return done.count() as f64 / self.outcome.ended.since(Timestamp::ZERO).as_secs_f64();
        }
        let within = done.filter(|at| (from..to).contains(&at.since(Timestamp::ZERO)));
        within.count() as f64 / (to - from).as_secs_f64()
    }

    fn ttft(&self, segment: &Segment, from: Duration, to: Duration) -> Option<f64> {
        let endless = matches!(segment.until, Until::Requests(_));
        let ttfts: Vec<f64> = self
            .outcome
            .requests
            .iter()
            .filter(|request| {
                let arrived = request.arrived.since(Timestamp::ZERO);
                arrived >= from && (endless || arrived < to)
            })
            .filter_map(|request| Some(request.ttft()?.as_secs_f64()))
            .collect();
        (!ttfts.is_empty()).then(|| ttfts.iter().sum::<f64>() / ttfts.len() as f64)
    }
}

/// One value for all seeds: `None` when one seed has none, except for a median, which takes it as infinite.
pub(super) fn across(of: Of, values: &[Option<f64>], range: &std::ops::RangeInclusive<f64>) -> Option<f64> {
    let known: Option<Vec<f64>> = values.iter().copied().collect();
    let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
    match of {
        Of::Mean => known.map(mean),
        Of::MeanSize => known.map(|values| mean(values.into_iter().map(f64::abs).collect())),
        Of::Median => {
            let mut values: Vec<f64> = values.iter().map(|value| value.unwrap_or(f64::INFINITY)).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len().saturating_sub(1) / 2).copied()
        }
        Of::Each => known?.into_iter().max_by(|a, b| outside(*a, range).total_cmp(&outside(*b, range))),
    }
}

/// How far out of the range a value lies; inside, how near to its edge (never above zero).
fn outside(value: f64, range: &std::ops::RangeInclusive<f64>) -> f64 {
    (value - range.end()).max(range.start() - value)
}

fn speed_changes(moment: &Observation) -> u64 {
    moment.reading.speed_changes.slower + moment.reading.speed_changes.faster
}

fn yes(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

/// Left out at the beginning of a segment when goodput is counted: what is completed then arrived before it.
const SETTLING: Duration = Duration::from_secs(20);

/// Pieces that a ramp is cut into.
const PARTS: u32 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_become_one_value() {
        let values = [Some(1.0), Some(-5.0), Some(3.0)];
        let range = 0.0..=2.0;
        assert_eq!(across(Of::Mean, &values, &range), Some(-1.0 / 3.0));
        assert_eq!(across(Of::MeanSize, &values, &range), Some(3.0));
        assert_eq!(across(Of::Median, &values, &range), Some(1.0));
        assert_eq!(across(Of::Each, &values, &range), Some(-5.0), "furthest out");
        assert_eq!(across(Of::Each, &[Some(1.0), Some(1.9)], &range), Some(1.9), "nearest to the edge");
    }

    #[test]
    fn a_seed_without_a_value_spoils_all_but_the_median() {
        let values = [Some(1.0), None, Some(3.0)];
        let range = 0.0..=9.0;
        assert_eq!(across(Of::Mean, &values, &range), None);
        assert_eq!(across(Of::Each, &values, &range), None);
        assert_eq!(across(Of::Median, &values, &range), Some(3.0));
        assert_eq!(across(Of::Median, &[None, None, Some(1.0)], &range), Some(f64::INFINITY));
    }
}
