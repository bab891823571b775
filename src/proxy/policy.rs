//! What the proxy itself decides of a request: the objective of its route, when it is given up, how a refusal is sent.
//!
//! How many requests run at a time is decided in `admission`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::local_reply::LocalReply;
use super::request::hints::{Tenants, TrustedHints};
use super::request::received::Request;
use crate::admission::pool::Refused;
use crate::admission::{AdmissionRequest, Mode, Shed};
use crate::vocabulary::shed_reason::ShedReason;
use crate::vocabulary::time::Timestamp;
use crate::wire::is_path;

/// The rules of the data port.
#[derive(Debug)]
pub struct RequestPolicy {
    /// For the first token, of requests whose route has no objective of its own.
    pub slo_ttft: Option<Duration>,
    /// Objectives of routes, by path; `None` is none.
    pub routes: Box<[(Box<str>, Option<Duration>)]>,
    /// Most that a request without an objective waits.
    pub max_wait: Duration,
    /// A dispatched request without a first token is given up at its objective.
    pub late_abort: bool,
    /// Status of a refusal for want of capacity.
    pub shed_status: u16,
    /// Answers that clients want whole are streamed from the backends and put together.
    pub reassemble: bool,
    pub tenants: Arc<Tenants>,
    enforcing: Arc<AtomicBool>,
}

impl RequestPolicy {
    /// Rules with one objective for all routes.
    pub fn new(mode: Mode, slo_ttft: Option<Duration>) -> Self {
        Self {
            slo_ttft,
            routes: Box::default(),
            max_wait: Duration::from_secs(30),
            late_abort: true,
            shed_status: 429,
            reassemble: true,
            tenants: Arc::default(),
            enforcing: Arc::new(AtomicBool::new(mode == Mode::Enforce)),
        }
    }

    /// Replaces `others`: keeps their mode and their numbers of tenants.
    #[must_use]
    pub fn after(mut self, others: &Self) -> Self {
        (self.tenants, self.enforcing) = (others.tenants.clone(), others.enforcing.clone());
        self
    }

    /// Whether the gate's decision is enforced.
    pub fn mode(&self) -> Mode {
        if self.enforcing.load(Relaxed) { Mode::Enforce } else { Mode::Observe }
    }

    /// Switches; the limits follow at the next tick.
    pub fn set_mode(&self, mode: Mode) {
        self.enforcing.store(mode == Mode::Enforce, Relaxed);
    }

    /// The objective of the route at `target`.
    pub fn route(&self, target: &[u8]) -> Option<Duration> {
        let own = self.routes.iter().find(|(path, _)| is_path(target, path.as_bytes()));
        own.map_or(self.slo_ttft, |(_, slo)| *slo)
    }

    /// What a measured request asks admission for.
    pub(super) fn ask(&self, request: &Request) -> Option<AdmissionRequest> {
        let shape = request.shape.as_ref()?;
        let TrustedHints { class, tenant, .. } = request.hints;
        Some(AdmissionRequest {
            arrived: request.arrived,
            prompt: shape.prompt_tokens_estimate().unwrap_or(UNKNOWN_PROMPT) as f32,
            bytes: u32::try_from(request.upstream_request.body_len()).unwrap_or(u32::MAX),
            class,
            tenant,
            slo: request.slo_ttft,
            streamed: request.is_streamed(),
        })
    }

    /// How long a request may wait from its arrival.
    pub(super) fn longest_wait(&self, ask: &AdmissionRequest) -> Duration {
        ask.slo.unwrap_or(self.max_wait)
    }

    /// When a dispatched request is given up if it has no first token by then.
    pub(super) fn give_up_at(&self, request: &Request) -> Option<Timestamp> {
        let enforced = self.late_abort && self.mode() == Mode::Enforce;
        let slo = request.slo_ttft.filter(|_| enforced && request.is_streamed())?;
        Some(request.arrived + slo)
    }

    /// A refusal of admission, as it is sent to the client.
    pub(super) fn reply(&self, refused: Refused) -> LocalReply {
        match refused {
            Refused::NoBackend => LocalReply::shed(ShedReason::NoBackend),
            Refused::Shed(Shed { reason, retry_after }) => LocalReply::Shed {
                reason,
                status: self.shed_status,
                retry_after: u16::try_from(retry_after.as_secs()).unwrap_or(u16::MAX).max(1),
            },
        }
    }
}

/// Images and sound: a usual prompt, for want of a better guess.
const UNKNOWN_PROMPT: u64 = 1_000;
