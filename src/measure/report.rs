//! The report of one closed request: its stamps, lengths and end, for the access log and the exporter of spans.
//!
//! Without either of them a request carries no [`ReportContext`]. A report holds no content: of all that a client sent, only the
//! request's id. A sink never makes the statistics wait.

use std::sync::Arc;

use super::timeline::Timeline;
use crate::vocabulary::backend_id::BackendId;
use crate::vocabulary::bad_answer::BadAnswer;
use crate::vocabulary::class::Class;
use crate::vocabulary::outcome::Outcome;
use crate::vocabulary::shed_reason::ShedReason;

/// Receives the reports of ended requests. Called inside the critical section of the statistics: it passes a report on and works
/// elsewhere.
pub trait ReportSink: Send + Sync {
    /// A request was closed.
    fn closed(&self, report: Box<RequestReport>);

    /// A request that is not measured has ended.
    fn unmeasured(&self, report: UnmeasuredRequest);
}

/// What a request carries for its report.
pub struct ReportContext {
    to: Arc<dyn ReportSink>,
    request_id: Box<str>,
    span: Option<SpanIds>,
    /// 0: that of the backend's head.
    pub(super) client_status: u16,
    pub(super) stalls: u32,
    pub(super) retries: u32,
    pub(super) bad_answer: Option<BadAnswer>,
}

/// A request's ids in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanIds {
    pub trace: [u8; 16],
    /// The caller's span; `None`: the trace begins here.
    pub parent: Option<[u8; 8]>,
    /// Of the whole request.
    pub server: [u8; 8],
    /// Of its time at the backend, which gets it in `traceparent`.
    pub upstream: [u8; 8],
    /// As in `traceparent`.
    pub flags: u8,
}

/// One closed request.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestReport {
    pub request_id: Box<str>,
    pub span: Option<SpanIds>,
    pub backend_id: BackendId,
    /// As in the labels of the metrics.
    pub backend: Arc<str>,
    pub model: Arc<str>,
    pub priority: Class,
    pub dialect: &'static str,
    /// The client asked for a stream.
    pub stream: bool,
    /// The status that the client got; 499: it had left.
    pub status: u16,
    pub closed: Closed,
    pub timeline: Timeline,
    pub input_tokens: Option<u64>,
    pub output_tokens: u64,
    pub stalls: u32,
    pub retries: u32,
    /// The rule that the backend's answer broke.
    pub bad_answer: Option<BadAnswer>,
}

/// How a request was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    Shed(ShedReason),
    /// The client left before it was dispatched.
    Abandoned,
    Finished(Outcome),
}

/// A request outside the statistics: no inference, or malformed.
#[derive(Clone, Debug, PartialEq)]
pub struct UnmeasuredRequest {
    /// Absent where the head could not be read.
    pub request_id: Option<Box<str>>,
    /// Absent where no backend was involved.
    pub backend: Option<BackendId>,
    pub status: u16,
    /// The access log's word for its end.
    pub outcome: &'static str,
    pub took: Option<std::time::Duration>,
    /// The rule that the backend's answer broke.
    pub bad_answer: Option<BadAnswer>,
}

impl ReportContext {
    /// For a request called `request_id`.
    pub fn new(to: Arc<dyn ReportSink>, request_id: Box<str>, span: Option<SpanIds>) -> Box<Self> {
        Box::new(Self { to, request_id, span, client_status: 0, stalls: 0, retries: 0, bad_answer: None })
    }

    /// The request was closed; `rest` makes the report.
    pub(super) fn close(self, rest: impl FnOnce(Self) -> RequestReport) {
        let to = self.to.clone();
        to.closed(Box::new(rest(self)));
    }

    /// The request's id and its ids in a trace.
    pub(super) fn into_names(self) -> (Box<str>, Option<SpanIds>) {
        (self.request_id, self.span)
    }
}

impl Closed {
    /// One word, as in the access log and in spans.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shed(_) => "shed",
            Self::Abandoned => "abandoned",
            Self::Finished(outcome) => outcome.as_str(),
        }
    }

    /// It was served completely.
    pub const fn is_well(self) -> bool {
        matches!(self, Self::Finished(Outcome::Completed))
    }
}

/// Status of a request whose client had left.
pub const CLIENT_LEFT: u16 = 499;
