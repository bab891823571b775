//! The `probe` section: what synthetic load may cost and when it may run.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::vocabulary::units::typed;

/// Limits of synthetic load, which runs only on a request with the admin token.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Most synthetic requests in flight. More finds the knee of larger engines; the knee must lie below it and the clients' own.
    #[schemars(range(min = 1))]
    pub max_in_flight: u32,
    /// Most synthetic requests a second, whatever is in flight.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub max_rate: f64,
    /// Most output tokens of one run.
    pub max_tokens: u64,
    /// Longest run.
    #[serde(with = "typed")]
    #[schemars(with = "crate::vocabulary::units::Span")]
    pub max_duration: Duration,
    /// How long each step is watched. Longer steps tell smaller differences of throughput apart.
    #[serde(with = "typed")]
    #[schemars(with = "crate::vocabulary::units::Span", extend("minimum" = "1s"))]
    pub step: Duration,
    /// Share of clients' requests that may miss their objective over five seconds before the run ends.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_missed: f64,
    /// Hours in which it may run, UTC, such as `22:00-06:00`; `null` is any time.
    pub hours: Option<Hours>,
    /// Prompt tokens of a synthetic request.
    #[schemars(range(min = 1))]
    pub input_tokens: u32,
    /// Output tokens of a synthetic request.
    #[schemars(range(min = 2))]
    pub output_tokens: u32,
}

/// From one time of day to another, through midnight where the first is the later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hours {
    /// Minutes after midnight.
    from: u16,
    to: u16,
}

/// A text that is no span of hours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no span of hours: write 22:00-06:00")]
pub struct BadHours(String);

impl Hours {
    /// Whether a time of day lies in them.
    pub fn holds(self, time_of_day: Duration) -> bool {
        let minute = (time_of_day.as_secs() / 60 % (24 * 60)) as u16;
        if self.from <= self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_in_flight: 1024,
            max_rate: 200.0,
            max_tokens: 1_000_000,
            max_duration: Duration::from_secs(15 * 60),
            step: Duration::from_secs(15),
            max_missed: 0.02,
            hours: None,
            input_tokens: 160,
            output_tokens: 150,
        }
    }
}

impl FromStr for Hours {
    type Err = BadHours;

    fn from_str(text: &str) -> Result<Self, BadHours> {
        let minute = |text: &str| {
            let (hours, minutes) = text.trim().split_once(':')?;
            let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
            (hours < 24 && minutes < 60).then_some(60 * hours + minutes)
        };
        let span = text.split_once('-').and_then(|(from, to)| Some(Self { from: minute(from)?, to: minute(to)? }));
        span.filter(|span| span.from != span.to).ok_or_else(|| BadHours(text.to_owned()))
    }
}

impl TryFrom<String> for Hours {
    type Error = BadHours;

    fn try_from(text: String) -> Result<Self, BadHours> {
        text.parse()
    }
}

impl From<Hours> for String {
    fn from(hours: Hours) -> Self {
        hours.to_string()
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clock = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
        write!(f, "{}-{}", clock(self.from), clock(self.to))
    }
}

impl JsonSchema for Hours {
    fn schema_name() -> Cow<'static, str> {
        "Hours".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "hours" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_may_go_through_midnight() {
        let at = |hours: u64, minutes: u64| Duration::from_secs(3600 * hours + 60 * minutes);
        let night: Hours = "22:00-06:00".parse().unwrap();
        assert!(night.holds(at(22, 0)) && night.holds(at(5, 59)) && !night.holds(at(6, 0)) && !night.holds(at(12, 0)));
        let day: Hours = "09:30-17:00".parse().unwrap();
        assert!(day.holds(at(9, 30)) && !day.holds(at(9, 29)) && !day.holds(at(17, 0)));
    }

    #[test]
    fn hours_are_written_as_they_are_read() {
        assert_eq!("7:05-22:00".parse::<Hours>().unwrap().to_string(), "07:05-22:00");
        for wrong in ["", "22-6", "24:00-06:00", "06:60-07:00", "06:00-06:00", "06:00"] {
            assert!(wrong.parse::<Hours>().is_err(), "{wrong}");
        }
    }
}
