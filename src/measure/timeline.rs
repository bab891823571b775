//! The stamps of one request, and the latencies between them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::vocabulary::time::Timestamp;

/// Stamps of one request. Three moments that are easily confused are apart: the first byte of the answer, its head, and its first
/// content token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// The last byte of the request's body was read.
    pub arrived: Timestamp,
    /// Dispatched to a backend.
    pub admitted: Option<Timestamp>,
    /// First byte of the answer.
    pub first_byte: Option<Timestamp>,
    /// Head of the final answer complete.
    pub head: Option<Timestamp>,
    /// First content event.
    pub first_token: Option<Timestamp>,
    /// Last content event.
    pub last_token: Option<Timestamp>,
    /// The entry was closed.
    pub ended: Option<Timestamp>,
}

impl Timeline {
    /// A request that has just arrived.
    pub fn new(arrived: Timestamp) -> Self {
        Self { arrived, ..Self::default() }
    }

    /// Arrival to first content token.
    pub fn ttft(&self) -> Option<Duration> {
        self.first_token.map(|at| at.since(self.arrived))
    }

    /// Dispatch to first content token.
    pub fn upstream_ttft(&self) -> Option<Duration> {
        Some(self.first_token?.since(self.admitted?))
    }

    /// (last - first) / (tokens - 1), for at least two tokens.
    pub fn tpot(&self, tokens: u64) -> Option<Duration> {
        let steps = tokens.checked_sub(1).filter(|steps| *steps > 0)?;
        let nanos = self.last_token?.since(self.first_token?).as_nanos();
        Some(Duration::from_nanos(u64::try_from(nanos / u128::from(steps)).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_per_output_token_needs_two_tokens() {
        let at = |ms| Some(Timestamp::ZERO + Duration::from_millis(ms));
        let timeline = Timeline { first_token: at(100), last_token: at(400), ..Timeline::default() };
        assert_eq!(timeline.tpot(4), Some(Duration::from_millis(100)));
        assert_eq!(timeline.tpot(1), None);
        assert_eq!(timeline.tpot(0), None);
    }
}
