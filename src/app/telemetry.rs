//! The receivers of each request's report at its end: the access log and a collector of spans.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::backend_table::{Backend, BackendTable};
use crate::clock::Clock;
use crate::config::Config;
use crate::engine_metrics::settings::EngineKind;
use crate::export::access::AccessLog;
use crate::export::otlp::collector::Collector;
use crate::export::otlp::spans::SpanTarget;
use crate::export::otlp::{Exporter, SpanTargets};
use crate::export::sinks::ReportSinks;
use crate::measure;
use crate::proxy::spans::Sampling;

/// The sinks of the reports, and the threads behind them.
pub struct Telemetry {
    sinks: Arc<ReportSinks>,
    access_log: Option<JoinHandle<()>>,
    exporter: Option<Exporter>,
    sampling: Option<Sampling>,
}

impl Telemetry {
    /// Starts what the configuration asks for.
    pub fn start(config: &Config, clock: Clock, backends: &Arc<BackendTable>) -> io::Result<Self> {
        let (mut sinks, mut access_log, mut exporter, mut sampling) = (ReportSinks::default(), None, None, None);
        if config.log.access {
            let backends = backends.clone();
            let name = move |id| backends.get(id).map(|backend| backend.config.name.as_str().into());
            let (access, thread) = AccessLog::start(clock, config.log.access_rate, Box::new(name))?;
            (sinks.access, access_log) = (Some(access), Some(thread));
        }
        if let Some(collector) = Collector::of(&config.otlp) {
            sampling = Some(Sampling::share(collector.share));
            let epoch = u64::try_from(clock.epoch().as_nanos()).unwrap_or(u64::MAX);
            let (spans, started) = Exporter::start(collector, span_targets(clock, backends.clone()), epoch)?;
            (sinks.spans, exporter) = (Some(spans), Some(started));
        }
        Ok(Self { sinks: Arc::new(sinks), access_log, exporter, sampling })
    }

    /// For the admin port.
    pub fn sinks(&self) -> Arc<ReportSinks> {
        self.sinks.clone()
    }

    /// For the data port; `None` where no report is wanted.
    pub fn report_sink(&self) -> Option<Arc<dyn measure::ReportSink>> {
        let wanted = self.access_log.is_some() || self.exporter.is_some();
        wanted.then(|| self.sinks() as Arc<dyn measure::ReportSink>)
    }

    /// Which requests become spans.
    pub fn sampling(&self) -> Option<Sampling> {
        self.sampling
    }

    /// Waits for the last lines and spans, for a short time.
    pub fn finish(self) {
        let Self { sinks, access_log, exporter, .. } = self;
        let is_last = Arc::into_inner(sinks).is_some();
        if let Some(exporter) = exporter {
            exporter.finish();
        }
        // Another holder of the sinks would keep the thread from ending.
        if is_last && access_log.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the access log's thread ended in a panic");
        }
    }
}

/// Address and engine of each backend now; the engine as it is configured, else as its metrics show.
fn span_targets(clock: Clock, backends: Arc<BackendTable>) -> SpanTargets {
    let target = move |backend: &Backend| {
        let configured = backend.config.inside.engine;
        let engine = match configured {
            EngineKind::Auto | EngineKind::None | EngineKind::Custom => backend.engine.reading(clock.now()).up,
            known => Some((known, true)),
        };
        let url = &backend.config.url;
        SpanTarget { engine: engine.map(|(kind, _)| kind.as_str()), address: url.host.to_string(), port: url.port }
    };
    Box::new(move || backends.slots().map(|backend| backend.as_deref().map(&target).unwrap_or_default()).collect())
}
