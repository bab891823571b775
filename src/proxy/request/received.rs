//! A request that has arrived whole, and what is known of it.

use std::time::Duration;

use super::hints::TrustedHints;
use super::request_id::RequestId;
use super::upstream_request::UpstreamRequest;
use crate::http1::Version;
use crate::measure::SpanIds;
use crate::proxy::local_reply::LocalReply;
use crate::vocabulary::time::Timestamp;
use crate::wire::reassemble::streamed;
use crate::wire::{ApiFamily, Dialect, Endpoint, RequestShape, Route, is_path, route};

/// A request that has arrived whole.
pub(in crate::proxy) struct Request {
    pub upstream_request: UpstreamRequest,
    /// What the client said in `Host`.
    pub host: Box<[u8]>,
    pub id: RequestId,
    pub path: PathKind,
    /// `None`: it is not measured.
    pub shape: Option<RequestShape>,
    pub hints: TrustedHints,
    /// Its spans, if its trace is recorded.
    pub span: Option<Box<SpanIds>>,
    /// For its first token; `None`: none.
    pub slo_ttft: Option<Duration>,
    /// The last byte was read.
    pub arrived: Timestamp,
    /// The client wants the answer whole, and the backend is asked for a stream all the same.
    pub assembling: Option<Dialect>,
    /// How long it waited in the queue.
    pub queued: Duration,
    pub version: Version,
    pub is_head: bool,
    /// The client's connection may carry another request.
    pub keep_alive: bool,
    /// What leaves must say how long the body is, even when it is empty.
    pub has_length: bool,
}

/// What the path says.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) enum PathKind {
    Inference(Endpoint),
    PassThrough,
    NotHere,
}

impl Request {
    /// The backend streams the answer, as far as the request decides that.
    pub fn is_streamed(&self) -> bool {
        self.assembling.is_some() || self.shape.as_ref().is_some_and(|shape| shape.stream)
    }

    /// Asks for a stream instead of a whole answer, if that can be put together again.
    ///
    /// # Errors
    /// There is no memory for the body that is a little longer now.
    pub fn ask_for_stream(&mut self) -> Result<(), LocalReply> {
        let Some(shape) = self.shape.as_ref().filter(|shape| !shape.stream) else { return Ok(()) };
        if self.upstream_request.body_len() > LONGEST_TURNED {
            return Ok(());
        }
        if let Some(body) = streamed(&self.upstream_request.body(), shape.dialect) {
            self.assembling = Some(shape.dialect);
            self.upstream_request.replace_body(&body)?;
        }
        Ok(())
    }

    /// Whose form an answer of ours takes.
    pub fn family(&self) -> ApiFamily {
        self.shape.as_ref().map_or_else(|| self.path.family(), |shape| shape.dialect.family())
    }

    /// Two debug events: the request was read, and it is known what it is.
    pub fn trace_kind(&self) {
        tracing::debug!(request_id = %self.id, body_bytes = self.upstream_request.body_len(), "request received");
        tracing::debug!(
            request_id = %self.id,
            kind = self.path.as_str(),
            dialect = self.shape.as_ref().map(|shape| shape.dialect.as_str()),
            priority = self.hints.class.as_str(),
            stream = self.shape.as_ref().map(|shape| shape.stream),
            "request classified"
        );
    }
}

impl PathKind {
    pub fn of(method: &[u8], target: &[u8], passes_metrics: bool) -> Self {
        match route(method, target, b"") {
            Route::Inference(endpoint) => Self::Inference(endpoint),
            Route::PassThrough if !passes_metrics && is_path(target, b"/metrics") => Self::NotHere,
            Route::PassThrough => Self::PassThrough,
        }
    }

    pub fn family(self) -> ApiFamily {
        match self {
            Self::Inference(endpoint) => endpoint.family(),
            Self::PassThrough | Self::NotHere => ApiFamily::OpenAi,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Inference(_) => "measured",
            Self::PassThrough => "passed",
            Self::NotHere => "not_here",
        }
    }
}

/// A longer body is not copied for it.
const LONGEST_TURNED: usize = 4 << 20;
