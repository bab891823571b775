//! The shape of the file: its keys and their types, before any check of what they mean.
//!
//! Everything is optional here, so that one fault does not hide the next.

use std::borrow::Cow;
use std::net::SocketAddr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::effective::{self, Origins};
use super::fault::{Fault, Position};
use super::substitute::Surroundings;
use super::tree::{self, PathStep, TreeNode};
use super::{Config, Overrides};
use crate::admission::pool::BalancePolicy;
use crate::engine_metrics::settings::{EngineKind, Series};
use crate::export::settings::{Admin, JournalSettings, LogSettings, Metrics, Otlp};
use crate::proxy::admission_settings::AdmissionSettings;
use crate::proxy::settings::{DrainSettings, Health, ProxyLimits};
use crate::vocabulary::units::Span;

/// The configuration of weir: one YAML file. Everything but `backends` has a default.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ConfigFile {
    /// Shape of this file; only 1 exists.
    #[schemars(with = "u64", range(min = 1, max = 1))]
    pub(super) version: Option<u64>,
    /// Data port: what clients call.
    #[schemars(with = "SocketAddr")]
    pub(super) listen: Option<SocketAddr>,
    /// Threads that carry traffic; `auto` is one a processor.
    #[schemars(with = "Workers")]
    pub(super) workers: Option<Workers>,
    /// Whether weir limits the load.
    #[schemars(with = "super::Mode")]
    pub(super) mode: Option<String>,
    /// The objectives of a request.
    pub(super) slo: ObjectiveSection,
    /// The inference servers behind weir.
    #[schemars(length(min = 1, max = 256))]
    pub(super) backends: Vec<BackendSection>,
    /// How a backend is chosen among those that are up and have room.
    pub(super) balance: BalancePolicy,
    /// Which requests are admitted, and in which order. All but `trust` applies in mode enforce only.
    pub(super) admission: AdmissionSettings,
    /// The policy that sets the limits, in mode enforce.
    pub(super) control: ControlSection,
    /// Limits of synthetic load, which runs only on a request with the admin token.
    pub(super) probe: crate::probe::settings::Settings,
    /// GPU readings from NVIDIA's library.
    pub(super) gpu: crate::gpu::settings::Settings,
    /// Limits of one client, and of all clients together.
    pub(super) limits: ProxyLimits,
    /// The admin port.
    pub(super) admin: Admin,
    /// What is written to standard error.
    pub(super) log: LogSettings,
    /// Where spans go, over OTLP (http/protobuf).
    pub(super) otlp: Otlp,
    /// How the process shuts down.
    pub(super) drain: DrainSettings,
    /// Which families are shown, and in which buckets.
    pub(super) metrics: Metrics,
    /// One JSON line a request: timestamps and lengths, never content.
    pub(super) journal: JournalSettings,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ObjectiveSection {
    /// Arrival to first token.
    #[schemars(with = "Span", extend("exclusiveMinimum" = "0s"))]
    pub(super) ttft: Option<Span>,
    /// Time between tokens, mean over the request.
    #[schemars(with = "Span", extend("exclusiveMinimum" = "0s"))]
    pub(super) itl: Option<Span>,
    /// Paths with another objective for the first token, such as `{ path: /v1/embeddings, ttft: null }`.
    pub(super) routes: Vec<RouteSection>,
}

/// The objective of one path.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RouteSection {
    /// The path, without a query.
    #[schemars(with = "String", regex(pattern = "^/[!-~]*$"))]
    pub(super) path: Option<String>,
    /// Arrival to first token; `null` is no objective.
    #[schemars(extend("exclusiveMinimum" = "0s"))]
    pub(super) ttft: Option<Span>,
}

/// The policy that sets the limits.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ControlSection {
    /// The policy.
    #[schemars(with = "PolicyWord")]
    pub(super) policy: Option<PolicyWord>,
    /// With `static`, and only there: requests in flight at each backend.
    #[schemars(range(min = 1))]
    pub(super) limit: Option<u32>,
}

/// The policies by their names. Those of others can be compared in `weir rehearse --rivals` only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum PolicyWord {
    /// A window of requests without a first token, and a cap of tokens in flight.
    FirstTokenWindow,
    /// A fixed limit of requests in flight, `limit`.
    Static,
}

/// One entry of `backends`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct BackendSection {
    /// Value of the label `backend`, unique; `backend-N` when it is left out.
    #[schemars(with = "String", regex(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"))]
    pub(super) name: Option<String>,
    /// Where it listens: `http://HOST[:PORT][/PREFIX]`.
    #[schemars(with = "String", regex(pattern = "^[Hh][Tt][Tt][Pp]://[^?#@]+$"))]
    pub(super) url: Option<String>,
    /// Model of families that describe the backend rather than a request.
    pub(super) model_name: Option<String>,
    /// `Host` header sent to it; `null` is the client's own.
    #[schemars(regex(pattern = "^[!-~]+$"))]
    pub(super) host: Option<String>,
    /// The health check.
    pub(super) health: Health,
    /// The engine, which decides how its metrics are read.
    pub(super) engine: EngineKind,
    /// URL of its metrics; `null` is `url` with this engine's usual path.
    #[schemars(regex(pattern = "^[Hh][Tt][Tt][Pp]://[^?#@]+$"))]
    pub(super) metrics_url: Option<String>,
    /// Series in place of the built-in ones, as `name` or `name{label=value}`; `null` keeps the built-in one.
    pub(super) engine_metrics: Series,
    /// The engine's own limit of sequences in a batch; with `kv_tokens`, capacity is predicted before any saturation.
    #[schemars(range(min = 1))]
    pub(super) max_num_seqs: Option<u32>,
    /// Tokens that fit in its KV memory; `null` takes the value of its metrics.
    #[schemars(range(min = 1))]
    pub(super) kv_tokens: Option<u32>,
    /// Its own limit of tokens in one step.
    #[schemars(range(min = 1))]
    pub(super) max_num_batched_tokens: Option<u32>,
    /// In mode enforce, stream answers that clients want whole and reassemble them, so that their first token is seen. `false`
    /// forwards them unchanged. It applies only if all backends allow it.
    #[schemars(with = "bool")]
    pub(super) reassemble: Option<bool>,
    /// GPUs it runs on: `0`, `"0:1"` (an instance) or `GPU-…`. Empty means all GPUs of this
    /// machine, if this is the only backend and it is on this machine.
    pub(super) gpu: Vec<crate::gpu::settings::Selector>,
}

/// `auto`, or a number.
#[derive(Debug)]
pub(super) enum Workers {
    Auto,
    Number(u64),
}

impl<'de> Deserialize<'de> for Workers {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ConfigWord;

        impl serde::de::Visitor<'_> for ConfigWord {
            type Value = Workers;

            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("`auto` or a whole number from 1")
            }

            fn visit_u64<E>(self, number: u64) -> Result<Workers, E> {
                Ok(Workers::Number(number))
            }

            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Workers, E> {
                match word {
                    "auto" => Ok(Workers::Auto),
                    other => Err(E::invalid_type(serde::de::Unexpected::Str(other), &self)),
                }
            }
        }

        // As a number first, so that a filled-in variable may stand for one.
        deserializer.deserialize_u64(ConfigWord)
    }
}

impl JsonSchema for Workers {
    fn schema_name() -> Cow<'static, str> {
        "Workers".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "const": "auto" }, { "type": "integer", "minimum": 1, "maximum": 1024 }] })
    }
}

/// What was found while reading: the faults so far, and the tree that knows the line of each setting.
pub(super) struct ConfigReader {
    name: String,
    root: TreeNode,
    faults: Vec<Fault>,
}

impl ConfigReader {
    /// Notes a fault of the setting that the steps lead to.
    pub(super) fn report(&mut self, steps: &[PathStep], sentence: String) {
        let place = self.root.place_of(steps);
        self.note(steps, Some(place), sentence);
    }

    /// Notes a fault of a flag.
    pub(super) fn report_flag(&mut self, flag: &str, sentence: String) {
        self.faults.push(Fault { file: "command line".to_owned(), place: None, path: flag.to_owned(), sentence });
    }

    /// Whether the setting already has a fault, so that its absence is none.
    pub(super) fn is_faulty(&self, steps: &[PathStep]) -> bool {
        self.root.is_removed(steps)
    }

    /// Where each setting of what came of it was said.
    pub(super) fn origins(&self, config: &Config, overrides: &Overrides) -> Origins {
        effective::origins(config, &self.root, &self.name, overrides)
    }

    /// All faults.
    pub(super) fn into_faults(self) -> Vec<Fault> {
        self.faults
    }

    fn note(&mut self, steps: &[PathStep], place: Option<Position>, sentence: String) {
        let sentence = self.root.unquoted(steps, sentence);
        self.faults.push(Fault { file: self.name.clone(), place, path: tree::path(steps), sentence });
    }

    /// Reads the struct again and again, each time without the node that had a fault.
    fn read_all(&mut self) -> ConfigFile {
        loop {
            match ConfigFile::deserialize(&self.root) {
                Ok(file) => return file,
                Err(fault) => {
                    let steps = fault.steps();
                    let gone = |key: &str| self.is_faulty(&[&steps[..], &[PathStep::Key(key.to_owned())]].concat());
                    if !fault.missing.is_some_and(gone) {
                        self.note(&steps, fault.place, fault.sentence);
                    }
                    if !self.root.remove(&steps) || steps.is_empty() {
                        return ConfigFile::default();
                    }
                }
            }
        }
    }
}

/// Reads the text as far as it can be read.
pub(super) fn read(text: &str, name: &str, surroundings: &Surroundings<'_>) -> (ConfigFile, ConfigReader) {
    let mut reader = ConfigReader { name: name.to_owned(), root: TreeNode::empty(), faults: Vec::new() };
    match parse(text) {
        Ok(root) => reader.root = root,
        Err((place, sentence)) => {
            reader.note(&[], place, sentence);
            // What could not be read says nothing about what is missing.
            reader.root.remove(&[]);
            return (ConfigFile::default(), reader);
        }
    }
    let faults = &mut reader.faults;
    let mut report = |steps: &[PathStep], place, sentence| {
        faults.push(Fault { file: name.to_owned(), place: Some(place), path: tree::path(steps), sentence });
    };
    reader.root.settle(&mut Vec::new(), &mut report);
    reader.root.fill(surroundings, &mut Vec::new(), &mut report);
    let file = reader.read_all();
    (file, reader)
}

/// The text as a tree, or what is wrong with its YAML. Keys given twice are left in: they are faults like others.
fn parse(text: &str) -> Result<TreeNode, (Option<Position>, String)> {
    let only_comments = |line: &str| line.trim_start().is_empty() || line.trim_start().starts_with('#');
    if text.lines().all(only_comments) {
        return Ok(TreeNode::empty());
    }
    // YAML 1.2: `off` is a word, and one that a setting can mean.
    let options = serde_saphyr::options! {
        strict_booleans: true,
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|why| {
        let place = why.location().map(|at| Position { line: at.line(), column: at.column() });
        let formatter = serde_saphyr::UserMessageFormatter;
        let sentence = serde_saphyr::MessageFormatter::format_message(&formatter, why.without_snippet()).into_owned();
        (place, sentence)
    })
}
