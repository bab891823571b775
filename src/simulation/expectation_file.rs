//! An expectation as it is typed in a scenario file.
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

use std::time::Duration;

use serde::Deserialize;

use super::expectation::{Expectation, Measure, Of};
use super::profile_groups::named;
use super::scenario::{Segment, Until};
use super::scenario_fault::ScenarioFault;
use crate::admission::Class;

/// An expectation as typed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpectationFile {
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

impl ExpectationFile {
    /// Checked against the scenario it stands in.
    pub(super) fn checked(
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
            return fault("class", format!("{} is not measured by class or tenant", self.measure.word()));
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
    fn a_range_is_written_in_three_ways() {
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
