//! Every backend of the process by its index: one value that all readers share.
//!
//! Only `backends` writes here. A slot keeps its backend until another one takes it, so that a late record of a removed backend
//! still finds a name. The data path does not read this table: it has its targets in `proxy::upstream` and its loads in
//! `admission::pool`.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::config::BackendConfig;
use crate::engine_metrics::client::Address;
use crate::engine_metrics::{LatestReading, MetricsSource, PollPace, ReportedLimits};
use crate::estimate::EngineLimits;
use crate::measure::BackendNames;
use crate::proxy::upstream::health::HealthCheck;
use crate::proxy::upstream::target::Target;
use crate::vocabulary::backend_id::BackendId;
use crate::vocabulary::time::Timestamp;

/// One backend as it is configured now, and what its engine reports.
pub struct Backend {
    pub id: BackendId,
    pub config: BackendConfig,
    /// Shared by successive values of a backend for as long as the engine behind it is the same.
    pub engine: Arc<LatestReading>,
}

impl Backend {
    /// A backend whose engine has reported nothing yet.
    pub fn new(id: BackendId, config: &BackendConfig) -> Arc<Self> {
        Self::with_engine(id, config, LatestReading::new(PollPace::default()))
    }

    /// A backend with the reports of an engine that was read before.
    pub fn with_engine(id: BackendId, config: &BackendConfig, engine: Arc<LatestReading>) -> Arc<Self> {
        Arc::new(Self { id, config: config.clone(), engine })
    }

    /// Its names as the ledger's labels.
    pub fn names(&self) -> BackendNames {
        names(&self.config)
    }

    /// Where requests for it are sent.
    pub fn target(&self) -> Target {
        let BackendConfig { backend: config, .. } = &self.config;
        Target {
            name: config.name.as_str().into(),
            host: config.url.host.as_str().into(),
            port: config.url.port,
            authority: config.host.as_deref().map(Into::into),
            prefix: config.url.prefix.as_str().into(),
        }
    }

    /// The address that synthetic load is sent to.
    pub fn base_url(&self) -> String {
        let url = &self.config.url;
        let host = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.to_string() };
        format!("http://{host}:{}{}", url.port, url.prefix)
    }

    pub fn health_check(&self) -> HealthCheck {
        let health = &self.config.health;
        HealthCheck { path: health.path.clone(), interval: health.interval, timeout: health.timeout }
    }

    /// Where its engine's metrics are, and how they are read.
    pub fn metrics_source(&self) -> MetricsSource {
        let (inside, configured) = (&self.config.inside, self.config.inside.metrics_url.as_ref());
        let url = configured.unwrap_or(&self.config.url);
        let port = inside.engine.metrics_port().filter(|_| configured.is_none()).unwrap_or(url.port);
        let authority = if port == url.port { url.authority.clone() } else { format!("{}:{port}", url.host) };
        let path = configured.map(|url| url.prefix.clone()).filter(|path| !path.is_empty());
        MetricsSource {
            name: self.config.name.as_str().into(),
            engine: inside.engine,
            series: inside.engine_metrics.clone(),
            address: Address { host: url.host.as_str().into(), port, authority: authority.into() },
            path,
            configured: ReportedLimits { max_num_seqs: inside.max_num_seqs, kv_tokens: inside.kv_tokens },
        }
    }

    /// The engine's limits as configured, and as it reports them where nothing is configured.
    pub fn engine_limits(&self, now: Timestamp) -> EngineLimits {
        let (configured, reported) = (self.config.inside.limits(), self.engine.reading(now).limits);
        EngineLimits {
            max_num_seqs: configured.max_num_seqs.or(reported.max_num_seqs),
            kv_tokens: configured.kv_tokens.or(reported.kv_tokens),
            max_num_batched_tokens: configured.max_num_batched_tokens,
        }
    }
}

/// The labels of a backend that is not in a table yet.
pub fn names(config: &BackendConfig) -> BackendNames {
    BackendNames { name: config.name.as_str().into(), model_name: config.model_name.as_deref().map(Into::into) }
}

/// The backends by index.
pub struct BackendTable(Box<[ArcSwapOption<Backend>]>);

impl BackendTable {
    /// `configs` at the first of `slots` slots.
    pub fn new(configs: &[BackendConfig], slots: usize) -> Arc<Self> {
        let backend = |index| {
            let config: &BackendConfig = configs.get(index)?;
            Some(Backend::new(BackendId::from_index(index), config))
        };
        Arc::new(Self((0..slots).map(|index| ArcSwapOption::new(backend(index))).collect()))
    }

    /// Puts a backend at its index.
    pub fn set(&self, backend: Arc<Backend>) {
        if let Some(slot) = self.0.get(backend.id.index()) {
            slot.store(Some(backend));
        }
    }

    pub fn get(&self, id: BackendId) -> Option<Arc<Backend>> {
        self.0.get(id.index())?.load_full()
    }

    /// A backend's name, for a line of the log.
    pub fn name(&self, id: BackendId) -> Arc<str> {
        self.get(id).map_or_else(|| "unknown".into(), |backend| backend.config.name.as_str().into())
    }

    /// Every slot in its order, empty ones included.
    pub fn slots(&self) -> impl Iterator<Item = Option<Arc<Backend>>> {
        self.0.iter().map(ArcSwapOption::load_full)
    }

    /// The backends there are.
    pub fn iter(&self) -> impl Iterator<Item = Arc<Backend>> {
        self.slots().flatten()
    }

    /// Number of slots.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}
