//! OTLP: spans of requests, sent to a collector over http/protobuf. Off unless a target is named.
//!
//! Whoever ends a request hands its report over and never waits; one that finds the queue full is dropped and counted. A thread
//! with a runtime of its own makes spans of the reports and sends them in batches; a collector that is dead, slow or hangs costs
//! spans and nothing else, and an exit waits for it a moment at most. Messages are those of `opentelemetry-proto`; there is no
//! SDK behind them, because every span is known only when it has ended.

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
use crate::measure::RequestReport;

/// The handing-over side.
#[derive(Clone, Debug)]
pub struct Spans {
    sender: mpsc::Sender<Box<RequestReport>>,
    counts: Arc<SpanCounters>,
}

/// The sending thread.
#[derive(Debug)]
pub struct Exporter {
    thread: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

/// What became of spans; counters only grow.
#[derive(Debug, Default)]
struct SpanCounters {
    offered: AtomicU64,
    sent: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

/// What became of spans up to a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpanCounts {
    /// Taken by the collector.
    pub sent: u64,
    /// Found the queue full.
    pub dropped: u64,
    /// Not taken by the collector, in time or at all.
    pub failed: u64,
}

/// As they came through the queue.
type Batch = Vec<Box<RequestReport>>;

/// Where each backend is, by its place in the configuration.
pub type SpanTargets = Box<dyn Fn() -> Vec<SpanTarget> + Send>;

impl Spans {
    /// Hands a report over, or drops and counts it.
    pub fn offer(&self, report: Box<RequestReport>) {
        let spans = spans::count(&report);
        self.counts.offered.fetch_add(spans, Relaxed);
        if self.sender.try_send(report).is_err() {
            self.counts.dropped.fetch_add(spans, Relaxed);
        }
    }

    /// What became of spans so far.
    pub fn counts(&self) -> SpanCounts {
        let SpanCounters { sent, dropped, failed, .. } = &*self.counts;
        SpanCounts { sent: sent.load(Relaxed), dropped: dropped.load(Relaxed), failed: failed.load(Relaxed) }
    }
}

impl Exporter {
    /// Starts the thread that sends to `collector`. `epoch` is the Unix time in nanoseconds at which the clock of the reports stood at
    /// zero.
    ///
    /// # Errors
    /// The runtime or the thread cannot be started.
    pub fn start(collector: Collector, places: SpanTargets, epoch: u64) -> std::io::Result<(Spans, Self)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (sender, receiver) = mpsc::channel(CAPACITY);
        let (stop, stopped) = watch::channel(false);
        let counts = Arc::new(SpanCounters::default());
        let sending = Sending { collector, places, epoch, counts: counts.clone(), stopped, away: false };
        let thread = std::thread::Builder::new().name("weir-otlp".into()).spawn(move || {
            runtime.block_on(sending.run(receiver));
            // A resolver that hangs does not hold up the exit.
            runtime.shutdown_background();
        })?;
        Ok((Spans { sender, counts }, Self { thread, stop }))
    }

    /// Lets it send what is left, for a moment, and waits for its end.
    pub fn finish(self) {
        let _ = self.stop.send(true);
        if self.thread.join().is_err() {
            tracing::error!("the thread that sends spans ended in a panic");
        }
    }
}

struct Sending {
    collector: Collector,
    places: SpanTargets,
    epoch: u64,
    counts: Arc<SpanCounters>,
    stopped: watch::Receiver<bool>,
    /// Said once for each stretch in which nothing was taken.
    away: bool,
}

impl Sending {
    async fn run(mut self, mut reports: mpsc::Receiver<Box<RequestReport>>) {
        let (counts, mut stopped) = (self.counts.clone(), self.stopped.clone());
        let over = async move {
            let _ = stopped.wait_for(|stop| *stop).await;
            tokio::time::sleep(LAST_WORDS).await;
        };
        tokio::select! {
            () = self.send_all(&mut reports) => {}
            () = over => {}
        }
        // Whatever was not told of is lost.
        let SpanCounters { offered, sent, dropped, failed } = &*counts;
        let told = sent.load(Relaxed) + dropped.load(Relaxed) + failed.load(Relaxed);
        failed.fetch_add(offered.load(Relaxed).saturating_sub(told), Relaxed);
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
                Posted::Taken(said) => return self.on_taken(&said, spans),
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

    fn on_taken(&mut self, said: &[u8], spans: u64) {
        let partial = ExportTraceServiceResponse::decode(said).ok().and_then(|said| said.partial_success);
        let refused = partial.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0)).min(spans);
        self.counts.sent.fetch_add(spans - refused, Relaxed);
        self.counts.failed.fetch_add(refused, Relaxed);
        if std::mem::take(&mut self.away) {
            tracing::info!("spans are taken again");
        }
    }

    fn on_lost(&mut self, spans: u64, status: Option<u16>) {
        self.counts.failed.fetch_add(spans, Relaxed);
        if !std::mem::replace(&mut self.away, true) {
            tracing::warn!(status, "the collector does not take spans, they are lost until it does");
        }
    }

    fn message(&self, batch: &[Box<RequestReport>]) -> Bytes {
        let places = (self.places)();
        let unknown = SpanTarget::default();
        let spans = batch.iter().filter_map(|report| {
            let place = places.get(report.backend_id.index()).unwrap_or(&unknown);
            Some(spans::of(report, report.span?, place, self.epoch, rand::random))
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

/// Reports that wait to be sent, of some 300 bytes each; the SDK's own number.
const CAPACITY: usize = 2048;
/// Reports in one message; the SDK's own number.
const BATCH: usize = 512;
/// How long a batch fills.
const BATCH_AGE: Duration = Duration::from_secs(1);
/// How long an exit waits for a collector.
const LAST_WORDS: Duration = Duration::from_millis(500);
