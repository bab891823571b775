//! Settings of GPU readings: whether to read, how often, with which library, and the names of GPUs.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

/// Whether and how GPUs are read.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `auto`: where there is a library; `true`: as well, and its absence is a warning; `false`: never.
    pub enabled: Enabled,
    /// Between two readings. A shorter one sees shorter spells of throttling and asks the driver more often.
    #[serde(with = "crate::vocabulary::units::typed")]
    #[schemars(with = "crate::vocabulary::units::Span", extend("minimum" = "100ms", "maximum" = "1m"))]
    pub interval: Duration,
    /// Path of the library; `null` is `libnvidia-ml.so.1` on the system's library path.
    pub library: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { enabled: Enabled::Auto, interval: Duration::from_secs(1), library: None }
    }
}

impl Settings {
    /// What is wrong with the interval, if anything.
    pub fn fault(&self) -> Option<String> {
        let fits = (SHORTEST..=LONGEST).contains(&self.interval);
        (!fits).then(|| "the interval between GPU readings must be from `100ms` to `1m`".to_owned())
    }
}

/// Whether GPUs are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enabled {
    #[default]
    Auto,
    Yes,
    No,
}

impl<'de> Deserialize<'de> for Enabled {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AutoWord;

        impl Visitor<'_> for AutoWord {
            type Value = Enabled;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("`auto`, `true` or `false`")
            }

            fn visit_bool<E>(self, yes: bool) -> Result<Enabled, E> {
                Ok(if yes { Enabled::Yes } else { Enabled::No })
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Enabled, E> {
                match word {
                    "auto" => Ok(Enabled::Auto),
                    "true" => Ok(Enabled::Yes),
                    "false" => Ok(Enabled::No),
                    other => Err(E::invalid_type(de::Unexpected::Str(other), &self)),
                }
            }
        }

        deserializer.deserialize_any(AutoWord)
    }
}

impl Serialize for Enabled {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Yes => serializer.serialize_bool(true),
            Self::No => serializer.serialize_bool(false),
        }
    }
}

/// One GPU, or one instance of a divided one, as a person names it: `0`, `"0:1"` or a UUID.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// The driver's own index.
    Index(u32),
    /// An instance (MIG) of a divided GPU: index of the GPU, index of the instance.
    Instance(u32, u32),
    /// `GPU-…` or `MIG-…`.
    Uuid(String),
}

/// A text that names no GPU.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no GPU: write an index (0), an instance (\"0:1\") or a UUID (GPU-… or MIG-…)")]
pub struct BadSelector(String);

impl FromStr for Selector {
    type Err = BadSelector;

    fn from_str(typed: &str) -> Result<Self, BadSelector> {
        let number = |digits: &str| digits.parse().ok();
        let instance = |(gpu, one)| Some(Self::Instance(number(gpu)?, number(one)?));
        let is_uuid = ["GPU-", "MIG-"].iter().any(|kind| typed.starts_with(kind))
            && typed.len() <= LONGEST_UUID
            && typed.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'/'));
        let uuid = || is_uuid.then(|| Self::Uuid(typed.to_owned()));
        let read = number(typed).map(Self::Index).or_else(|| typed.split_once(':').and_then(instance)).or_else(uuid);
        read.ok_or_else(|| BadSelector(typed.to_owned()))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(out, "{index}"),
            Self::Instance(gpu, instance) => write!(out, "{gpu}:{instance}"),
            Self::Uuid(uuid) => out.write_str(uuid),
        }
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;

        impl Visitor<'_> for Name {
            type Value = Selector;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an index (0), an instance (\"0:1\") or a UUID (GPU-… or MIG-…)")
            }

            fn visit_u64<E: de::Error>(self, index: u64) -> Result<Selector, E> {
                let fits = u32::try_from(index);
                fits.map(Selector::Index).map_err(|_| E::invalid_type(de::Unexpected::Unsigned(index), &self))
            }

            fn visit_str<E: de::Error>(self, typed: &str) -> Result<Selector, E> {
                typed.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Name)
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Index(index) => serializer.serialize_u32(*index),
            other => serializer.collect_str(other),
        }
    }
}

impl JsonSchema for Enabled {
    fn schema_name() -> Cow<'static, str> {
        "Enabled".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "enum": ["auto", true, false] })
    }
}

impl JsonSchema for Selector {
    fn schema_name() -> Cow<'static, str> {
        "Selector".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "minimum": 0 })
    }
}

/// A driver answers a round of questions in some milliseconds; more often only costs.
const SHORTEST: Duration = Duration::from_millis(100);
/// A spell of throttling must not fall between two readings.
const LONGEST: Duration = Duration::from_secs(60);
/// The long form of an instance (`MIG-GPU-<uuid>/3/0`) has about 50.
const LONGEST_UUID: usize = 96;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_gpus_are_read_and_written_back() {
        for typed in ["0", "7", "0:1", "GPU-8f2c0000-0000-4000-8000-00000000000a", "MIG-GPU-8f2c/3/0"] {
            assert_eq!(typed.parse::<Selector>().unwrap().to_string(), typed);
        }
    }

    #[test]
    fn what_names_no_gpu_is_refused() {
        for typed in ["", "-1", "a", "0:", ":1", "0:1:2", "gpu-8f2c", "GPU-a b", &format!("GPU-{}", "a".repeat(100))] {
            assert!(typed.parse::<Selector>().is_err(), "{typed}");
        }
    }

    #[test]
    fn an_interval_that_asks_too_often_or_too_rarely_is_a_fault() {
        let fault = |millis| Settings { interval: Duration::from_millis(millis), ..Settings::default() }.fault();
        assert!([0, 99, 60_001].into_iter().all(|millis| fault(millis).is_some()));
        assert!([100, 1000, 60_000].into_iter().all(|millis| fault(millis).is_none()));
    }
}
