//! The configuration: the sum of what each module can be told, read from one YAML file and a few flags.
//!
//! What was typed and what is meant are two types: `file` has the shape of the text, [`Config`] holds values that need no
//! further check. All faults are collected, each one sentence with its place in the file. Nothing here binds a port,
//! resolves a name or asks a backend.

mod fault;
mod file;
mod meaning;
mod reading;
mod server;
mod substitute;
mod tree;

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

pub use fault::{ConfigErrors, Fault, Place};
pub use server::{Inside, Server};

use crate::balance::Policy;
use crate::control;
use crate::export::settings::{Admin, Journal, Log, LogLevel, Metrics, Otlp};
use crate::proxy::admission::Admission;
use crate::proxy::settings::{DrainSettings, Limits};
use crate::slo::Slo;
use crate::units::Span;

/// What weir does with what it finds out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Measure, say what would be done, and forward everything.
    #[default]
    Observe,
    /// Let in as many as can be served in time; the others wait or are refused.
    Enforce,
}

/// The objective of one path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SloRoute {
    /// Without a query.
    pub path: String,
    /// `None`: requests there have no objective.
    #[serde(serialize_with = "span_or_null")]
    pub ttft: Option<Duration>,
}

/// Everything that `weir serve` needs to know, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Address of the data port.
    pub listen: SocketAddr,
    /// Worker threads; `auto` has been resolved to the number of processors.
    pub workers: NonZeroUsize,
    /// What weir does with what it finds out.
    pub mode: Mode,
    /// What a good request is.
    pub slo: Slo,
    /// Paths with an objective of their own.
    pub slo_routes: Vec<SloRoute>,
    /// At least one after [`Config::load`]; names are unique.
    pub backends: Vec<Server>,
    /// How a backend is chosen.
    pub balance: Policy,
    /// Who is let in, and whose headers are believed.
    pub admission: Admission,
    /// What callers may take.
    pub limits: Limits,
    /// The admin port.
    pub admin: Admin,
    /// What is logged.
    pub log: Log,
    /// Where spans go.
    pub otlp: Otlp,
    /// How the process leaves.
    pub drain: DrainSettings,
    /// Which families are shown.
    pub metrics: Metrics,
    /// Where the journal goes.
    pub journal: Journal,
    /// What synthetic load may cost.
    pub probe: crate::probe::settings::Settings,
    /// Whether GPUs are read.
    pub gpu: crate::gpu::settings::Settings,
    /// Which rule makes the limits.
    pub control: control::Policy,
}

/// What flags and environment variables say; each part present wins over the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--listen`.
    pub listen: Option<SocketAddr>,
    /// `--backend`, as typed; one or more replace the file's list and are named `backend-0`, `backend-1`, …
    pub backends: Vec<String>,
    /// `--admin` or `WEIR_ADMIN_LISTEN`.
    pub admin: Option<SocketAddr>,
    /// `--mode`, as typed.
    pub mode: Option<String>,
    /// `--slo-ttft`.
    pub slo_ttft: Option<Duration>,
    /// `--slo-itl`.
    pub slo_itl: Option<Duration>,
    /// `WEIR_LOG`.
    pub log_level: Option<LogLevel>,
}

impl Default for Config {
    /// Every default, without a backend.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8000)),
            workers: processors(),
            mode: Mode::default(),
            slo: Slo::default(),
            slo_routes: Vec::new(),
            backends: Vec::new(),
            balance: Policy::default(),
            admission: Admission::default(),
            limits: Limits::default(),
            admin: Admin::default(),
            log: Log::default(),
            otlp: Otlp::default(),
            drain: DrainSettings::default(),
            metrics: Metrics::default(),
            journal: Journal::default(),
            probe: crate::probe::settings::Settings::default(),
            gpu: crate::gpu::settings::Settings::default(),
            control: control::Policy::default(),
        }
    }
}

impl Config {
    /// Reads the file, if there is one, fills in variables from the environment and lets the flags win.
    ///
    /// # Errors
    /// All faults that were found: an unreadable file, a key or value that is not understood, settings that contradict.
    pub fn load(path: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigErrors> {
        #[allow(clippy::disallowed_methods, reason = "variables in the file are filled in here and nowhere else")]
        let environment = |variable: &str| std::env::var(variable).ok();
        let Some(path) = path else { return Self::parse("", "command line", overrides, &environment) };
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|why| ConfigErrors::from(Fault::of_file(&name, format!("cannot be read: {why}"))))?;
        Self::parse(&text, &name, overrides, &environment)
    }

    /// Reads `text`, which came from `name`; `environment` answers what `${VAR}` stands for.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(
        text: &str,
        name: &str,
        overrides: &Overrides,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigErrors> {
        let (typed, reader) = file::read(text, name, environment);
        let mut config = meaning::of(typed, overrides, reader)?;
        config.otlp.hear(environment);
        Ok(config)
    }

    /// Everything in force, in the file's own shape, for `/config`. A secret shows as `masked`.
    pub fn effective(&self) -> serde_json::Value {
        serde_json::json!({
            "listen": self.listen,
            "workers": self.workers,
            "mode": self.mode,
            "slo": { "ttft": Span(self.slo.ttft), "itl": Span(self.slo.itl), "routes": self.slo_routes },
            "backends": self.backends,
            "balance": self.balance,
            "admission": self.admission,
            "limits": self.limits,
            "admin": self.admin,
            "log": self.log,
            "otlp": self.otlp,
            "drain": self.drain,
            "metrics": self.metrics,
            "journal": self.journal,
            "probe": self.probe,
            "gpu": self.gpu,
            "control": { "policy": self.control.as_str(), "limit": static_limit(self.control) },
        })
    }
}

impl From<Mode> for crate::admission::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Observe => Self::Observe,
            Mode::Enforce => Self::Enforce,
        }
    }
}

fn static_limit(policy: control::Policy) -> Option<u32> {
    if let control::Policy::Static(limit) = policy { Some(limit) } else { None }
}

fn span_or_null<S: serde::Serializer>(span: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    span.map(Span).serialize(serializer)
}

/// Processors this process may use; 1 when the system does not say.
fn processors() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}
