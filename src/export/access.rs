//! The access log: one line for every request that ends, written by a thread of its own.
//!
//! A task that ends a request sends its report and never waits (`sink`). The thread limits the rate of lines, with one allowance
//! for completed requests and a smaller one for failed ones, and logs how many it left out. Absent: the form of a line
//! (`logging`), and the path, query and headers of a request: no report holds them.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::Duration;

use super::sink::Sink;
use crate::clock::Clock;
use crate::measure::{Closed, RequestReport, UnmeasuredRequest};
use crate::vocabulary::backend_id::BackendId;
use crate::vocabulary::bad_answer::BadAnswer;
use crate::vocabulary::time::Timestamp;

/// The sending side.
#[derive(Clone, Debug)]
pub struct AccessLog(Sink<SyncSender<AccessRecord>>);

/// A request that has ended.
#[derive(Debug)]
enum AccessRecord {
    Closed(Box<RequestReport>),
    Unmeasured(UnmeasuredRequest),
}

impl AccessLog {
    /// Starts the thread; it ends when every `AccessLog` is gone. It writes at most `rate` lines a second of each kind, and looks
    /// up names of backends with `backends`.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(clock: Clock, rate: u32, backends: BackendNameOf) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (sink, receiver) = Sink::blocking(CAPACITY);
        let writer = AccessWriter {
            clock,
            backends,
            completed: Allowance::new(rate, rate),
            failed: Allowance::new(rate.min(FAILURES_A_SECOND), rate.min(FAILURE_BURST)),
        };
        let thread = std::thread::Builder::new().name("weir-access".into()).spawn(move || writer.run(&receiver))?;
        Ok((Self(sink), thread))
    }

    /// A measured request has ended.
    pub fn closed(&self, report: Box<RequestReport>) {
        self.0.offer(AccessRecord::Closed(report));
    }

    /// A request that is not measured has ended.
    pub fn unmeasured(&self, report: UnmeasuredRequest) {
        self.0.offer(AccessRecord::Unmeasured(report));
    }

    /// Requests without a line because the channel was full.
    pub fn lost(&self) -> u64 {
        self.0.lost()
    }
}

/// The present name of a backend; `None`: it was removed.
pub type BackendNameOf = Box<dyn Fn(BackendId) -> Option<Arc<str>> + Send>;

struct AccessWriter {
    clock: Clock,
    backends: BackendNameOf,
    completed: Allowance,
    failed: Allowance,
}

impl AccessWriter {
    fn run(mut self, receiver: &Receiver<AccessRecord>) {
        loop {
            match receiver.recv_timeout(QUIET) {
                Ok(ended) => self.on_end(&ended),
                Err(RecvTimeoutError::Timeout) => self.log_skipped(),
                Err(RecvTimeoutError::Disconnected) => return self.log_skipped(),
            }
        }
    }

    fn on_end(&mut self, ended: &AccessRecord) {
        let now = self.clock.now();
        let kind = if ended.is_well() { &mut self.completed } else { &mut self.failed };
        let Some(skipped) = kind.take(now) else { return };
        let skipped = (skipped > 0).then_some(skipped);
        match ended {
            AccessRecord::Closed(report) => write(report, skipped),
            AccessRecord::Unmeasured(report) => self.write_unmeasured(report, skipped),
        }
    }

    fn write_unmeasured(&self, report: &UnmeasuredRequest, skipped: Option<u64>) {
        let backend = report.backend.and_then(&self.backends);
        tracing::info!(
            target: "weir::access",
            request_id = report.request_id.as_deref(),
            backend = backend.as_deref(),
            status = report.status,
            outcome = report.outcome,
            duration_ms = report.took.map(milliseconds),
            bad_answer = report.bad_answer.map(BadAnswer::as_str),
            skipped,
            "request finished"
        );
    }

    /// Logs how many lines were left out since the last one.
    fn log_skipped(&mut self) {
        for (kind, allowance) in [("completed", &mut self.completed), ("failed", &mut self.failed)] {
            let skipped = std::mem::take(&mut allowance.skipped);
            if skipped > 0 {
                tracing::info!(target: "weir::access", kind, skipped, "requests were left out of the access log");
            }
        }
    }
}

fn write(report: &RequestReport, skipped: Option<u64>) {
    let timeline = &report.timeline;
    let ended = timeline.ended.unwrap_or(timeline.arrived);
    let waited = timeline.admitted.unwrap_or(ended).since(timeline.arrived);
    let reason = if let Closed::Shed(reason) = report.closed { Some(reason.as_str()) } else { None };
    tracing::info!(
        target: "weir::access",
        request_id = &*report.request_id,
        backend = &*report.backend,
        model_name = &*report.model,
        priority = report.priority.as_str(),
        dialect = report.dialect,
        stream = report.stream,
        status = report.status,
        outcome = report.closed.as_str(),
        bad_answer = report.bad_answer.map(BadAnswer::as_str),
        reason,
        queue_wait_ms = milliseconds(waited),
        upstream_ttft_ms = timeline.upstream_ttft().map(milliseconds),
        ttft_ms = timeline.ttft().map(milliseconds),
        duration_ms = milliseconds(ended.since(timeline.arrived)),
        input_tokens = report.input_tokens,
        output_tokens = report.output_tokens,
        stalls = report.stalls,
        retries = report.retries,
        skipped,
        "request finished"
    );
}

impl AccessRecord {
    fn is_well(&self) -> bool {
        match self {
            Self::Closed(report) => report.closed.is_well(),
            Self::Unmeasured(report) => report.status != 0 && report.status < 400,
        }
    }
}

/// A token bucket for lines of one kind.
#[derive(Debug)]
struct Allowance {
    rate: f64,
    burst: f64,
    left: f64,
    since: Timestamp,
    skipped: u64,
}

impl Allowance {
    fn new(rate: u32, burst: u32) -> Self {
        let burst = f64::from(burst.max(1));
        Self { rate: f64::from(rate), burst, left: burst, since: Timestamp::ZERO, skipped: 0 }
    }

    /// `Some`: a line may be written; the number says how many before it were left out.
    fn take(&mut self, now: Timestamp) -> Option<u64> {
        self.left = (self.left + now.since(self.since).as_secs_f64() * self.rate).min(self.burst);
        self.since = now;
        if self.left < 1.0 {
            self.skipped += 1;
            return None;
        }
        self.left -= 1.0;
        Some(std::mem::take(&mut self.skipped))
    }
}

fn milliseconds(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}

/// Some seconds of a busy process while standard error is blocked.
const CAPACITY: usize = 8192;
/// A burst of refusals is a few hundred lines and then a count: thousands of lines a second say nothing more.
const FAILURE_BURST: u32 = 200;
const FAILURES_A_SECOND: u32 = 20;
/// After this long without a request, the count of lines left out is logged.
const QUIET: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn lines_above_the_rate_are_left_out_and_counted() {
        let mut allowance = Allowance::new(10, 10);
        let written = (0..1000).filter(|_| allowance.take(at(0)).is_some()).count();
        assert_eq!((written, allowance.skipped), (10, 990));
        assert_eq!((allowance.take(at(50)), allowance.take(at(110))), (None, Some(991)));
        assert_eq!(allowance.take(at(5000)), Some(0), "and below the rate none is");
        assert_eq!((0..100).filter(|n| allowance.take(at(6000 + n * 100)).is_some()).count(), 100);
    }
}
