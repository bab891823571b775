//! Reads a scenario file and checks it.
//!
//! ```toml
//! about = "a step to twice the capacity and back"
//! engines = ["seven", "h100like"]         # names of profiles, or the groups seven, holdout, untuned
//! seeds = [1, 2, 3, 4, 5]
//!
//! [[segment]]
//! seconds = 60
//! load = 0.3                              # times the capacity; `rate` is in requests per second; [from, to] is a ramp;
//!                                         # own = true: times the capacity for this segment's own mix and speed
//!
//! [[segment]]
//! seconds = 120
//! load = 2.0
//! cv = 3.0                                # of the gaps; 1 is Poisson and the default, 0 is a steady beat
//!
//! [[expect]]
//! measure = "detection"                   # see `expectation`
//! segment = 1
//! of = "median"
//! between = [0, 5.5]
//! ```
//!

use std::time::Duration;

use serde::Deserialize;

use super::enforcement::{Clients, Enforcement};
use super::expectation_file::ExpectationFile;
use super::machine::{Cache, Machine};
use super::profile_groups::named;
use super::scenario::{LevelRamp, LevelUnit, Scenario, Segment, Sight, Subject, Until};
use super::scenario_fault::{BadScenario, ScenarioFault};
use crate::engine::model::{Params, Quirks};
use crate::engine::profile::{ProfileWorkload, Setup};
use crate::load::schedule::Arrivals;

impl Scenario {
    /// Reads a file's text.
    ///
    /// # Errors
    /// [`BadScenario`], one sentence that names the place.
    pub fn parse(name: &str, text: &str) -> Result<Self, BadScenario> {
        let file: ScenarioFile = toml::from_str(text)
            .map_err(|error| BadScenario::Shape { name: name.to_owned(), why: shape(text, &error) })?;
        file.checked(name).map_err(|ScenarioFault { place, why }| BadScenario::Value {
            name: name.to_owned(),
            place,
            why,
        })
    }
}

/// The file as typed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScenarioFile {
    about: String,
    #[serde(default)]
    engines: Vec<String>,
    seeds: Vec<u64>,
    #[serde(default = "one")]
    replicas: u32,
    /// Seconds.
    #[serde(default)]
    delay: f64,
    #[serde(default)]
    drain: bool,
    #[serde(default)]
    sight: Sight,
    #[serde(default)]
    quirks: Quirks,
    #[serde(default)]
    cache: Cache,
    #[serde(default)]
    mix: MixFile,
    #[serde(default)]
    control: Enforcement,
    #[serde(default)]
    clients: Clients,
    #[serde(default)]
    engine: Vec<EngineFile>,
    segment: Vec<SegmentFile>,
    #[serde(default)]
    expect: Vec<ExpectationFile>,
}

/// What the scenario's traffic has in place of the engine's own.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct MixFile {
    prompt_sigma: Option<f64>,
    output_sigma: Option<f64>,
}

/// An engine without a profile.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EngineFile {
    name: String,
    /// Seconds.
    slo_ttft: f64,
    params: Params,
    workload: ProfileWorkload,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SegmentFile {
    seconds: Option<f64>,
    requests: Option<u64>,
    load: Option<LevelRamp>,
    rate: Option<LevelRamp>,
    /// Load is a multiple of the capacity in this very segment, not of the scenario's.
    #[serde(default)]
    own: bool,
    #[serde(default = "unit")]
    cv: f64,
    #[serde(default = "unit")]
    prompt: f64,
    #[serde(default = "unit")]
    output: f64,
    #[serde(default = "unit")]
    slowdown: f64,
    replicas: Option<u32>,
}

impl ScenarioFile {
    fn checked(self, name: &str) -> Result<Scenario, ScenarioFault> {
        let subject = |name: &str, setup: Setup, slo_ttft| Subject {
            name: name.to_owned(),
            machine: Machine { setup: self.mix.applied(setup), quirks: self.quirks, cache: self.cache },
            slo_ttft,
        };
        let mut engines = Vec::new();
        for profile in named(&self.engines)? {
            engines.push(subject(profile.name, profile.setup, profile.slo_ttft));
        }
        for own in &self.engine {
            let slo_ttft = span("engine.slo_ttft", own.slo_ttft)?;
            engines.push(subject(&own.name, Setup { params: own.params, workload: own.workload }, slo_ttft));
        }
        if engines.is_empty() {
            return Err(ScenarioFault::new("engines", "name at least one"));
        }
        if self.seeds.is_empty() || self.replicas == 0 || self.segment.is_empty() {
            return Err(ScenarioFault::new("seeds, replicas, segment", "need at least one each"));
        }
        self.clients.check()?;
        let last = self.segment.len() - 1;
        let segments: Vec<Segment> = self
            .segment
            .iter()
            .enumerate()
            .map(|(number, segment)| segment.checked(number, number == last, self.replicas))
            .collect::<Result<_, _>>()?;
        let names: Vec<&str> = engines.iter().map(|engine| engine.name.as_str()).collect();
        let expectations = self
            .expect
            .iter()
            .enumerate()
            .map(|(number, expect)| expect.checked(number, &segments, &names))
            .collect::<Result<_, _>>()?;
        Ok(Scenario {
            name: name.to_owned(),
            about: self.about,
            seeds: self.seeds,
            replicas: self.replicas,
            delay: span("delay", self.delay)?,
            sight: self.sight,
            control: self.control,
            clients: self.clients,
            drain: self.drain,
            segments,
            expectations,
            engines,
        })
    }
}

impl MixFile {
    fn applied(&self, mut setup: Setup) -> Setup {
        let ProfileWorkload { prompt, output } = &mut setup.workload;
        prompt.sigma = self.prompt_sigma.unwrap_or(prompt.sigma);
        output.sigma = self.output_sigma.unwrap_or(output.sigma);
        setup
    }
}

impl SegmentFile {
    fn checked(&self, number: usize, last: bool, replicas: u32) -> Result<Segment, ScenarioFault> {
        let fault = |key: &str, why: &str| Err(ScenarioFault::new(format!("segment {number}: {key}"), why));
        let until = match (self.seconds, self.requests) {
            (Some(seconds), None) => Until::Elapsed(span(&format!("segment {number}: seconds"), seconds)?),
            (None, Some(count)) if last => Until::Requests(count),
            (None, Some(_)) => return fault("requests", "only the last segment can end after a number of requests"),
            _ => return fault("seconds", "give either seconds or requests"),
        };
        let (level, unit) = match (self.load, self.rate) {
            (Some(load), None) if self.own => (load, LevelUnit::OwnCapacity),
            (Some(load), None) => (load, LevelUnit::Capacity),
            (None, Some(rate)) if !self.own => (rate, LevelUnit::Requests),
            _ => return fault("load", "give either load or rate"),
        };
        if matches!(until, Until::Requests(_)) && level.from != level.to {
            return fault("requests", "a ramp needs seconds");
        }
        let arrivals = match self.cv {
            0.0 => Arrivals::Constant,
            1.0 => Arrivals::Poisson,
            cv => match Arrivals::with_cv(cv) {
                Ok(arrivals) => arrivals,
                Err(why) => return fault("cv", &why.to_string()),
            },
        };
        let factors = [("prompt", self.prompt), ("output", self.output), ("slowdown", self.slowdown)];
        if let Some((key, _)) = factors.iter().find(|(_, factor)| !(factor.is_finite() && *factor > 0.0)) {
            return fault(key, "a factor is a number above zero");
        }
        if self.replicas.is_some_and(|live| live == 0 || live > replicas) {
            return fault("replicas", "between 1 and the scenario's replicas");
        }
        let Self { prompt, output, slowdown, replicas, .. } = *self;
        Ok(Segment { until, level, unit, arrivals, prompt, output, slowdown, replicas })
    }
}

fn span(place: &str, seconds: f64) -> Result<Duration, ScenarioFault> {
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|span| *span <= LONGEST)
        .ok_or_else(|| ScenarioFault::new(place, "a time is a number of seconds from 0 to 100,000"))
}

/// The parser's first line, and where it happened.
fn shape(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
    format!("line {line}: {}", error.message().lines().next().unwrap_or_default())
}

const fn one() -> u32 {
    1
}

const fn unit() -> f64 {
    1.0
}

/// More than a day is a typing error.
const LONGEST: Duration = Duration::from_secs(100_000);

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = "about = \"x\"\nengines = [\"seed\"]\nseeds = [1]\n[[segment]]\nseconds = 60\nload = 0.3\n";

    fn refused(from: &str, to: &str) -> String {
        assert!(SOUND.contains(from));
        Scenario::parse("step", &SOUND.replace(from, to)).unwrap_err().to_string()
    }

    #[test]
    fn a_scenario_is_read() {
        let text = format!("{SOUND}[[segment]]\nseconds = 10\nrate = [2, 4]\ncv = 3.0\nslowdown = 1.5\n");
        let scenario = Scenario::parse("step", &text).unwrap();
        assert_eq!(scenario.engines[0].slo_ttft, Duration::from_secs(1));
        assert_eq!(scenario.begins(1), Duration::from_secs(60));
        assert_eq!(scenario.length(), Duration::from_secs(70));
        let ramp = scenario.segments[1];
        assert_eq!((ramp.level, ramp.unit), (LevelRamp { from: 2.0, to: 4.0 }, LevelUnit::Requests));
        assert_eq!(ramp.arrivals, Arrivals::with_cv(3.0).unwrap());
        assert_eq!(scenario.sight, Sight::default());
    }

    #[test]
    fn groups_stand_for_their_engines() {
        let text = SOUND.replace("\"seed\"", "\"seven\", \"holdout\"");
        let scenario = Scenario::parse("step", &text).unwrap();
        assert_eq!(scenario.engines.len(), 11);
        assert_eq!(scenario.engines[6].name, "fastsmall");
    }

    #[test]
    fn an_engine_without_a_profile_can_be_described() {
        let own = "[[engine]]\nname = \"mine\"\nslo_ttft = 0.5\n\
            params = { base = 0.01, per_decode = 1e-4, per_prefill_token = 1e-5, max_num_seqs = 8, \
            max_num_batched_tokens = 512, kv_tokens = 9000 }\n\
            workload = { prompt = { mean = 90, sigma = 0.5 }, output = { mean = 70, sigma = 0.5 } }\n";
        let scenario = Scenario::parse("own", &format!("{SOUND}{own}")).unwrap();
        assert_eq!(scenario.engines[1].name, "mine");
        assert_eq!(scenario.engines[1].machine.setup.params.max_num_seqs.get(), 8);
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_one_sentence() {
        assert_eq!(refused("load = 0.3", "laod = 0.3"), {
            "step: line 6: unknown field `laod`, expected one of `seconds`, `requests`, `load`, `rate`, `own`, `cv`, \
             `prompt`, `output`, `slowdown`, `replicas`"
        });
        assert!(
            refused("\"seed\"", "\"sead\"").starts_with("step: engines: unknown engine profile 'sead': choose one")
        );
        assert_eq!(refused("load = 0.3", ""), "step: segment 0: load: give either load or rate");
        assert_eq!(refused("load = 0.3", "load = 0.3\nrate = 1"), "step: segment 0: load: give either load or rate");
        assert!(refused("load = 0.3", "load = -1").ends_with("a level is a number above zero or [from, to]"));
        assert_eq!(refused("seconds = 60", ""), "step: segment 0: seconds: give either seconds or requests");
        assert!(refused("seconds = 60", "seconds = -1").starts_with("step: segment 0: seconds: a time is"));
        assert!(refused("load = 0.3", "load = 0.3\nslowdown = 0").contains("slowdown: a factor is"));
        assert!(refused("load = 0.3", "load = 0.3\nreplicas = 2").contains("replicas: between 1"));
        assert!(refused("[1]", "[]").contains("need at least one"));
    }
}
