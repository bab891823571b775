//! What a scenario says must come out: a measure, where it is taken, and the range it must lie in.
//!
//! ```toml
//! [[expect]]
//! line = "A9"                # of the acceptance table; for the report
//! measure = "knee_error"
//! segment = 1                # default 0
//! at = 120                   # seconds from the segment's beginning; default: its end
//! of = "mean_size"           # over the seeds: each (default), mean, mean_size, median, worst
//! at_most = 0.03             # or at_least, or between = [low, high]
//! engines = ["seed"]         # default: all of the scenario's
//! class = "interactive"      # of on_time, shed, late, ttft_p99: only these requests
//! tenants = [1, 2]           # the same
//! ```

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;

use super::scenario::{ScenarioFault, Segment, Until, named};
use crate::admission::Class;

/// One thing that must come out.
#[derive(Clone, Debug, PartialEq)]
pub struct Expectation {
    /// The line of the acceptance table it belongs to.
    pub line: Option<String>,
    /// What is looked at.
    pub measure: Measure,
    /// In which segment.
    pub segment: usize,
    /// When, from the segment's beginning; `None` is its end. Only readings have a moment.
    pub at: Option<Duration>,
    /// How the seeds' values become the one that must lie in the range.
    pub of: Of,
    /// The range.
    pub range: RangeInclusive<f64>,
    /// Names of the engines it holds for; empty is all.
    pub engines: Vec<String>,
    /// Words that a state or a regime is compared with.
    pub is: Vec<String>,
    /// Only requests of this class.
    pub class: Option<Class>,
    /// Only those of these tenants; empty is all.
    pub tenants: Vec<u16>,
}

/// What can be measured. A figure that cannot be told (no knee yet) lies in no range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Times the state became saturated within the segment.
    Alarms,
    /// The same, per hour.
    AlarmsPerHour,
    /// Seconds from the segment's beginning to the first of them.
    Detection,
    /// 1 if the state is one of `is`, else 0.
    State,
    /// Share of the segment's readings whose state is one of `is`.
    Share,
    /// 1 if the knee's regime is one of `is`, else 0.
    Regime,
    /// 1 if a knee is known, else 0.
    KneeKnown,
    /// Knee / true capacity of an ungated engine for the segment's mix - 1.
    KneeError,
    /// Knee / what the engine keeps up of just those requests that it has started since the mix last changed - 1: the
    /// estimate's own error, without the luck of the draw.
    KneeSampleError,
    /// 1 if the knee's interval holds that capacity, else 0.
    KneeCovered,
    /// Half the interval's width / the knee.
    KneeWidth,
    /// Knee without recomputation / true capacity at the best concurrency - 1.
    BestError,
    /// The knee in tokens per second / the true one - 1.
    TokensError,
    /// In-flight at the knee / decodes of an ungated engine - 1.
    InFlightError,
    /// N95 / the true one - 1.
    N95Error,
    /// Prediction / true capacity at the best concurrency - 1.
    PredictionError,
    /// 1 if the prediction's interval holds it, else 0.
    PredictionCovered,
    /// 1 if a prediction is known, else 0.
    PredictionKnown,
    /// Upper bound / true capacity at the best concurrency.
    UpperBound,
    /// Lower bound / the same.
    LowerBound,
    /// Changes of the engine's speed, either way, within the segment.
    SpeedChanges,
    /// Seconds from the segment's beginning to the first of them.
    SpeedChange,
    /// Changes of the mix within the segment.
    MixChanges,
    /// Stalled streams within the segment.
    Stalls,
    /// Requests with their first token within the objective, per second, by completion, without the segment's first
    /// 20 s, / what the engine could have served of the offered load.
    Goodput,
    /// Completed requests per second; where the scenario drains, of all requests until the last was served.
    Throughput,
    /// Mean seconds from arrival to first token, of the requests that arrived in the segment and got one.
    Ttft,
    /// The 99th percentile of the same, in objectives.
    TtftP99,
    /// Share of the requests that arrived in the segment, after its first 20 s, and had their first token within the
    /// objective. `class` and `tenants` narrow it.
    OnTime,
    /// Share of them that was refused before dispatch.
    Shed,
    /// Of those dispatched the share that had its first token too late or never.
    Late,
    /// Share of the clients whose first try fell into the segment that were served in time, at whatever try.
    ServedClients,
    /// Requests that such a client made.
    Tries,
    /// Goodput over that of the same traffic without a gate.
    GoodputRatio,
    /// Share of the segment's requests that enforcement would have refused, in mode observe.
    WouldShed,
    /// Median time to first token over that of the same traffic without a gate.
    TtftRatio,
}

/// How the values of several seeds become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Of {
    /// Each must lie in the range; the one furthest out is shown.
    #[default]
    Each,
    /// Their mean.
    Mean,
    /// The mean of their absolute values.
    MeanSize,
    /// Their median: the middle one, or the lower of the two.
    Median,
}

/// An expectation as typed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectationFile {
    line: Option<String>,
    measure: Measure,
    #[serde(default)]
    segment: usize,
    /// Seconds.
    at: Option<f64>,
    #[serde(default)]
    of: Of,
    between: Option<[f64; 2]>,
    at_most: Option<f64>,
    at_least: Option<f64>,
    #[serde(default)]
    is: Vec<String>,
    #[serde(default)]
    engines: Vec<String>,
    class: Option<Class>,
    #[serde(default)]
    tenants: Vec<u16>,
}

impl Expectation {
    /// Whether it holds for that engine.
    pub fn concerns(&self, engine: &str) -> bool {
        self.engines.is_empty() || self.engines.iter().any(|name| name == engine)
    }
}

impl Measure {
    /// The word in a scenario file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Alarms => "alarms",
            Self::AlarmsPerHour => "alarms_per_hour",
            Self::Detection => "detection",
            Self::State => "state",
            Self::Share => "share",
            Self::Regime => "regime",
            Self::KneeKnown => "knee_known",
            Self::KneeError => "knee_error",
            Self::KneeSampleError => "knee_sample_error",
            Self::KneeCovered => "knee_covered",
            Self::KneeWidth => "knee_width",
            Self::BestError => "best_error",
            Self::TokensError => "tokens_error",
            Self::InFlightError => "in_flight_error",
            Self::N95Error => "n95_error",
            Self::PredictionError => "prediction_error",
            Self::PredictionCovered => "prediction_covered",
            Self::PredictionKnown => "prediction_known",
            Self::UpperBound => "upper_bound",
            Self::LowerBound => "lower_bound",
            Self::SpeedChanges => "speed_changes",
            Self::SpeedChange => "speed_change",
            Self::MixChanges => "mix_changes",
            Self::Stalls => "stalls",
            Self::Goodput => "goodput",
            Self::Throughput => "throughput",
            Self::Ttft => "ttft",
            Self::TtftP99 => "ttft_p99",
            Self::OnTime => "on_time",
            Self::Shed => "shed",
            Self::Late => "late",
            Self::ServedClients => "served_clients",
            Self::Tries => "tries",
            Self::GoodputRatio => "goodput_ratio",
            Self::WouldShed => "would_shed",
            Self::TtftRatio => "ttft_ratio",
        }
    }

    /// Whether it is read off one reading, so that `at` means something.
    pub const fn has_moment(self) -> bool {
        !matches!(
            self,
            Self::Alarms
                | Self::Share
                | Self::AlarmsPerHour
                | Self::Detection
                | Self::SpeedChanges
                | Self::SpeedChange
                | Self::MixChanges
                | Self::Stalls
                | Self::Goodput
                | Self::Throughput
                | Self::Ttft
                | Self::TtftP99
                | Self::OnTime
                | Self::Shed
                | Self::Late
                | Self::ServedClients
                | Self::Tries
                | Self::GoodputRatio
                | Self::TtftRatio
                | Self::WouldShed
        )
    }

    /// Whether it is a ratio to the same traffic without a gate.
    pub const fn has_twin(self) -> bool {
        matches!(self, Self::GoodputRatio | Self::TtftRatio)
    }

    /// Whether only some of the requests can be looked at.
    const fn has_parts(self) -> bool {
        matches!(self, Self::OnTime | Self::Shed | Self::Late | Self::TtftP99)
    }

    /// Whether it is a share of something, to be shown in per cent.
    pub const fn is_share(self) -> bool {
        matches!(
            self,
            Self::KneeError
                | Self::KneeSampleError
                | Self::BestError
                | Self::TokensError
                | Self::InFlightError
                | Self::N95Error
                | Self::PredictionError
                | Self::KneeWidth
        )
    }

    const fn compares(self) -> bool {
        matches!(self, Self::State | Self::Share | Self::Regime)
    }
}

impl Of {
    /// The word in a scenario file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Each => "each",
            Self::Mean => "mean",
            Self::MeanSize => "mean_size",
            Self::Median => "median",
        }
    }
}

impl ExpectationFile {
    /// Checked against the scenario it stands in.
    pub(super) fn mean(
        &self,
        number: usize,
        segments: &[Segment],
        engines: &[&str],
    ) -> Result<Expectation, ScenarioFault> {
        let fault = |key: &str, why: String| Err(ScenarioFault::new(format!("expect {number}: {key}"), why));
        let Some(segment) = segments.get(self.segment) else {
            return fault("segment", format!("there is no segment {}: they count from 0", self.segment));
        };
        let range = match (self.between, self.at_most, self.at_least) {
            (Some([low, high]), None, None) if low <= high => low..=high,
            (None, Some(high), None) => f64::NEG_INFINITY..=high,
            (None, None, Some(low)) => low..=f64::INFINITY,
            (None, None, None) if self.measure.compares() => 1.0..=1.0, // a share of 1 is "always"
            _ => return fault("between", "give one of between = [low, high], at_most, at_least".into()),
        };
        if self.measure.compares() == self.is.is_empty() {
            return fault("is", "names what state or regime is compared with, and nothing else".into());
        }
        if self.at.is_some() && !self.measure.has_moment() {
            return fault("at", format!("{} is not read at a moment", self.measure.word()));
        }
        if (self.class.is_some() || !self.tenants.is_empty()) && !self.measure.has_parts() {
            return fault("class", format!("{} is not told by class or tenant", self.measure.word()));
        }
        let within = |at: f64| at >= 0.0 && matches!(segment.until, Until::Elapsed(l) if at <= l.as_secs_f64());
        if self.at.is_some_and(|at| !within(at)) {
            return fault("at", format!("lies outside segment {}", self.segment));
        }
        Ok(Expectation {
            line: self.line.clone(),
            measure: self.measure,
            segment: self.segment,
            at: self.at.map(Duration::from_secs_f64),
            of: self.of,
            range,
            engines: self.concerned(number, engines)?,
            is: self.is.clone(),
            class: self.class,
            tenants: self.tenants.clone(),
        })
    }

    fn concerned(&self, number: usize, engines: &[&str]) -> Result<Vec<String>, ScenarioFault> {
        let mut concerned = Vec::new();
        for name in &self.engines {
            if engines.contains(&name.as_str()) {
                concerned.push(name.clone());
                continue;
            }
            let group = named(std::slice::from_ref(name))?;
            let known = group.iter().map(|profile| profile.name).filter(|name| engines.contains(name));
            let before = concerned.len();
            concerned.extend(known.map(str::to_owned));
            if concerned.len() == before {
                return Err(ScenarioFault::new(
                    format!("expect {number}: engines"),
                    format!("{name} is none of the scenario's engines"),
                ));
            }
        }
        Ok(concerned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::Scenario;

    fn read(expect: &str) -> Result<Expectation, String> {
        let text = format!(
            "about = \"x\"\nengines = [\"seed\", \"slots16\"]\nseeds = [1]\n[[segment]]\nseconds = 60\nload = 0.3\n\
             [[expect]]\n{expect}\n"
        );
        Scenario::parse("s", &text).map(|scenario| scenario.expectations[0].clone()).map_err(|bad| bad.to_string())
    }

    #[test]
    fn the_three_ways_to_say_a_range() {
        assert_eq!(read("measure = \"alarms\"\nbetween = [0, 2]").unwrap().range, 0.0..=2.0);
        assert_eq!(read("measure = \"alarms\"\nat_most = 2").unwrap().range, f64::NEG_INFINITY..=2.0);
        assert_eq!(read("measure = \"alarms\"\nat_least = 2").unwrap().range, 2.0..=f64::INFINITY);
        assert!(read("measure = \"alarms\"").unwrap_err().contains("give one of between"));
        assert!(read("measure = \"alarms\"\nat_most = 2\nat_least = 1").is_err());
        assert!(read("measure = \"alarms\"\nbetween = [2, 1]").is_err());
    }

    #[test]
    fn a_state_is_compared_and_nothing_else_is() {
        let state = read("measure = \"state\"\nat = 30\nis = [\"healthy\"]").unwrap();
        assert_eq!((state.range, state.at), (1.0..=1.0, Some(Duration::from_secs(30))));
        assert!(read("measure = \"state\"").unwrap_err().starts_with("s: expect 0: is: names what"));
        assert!(read("measure = \"alarms\"\nat_most = 1\nis = [\"healthy\"]").is_err());
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        assert!(read("measure = \"speed\"\nat_most = 1").unwrap_err().contains("unknown variant `speed`"));
        assert!(read("measure = \"alarms\"\nat_most = 1\nsegment = 1").unwrap_err().contains("there is no segment 1"));
        assert!(read("measure = \"alarms\"\nat_most = 1\nat = 3").unwrap_err().contains("not read at a moment"));
        assert!(read("measure = \"knee_error\"\nat_most = 1\nat = 61").unwrap_err().contains("outside segment 0"));
    }

    #[test]
    fn engines_are_names_or_groups_of_the_scenarios_own() {
        let concerned = |engines: &str| read(&format!("measure = \"alarms\"\nat_most = 1\nengines = [{engines}]"));
        assert_eq!(concerned("\"seven\"").unwrap().engines, ["seed", "slots16"]);
        assert!(concerned("\"slots16\"").unwrap().concerns("slots16"));
        assert!(!concerned("\"slots16\"").unwrap().concerns("seed"));
        assert!(concerned("\"holdout\"").unwrap_err().ends_with("holdout is none of the scenario's engines"));
        assert!(read("measure = \"alarms\"\nat_most = 1").unwrap().concerns("anything"));
    }

    #[test]
    fn every_measure_is_written_as_it_is_read() {
        for word in ["alarms", "alarms_per_hour", "detection", "n95_error", "speed_change", "ttft", "upper_bound"] {
            assert_eq!(read(&format!("measure = \"{word}\"\nat_most = 1")).unwrap().measure.word(), word);
        }
    }
}
