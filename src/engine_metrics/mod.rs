//! The engine's own metrics, read about once a second: a second source, never a condition for a decision.
//!
//! `/metrics` and `/status` show them beside weir's own counts; estimate and control work without them. An engine without metrics is
//! no fault: it is asked again from time to time. A backend's reader publishes each reading in `LatestReading`, whose readers never
//! wait. Absent: proxy and ledger; weir's own count comes in as a function.

pub mod agreement;
pub mod client;
pub mod settings;
pub mod table;
mod text;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use self::agreement::{Accord, Judge, Own};
use self::client::Address;
use self::settings::{EngineKind, Series};
use self::table::{MetricsReport, SeriesTable};
use crate::clock::Clock;
use crate::http_client::Unanswered;
use crate::vocabulary::time::Timestamp;

/// The metrics endpoint of one backend.
#[derive(Clone, Debug)]
pub struct MetricsSource {
    /// The backend's name, for the log.
    pub name: Arc<str>,
    pub engine: EngineKind,
    pub series: Series,
    pub address: Address,
    /// Path of the exposition; absent: the engine's own.
    pub path: Option<String>,
    /// The engine's limits as they were configured.
    pub configured: ReportedLimits,
}

/// Limits of an engine that its metrics may report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportedLimits {
    /// Most sequences in one batch.
    pub max_num_seqs: Option<u32>,
    /// KV memory, in tokens.
    pub kv_tokens: Option<u32>,
}

/// How often an engine is asked.
#[derive(Clone, Copy, Debug)]
pub struct PollPace {
    /// Between two reads.
    pub interval: Duration,
    /// For one answer; a busy Python server is slow.
    pub timeout: Duration,
    /// Between two reads of a server without known metrics.
    pub rest: Duration,
}

impl Default for PollPace {
    fn default() -> Self {
        Self { interval: Duration::from_secs(1), timeout: Duration::from_secs(2), rest: Duration::from_secs(30) }
    }
}

/// One backend's latest reading.
#[derive(Debug)]
pub struct LatestReading {
    reading: ArcSwap<EngineReading>,
    freshness: Duration,
}

/// The state of one engine's own metrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineReading {
    /// The engine and whether the last read worked; `None` while no engine was recognised and none is configured.
    pub up: Option<(EngineKind, bool)>,
    /// The last good read and its time.
    pub last: Option<(Timestamp, MetricsReport)>,
    /// The time of the last good read, however old.
    pub read_at: Option<Timestamp>,
    /// The engine's limits as it last reported them, however long ago: they do not change while it runs.
    pub limits: ReportedLimits,
    pub accord: Accord,
    /// Requests that the engine had beyond weir's at the last good read.
    pub excess: Option<f64>,
}

impl LatestReading {
    /// No reading yet.
    pub fn new(pace: PollPace) -> Arc<Self> {
        Arc::new(Self { reading: ArcSwap::default(), freshness: pace.interval * INTERVALS })
    }

    /// The reading at `now`; a report older than three intervals is left out.
    pub fn reading(&self, now: Timestamp) -> EngineReading {
        let mut reading = (**self.reading.load()).clone();
        let stale = reading.last.is_none_or(|(at, _)| now.since(at) > self.freshness);
        if stale {
            (reading.last, reading.accord, reading.excess) = (None, Accord::Unjudged, None);
        }
        reading
    }
}

/// Reads one engine's metrics until the task ends. `own` counts weir's requests in flight there.
pub async fn watch(
    source: MetricsSource,
    latest: Arc<LatestReading>,
    pace: PollPace,
    clock: Clock,
    own: impl Fn() -> u32,
) {
    let mut reader = MetricsReader::new(source);
    loop {
        let before = own();
        let asked = reader.ask(pace).await;
        let reading = reader.take(asked, Own { before, after: own() }, clock.now());
        latest.reading.store(Arc::new(reading));
        tokio::time::sleep(if reader.rests() { pace.rest } else { pace.interval }).await;
    }
}

/// One backend's reader between two reads.
struct MetricsReader {
    source: MetricsSource,
    paths: Vec<String>,
    /// Index of the path to read next.
    next_path: usize,
    judge: Judge,
    reading: EngineReading,
    /// Bad reads in a row.
    misses: u32,
    warned: Option<Timestamp>,
    /// The configured limits that the engine's last report contradicts.
    contradicted: ReportedLimits,
}

/// Why a read gave no report.
#[derive(Debug, thiserror::Error)]
enum Miss {
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    #[error("no series of a known engine in it")]
    Strange,
}

impl MetricsReader {
    fn new(source: MetricsSource) -> Self {
        let paths = match &source.path {
            Some(path) => vec![path.clone()],
            None => source.engine.paths().iter().map(|path| (*path).to_owned()).collect(),
        };
        let configured = !matches!(source.engine, EngineKind::Auto | EngineKind::None);
        let reading = EngineReading { up: configured.then_some((source.engine, false)), ..EngineReading::default() };
        Self {
            source,
            paths,
            next_path: 0,
            judge: Judge::default(),
            reading,
            misses: 0,
            warned: None,
            contradicted: ReportedLimits::default(),
        }
    }

    async fn ask(&self, pace: PollPace) -> Result<(EngineKind, MetricsReport), Miss> {
        let path = self.paths.get(self.next_path % self.paths.len().max(1)).map_or("/metrics", String::as_str);
        let body = client::ask(&self.source.address, path, pace.timeout).await?;
        let engine = match self.source.engine {
            EngineKind::Auto => SeriesTable::recognise(&body).ok_or(Miss::Strange)?,
            known => known,
        };
        let table = SeriesTable::of(engine, &self.source.series).ok_or(Miss::Strange)?;
        Ok((engine, table.read(&body).ok_or(Miss::Strange)?))
    }

    fn take(&mut self, asked: Result<(EngineKind, MetricsReport), Miss>, own: Own, now: Timestamp) -> EngineReading {
        match asked {
            Ok((engine, report)) => self.on_report(engine, report, own, now),
            Err(miss) => self.on_miss(&miss, now),
        }
        self.reading.clone()
    }

    fn on_report(&mut self, engine: EngineKind, report: MetricsReport, own: Own, now: Timestamp) {
        let backend = &*self.source.name;
        if self.reading.up != Some((engine, true)) {
            tracing::info!(backend, engine = engine.as_str(), "the engine's own metrics are read");
        }
        (self.misses, self.warned) = (0, None);
        let contradicted = self.source.configured.contradicted_by(&report);
        if contradicted != self.contradicted && contradicted != ReportedLimits::default() {
            let (reported_seqs, reported_kv_tokens) = (report.max_num_seqs, report.kv_tokens);
            tracing::warn!(
                backend,
                reported_seqs,
                reported_kv_tokens,
                "the engine reports other limits than the configuration; the configured ones are used"
            );
        }
        self.contradicted = contradicted;
        let changed = self.judge.on_read(&report, own);
        let excess = agreement::excess(&report, own);
        self.reading = EngineReading {
            up: Some((engine, true)),
            last: Some((now, report)),
            read_at: Some(now),
            limits: ReportedLimits::of(&report),
            accord: self.judge.accord(),
            excess,
        };
        match changed {
            Some(Accord::ForeignLoad) => {
                tracing::warn!(backend, excess, "the engine has more requests than came through here: foreign load");
            }
            Some(Accord::Fewer) => {
                tracing::warn!(backend, excess, "the engine has fewer requests than are in flight here");
            }
            Some(_) => tracing::info!(backend, "the engine's own count agrees with weir's"),
            None => {}
        }
    }

    fn on_miss(&mut self, miss: &Miss, now: Timestamp) {
        self.misses = self.misses.saturating_add(1);
        if !matches!(miss, Miss::Unanswered(Unanswered::Connection(_) | Unanswered::Late)) {
            self.next_path = self.next_path.wrapping_add(1);
        }
        let backend = &*self.source.name;
        let Some((engine, up)) = &mut self.reading.up else {
            if self.misses == TRIES {
                tracing::info!(backend, reason = %miss, "the engine has no metrics that weir knows; nothing depends on them");
            }
            return;
        };
        *up = false;
        if self.warned.is_none_or(|last| now.since(last) >= REMIND) {
            self.warned = Some(now);
            let engine = engine.as_str();
            tracing::warn!(backend, engine, reason = %miss, "the engine's own metrics cannot be read");
        }
    }

    /// Whether the server failed so often that it is read more rarely.
    fn rests(&self) -> bool {
        self.misses >= TRIES
    }
}

impl EngineKind {
    /// Paths of its exposition, in the order of preference.
    pub const fn paths(self) -> &'static [&'static str] {
        match self {
            Self::Auto => &["/metrics", "/prometheus/metrics"],
            Self::TrtllmServe => &["/prometheus/metrics"],
            _ => &["/metrics"],
        }
    }

    /// The port of its metrics, where that is not the port of its API.
    pub const fn metrics_port(self) -> Option<u16> {
        match self {
            Self::Triton => Some(8002),
            _ => None,
        }
    }
}

impl ReportedLimits {
    /// The limits of a report.
    pub fn of(report: &MetricsReport) -> Self {
        let whole = |limit: Option<f64>| limit.filter(|limit| *limit <= f64::from(u32::MAX)).map(|limit| limit as u32);
        Self { max_num_seqs: whole(report.max_num_seqs), kv_tokens: whole(report.kv_tokens) }
    }

    /// Those of `self` that the report contradicts.
    fn contradicted_by(self, report: &MetricsReport) -> Self {
        let reported = Self::of(report);
        let far = |mine: Option<u32>, theirs: Option<u32>| {
            mine.filter(|mine| theirs.is_some_and(|theirs| f64::from(mine.abs_diff(theirs)) > NEAR * f64::from(theirs)))
        };
        Self {
            max_num_seqs: far(self.max_num_seqs, reported.max_num_seqs),
            kv_tokens: far(self.kv_tokens, reported.kv_tokens),
        }
    }
}

/// Intervals for which a report is shown.
const INTERVALS: u32 = 3;
/// Bad reads in a row before an engine is read more rarely.
const TRIES: u32 = 6;
/// Between two log lines about a lasting failure.
const REMIND: Duration = Duration::from_secs(600);
/// Limits this close are the same: engines round KV memory to blocks.
const NEAR: f64 = 0.02;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_and_far_limits_contradict_the_configuration() {
        let configured = ReportedLimits { max_num_seqs: Some(64), kv_tokens: Some(100_000) };
        let report = |seqs, tokens| MetricsReport { max_num_seqs: seqs, kv_tokens: tokens, ..MetricsReport::default() };
        assert_eq!(configured.contradicted_by(&report(Some(64.0), Some(99_008.0))), ReportedLimits::default());
        assert_eq!(configured.contradicted_by(&report(None, None)), ReportedLimits::default());
        let contradicted = configured.contradicted_by(&report(Some(32.0), Some(60_000.0)));
        assert_eq!(contradicted, configured);
        assert_eq!(ReportedLimits::default().contradicted_by(&report(Some(32.0), None)), ReportedLimits::default());
        assert_eq!(
            ReportedLimits::of(&report(Some(f64::MAX), Some(7.0))),
            ReportedLimits { max_num_seqs: None, kv_tokens: Some(7) }
        );
    }
}
