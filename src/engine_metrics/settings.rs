//! Settings of engine metrics: the kind of engine, and the series to read.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The engine behind a backend, as far as its own metrics go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// Detected by the names of its metrics.
    #[default]
    Auto,
    /// vLLM.
    Vllm,
    /// SGLang.
    Sglang,
    /// TensorRT-LLM's own server.
    #[serde(rename = "trtllm-serve")]
    TrtllmServe,
    /// TensorRT-LLM behind Triton; its metrics are on port 8002 unless `metrics_url` says otherwise.
    Triton,
    /// llama.cpp's server.
    Llamacpp,
    /// Text Generation Inference.
    Tgi,
    /// Its metrics are not read.
    None,
    /// Only the series of `engine_metrics` are read.
    Custom,
}

impl EngineKind {
    /// The word in the file and in the label `engine`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::TrtllmServe => "trtllm-serve",
            Self::Triton => "triton",
            Self::Llamacpp => "llamacpp",
            Self::Tgi => "tgi",
            Self::None => "none",
            Self::Custom => "custom",
        }
    }
}

/// Series that replace those of the engine's own table; absent ones keep it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Series {
    /// Requests that the engine works on.
    pub running: Option<Spec>,
    /// Requests that wait inside the engine.
    pub waiting: Option<Spec>,
    /// Share of KV memory in use, 0 to 1.
    pub kv_usage: Option<Spec>,
}

impl Series {
    /// Nothing is replaced.
    pub fn is_empty(&self) -> bool {
        self.running.is_none() && self.waiting.is_none() && self.kv_usage.is_none()
    }
}

/// Samples of one exact name that carry all these labels: `name` or `name{label=value,other="value"}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    pub name: String,
    pub labels: Vec<(String, String)>,
}

/// A text that names no series.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no series: write `name` or `name{{label=value}}`")]
pub struct BadSpec(String);

impl Spec {
    /// A series by its name alone.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), labels: Vec::new() }
    }

    /// The same with one more label.
    #[must_use]
    pub fn with(mut self, label: &str, value: &str) -> Self {
        self.labels.push((label.to_owned(), value.to_owned()));
        self
    }
}

impl FromStr for Spec {
    type Err = BadSpec;

    fn from_str(typed: &str) -> Result<Self, BadSpec> {
        let bad = || BadSpec(typed.to_owned());
        let (name, labels) = match typed.trim().split_once('{') {
            Some((name, rest)) => (name, rest.strip_suffix('}').ok_or_else(bad)?),
            None => (typed.trim(), ""),
        };
        let is_name = |word: &str| {
            !word.is_empty()
                && !word.starts_with(|c: char| c.is_ascii_digit())
                && word.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':'))
        };
        let mut spec = Self::named(name.trim_end());
        for pair in labels.split(',').filter(|pair| !pair.trim().is_empty()) {
            let (label, value) = pair.split_once('=').ok_or_else(bad)?;
            let value = value.trim();
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
            if !is_name(label.trim()) || value.is_empty() || value.contains(['"', '\\', '{', '}']) {
                return Err(bad());
            }
            spec = spec.with(label.trim(), value);
        }
        if is_name(&spec.name) { Ok(spec) } else { Err(bad()) }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.name)?;
        for (i, (label, value)) in self.labels.iter().enumerate() {
            write!(out, "{}{label}=\"{value}\"", if i == 0 { '{' } else { ',' })?;
        }
        if self.labels.is_empty() { Ok(()) } else { out.write_str("}") }
    }
}

impl Serialize for Spec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Spec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Spec {
    fn schema_name() -> Cow<'static, str> {
        "Spec".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "series" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_is_a_name_with_or_without_labels() {
        let spec: Spec = "nv_x{request_type=waiting, v=\"1\"}".parse().unwrap();
        assert_eq!(spec, Spec::named("nv_x").with("request_type", "waiting").with("v", "1"));
        assert_eq!(spec.to_string(), "nv_x{request_type=\"waiting\",v=\"1\"}");
        assert_eq!(spec.to_string().parse(), Ok(spec));
        assert_eq!("a:b".parse(), Ok(Spec::named("a:b")));
        assert_eq!("a{}".parse(), Ok(Spec::named("a")));
    }

    #[test]
    fn what_names_no_series_is_refused() {
        for typed in ["", "a b", "{x=1}", "a{x=1", "a{x}", "a{x=}", "9a", "a{1x=2}", "a{x=\"b\\\"\"}"] {
            assert!(typed.parse::<Spec>().is_err(), "{typed}");
        }
    }
}
