//! The process as the admin port reads and changes it.

use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;

use super::engine_monitor::MonitorHandle;
use super::reload::Reloader;
use crate::export::access::AccessLog;
use crate::export::gate_status::GateStatus;
use crate::export::journal::JournalSender;
use crate::export::otlp::Spans;
use crate::export::sinks::ReportSinks;
use crate::export::{self, AdminBackend, Mode, ProcessState, ReadinessCheck, Reloaded};
use crate::probe::run::Prober;
use crate::proxy::drain::DrainPhase;
use crate::proxy::settings::DrainSettings;
use crate::proxy::state::ProxyState;
use crate::vocabulary::backend_id::BackendId;

/// The parts of the process that the admin port needs.
pub struct ProcessAdmin {
    pub proxy: Arc<ProxyState>,
    pub journal: Option<JournalSender>,
    pub sinks: Arc<ReportSinks>,
    pub drain: Arc<ArcSwap<DrainSettings>>,
    /// Weak: the pages must not keep the process's parts alive when it ends.
    pub reloader: Weak<Reloader>,
    pub monitor: MonitorHandle,
    /// Absent where no token guards it.
    pub prober: Option<Prober>,
}

impl ProcessAdmin {
    fn gates(&self) -> Vec<GateStatus> {
        let (pool, now) = (&self.proxy.pool, self.proxy.clock.now());
        let gate = |backend| {
            Some(GateStatus {
                limits: pool.limits(backend)?,
                queued_bytes: pool.gauges(backend).queued_bytes,
                slo_ttft: self.proxy.ledger.slo().ttft.as_secs_f64(),
                would_shed: self.monitor.would_shed(backend, now),
            })
        };
        (0..pool.len()).map(BackendId::from_index).filter_map(gate).collect()
    }
}

impl AdminBackend for ProcessAdmin {
    fn state(&self) -> ProcessState {
        let (proxy, now) = (&self.proxy, self.proxy.clock.now());
        let reloads = self.reloader.upgrade().map(|reloader| reloader.counts());
        let epoch = proxy.clock.epoch().as_secs_f64();
        ProcessState {
            mode: proxy.rules.load().mode(),
            up: proxy.pool.ups(),
            bad_answers: proxy.passive_health.iter().map(|seen| seen.bad_answers.counts()).collect(),
            connections: proxy.facts.open_connections.load(Relaxed),
            accept_errors: proxy.facts.accept_errors.load(Relaxed),
            panics: proxy.facts.panics.load(Relaxed),
            body_memory: proxy.memory.used() as u64,
            journal: self.journal.as_ref().map(JournalSender::counts),
            spans: self.sinks.spans.as_ref().map(Spans::counts),
            log_lost: export::stderr::lost(),
            access_lost: self.sinks.access.as_ref().map(AccessLog::lost),
            reload_accepted: reloads.is_none_or(|reloads| reloads.accepted),
            reload_accepted_at: reloads.map_or(0.0, |reloads| reloads.accepted_at),
            reloads: reloads.map_or((0, 0), |reloads| (reloads.accepts, reloads.refusals)),
            epoch,
            estimates: self.monitor.estimates(now),
            gates: self.gates(),
            engine_reports: self.monitor.engine_reports(now, epoch),
            gpus: self.monitor.gpus(now),
        }
    }

    fn config(&self) -> String {
        self.reloader.upgrade().map(|reloader| reloader.describe()).unwrap_or_default()
    }

    fn readiness(&self) -> Vec<ReadinessCheck> {
        vec![
            ReadinessCheck { name: "not draining".into(), passed: !self.is_draining() },
            ReadinessCheck { name: "a backend is up".into(), passed: self.proxy.pool.ups().contains(&true) },
        ]
    }

    fn mode(&self) -> Mode {
        self.proxy.rules.load().mode()
    }

    fn set_mode(&self, mode: Mode) {
        let policy = self.proxy.rules.load();
        let before = policy.mode();
        policy.set_mode(mode);
        tracing::warn!(from = before.as_str(), to = mode.as_str(), "the mode was switched");
    }

    fn reload(&self) -> Result<Reloaded, String> {
        let reloader = self.reloader.upgrade().ok_or_else(|| "the process is ending".to_owned())?;
        reloader.reload("POST")
    }

    fn begin_drain(&self) {
        let (drain, settings) = (self.proxy.drain.clone(), self.drain.load_full());
        // This runs in the admin port's runtime, which lives until every worker has ended.
        if drain.begin() {
            tracing::info!(by = "admin", "draining");
            tokio::spawn(async move {
                let empty = drain.run(settings.min_delay, settings.timeout).await;
                if drain.phase() != DrainPhase::Serving {
                    tracing::info!(empty, "drained");
                }
            });
        }
    }

    fn cancel_drain(&self) -> bool {
        let cancelled = self.proxy.drain.undrain();
        if cancelled {
            tracing::info!("the drain was cancelled");
        }
        cancelled
    }

    fn is_draining(&self) -> bool {
        self.proxy.drain.phase() != DrainPhase::Serving
    }

    fn in_flight(&self) -> usize {
        self.proxy.drain.underway()
    }

    fn drained(&self) -> Pin<Box<dyn Future<Output = bool> + Send>> {
        let drain = self.proxy.drain.clone();
        Box::pin(async move { drain.drained().await })
    }

    fn probe(&self) -> Option<&dyn export::probe::ProbeControl> {
        self.prober.as_ref().map(|prober| prober as _)
    }
}
