//! A refusal: why, and when the client should retry.

use std::time::Duration;

use crate::vocabulary::shed_reason::ShedReason;

/// A request that was refused before its dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shed {
    pub reason: ShedReason,
    /// When to retry: whole seconds, different for each refusal so that refused clients do not return together.
    pub retry_after: Duration,
}
