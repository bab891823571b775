//! The face towards operators: metrics, status, the admin port, the log and the journal file.
//!
//! Everything here reads; the one thing it may change is the drain, and that through a trait. It does not know the proxy,
//! the gate or the configuration: what it needs from them comes in as `Handles`, so that rooms of this floor stay blind to
//! each other. It holds no counters of requests: those are the ledger's.

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
pub mod sinks;
pub mod status;
pub mod stderr;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::clock::Clock;
use crate::measure::Ledger;
use crate::vocabulary::bad_answer::BadAnswerCounts;

/// What the admin port reads and turns. One value per process, shared by every connection.
#[derive(Clone)]
pub struct Handles {
    /// The process's clock, for the `now` of a snapshot.
    pub clock: Clock,
    /// The books.
    pub ledger: Arc<Ledger>,
    /// Facts that are not in the books.
    pub facts: Arc<dyn ReadProcessState>,
    /// What `/readyz` asks.
    pub readiness: Arc<dyn Readiness>,
    /// What `/drain` and `/undrain` turn.
    pub drain: Arc<dyn DrainControl>,
    /// What `/-/reload` turns.
    pub reload: Arc<dyn ReloadControl>,
    /// What `/mode` turns.
    pub mode: Arc<dyn ModeControl>,
    /// Synthetic load; none where no token guards it.
    pub probe: Option<Arc<dyn probe::ProbeControl>>,
    /// The effective configuration as JSON, secrets masked by whoever makes it.
    pub config: Arc<dyn Fn() -> String + Send + Sync>,
    /// Families left out of `/metrics`, by name.
    pub disabled: Arc<[String]>,
}

pub use crate::admission::Mode;

/// What the process knows beside the ledger. Counters only grow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProcessState {
    /// The mode in force.
    pub mode: Mode,
    /// Health of each backend, by its place, as the next three; a missing entry counts as down.
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
    /// What became of the journal's records; `None` without a journal.
    pub journal: Option<journal::JournalCounts>,
    /// What became of spans; `None` where none are sent.
    pub spans: Option<otlp::SpanCounts>,
    /// Log lines that found standard error stuck.
    pub log_lost: u64,
    /// Requests that have no access line because of it; `None` without an access log.
    pub access_lost: Option<u64>,
    /// Whether the last reload of the configuration was accepted; start-up counts.
    pub reload_accepted: bool,
    /// Unix time of the last accepted reload, in seconds.
    pub reload_accepted_at: f64,
    /// Reloads that were accepted, and that were refused.
    pub reloads: (u64, u64),
    /// Unix time at which the process's clock stood at zero, in seconds.
    pub epoch: f64,
    /// What the estimate says of each backend.
    pub judged: Vec<Option<saturation::BackendEstimate>>,
    /// The gate of each backend.
    pub gates: Vec<gate_status::GateStatus>,
    /// What each engine reports of itself.
    pub reported: Vec<Option<engine_report::EngineReport>>,
    /// The GPUs that are read.
    pub gpus: Vec<crate::gpu::reading::Device>,
}

impl ProcessState {
    /// The same with what is kept by place in the order of the snapshot's backends.
    #[must_use]
    pub fn of(mut self, snapshot: &crate::measure::Snapshot) -> Self {
        self.up = snapshot.pick(&self.up);
        self.bad_answers = snapshot.pick(&self.bad_answers);
        self.judged = snapshot.pick(&self.judged);
        self.gates = snapshot.places.iter().filter_map(|at| self.gates.get(usize::from(at.0)).cloned()).collect();
        self.reported = snapshot.pick(&self.reported);
        self
    }
}

/// Whoever can tell the facts, at the time of a scrape and without waiting for anything.
pub trait ReadProcessState: Send + Sync {
    /// The facts now.
    fn facts(&self) -> ProcessState;
}

/// One named condition of readiness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadinessCheck {
    /// Few words, ours: `backend gpu-0`, `not draining`.
    pub name: String,
    /// Whether it holds.
    pub passed: bool,
}

/// Whoever knows whether new requests should come here.
pub trait Readiness: Send + Sync {
    /// Every condition; the process is ready when all hold.
    fn checks(&self) -> Vec<ReadinessCheck>;
}

/// The mode as the admin port sees it.
pub trait ModeControl: Send + Sync {
    /// The mode in force.
    fn mode(&self) -> Mode;

    /// Switches at once, until the next switch or the end of the process; the configuration stays as it is.
    fn switch(&self, mode: Mode);
}

/// The configuration as the admin port sees it.
pub trait ReloadControl: Send + Sync {
    /// Reads the configuration again. Settings that are in force from now on, and those that wait for the next start.
    ///
    /// # Errors
    /// Every mistake, one a line; nothing has changed then.
    fn reload(&self) -> Result<(Vec<String>, Vec<String>), String>;
}

/// The drain as the admin port sees it.
pub trait DrainControl: Send + Sync {
    /// Begins to drain, at once; again while draining changes nothing. To be called inside a tokio runtime.
    fn begin(&self);

    /// Takes requests again; `false` when the process is already on its way out.
    fn cancel(&self) -> bool;

    /// Whether the process drains.
    fn draining(&self) -> bool;

    /// Requests and streams still under way.
    fn underway(&self) -> usize;

    /// Resolves when new requests are refused and nothing is under way (`true`), or the drain was cancelled (`false`).
    fn drained(&self) -> Pin<Box<dyn Future<Output = bool> + Send>>;
}
