//! What operators see: metrics, status, the admin port, the log, spans and the journal file.
//!
//! It does not know the proxy, the gate or the configuration: the admin port reads and changes them through one trait,
//! [`AdminBackend`], so that modules of this layer do not import each other. It holds no counters of requests: those are the
//! ledger's.

pub mod access;
pub mod admin;
pub mod auth;
pub mod conn_limit;
pub mod encoding;
pub mod engine_report;
pub mod exposition;
pub mod families;
pub mod gate_status;
pub mod gpu;
pub mod journal;
pub mod knee;
pub mod logging;
pub mod metrics;
pub mod otlp;
pub mod page;
pub mod probe;
pub mod routes;
pub mod saturation;
pub mod secret;
pub mod settings;
pub mod sink;
pub mod sinks;
pub mod status;
pub mod stderr;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::clock::Clock;
use crate::measure::Ledger;
use crate::vocabulary::bad_answer::BadAnswerCounts;

/// What the admin port answers from. One value per process, shared by every connection.
#[derive(Clone)]
pub struct Handles {
    /// The process's clock, for the `now` of a snapshot.
    pub clock: Clock,
    pub ledger: Arc<Ledger>,
    /// Everything that is not in the ledger.
    pub backend: Arc<dyn AdminBackend>,
    /// Families left out of `/metrics`, by name.
    pub disabled: Arc<[String]>,
}

pub use crate::admission::Mode;

/// What the process knows beside the ledger. Counters only grow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProcessState {
    /// The mode in force.
    pub mode: Mode,
    /// Health of each backend, by its index, like the other tables by backend; a missing entry counts as down.
    pub up: Vec<bool>,
    /// Answers of each backend that broke a rule, by rule.
    pub bad_answers: Vec<BadAnswerCounts>,
    /// Client connections open now.
    pub connections: u64,
    /// Failed `accept` calls.
    pub accept_errors: u64,
    /// Panics caught, each one a request or an admin call that ended there.
    pub panics: u64,
    /// Bytes of request bodies held now, against `limits.body_memory`.
    pub body_memory: u64,
    /// The journal's records; `None` without a journal.
    pub journal: Option<journal::JournalCounts>,
    /// The spans; `None` where none are sent.
    pub spans: Option<otlp::SpanCounts>,
    /// Log lines dropped because standard error was blocked.
    pub log_lost: u64,
    /// Requests without an access line for the same reason; `None` without an access log.
    pub access_lost: Option<u64>,
    /// Whether the last reload of the configuration was accepted; start-up counts.
    pub reload_accepted: bool,
    /// Unix time of the last accepted reload, in seconds.
    pub reload_accepted_at: f64,
    /// Reloads that were accepted, and that were refused.
    pub reloads: (u64, u64),
    /// Unix time of the zero of the process's clock, in seconds.
    pub epoch: f64,
    /// The estimate of each backend.
    pub estimates: Vec<Option<saturation::BackendEstimate>>,
    /// The gate of each backend.
    pub gates: Vec<gate_status::GateStatus>,
    /// The report of each engine's own metrics.
    pub engine_reports: Vec<Option<engine_report::EngineReport>>,
    /// The GPUs that are read.
    pub gpus: Vec<crate::gpu::reading::Device>,
}

impl ProcessState {
    /// The same with the tables by backend in the order of the snapshot's backends.
    #[must_use]
    pub fn of(mut self, snapshot: &crate::measure::Snapshot) -> Self {
        self.up = snapshot.pick(&self.up);
        self.bad_answers = snapshot.pick(&self.bad_answers);
        self.estimates = snapshot.pick(&self.estimates);
        self.gates = snapshot.ids.iter().filter_map(|id| self.gates.get(id.index()).cloned()).collect();
        self.engine_reports = snapshot.pick(&self.engine_reports);
        self
    }
}

/// One named condition of readiness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadinessCheck {
    /// A few words of our own: `not draining`.
    pub name: String,
    pub passed: bool,
}

/// What a reload did: paths of settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// In force from now on.
    pub changed: Vec<String>,
    /// In the file, and not in force before the next start.
    pub needs_restart: Vec<String>,
}

/// The process behind the admin port: what its pages read, and the few things they change. No call waits for I/O but `reload`.
pub trait AdminBackend: Send + Sync {
    /// The state of the process now.
    fn state(&self) -> ProcessState;

    /// The effective configuration as JSON, with secrets masked.
    fn config(&self) -> String;

    /// The conditions of readiness; the process is ready when all hold.
    fn readiness(&self) -> Vec<ReadinessCheck>;

    /// The mode in force.
    fn mode(&self) -> Mode;

    /// Switches at once, until the next switch or the end of the process; the configuration stays as it is.
    fn set_mode(&self, mode: Mode);

    /// Reads the configuration again.
    ///
    /// # Errors
    /// Every mistake, one a line; nothing has changed then.
    fn reload(&self) -> Result<Reloaded, String>;

    /// Begins to drain, at once; again while draining changes nothing. To be called inside a tokio runtime.
    fn begin_drain(&self);

    /// Takes requests again; `false` when the process shuts down already.
    fn cancel_drain(&self) -> bool;

    fn is_draining(&self) -> bool;

    /// Requests and streams in flight.
    fn in_flight(&self) -> usize;

    /// Resolves when new requests are refused and nothing is in flight (`true`), or the drain was cancelled (`false`).
    fn drained(&self) -> Pin<Box<dyn Future<Output = bool> + Send>>;

    /// Synthetic load; `None` where no token guards it.
    fn probe(&self) -> Option<&dyn probe::ProbeControl>;
}
