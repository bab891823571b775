//! The configuration: the settings of every module, read from one YAML file and a few flags.
//!
//! The text and its meaning are two types: `file` has the shape of the text, [`Config`] holds values that need no further
//! check. All faults are collected, each one sentence with its line and column. Nothing here binds a port,
//! resolves a name or asks a backend.

pub mod effective;
mod fault;
mod file;
mod meaning;
mod reading;
pub mod reference;
pub mod schema;
mod server;
mod substitute;
mod tree;

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

pub use effective::Origins;
pub use fault::{ConfigErrors, Fault, Position};
pub use server::{BackendConfig, Inside};

use self::substitute::Surroundings;
use crate::admission::policy;
use crate::admission::pool::BalancePolicy;
use crate::export::settings::{Admin, JournalSettings, LogLevel, LogSettings, Metrics, Otlp};
use crate::proxy::admission_settings::AdmissionSettings;
use crate::proxy::settings::{DrainSettings, ProxyLimits};
pub use crate::vocabulary::mode::Mode;
use crate::vocabulary::slo::Slo;
use crate::vocabulary::units::Span;

/// The objective of one path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SloRoute {
    /// Without a query.
    pub path: String,
    /// `None`: requests there have no objective.
    #[serde(serialize_with = "span_or_null")]
    pub ttft: Option<Duration>,
}

/// Everything that `weir serve` is configured with, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Address of the data port.
    pub listen: SocketAddr,
    /// Worker threads; `auto` has been resolved to the number of processors.
    pub workers: NonZeroUsize,
    /// Whether weir limits the load.
    pub mode: Mode,
    /// The objectives of a request.
    pub slo: Slo,
    /// Paths with an objective of their own.
    pub slo_routes: Vec<SloRoute>,
    /// At least one after [`Config::load`]; names are unique.
    pub backends: Vec<BackendConfig>,
    /// How a backend is chosen.
    pub balance: BalancePolicy,
    /// Which requests are admitted, and which networks' headers are believed.
    pub admission: AdmissionSettings,
    /// Limits of one client, and of all clients together.
    pub limits: ProxyLimits,
    /// The admin port.
    pub admin: Admin,
    /// What is logged.
    pub log: LogSettings,
    /// Where spans go.
    pub otlp: Otlp,
    /// How the process shuts down.
    pub drain: DrainSettings,
    /// Which families are shown.
    pub metrics: Metrics,
    /// Where the journal goes.
    pub journal: JournalSettings,
    /// What synthetic load may cost.
    pub probe: crate::probe::settings::Settings,
    /// Whether GPUs are read.
    pub gpu: crate::gpu::settings::Settings,
    /// The policy that sets the limits.
    pub control: policy::ControlPolicy,
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
    /// `--log` or `WEIR_LOG`.
    pub log_level: Option<LogLevel>,
    /// Which of these the environment said, as `(path, variable)`.
    pub from_environment: Vec<(&'static str, &'static str)>,
}

impl Overrides {
    /// The path of each setting that is overridden, and what did it.
    fn origins(&self) -> Vec<(&'static str, String)> {
        let all = [
            ("listen", "--listen", self.listen.is_some()),
            ("backends", "--backend", !self.backends.is_empty()),
            ("admin.listen", "--admin", self.admin.is_some()),
            ("mode", "--mode", self.mode.is_some()),
            ("slo.ttft", "--slo-ttft", self.slo_ttft.is_some()),
            ("slo.itl", "--slo-itl", self.slo_itl.is_some()),
            ("log.level", "--log", self.log_level.is_some()),
        ];
        let origin = |path: &str, flag: &str| {
            let variable = self.from_environment.iter().find(|(known, _)| *known == path);
            variable.map_or_else(|| format!("flag {flag}"), |(_, variable)| format!("environment {variable}"))
        };
        all.into_iter().filter(|(.., said)| *said).map(|(path, flag, _)| (path, origin(path, flag))).collect()
    }
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
            balance: BalancePolicy::default(),
            admission: AdmissionSettings::default(),
            limits: ProxyLimits::default(),
            admin: Admin::default(),
            log: LogSettings::default(),
            otlp: Otlp::default(),
            drain: DrainSettings::default(),
            metrics: Metrics::default(),
            journal: JournalSettings::default(),
            probe: crate::probe::settings::Settings::default(),
            gpu: crate::gpu::settings::Settings::default(),
            control: policy::ControlPolicy::default(),
        }
    }
}

/// What a configuration was read from; reading it again is a reload.
#[derive(Clone, Debug, Default)]
pub struct ConfigSource {
    /// The file, if there is one.
    pub path: Option<PathBuf>,
    /// What flags and the environment say.
    pub overrides: Overrides,
}

/// A configuration, and where each of its values came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    pub origins: Origins,
}

impl ConfigSource {
    /// Reads the file, if there is one, fills in variables from the environment and lets the flags win.
    ///
    /// # Errors
    /// All faults that were found: an unreadable file, a key or value that is not understood, settings that contradict.
    pub fn load(&self) -> Result<Loaded, ConfigErrors> {
        let Some(path) = &self.path else {
            return read("", "command line", &self.overrides, &Surroundings::of_process(Path::new("")));
        };
        let name = path.display().to_string();
        let text = text(path).map_err(|why| ConfigErrors::from(Fault::of_file(&name, why)))?;
        read(&text, &name, &self.overrides, &Surroundings::of_process(path))
    }
}

impl Config {
    /// As [`ConfigSource::load`], without the origins.
    ///
    /// # Errors
    /// As [`ConfigSource::load`].
    pub fn load(path: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigErrors> {
        let source = ConfigSource { path: path.map(Path::to_owned), overrides: overrides.clone() };
        source.load().map(|loaded| loaded.config)
    }

    /// Reads `text`, which came from `name`; `environment` answers what `${VAR}` stands for. `${file:…}` stands for nothing here.
    ///
    /// # Errors
    /// As [`ConfigSource::load`].
    pub fn parse(
        text: &str,
        name: &str,
        overrides: &Overrides,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigErrors> {
        read(text, name, overrides, &Surroundings::of_variables(environment)).map(|loaded| loaded.config)
    }

    /// Everything in force, in the file's own shape. A secret shows as `masked`.
    pub fn effective(&self) -> serde_json::Value {
        // Maps have text keys and no value fails to serialize, so there is nothing to report.
        serde_json::to_value(effective::Effective::of(self)).unwrap_or_default()
    }
}

fn read(
    text: &str,
    name: &str,
    overrides: &Overrides,
    surroundings: &Surroundings<'_>,
) -> Result<Loaded, ConfigErrors> {
    let (typed, reader) = file::read(text, name, surroundings);
    let mut loaded = meaning::of(typed, overrides, reader)?;
    loaded.config.otlp.read_variables(&surroundings.variable);
    Ok(loaded)
}

/// The text of the file, unless every user of the machine may write it.
fn text(path: &Path) -> Result<String, String> {
    use std::os::unix::fs::MetadataExt;
    let unreadable = |why: std::io::Error| format!("cannot be read: {why}");
    let mode = std::fs::metadata(path).map_err(unreadable)?.mode();
    if mode & OTHERS_WRITE != 0 {
        return Err("every user of this machine may write it: `chmod o-w` it first".to_owned());
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

/// Of a file's mode.
const OTHERS_WRITE: u32 = 0o002;

fn span_or_null<S: serde::Serializer>(span: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    span.map(Span).serialize(serializer)
}

/// Processors this process may use; 1 when the system does not say.
fn processors() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}
