//! The shape of the file: what may be typed, before anything is known about what it means.
//!
//! Everything is optional here, so that one fault does not hide the next.

use serde::Deserialize;

use super::fault::{Fault, Place};
use super::tree::{self, Node, Step};
use crate::balance::Policy;
use crate::export::settings::{Admin, Journal, Log, Metrics, Otlp};
use crate::proxy::admission::Admission;
use crate::proxy::settings::{DrainSettings, Health, Limits};
use crate::scrape::settings::{Engine, Series};
use crate::units::Span;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    /// The shape's own version; only 1 exists.
    pub(super) version: Option<u64>,
    pub(super) listen: Option<std::net::SocketAddr>,
    pub(super) workers: Option<Workers>,
    pub(super) mode: Option<String>,
    pub(super) slo: Objectives,
    pub(super) backends: Vec<Server>,
    pub(super) balance: Policy,
    pub(super) admission: Admission,
    pub(super) limits: Limits,
    pub(super) admin: Admin,
    pub(super) log: Log,
    pub(super) otlp: Otlp,
    pub(super) drain: DrainSettings,
    pub(super) metrics: Metrics,
    pub(super) journal: Journal,
    pub(super) probe: crate::probe::settings::Settings,
    pub(super) gpu: crate::gpu::settings::Settings,
    pub(super) control: Control,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Objectives {
    pub(super) ttft: Option<Span>,
    pub(super) itl: Option<Span>,
    pub(super) routes: Vec<Route>,
}

/// The objective of one path.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Route {
    pub(super) path: Option<String>,
    pub(super) ttft: Option<Span>,
}

/// Which rule makes the limits.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Control {
    pub(super) policy: Option<String>,
    pub(super) limit: Option<u32>,
}

/// One entry of `backends`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Server {
    pub(super) name: Option<String>,
    pub(super) url: Option<String>,
    pub(super) model_name: Option<String>,
    pub(super) host: Option<String>,
    pub(super) health: Health,
    pub(super) engine: Engine,
    pub(super) metrics_url: Option<String>,
    pub(super) engine_metrics: Series,
    pub(super) max_num_seqs: Option<u32>,
    pub(super) kv_tokens: Option<u32>,
    pub(super) max_num_batched_tokens: Option<u32>,
    pub(super) reassemble: Option<bool>,
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
        struct Word;

        impl serde::de::Visitor<'_> for Word {
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
        deserializer.deserialize_u64(Word)
    }
}

/// What was found while reading: the faults so far, and the tree that tells where a setting stands.
pub(super) struct Reader {
    name: String,
    root: Node,
    faults: Vec<Fault>,
}

impl Reader {
    /// Notes a fault of the setting that the steps lead to.
    pub(super) fn report(&mut self, steps: &[Step], sentence: String) {
        let place = self.root.place_of(steps);
        self.note(steps, Some(place), sentence);
    }

    /// Notes a fault of a flag.
    pub(super) fn report_flag(&mut self, flag: &str, sentence: String) {
        self.faults.push(Fault { file: "command line".to_owned(), place: None, path: flag.to_owned(), sentence });
    }

    /// Whether the setting already has a fault, so that its absence is none.
    pub(super) fn is_faulty(&self, steps: &[Step]) -> bool {
        self.root.is_removed(steps)
    }

    /// All faults.
    pub(super) fn into_faults(self) -> Vec<Fault> {
        self.faults
    }

    fn note(&mut self, steps: &[Step], place: Option<Place>, sentence: String) {
        self.faults.push(Fault { file: self.name.clone(), place, path: tree::path(steps), sentence });
    }

    /// Reads the struct again and again, each time without the node that had a fault.
    fn read_all(&mut self) -> File {
        loop {
            match File::deserialize(&self.root) {
                Ok(file) => return file,
                Err(fault) => {
                    let steps = fault.steps();
                    self.note(&steps, fault.place, fault.sentence);
                    if !self.root.remove(&steps) || steps.is_empty() {
                        return File::default();
                    }
                }
            }
        }
    }
}

/// Reads the text as far as it can be read.
pub(super) fn read(text: &str, name: &str, environment: &dyn Fn(&str) -> Option<String>) -> (File, Reader) {
    let mut reader = Reader { name: name.to_owned(), root: Node::empty(), faults: Vec::new() };
    match parse(text) {
        Ok(root) => reader.root = root,
        Err((place, sentence)) => {
            reader.note(&[], place, sentence);
            // What could not be read says nothing about what is missing.
            reader.root.remove(&[]);
            return (File::default(), reader);
        }
    }
    let faults = &mut reader.faults;
    reader.root.fill(environment, &mut Vec::new(), &mut |steps, place, sentence| {
        faults.push(Fault { file: name.to_owned(), place: Some(place), path: tree::path(steps), sentence });
    });
    let file = reader.read_all();
    (file, reader)
}

/// The text as a tree, or what is wrong with its YAML: a duplicate key is, too.
fn parse(text: &str) -> Result<Node, (Option<Place>, String)> {
    let only_comments = |line: &str| line.trim_start().is_empty() || line.trim_start().starts_with('#');
    if text.lines().all(only_comments) {
        return Ok(Node::empty());
    }
    // YAML 1.2: `off` is a word, and one that a setting can mean.
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options).map_err(|why| {
        let place = why.location().map(|at| Place { line: at.line(), column: at.column() });
        let formatter = serde_saphyr::UserMessageFormatter;
        let sentence = serde_saphyr::MessageFormatter::format_message(&formatter, why.without_snippet()).into_owned();
        (place, sentence)
    })
}
