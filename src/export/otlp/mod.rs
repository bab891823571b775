//! OTLP: spans of requests, sent to a collector over http/protobuf. Off unless a collector is configured.
//!
//! A task that ends a request sends its report and never waits (`sink`). A thread with a runtime of its own makes spans of the
//! reports and posts them in batches; a collector that is down, slow or hangs costs spans and nothing else, and an exit waits at
//! most 500 ms for it. Messages are those of `opentelemetry-proto`; there is no SDK behind them, because a span is complete when
//! it is made.

pub mod collector;
mod post;
pub mod spans;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use prost::Message;
use tokio::sync::{mpsc, watch};

use self::collector::Collector;
use self::post::{PAUSES, Posted, post};
use self::spans::SpanTarget;
use super::sink::{LostCount, Sink};
use crate::measure::RequestReport;

/// The sending side.
#[derive(Clone, Debug)]
pub struct Spans {
    sink: Sink<mpsc::Sender<Box<RequestReport>>>,
    counts: Arc<SpanCounters>,
}

/// The posting thread.
#[derive(Debug)]
pub struct Exporter {
    thread: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

/// Spans by what happened to them; counters only grow.
#[derive(Debug, Default)]
struct SpanCounters {
    offered: AtomicU64,
    sent: AtomicU64,
    failed: AtomicU64,
}

/// Spans up to a moment, by what happened to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpanCounts {
    /// Accepted by the collector.
    pub sent: u64,
    /// Dropped because the queue was full.
    pub dropped: u64,
    /// Not accepted by the collector, or not in time.
    pub failed: u64,
}

type Batch = Vec<Box<RequestReport>>;

/// The address of each backend, by its index.
pub type SpanTargets = Box<dyn Fn() -> Vec<SpanTarget> + Send>;

impl Spans {
    /// Sends a report, or drops it and counts its spans.
    pub fn offer(&self, report: Box<RequestReport>) {
        let spans = spans::count(&report);
        self.counts.offered.fetch_add(spans, Relaxed);
        self.sink.offer_as(report, spans);
    }

    /// The spans so far.
    pub fn counts(&self) -> SpanCounts {
        let SpanCounters { sent, failed, .. } = &*self.counts;
        SpanCounts { sent: sent.load(Relaxed), dropped: self.sink.lost(), failed: failed.load(Relaxed) }
    }
}

impl Exporter {
    /// Starts the thread that posts to `collector`. `epoch` is the Unix time in nanoseconds of the zero of the reports' stamps.
    ///
    /// # Errors
    /// The runtime or the thread cannot be started.
    pub fn start(collector: Collector, targets: SpanTargets, epoch: u64) -> std::io::Result<(Spans, Self)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (sink, receiver) = Sink::asynchronous(CAPACITY);
        let (stop, stopped) = watch::channel(false);
        let counts = Arc::new(SpanCounters::default());
        let lost = sink.lost_count();
        let sending = Sending { collector, targets, epoch, counts: counts.clone(), lost, stopped, failing: false };
        let thread = std::thread::Builder::new().name("weir-otlp".into()).spawn(move || {
            runtime.block_on(sending.run(receiver));
            // A resolver that hangs does not delay the exit.
            runtime.shutdown_background();
        })?;
        Ok((Spans { sink, counts }, Self { thread, stop }))
    }

    /// Lets the thread post what is left, for at most 500 ms, and waits for its end.
    pub fn finish(self) {
        let _ = self.stop.send(true);
        if self.thread.join().is_err() {
            tracing::error!("the thread that sends spans ended in a panic");
        }
    }
}

struct Sending {
    collector: Collector,
    targets: SpanTargets,
    epoch: u64,
    counts: Arc<SpanCounters>,
    lost: LostCount,
    stopped: watch::Receiver<bool>,
    /// Set by the first failure, cleared by the next success: one WARN for each stretch of failures.
    failing: bool,
}

impl Sending {
    async fn run(mut self, mut reports: mpsc::Receiver<Box<RequestReport>>) {
        let (counts, lost, mut stopped) = (self.counts.clone(), self.lost.clone(), self.stopped.clone());
        let over = async move {
            let _ = stopped.wait_for(|stop| *stop).await;
            tokio::time::sleep(EXIT_GRACE).await;
        };
        tokio::select! {
            () = self.send_all(&mut reports) => {}
            () = over => {}
        }
        // Every span without a result so far is lost.
        let SpanCounters { offered, sent, failed } = &*counts;
        let settled = sent.load(Relaxed) + lost.get() + failed.load(Relaxed);
        failed.fetch_add(offered.load(Relaxed).saturating_sub(settled), Relaxed);
    }

    async fn send_all(&mut self, reports: &mut mpsc::Receiver<Box<RequestReport>>) {
        let mut batch = Batch::new();
        while reports.recv_many(&mut batch, BATCH).await > 0 {
            self.gather(reports, &mut batch).await;
            let spans = batch.iter().map(|report| spans::count(report)).sum();
            let message = self.message(&batch);
            batch.clear();
            self.send(message, spans).await;
        }
    }

    /// A batch fills for a while, so that a request a second is not a message a second.
    async fn gather(&mut self, reports: &mut mpsc::Receiver<Box<RequestReport>>, batch: &mut Batch) {
        let mut stopped = self.stopped.clone();
        let filling = async { while batch.len() < BATCH && reports.recv_many(batch, BATCH).await > 0 {} };
        tokio::select! {
            () = filling => {}
            () = tokio::time::sleep(BATCH_AGE) => {}
            _ = stopped.wait_for(|stop| *stop) => {}
        }
    }

    async fn send(&mut self, message: Bytes, spans: u64) {
        let mut pauses = PAUSES.into_iter();
        loop {
            match post(&self.collector, message.clone()).await {
                Posted::Accepted(answer) => return self.on_accepted(&answer, spans),
                Posted::Refused(status) => {
                    self.on_lost(spans, Some(status.as_u16()));
                    return;
                }
                Posted::Later => {}
            }
            let Some(pause) = pauses.next().filter(|_| !*self.stopped.borrow()) else {
                self.on_lost(spans, None);
                return;
            };
            let mut stopped = self.stopped.clone();
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stopped.wait_for(|stop| *stop) => {}
            }
        }
    }

    fn on_accepted(&mut self, answer: &[u8], spans: u64) {
        let partial = ExportTraceServiceResponse::decode(answer).ok().and_then(|answer| answer.partial_success);
        let rejected = partial.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0)).min(spans);
        self.counts.sent.fetch_add(spans - rejected, Relaxed);
        self.counts.failed.fetch_add(rejected, Relaxed);
        if std::mem::take(&mut self.failing) {
            tracing::info!("spans are taken again");
        }
    }

    fn on_lost(&mut self, spans: u64, status: Option<u16>) {
        self.counts.failed.fetch_add(spans, Relaxed);
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(status, "the collector does not take spans, they are lost until it does");
        }
    }

    fn message(&self, batch: &[Box<RequestReport>]) -> Bytes {
        let targets = (self.targets)();
        let unknown = SpanTarget::default();
        let spans = batch.iter().filter_map(|report| {
            let target = targets.get(report.backend_id.index()).unwrap_or(&unknown);
            Some(spans::of(report, report.span?, target, self.epoch, rand::random))
        });
        let scope_spans =
            ScopeSpans { scope: Some(scope()), spans: spans.flatten().collect(), ..ScopeSpans::default() };
        let resource_spans = ResourceSpans {
            resource: Some(resource(&self.collector)),
            scope_spans: vec![scope_spans],
            ..ResourceSpans::default()
        };
        ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec().into()
    }
}

fn resource(collector: &Collector) -> Resource {
    let attributes = collector.resource.iter().map(|(key, value)| spans::text(key, value)).collect();
    Resource { attributes, ..Resource::default() }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "weir".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..InstrumentationScope::default()
    }
}

/// Reports that wait to be sent, of some 300 bytes each; the OpenTelemetry SDK's default.
const CAPACITY: usize = 2048;
/// Reports in one message; the OpenTelemetry SDK's default.
const BATCH: usize = 512;
/// The longest time for which a batch fills.
const BATCH_AGE: Duration = Duration::from_secs(1);
/// How long an exit waits for a collector.
const EXIT_GRACE: Duration = Duration::from_millis(500);
