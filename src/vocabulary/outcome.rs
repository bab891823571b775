//! The closed lists of what can happen to a request, as docs/operate/metrics.md names them.
//!
//! Every list has `ALL`, `as_str` (the label value) and `index` (the position in a counter array), so that a counter family
//! is an array and a label is never looked up. It holds no counters and no decisions.

use super::closed::closed;

closed! {
    /// How an admitted request ended.
    Outcome {
        /// Complete response relayed, upstream status below 500 and not 429.
        Completed = "completed",
        /// The client disconnected after dispatch.
        ClientCancelled = "client_cancelled",
        /// Late abort: weir closed the upstream request because the first token missed its SLO.
        Deadline = "deadline",
        /// The upstream answered 429 or 5xx, or sent an error event inside a stream.
        UpstreamError = "upstream_error",
        /// Connect, head or between-event time limit passed.
        UpstreamTimeout = "upstream_timeout",
        /// Connection refused, reset or broken in the middle.
        UpstreamReset = "upstream_reset",
        /// Clean end of the body with a choice unfinished and no terminal event.
        UpstreamTruncated = "upstream_truncated",
    }
}

closed! {
    /// The phase a request was in when its client disconnected.
    AbandonPhase {
        /// In weir's queue, never dispatched.
        Queue = "queue",
        /// At the backend, no content token seen.
        Prefill = "prefill",
        /// At the backend, after the first content token.
        Decode = "decode",
    }
}

closed! {
    /// The phase of an in-flight request.
    Phase {
        /// No content token seen yet.
        Prefill = "prefill",
        /// First content token seen.
        Decode = "decode",
    }
}

closed! {
    /// Class of the status sent to the client.
    CodeClass {
        /// 2xx; the rare 1xx and 3xx of an engine are counted here too, since the metric has no class for them.
        Ok2xx = "2xx",
        /// 4xx.
        Client4xx = "4xx",
        /// 5xx.
        Server5xx = "5xx",
        /// Nothing was sent.
        None = "none",
    }
}

closed! {
    /// Why an admitted stream ended before any content token.
    NoTokenReason {
        /// Completed without content.
        Empty = "empty",
        /// The upstream answered 4xx.
        ClientError = "client_error",
        /// The client disconnected first.
        ClientCancelled = "client_cancelled",
        /// Late abort.
        Deadline = "deadline",
        /// See `Outcome::UpstreamError`.
        UpstreamError = "upstream_error",
        /// See `Outcome::UpstreamTimeout`.
        UpstreamTimeout = "upstream_timeout",
        /// See `Outcome::UpstreamReset`.
        UpstreamReset = "upstream_reset",
        /// See `Outcome::UpstreamTruncated`.
        UpstreamTruncated = "upstream_truncated",
    }
}

closed! {
    /// Why another upstream attempt was made.
    RetryReason {
        /// The connection could not be made.
        Connect = "connect",
        /// A pooled connection turned out to be closed before any response byte.
        StaleConnection = "stale_connection",
    }
}

closed! {
    /// Status of a request that was refused as malformed and never entered the ledger.
    MalformedReason {
        /// 400.
        BadRequest = "400",
        /// 405.
        Method = "405",
        /// 408, slow head or body.
        Timeout = "408",
        /// 411.
        Length = "411",
        /// 413.
        BodyTooLarge = "413",
        /// 414.
        TargetTooLong = "414",
        /// 417.
        Expectation = "417",
        /// 431.
        HeadTooLarge = "431",
        /// 501.
        NotImplemented = "501",
        /// 505.
        Version = "505",
        /// 508.
        Loop = "508",
        /// Any other status.
        Other = "other",
    }
}

closed! {
    /// The objectives a request is judged against.
    Objective {
        /// Arrival to first content token.
        Ttft = "ttft",
        /// Mean time per output token after the first.
        Itl = "itl",
        /// Arrival to last byte, against TTFT objective + (tokens - 1) x ITL objective.
        E2e = "e2e",
        /// Whether the request was served at all.
        Availability = "availability",
    }
}

closed! {
    /// Whether one objective was met.
    ObjectiveResult {
        /// Within the objective.
        Met = "met",
        /// Outside the objective.
        Missed = "missed",
    }
}

closed! {
    /// Where an output length comes from.
    TokenSource {
        /// The engine's own `usage`.
        Usage = "usage",
        /// Counted by weir: running counts where the events carry them, else one token a content event.
        Chunks = "chunks",
    }
}

closed! {
    /// How a request left weir's queue.
    QueueExit {
        /// Dispatched.
        Admitted = "admitted",
        /// Refused.
        Shed = "shed",
        /// Its client disconnected.
        Abandoned = "abandoned",
    }
}

closed! {
    /// The direction in which a queued request moved when another backend took it.
    Direction {
        /// From another backend's queue.
        In = "in",
        /// To another backend's queue.
        Out = "out",
    }
}

closed! {
    /// The two parts of the time that weir itself adds.
    OverheadStage {
        /// Body read to bytes at the upstream socket, queue excluded.
        Request = "request",
        /// First upstream byte read to first byte written to the client.
        FirstByte = "first_byte",
    }
}

impl Outcome {
    /// Whether a request with this outcome can have sent this class of status. Export creates these label pairs at 0.
    ///
    /// Wider than the "usual" column of docs/operate/metrics.md: a body can break off, or its client leave, whatever the status.
    pub const fn can_end_with(self, code: CodeClass) -> bool {
        match (self, code) {
            (Self::Completed, CodeClass::Ok2xx | CodeClass::Client4xx)
            | (Self::ClientCancelled | Self::UpstreamError, _)
            | (Self::Deadline, CodeClass::Ok2xx | CodeClass::Server5xx)
            | (Self::UpstreamTimeout | Self::UpstreamReset | Self::UpstreamTruncated, CodeClass::Ok2xx)
            | (Self::UpstreamTimeout | Self::UpstreamReset, CodeClass::Client4xx | CodeClass::Server5xx)
            | (Self::UpstreamTruncated, CodeClass::Client4xx | CodeClass::Server5xx) => true,
            (Self::Completed, CodeClass::Server5xx | CodeClass::None)
            | (Self::Deadline, CodeClass::Client4xx | CodeClass::None)
            | (Self::UpstreamTimeout | Self::UpstreamReset | Self::UpstreamTruncated, CodeClass::None) => false,
        }
    }
}

impl CodeClass {
    /// Class of a status; 0 means that nothing was sent.
    pub const fn of_status(status: u16) -> Self {
        match status {
            0 => Self::None,
            1..=399 => Self::Ok2xx,
            400..=499 => Self::Client4xx,
            _ => Self::Server5xx,
        }
    }
}

impl NoTokenReason {
    /// The reason of a stream that ended with this outcome and class without a content token.
    pub const fn of(outcome: Outcome, code: CodeClass) -> Self {
        match outcome {
            Outcome::Completed => match code {
                CodeClass::Client4xx => Self::ClientError,
                CodeClass::Ok2xx | CodeClass::Server5xx | CodeClass::None => Self::Empty,
            },
            Outcome::ClientCancelled => Self::ClientCancelled,
            Outcome::Deadline => Self::Deadline,
            Outcome::UpstreamError => Self::UpstreamError,
            Outcome::UpstreamTimeout => Self::UpstreamTimeout,
            Outcome::UpstreamReset => Self::UpstreamReset,
            Outcome::UpstreamTruncated => Self::UpstreamTruncated,
        }
    }
}

impl MalformedReason {
    /// The reason that stands for a refusal with this status.
    pub const fn of_status(status: u16) -> Self {
        match status {
            400 => Self::BadRequest,
            405 => Self::Method,
            408 => Self::Timeout,
            411 => Self::Length,
            413 => Self::BodyTooLarge,
            414 => Self::TargetTooLong,
            417 => Self::Expectation,
            431 => Self::HeadTooLarge,
            501 => Self::NotImplemented,
            505 => Self::Version,
            508 => Self::Loop,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_is_the_position_in_all() {
        assert!(Outcome::ALL.iter().enumerate().all(|(i, o)| o.index() == i));
        assert!(MalformedReason::ALL.iter().enumerate().all(|(i, o)| o.index() == i));
    }

    #[test]
    fn json_uses_the_label_value() {
        assert_eq!(serde_json::to_string(&Outcome::UpstreamReset).unwrap(), "\"upstream_reset\"");
        assert_eq!(serde_json::from_str::<CodeClass>("\"2xx\"").unwrap(), CodeClass::Ok2xx);
    }

    #[test]
    fn a_completed_request_cannot_have_sent_nothing() {
        assert!(!Outcome::Completed.can_end_with(CodeClass::None));
        assert!(Outcome::ClientCancelled.can_end_with(CodeClass::None));
    }

    #[test]
    fn status_of_malformed_and_label_agree() {
        for reason in MalformedReason::ALL {
            if let Ok(status) = reason.as_str().parse() {
                assert_eq!(MalformedReason::of_status(status), reason);
            }
        }
        assert_eq!(MalformedReason::of_status(499), MalformedReason::Other);
    }
}
