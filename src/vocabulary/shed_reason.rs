//! Why a request is refused before dispatch, each reason once.

use super::closed::closed;

closed! {
    /// Why weir refused a request before dispatch.
    ShedReason {
        /// Gate closed and the predicted wait leaves no time for the first-token SLO, decided at arrival.
        Saturated = "saturated",
        /// Queued, and when it is next the first token can no longer meet the SLO, or the wait limit passed.
        Deadline = "deadline",
        /// Request count limit of the queue.
        QueueFull = "queue_full",
        /// Byte limit of the queue.
        QueueBytes = "queue_bytes",
        /// No healthy backend.
        NoBackend = "no_backend",
        /// Drain has begun.
        Draining = "draining",
    }
}

impl ShedReason {
    /// Whether load was the reason, and not the lack of a backend.
    pub const fn is_congestion(self) -> bool {
        match self {
            Self::Saturated | Self::Deadline | Self::QueueFull | Self::QueueBytes => true,
            Self::NoBackend | Self::Draining => false,
        }
    }
}
