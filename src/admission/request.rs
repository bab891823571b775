//! What admission knows of a request when it arrives.

use std::time::Duration;

use crate::vocabulary::class::Class;
use crate::vocabulary::time::Timestamp;

/// One request before its dispatch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdmissionRequest {
    /// When it arrived. Its deadline counts from here, whichever queue it waits in.
    pub arrived: Timestamp,
    /// Prompt tokens; an estimate from the bytes of the body where the engine did not count them.
    pub prompt: f32,
    /// Bytes of its body, held while it waits.
    pub bytes: u32,
    pub class: Class,
    /// The user it belongs to, for fair sharing inside the class.
    pub tenant: Tenant,
    /// Objective for arrival to first token; without one only `Settings::max_wait` bounds its wait.
    pub slo: Option<Duration>,
    /// Whether weir will see its first token.
    pub streamed: bool,
}

impl AdmissionRequest {
    /// A streamed request of the default class, without an objective.
    pub fn new(arrived: Timestamp, prompt: f32) -> Self {
        Self { arrived, prompt, bytes: 0, class: Class::Default, tenant: Tenant(0), slo: None, streamed: true }
    }

    /// Seconds since its arrival.
    pub(in crate::admission) fn age(&self, now: Timestamp) -> f64 {
        now.since(self.arrived).as_secs_f64()
    }
}

/// A user that shares a class with others. The proxy maps names to these numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant(pub u16);
