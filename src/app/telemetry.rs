//! Who is told of the ends of requests: an access log, a collector of spans, both or nobody.

use std::io;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use super::engine_monitor;
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
use crate::proxy::upstream::target::Targets;
use crate::vocabulary::backend_id::BackendId;

/// The threads behind the reports.
pub(super) struct Telemetry {
    reports: Arc<ReportSinks>,
    access: Option<JoinHandle<()>>,
    exporter: Option<Exporter>,
    sampling: Option<Sampling>,
    seen: Arc<OnceLock<engine_monitor::MonitorHandle>>,
}

impl Telemetry {
    /// Starts what the configuration asks for.
    pub fn start(config: &Config, clock: Clock, targets: &Arc<Targets>) -> io::Result<Self> {
        let mut told =
            Self { reports: Arc::default(), access: None, exporter: None, sampling: None, seen: Arc::default() };
        let mut reports = ReportSinks::default();
        if config.log.access {
            let targets = targets.clone();
            let names = move |backend| targets.of(backend).map(|target| target.name.clone());
            let (access, thread) = AccessLog::start(clock, config.log.access_rate, Box::new(names))?;
            (reports.access, told.access) = (Some(access), Some(thread));
        }
        if let Some(collector) = Collector::of(&config.otlp) {
            told.sampling = Some(Sampling::share(collector.share));
            let epoch = unix_nanos().saturating_sub(clock.now().as_nanos());
            let (spans, exporter) =
                Exporter::start(collector, places(config, clock, targets.clone(), told.seen.clone()), epoch)?;
            (reports.spans, told.exporter) = (Some(spans), Some(exporter));
        }
        told.reports = Arc::new(reports);
        Ok(told)
    }

    /// For the admin port.
    pub fn reports(&self) -> Arc<ReportSinks> {
        self.reports.clone()
    }

    /// For the data port; `None`: nobody wants to know.
    pub fn wanted(&self) -> Option<Arc<dyn measure::ReportSink>> {
        let wanted = self.access.is_some() || self.exporter.is_some();
        wanted.then(|| self.reports() as Arc<dyn measure::ReportSink>)
    }

    /// Which requests become spans.
    pub fn sampling(&self) -> Option<Sampling> {
        self.sampling
    }

    /// From now on it is known what the engines say of themselves.
    pub fn engines(&self, seen: engine_monitor::MonitorHandle) {
        let _ = self.seen.set(seen);
    }

    /// Waits for the last lines and spans, but not for long.
    pub fn finish(self) {
        let Self { reports, access, exporter, .. } = self;
        let is_last = Arc::into_inner(reports).is_some();
        if let Some(exporter) = exporter {
            exporter.finish();
        }
        // Whoever still holds a report's way here would keep the thread from ending.
        if is_last && access.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the access log's thread ended in a panic");
        }
    }
}

/// Where the backends are now, and what serves there: as their metrics show, or as it was configured at the start.
fn places(
    config: &Config,
    clock: Clock,
    targets: Arc<Targets>,
    seen: Arc<OnceLock<engine_monitor::MonitorHandle>>,
) -> SpanTargets {
    let known = |engine: EngineKind| !matches!(engine, EngineKind::Auto | EngineKind::None | EngineKind::Custom);
    let configured: Vec<(String, &'static str)> = config
        .backends
        .iter()
        .filter(|server| known(server.inside.engine))
        .map(|server| (server.name.clone(), server.inside.engine.as_str()))
        .collect();
    Box::new(move || {
        let reported = seen.get().map_or_else(Vec::new, |seen| seen.reported(clock.now(), 0.0));
        let place = |index: usize| {
            let target = targets.of(BackendId(u16::try_from(index).unwrap_or(u16::MAX)));
            let Some(target) = target else { return SpanTarget::default() };
            let named = configured.iter().find(|(name, _)| **name == *target.name).map(|(_, engine)| *engine);
            let found = || reported.get(index)?.as_ref().map(|reported| reported.engine);
            SpanTarget { engine: named.or_else(found), address: target.host.to_string(), port: target.port }
        };
        (0..targets.places()).map(place).collect()
    })
}

#[expect(clippy::disallowed_methods, reason = "collectors want the time of the world")]
fn unix_nanos() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
