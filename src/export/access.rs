//! One log line per finished request, when the operator asks for it.
//!
//! Fields only, and only ours: no query, no body, no header value, no client address. It is formatted after the last byte,
//! on the worker's thread. It holds no measurement of its own.

use std::time::Duration;

/// What the line says. Durations go out in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Access<'a> {
    /// Wire dialect of the request.
    pub dialect: &'static str,
    /// Model name as the ledger's catalog has it, so folded into `other` beyond the bound.
    pub model: &'a str,
    /// The backend's configured name.
    pub backend: &'a str,
    /// Status sent; 0 when nothing was.
    pub status: u16,
    /// Outcome or shed reason, as the metrics spell it.
    pub outcome: &'static str,
    /// Whether the client asked for a stream.
    pub stream: bool,
    /// Arrival to admission.
    pub queue_wait: Duration,
    /// Arrival to first content token, if one came.
    pub ttft: Option<Duration>,
    /// Arrival to the last byte.
    pub duration: Duration,
    /// Prompt tokens, when the engine said so.
    pub input_tokens: Option<u64>,
    /// Output tokens, reported or counted.
    pub output_tokens: Option<u64>,
}

impl Access<'_> {
    /// Writes the line at INFO under the target `weir::access`.
    pub fn log(&self) {
        tracing::info!(
            target: "weir::access",
            dialect = self.dialect,
            model = self.model,
            backend = self.backend,
            status = self.status,
            outcome = self.outcome,
            stream = self.stream,
            queue_wait_s = self.queue_wait.as_secs_f64(),
            ttft_s = self.ttft.map(|span| span.as_secs_f64()),
            duration_s = self.duration.as_secs_f64(),
            input_tokens = self.input_tokens,
            output_tokens = self.output_tokens,
            "finished"
        );
    }
}
