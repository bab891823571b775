//! A refusal, as a value that says when to come back.

use std::time::Duration;

use crate::vocabulary::shed_reason::ShedReason;

/// A request that is not dispatched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shed {
    /// Why.
    pub reason: ShedReason,
    /// When to come back: whole seconds, paced so that those refused do not come back together.
    pub retry_after: Duration,
}
