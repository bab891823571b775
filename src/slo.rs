//! What a good request is.

use std::time::Duration;

/// The objectives of one request; both are upper limits, in seconds of wall time as the client feels them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slo {
    /// Arrival to first content token.
    pub ttft: Duration,
    /// Gap between content events divided by the tokens in the event, mean over the request.
    pub itl: Duration,
}

impl Default for Slo {
    fn default() -> Self {
        Self { ttft: Duration::from_secs(1), itl: Duration::from_millis(200) }
    }
}
