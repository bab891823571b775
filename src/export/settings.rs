//! Settings of the exporters: the admin port, the log, spans, the families and their buckets, the journal.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::secret::Secret;

/// The admin port.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Address of metrics, health, status, reload and drain; keep loopback unless probes and scrapes come from
    /// other hosts.
    pub listen: SocketAddr,
    /// The token that a change (reload, undrain, a drain from another machine) must carry as `Authorization: Bearer …`; `null`: none.
    /// Write `${WEIR_ADMIN_TOKEN}` or `${file:/run/secrets/token}`, not the token itself.
    pub token: Option<Secret>,
    /// Names in `Host` that the port accepts, beside addresses and `localhost`. Every other name is refused, which stops pages
    /// that use DNS rebinding.
    pub hosts: Vec<String>,
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9902)), token: None, hosts: Vec::new() }
    }
}

/// What is written to standard error.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// One JSON object a line, or text for people.
    pub format: LogFormat,
    /// The lowest level that is written.
    pub level: LogLevel,
    /// Whether every finished request gets a line: lengths, times and outcome, never content.
    pub access: bool,
    /// Most such lines a second, on average. Above it lines of completed requests are left out, and the next line says how many.
    pub access_rate: u32,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::default(), level: LogLevel::default(), access: false, access_rate: 1000 }
    }
}

/// Where spans go, over OTLP (http/protobuf).
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Otlp {
    /// A collector's address, as `http://127.0.0.1:4318`; `null`: nothing is recorded or sent. The standard variables
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` and `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` win over it.
    #[schemars(regex(pattern = "^[Hh][Tt][Tt][Pp]://[^?#@]+$"))]
    pub endpoint: Option<String>,
    /// Share of the traces that begin here. A trace that began before follows its own sampled flag.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sample_ratio: f64,
    /// The values of OpenTelemetry's own variables.
    #[serde(skip)]
    pub variables: BTreeMap<&'static str, String>,
}

impl Otlp {
    /// Reads OpenTelemetry's own variables from `environment`.
    pub fn read_variables(&mut self, environment: &dyn Fn(&str) -> Option<String>) {
        let variable = |name: &'static str| Some((name, environment(name).filter(|value| !value.is_empty())?));
        self.variables = OTEL_VARIABLES.into_iter().filter_map(variable).collect();
    }
}

/// The variables that are read.
const OTEL_VARIABLES: [&str; 10] = [
    "OTEL_SDK_DISABLED",
    "OTEL_SERVICE_NAME",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_TRACES_EXPORTER",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
];

impl Default for Otlp {
    fn default() -> Self {
        Self { endpoint: None, sample_ratio: 1.0, variables: BTreeMap::new() }
    }
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// Text for people.
    Text,
}

/// How important a line must be. Nothing below `info` is compiled into a release: debug lines could hold content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// An operator must act.
    Error,
    /// An operator may want to know.
    Warn,
    /// Normal events.
    #[default]
    Info,
}

impl LogLevel {
    /// The word in the file, which is also what a filter directive takes.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
        }
    }
}

/// Which families are shown, and in which buckets.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// What `/metrics` on the data port answers.
    pub passthrough: Passthrough,
    /// Families left out of weir's own `/metrics`, by full name.
    pub disable: Vec<String>,
    /// Upper bounds of histograms, ascending, that replace the built-in ones; `null` keeps those.
    pub buckets: BucketBounds,
}

/// What `/metrics` on the data port answers; weir's own families are on the admin port in either case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Passthrough {
    /// The engine's own page.
    #[default]
    Engine,
    /// 404.
    Off,
}

/// Upper bounds of histograms, ascending, in seconds or tokens; absent keeps the built-in set.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BucketBounds {
    /// Times to first token, in seconds.
    #[schemars(extend("minItems" = 1, "maxItems" = 64))]
    pub ttft: Option<Vec<f64>>,
    /// Inter-token latency and TPOT, in seconds.
    #[schemars(extend("minItems" = 1, "maxItems" = 64))]
    pub itl: Option<Vec<f64>>,
    /// Gaps between content events, in seconds.
    #[schemars(extend("minItems" = 1, "maxItems" = 64))]
    pub gap: Option<Vec<f64>>,
    /// Request durations, in seconds.
    #[schemars(extend("minItems" = 1, "maxItems" = 64))]
    pub duration: Option<Vec<f64>>,
    /// Queue waits, in seconds.
    #[schemars(extend("minItems" = 1, "maxItems" = 64))]
    pub wait: Option<Vec<f64>>,
    /// Prompt and output lengths, in tokens.
    #[schemars(extend("minItems" = 1, "maxItems" = 64))]
    pub tokens: Option<Vec<f64>>,
    /// What weir itself adds, in seconds.
    #[schemars(extend("minItems" = 1, "maxItems" = 64))]
    pub overhead: Option<Vec<f64>>,
}

impl BucketBounds {
    /// Every set with its name, for checks.
    pub fn named(&self) -> [(&'static str, Option<&[f64]>); 7] {
        [
            ("ttft", self.ttft.as_deref()),
            ("itl", self.itl.as_deref()),
            ("gap", self.gap.as_deref()),
            ("duration", self.duration.as_deref()),
            ("wait", self.wait.as_deref()),
            ("tokens", self.tokens.as_deref()),
            ("overhead", self.overhead.as_deref()),
        ]
    }
}

/// The journal: one JSON line a request, stamps and lengths, never content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct JournalSettings {
    /// The file that lines are appended to; `null`: no journal is kept.
    pub path: Option<PathBuf>,
}
