//! What a request says of itself when it asks to be dispatched.

use std::time::Duration;

use crate::vocabulary::class::Class;
use crate::vocabulary::time::Timestamp;

/// One request before the gate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdmissionRequest {
    /// When it arrived; its deadline counts from here, wherever it waits.
    pub arrived: Timestamp,
    /// Prompt tokens, as good as they are known.
    pub prompt: f32,
    /// Of its body, held while it waits.
    pub bytes: u32,
    /// In which line it stands.
    pub class: Class,
    /// Whose it is, for sharing inside the class.
    pub tenant: Tenant,
    /// Objective for arrival to first token; without one only the settings' `max_wait` bounds its wait.
    pub slo: Option<Duration>,
    /// Whether a first token will be seen.
    pub streamed: bool,
}

impl AdmissionRequest {
    /// A streamed request of the default class, of nobody in particular.
    pub fn new(arrived: Timestamp, prompt: f32) -> Self {
        Self { arrived, prompt, bytes: 0, class: Class::Default, tenant: Tenant(0), slo: None, streamed: true }
    }

    /// Seconds since it arrived.
    pub(in crate::admission) fn age(&self, now: Timestamp) -> f64 {
        now.since(self.arrived).as_secs_f64()
    }
}

/// A small number for whoever shares a class with others; names are mapped to it elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant(pub u16);
