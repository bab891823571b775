//! Whether a backend is up: the active health check, and what its traffic shows (`passive_health`).
//!
//! The check requests the engine's health path; three failures in a row take a backend out, one success brings it
//! back. Traffic overrules it one way only: a backend that is delivering bytes is up, whatever a busy health endpoint says.
//! Passive ejection is a suspicion (dials that fail, streams that fall silent together); the pool ignores it when no other
//! backend is left, so that a wrong suspicion never makes an outage worse.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, header};

pub use super::passive_health::PassiveHealth;
use super::target::Target;
use crate::http_client::{self, AnswerBounds, ReadBody, Unanswered};
use crate::proxy::drain::DrainPhase;
use crate::proxy::end::{Break, End};
use crate::proxy::state::ProxyState;
use crate::vocabulary::backend_id::BackendId;
use crate::vocabulary::time::Timestamp;

/// How one backend is checked.
#[derive(Clone, Debug)]
pub struct HealthCheck {
    /// Path of the health endpoint, `/health` for most engines.
    pub path: String,
    /// Time between two checks.
    pub interval: Duration,
    /// A check without an answer after this long has failed.
    pub timeout: Duration,
}

/// A dial failed, and not for want of something on our side.
pub fn on_dial_failed(proxy: &ProxyState, backend: BackendId) {
    on_failure(proxy, backend, proxy.clock.now());
}

/// An exchange ended. Only an end before the first byte of an answer counts against the backend.
pub fn on_exchange_ended(proxy: &ProxyState, backend: BackendId, end: End, received: u64, now: Timestamp) {
    let passive_health = &proxy.passive_health[backend.index()];
    if let Some(cause) = end.bad_answer() {
        passive_health.bad_answers.count(cause);
    }
    match end {
        End::Broken(Break::ClosedEarly | Break::Truncated | Break::Reset | Break::Timeout) if received == 0 => {
            on_failure(proxy, backend, now)
        }
        End::Whole => passive_health.on_success(),
        End::Broken(_) | End::Late | End::ClientGone | End::ClientStalled => {}
    }
}

/// Checks one backend until the task is aborted or the process stops.
pub async fn watch(proxy: Arc<ProxyState>, backend: BackendId, check: HealthCheck) {
    let index = backend.index();
    let Some(target) = proxy.targets.of(backend) else { return };
    let passive_health = &proxy.passive_health[index];
    let mut stop = proxy.drain.watch();
    let mut misses = 0_u32;
    loop {
        let begun = proxy.clock.now();
        let checked = request_health(&target, &check).await;
        let now = proxy.clock.now();
        let alive = passive_health.last_byte_at().is_some_and(|at| at >= begun - check.interval);
        misses = if checked.is_ok() || (alive && !is_refused(&checked)) { 0 } else { misses + 1 };
        let up = misses < MISSES || (misses == MISSES && alive);
        if proxy.pool.ups().get(index) == Some(&!up) {
            tracing::warn!(backend = &*target.name, up, "a backend changed its health");
        }
        proxy.pool.set_up(backend, up, now);
        check_silence(&proxy, backend, now);
        tokio::select! {
            _ = stop.wait_for(|phase| *phase == DrainPhase::Stopped) => return,
            () = tokio::time::sleep(check.interval) => {}
        }
    }
}

/// Streams that are open, past their first token and listening, and no byte came for any of them: the engine hangs. A stream whose
/// client takes nothing does not listen, and its silence shows nothing.
fn check_silence(proxy: &ProxyState, backend: BackendId, now: Timestamp) {
    let passive_health = &proxy.passive_health[backend.index()];
    // A backend whose address has just changed has sent nothing yet: the streams that listen are those of the old one.
    let is_overdue = passive_health.last_byte_at().is_some_and(|at| now.since(at) >= SILENCE);
    let silent = proxy.pool.listening(backend) > 0 && is_overdue;
    if silent {
        eject(proxy, backend, now);
    } else if !passive_health.is_ejected(now) {
        proxy.pool.set_ejected(backend, false, now);
    }
}

fn on_failure(proxy: &ProxyState, backend: BackendId, now: Timestamp) {
    if proxy.passive_health[backend.index()].on_failure() {
        eject(proxy, backend, now);
    }
}

fn eject(proxy: &ProxyState, backend: BackendId, now: Timestamp) {
    if proxy.passive_health[backend.index()].eject(now) {
        proxy.pool.set_ejected(backend, true, now);
        tracing::warn!(backend = &*proxy.targets.name(backend), "a backend is avoided: its traffic fails");
    }
}

/// One health request. Anything below 500 is an answer: an engine without a health endpoint answers 404 and is alive.
async fn request_health(target: &Target, check: &HealthCheck) -> Result<(), Unanswered> {
    let host = target.authority.as_deref().unwrap_or(&target.host);
    let request = Request::get([&target.prefix, &*check.path].concat())
        .header(header::HOST, host)
        .body(http_body_util::Full::default())
        .map_err(|_| Unanswered::Protocol)?;
    let bounds = AnswerBounds { deadline: check.timeout, body: 0 };
    let answer = http_client::send(target.connect(), request, bounds, ReadBody::Never).await?;
    if answer.status().as_u16() < 500 { Ok(()) } else { Err(Unanswered::Status(answer.status())) }
}

fn is_refused(checked: &Result<(), Unanswered>) -> bool {
    matches!(checked, Err(Unanswered::Connection(e)) if e.kind() == io::ErrorKind::ConnectionRefused)
}

/// Failed checks in a row after which a backend is down.
const MISSES: u32 = 3;
/// No event on any open stream for this long: ten seconds is 20 times a slow engine's gap of half a second.
const SILENCE: Duration = Duration::from_secs(10);
