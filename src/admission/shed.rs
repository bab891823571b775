//! A refusal, as a value that says when to come back.

use std::time::Duration;

/// A request that is not dispatched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shed {
    /// Why.
    pub reason: ShedReason,
    /// When to come back: whole seconds, paced so that those refused do not come back together.
    pub retry_after: Duration,
}

/// Why a request is refused by the gate or the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ShedReason {
    /// At arrival: those before it already take the time that its objective leaves.
    Saturated,
    /// In the queue: its first token would come too late.
    Deadline,
    /// The queue holds as many requests as it may.
    QueueFull,
    /// The queue holds as many bytes as it may.
    QueueBytes,
}

impl ShedReason {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Saturated, Self::Deadline, Self::QueueFull, Self::QueueBytes];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Saturated => "saturated",
            Self::Deadline => "deadline",
            Self::QueueFull => "queue_full",
            Self::QueueBytes => "queue_bytes",
        }
    }
}
