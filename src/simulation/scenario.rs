//! A scenario: engines, traffic and what must come out. `scenario_file` reads one. It holds no arithmetic.

use std::time::Duration;

use serde::Deserialize;

use super::enforcement::{Clients, Enforcement};
use super::expectation::Expectation;
use super::machine::Machine;
use crate::load::schedule::Arrivals;

/// What is simulated, once for every engine and every seed.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name: the file's, without folder and ending.
    pub name: String,
    /// One sentence.
    pub about: String,
    /// The engines, in the order of the file.
    pub engines: Vec<Subject>,
    /// One run each.
    pub seeds: Vec<u64>,
    /// Replicas behind the one address, which weir takes for one backend.
    pub replicas: u32,
    /// Time between weir and the engine, there and back.
    pub delay: Duration,
    /// What weir is given of requests and engine.
    pub sight: Sight,
    /// How admission is set.
    pub control: Enforcement,
    /// The clients.
    pub clients: Clients,
    /// After the last arrival the run continues until every request is served.
    pub drain: bool,
    /// Traffic, one after the other.
    pub segments: Vec<Segment>,
    /// What must come out.
    pub expectations: Vec<Expectation>,
}

/// An engine that is simulated.
#[derive(Clone, Debug, PartialEq)]
pub struct Subject {
    /// Name of its profile.
    pub name: String,
    /// What is simulated, with the scenario's quirks and mix.
    pub machine: Machine,
    /// The objective for arrival to first token.
    pub slo_ttft: Duration,
}

/// Traffic of one kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Segment {
    /// How long.
    pub until: Until,
    /// How much, at its beginning and at its end.
    pub level: LevelRamp,
    /// What the level counts in.
    pub unit: LevelUnit,
    /// Law of the gaps.
    pub arrivals: Arrivals,
    /// Factor on the mean prompt.
    pub prompt: f64,
    /// Factor on the mean output.
    pub output: f64,
    /// Factor on the engine's step times.
    pub slowdown: f64,
    /// Replicas that are given requests; `None` is all of them.
    pub replicas: Option<u32>,
}

/// Where a segment ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Until {
    /// After this time.
    Elapsed(Duration),
    /// After this many requests: the last segment only.
    Requests(u64),
}

/// What a level counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LevelUnit {
    /// Requests per second.
    Requests,
    /// The capacity for the scenario's mix, at the engine's usual speed, with all replicas.
    Capacity,
    /// The capacity for the segment's own mix, speed and replicas.
    OwnCapacity,
}

/// A load or a rate that changes linearly.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "toml::Value")]
pub struct LevelRamp {
    /// At the beginning.
    pub from: f64,
    /// At the end.
    pub to: f64,
}

/// What weir is given of the requests and of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sight {
    /// Whether the length of prompts is visible at all.
    pub prompts: bool,
    /// Standard deviation of the logarithm of seen over true length.
    pub prompt_error: f64,
    /// Factor on the seen length: what every estimate is off by.
    pub prompt_bias: f64,
    /// Whether answers end with a usage report.
    pub usage: bool,
    /// Which of the engine's limits are configured.
    pub limits: LimitsShown,
}

/// Which of the engine's limits are in weir's configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitsShown {
    /// All three.
    #[default]
    All,
    /// `max_num_seqs`.
    Slots,
    /// KV memory.
    Kv,
    /// None.
    None,
}

impl Scenario {
    /// When segment `number` begins.
    pub fn begins(&self, number: usize) -> Duration {
        self.segments.iter().take(number).map(Segment::length).sum()
    }

    /// When the last segment ends; what is drained comes after it.
    pub fn length(&self) -> Duration {
        self.begins(self.segments.len())
    }
}

impl Segment {
    /// How long it lasts; zero when it lasts for a number of requests.
    pub fn length(&self) -> Duration {
        match self.until {
            Until::Elapsed(length) => length,
            Until::Requests(_) => Duration::ZERO,
        }
    }

    /// `machine` with this segment's mix.
    pub fn machine(&self, machine: &Machine) -> Machine {
        let mut machine = *machine;
        machine.setup.workload.prompt.mean *= self.prompt;
        machine.setup.workload.output.mean *= self.output;
        machine
    }
}

impl LevelRamp {
    /// Both ends times `factor`.
    pub fn times(self, factor: f64) -> Self {
        Self { from: self.from * factor, to: self.to * factor }
    }
}

impl Default for Sight {
    fn default() -> Self {
        Self { prompts: true, prompt_error: 0.15, prompt_bias: 1.0, usage: false, limits: LimitsShown::All }
    }
}

impl TryFrom<toml::Value> for LevelRamp {
    type Error = &'static str;

    fn try_from(value: toml::Value) -> Result<Self, Self::Error> {
        let number = |value: &toml::Value| value.as_float().or(value.as_integer().map(|whole| whole as f64));
        let ends = match &value {
            toml::Value::Array(ends) if ends.len() == 2 => number(&ends[0]).zip(number(&ends[1])),
            one => number(one).map(|level| (level, level)),
        };
        match ends {
            Some((from, to)) if from >= 0.0 && to >= 0.0 && from + to > 0.0 => Ok(Self { from, to }),
            _ => Err("a level is a number above zero or [from, to]"),
        }
    }
}
