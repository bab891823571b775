//! Is a backend up? Asked actively, and seen in the traffic.
//!
//! The active check asks the engine's health path; three failures in a row take a backend out, one success brings it
//! back. Traffic overrules it one way only: a backend that is delivering bytes is up, whatever a busy health endpoint says.
//! Passive ejection is a suspicion (dials that fail, streams that fall silent together); the pool ignores it when nobody
//! else is left, so that a wrong suspicion never makes a bad day worse.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::{Request, header};

use super::bad_answers::BadAnswerTally;
use super::target::Target;
use crate::http_client::{self, AnswerBounds, ReadBody, Unanswered};
use crate::proxy::drain::DrainPhase;
use crate::proxy::end::{Break, End};
use crate::proxy::state::ProxyState;
use crate::vocabulary::backend_id::BackendId;
use crate::vocabulary::time::Timestamp;

/// How one backend is asked.
#[derive(Clone, Debug)]
pub struct HealthCheck {
    /// Path of the health endpoint, `/health` for most engines.
    pub path: String,
    /// Time between two questions.
    pub interval: Duration,
    /// A question without an answer after this long has failed.
    pub timeout: Duration,
}

impl PassiveHealth {
    /// Another backend stands at this place.
    pub fn reset(&self) {
        self.heard.store(0, Relaxed);
        self.failures.store(0, Relaxed);
        self.ejected_until.store(0, Relaxed);
        self.ejections.store(0, Relaxed);
        self.bad_answers.reset();
    }
}

/// What traffic has told about one backend.
#[derive(Debug, Default)]
pub struct PassiveHealth {
    /// When the backend last sent a byte, in nanoseconds of the proxy's clock; 0: never.
    heard: AtomicU64,
    /// Failures in a row, before any byte of an answer.
    failures: AtomicU32,
    /// Nanoseconds at which the ejection ends; 0: not ejected.
    ejected_until: AtomicU64,
    /// Ejections in a row, for the back-off.
    ejections: AtomicU32,
    pub bad_answers: BadAnswerTally,
}

impl PassiveHealth {
    /// The backend sent something at `at`.
    pub fn on_heard(&self, at: Timestamp) {
        self.heard.store(at.as_nanos(), Relaxed);
    }

    /// When the backend last sent something.
    pub fn heard(&self) -> Timestamp {
        Timestamp::from_nanos(self.heard.load(Relaxed))
    }
}

/// A dial failed, and not for want of something on our side.
pub fn on_dial_failed(proxy: &ProxyState, backend: BackendId) {
    on_failure(proxy, backend, proxy.clock.now());
}

/// An exchange ended. Only what the backend did without saying a byte counts against it.
pub fn on_exchange_ended(proxy: &ProxyState, backend: BackendId, end: End, received: u64, now: Timestamp) {
    if let Some(cause) = end.bad_answer() {
        proxy.passive_health[backend.index()].bad_answers.count(cause);
    }
    match end {
        End::Broken(Break::ClosedEarly | Break::Truncated | Break::Reset | Break::Timeout) if received == 0 => {
            on_failure(proxy, backend, now)
        }
        End::Whole => {
            let passive_health = &proxy.passive_health[backend.index()];
            if passive_health.failures.load(Relaxed) != 0 || passive_health.ejections.load(Relaxed) != 0 {
                passive_health.failures.store(0, Relaxed);
                passive_health.ejections.store(0, Relaxed);
            }
        }
        End::Broken(_) | End::Late | End::ClientGone | End::ClientStalled => {}
    }
}

/// Asks one backend for as long as it is one.
pub async fn watch(proxy: Arc<ProxyState>, backend: BackendId, check: HealthCheck) {
    let index = backend.index();
    let Some(target) = proxy.targets.of(backend) else { return };
    let passive_health = &proxy.passive_health[index];
    let mut stop = proxy.drain.watch();
    let mut misses = 0_u32;
    loop {
        let asked = proxy.clock.now();
        let healthy = ask(&target, &check).await;
        let now = proxy.clock.now();
        let alive = passive_health.heard() >= asked - check.interval && passive_health.heard() > Timestamp::ZERO;
        misses = if healthy.is_ok() || (alive && !is_refused(&healthy)) { 0 } else { misses + 1 };
        let up = misses < MISSES || (misses == MISSES && alive);
        if proxy.pool.ups().get(index) == Some(&!up) {
            tracing::warn!(backend = &*target.name, up, "a backend changed its health");
        }
        proxy.pool.set_up(backend, up, now);
        judge_silence(&proxy, backend, now);
        tokio::select! {
            _ = stop.wait_for(|phase| *phase == DrainPhase::Stopped) => return,
            () = tokio::time::sleep(check.interval) => {}
        }
    }
}

/// Streams that are open, past their first token and listening, and not one of them has heard anything: the engine hangs. A
/// stream whose client takes nothing does not listen, and its silence says nothing.
fn judge_silence(proxy: &ProxyState, backend: BackendId, now: Timestamp) {
    let passive_health = &proxy.passive_health[backend.index()];
    // Whose address has just changed was not heard yet: the streams that listen are those of the old one.
    let heard = Some(passive_health.heard()).filter(|heard| *heard > Timestamp::ZERO);
    let silent = proxy.pool.listening(backend) > 0 && heard.is_some_and(|heard| now.since(heard) >= SILENCE);
    if silent {
        eject(proxy, backend, now);
    } else if passive_health.ejected_until.load(Relaxed) <= now.as_nanos() {
        proxy.pool.set_ejected(backend, false, now);
    }
}

fn on_failure(proxy: &ProxyState, backend: BackendId, now: Timestamp) {
    let passive_health = &proxy.passive_health[backend.index()];
    if passive_health.failures.fetch_add(1, Relaxed) + 1 >= FAILURES {
        eject(proxy, backend, now);
    }
}

fn eject(proxy: &ProxyState, backend: BackendId, now: Timestamp) {
    let passive_health = &proxy.passive_health[backend.index()];
    if passive_health.ejected_until.load(Relaxed) > now.as_nanos() {
        return;
    }
    let times = passive_health.ejections.fetch_add(1, Relaxed).min(EJECTION_DOUBLINGS);
    let until = now + EJECTION * 2_u32.pow(times);
    passive_health.ejected_until.store(until.as_nanos(), Relaxed);
    passive_health.failures.store(FAILURES - 1, Relaxed);
    proxy.pool.set_ejected(backend, true, now);
    tracing::warn!(backend = &*proxy.targets.name(backend), "a backend is avoided: its traffic fails");
}

/// One question. Anything below 500 is an answer: an engine without a health endpoint says 404 and is alive.
async fn ask(target: &Target, check: &HealthCheck) -> Result<(), Unanswered> {
    let host = target.authority.as_deref().unwrap_or(&target.host);
    let request = Request::get([&target.prefix, &*check.path].concat())
        .header(header::HOST, host)
        .body(http_body_util::Full::default())
        .map_err(|_| Unanswered::Protocol)?;
    let bounds = AnswerBounds { deadline: check.timeout, body: 0 };
    let answer = http_client::send(target.connect(), request, bounds, ReadBody::Never).await?;
    if answer.status().as_u16() < 500 { Ok(()) } else { Err(Unanswered::Status(answer.status())) }
}

fn is_refused(asked: &Result<(), Unanswered>) -> bool {
    matches!(asked, Err(Unanswered::Connection(e)) if e.kind() == io::ErrorKind::ConnectionRefused)
}

/// Failed questions in a row after which a backend is down.
const MISSES: u32 = 3;
/// Failed requests in a row after which a backend is avoided.
const FAILURES: u32 = 3;
/// First ejection; each further one in a row is twice as long.
const EJECTION: Duration = Duration::from_secs(5);
const EJECTION_DOUBLINGS: u32 = 5;
/// No event on any open stream for this long: ten seconds is 20 times a slow engine's gap of half a second.
const SILENCE: Duration = Duration::from_secs(10);
