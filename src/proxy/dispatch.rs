//! A request's attempt: to a backend, its answer back, and the books closed.
//!
//! With a pooled connection in hand a request is offered and admitted in one step. Without one it is dialled for, and that
//! seldom way is boxed. The exchange itself happens at most twice: a pooled connection that dies before it has said anything
//! is replaced once.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;

use super::accounting::{account, move_to, offer};
use super::client_io::write_all;
use super::connection::{AfterRequest, Connection, WRITE_PATIENCE};
use super::drain;
use super::end::{Break, End};
use super::exchange::{Exchange, ExchangeCx};
use super::io::Io;
use super::listener::is_exhausted;
use super::local_reply::{LocalReply, error_event};
use super::queue_wait::is_gone;
use super::request::reader::{PathKind, Request};
use super::response::tap::Tap;
use super::spans::caption;
use super::state::{HookPoint, ProxyState};
use super::timer::Timer;
use super::upstream::health;
use super::upstream::target::Target;
use crate::admission::pool::{Acquire, Permit, Refused};
use crate::admission::{AdmissionRequest, Mode};
use crate::http1::Version;
use crate::measure::{Entry, Outcome, RetryReason, ShedReason, UnmeasuredRequest};
use crate::vocabulary::backend_id::BackendId;
use crate::vocabulary::time::Timestamp;

/// A connection to a backend, and the books of the request that is about to use it.
struct Attempt {
    link: UpstreamConnection,
    backend: BackendId,
    tap: Tap,
    /// The place of a request that is not measured; else the tap has it.
    _permit: Option<Permit>,
}

/// A connection to a backend.
struct UpstreamConnection {
    stream: TcpStream,
    /// Where it leads.
    target: Arc<Target>,
    /// It comes from the pool.
    reused: bool,
    /// Nothing was tried again so far.
    may_retry: bool,
    /// When it was in hand.
    since: Timestamp,
    /// The same, less what weir had worked on the request before.
    begun: Timestamp,
}

/// Why a request reached no backend.
pub(super) enum Unserved {
    ClientGone,
    Refused(LocalReply),
}

impl Connection<'_> {
    /// Finds a backend, relays, and closes the books. `Err`: the client is still to be told.
    pub(super) async fn pass<D: Io>(
        &mut self,
        client: &mut D,
        timer: &mut Timer<'_>,
        request: &mut Request,
    ) -> Result<AfterRequest, LocalReply> {
        let worker = self.worker;
        let proxy = &*worker.proxy;
        let ask = self.may_ask(request)?;
        let now = proxy.clock.now();
        let turn = match ask {
            Some(ask) => proxy.pool.arrive(ask, None, now),
            None => proxy.pool.pass(None).map_or(Acquire::Refused(BackendId(0), Refused::NoBackend), Acquire::Granted),
        };
        let idle = |permit: &Permit| {
            let target = proxy.targets.of(permit.backend())?;
            Some((worker.idle.take(permit.backend(), &target, now)?, target))
        };
        let mut attempt = match turn {
            Acquire::Refused(backend, refused) => {
                return Err(self.shed(request, backend, proxy.rules.load().reply(refused)));
            }
            Acquire::Granted(permit) if let Some((stream, target)) = idle(&permit) => {
                let link = UpstreamConnection {
                    stream,
                    target,
                    reused: true,
                    may_retry: true,
                    since: now,
                    begun: request.arrived,
                };
                self.begin(request, link, permit, None, now)
            }
            turn => match Box::pin(self.acquire(client, timer, request, ask, turn, now)).await {
                Ok(attempt) => attempt,
                Err(Unserved::ClientGone) => return Ok(AfterRequest::Close),
                Err(Unserved::Refused(reply)) => return Err(reply),
            },
        };
        (proxy.test_hook)(HookPoint::Dispatched);
        let target = attempt.link.target.clone();
        let (patience, limits) = (proxy.rules.load().patience(request), proxy.limits.load_full());
        let mut exchange = Exchange::new(attempt.link.since, attempt.link.begun).with_patience(patience);
        let end = loop {
            let host = target.authority.as_deref().map_or(&*request.host, str::as_bytes);
            request.upstream_request.address(&target.prefix, host, request.id.made(), request.has_length);
            let end = poll_fn(|cx| {
                let mut exchange_cx = ExchangeCx {
                    worker,
                    target: &target,
                    limits: &limits,
                    passive_health: &proxy.passive_health[attempt.backend.index()],
                    read_ahead: &mut self.read_ahead,
                    timer,
                    request,
                };
                exchange.step(cx, client, &mut attempt.link.stream, &mut attempt.tap, &mut exchange_cx)
            });
            let end = end.await;
            let now = proxy.clock.now();
            if !attempt.is_stale(&exchange, end, now) || !proxy.retries.spend(now) {
                break end;
            }
            attempt.link.may_retry = false;
            if let Some(entry) = attempt.tap.entry_mut() {
                entry.retry(RetryReason::StaleConnection);
            }
            match Box::pin(self.dial(client, timer, attempt.backend, &target, proxy.clock.now())).await {
                Ok(stream) => (attempt.link.stream, attempt.link.reused) = (stream, false),
                Err(End::ClientGone) => break End::ClientGone,
                Err(_) => break end,
            }
            let now = proxy.clock.now();
            exchange = Exchange::new(now, now).with_patience(patience);
        };
        (proxy.test_hook)(HookPoint::Ended);
        match self.conclude(request, attempt, exchange, end)? {
            Conclusion::Next(next) => Ok(next),
            Conclusion::Broken => {
                client.reset_on_drop();
                Ok(AfterRequest::Close)
            }
            Conclusion::Event(event) => Box::pin(self.say(client, timer, &event)).await,
        }
    }

    /// Whether the request may ask for a place at all, and what for.
    fn may_ask(&self, request: &mut Request) -> Result<Option<AdmissionRequest>, LocalReply> {
        let proxy = self.proxy();
        let lame = proxy.drain.phase() >= drain::DrainPhase::Lame;
        if lame {
            request.keep_alive = false;
        }
        if matches!(request.path, PathKind::NotHere) {
            return Err(LocalReply::NotHere);
        }
        if lame {
            return Err(self.shed(request, proxy.pool.first(), LocalReply::shed(ShedReason::Draining)));
        }
        let rules = proxy.rules.load();
        if rules.reassemble && rules.mode() == Mode::Enforce {
            request.ask_for_stream().inspect_err(|reply| self.refused(Some(request), *reply))?;
        }
        Ok(rules.ask(request))
    }

    /// Counts a request that is refused before dispatch.
    fn shed(&self, request: &Request, backend: BackendId, reply: LocalReply) -> LocalReply {
        if let (Some(mut entry), Some(reason)) = (offer(self.worker, request, backend), reply.shed_reason()) {
            entry.set_client_status(reply.status());
            entry.shed(reason, self.proxy().clock.now());
        }
        reply
    }

    /// A connection is in hand. Without an `entry` so far, the request is offered and admitted in one step.
    fn begin(
        &self,
        request: &Request,
        link: UpstreamConnection,
        permit: Permit,
        entry: Option<Entry>,
        dispatched: Timestamp,
    ) -> Attempt {
        let backend = permit.backend();
        self.proxy().retries.earn();
        let Some(((account, arrival), shape)) = account(self.worker, request, backend).zip(request.shape.as_ref())
        else {
            return Attempt { link, backend, tap: Tap::passing(dispatched), _permit: Some(permit) };
        };
        let entry = match entry {
            Some(mut entry) => {
                entry.admit(dispatched);
                entry
            }
            None => {
                let class = request.hints.class;
                let mut entry = Entry::admitted(&self.worker.shard, account, class, arrival, dispatched);
                entry.set_report(caption(self.worker, request));
                entry
            }
        };
        let tap = Tap::measured(entry, permit, shape.dialect, dispatched).with_prompts(shape.prompts);
        Attempt { link, backend, tap, _permit: None }
    }

    // ---- with a wait, or without a pooled connection ---------------------------------------------------------------

    /// Waits for a turn if need be, and gets a connection; to another backend when the first one cannot be reached.
    async fn acquire<D: Io>(
        &mut self,
        client: &mut D,
        timer: &mut Timer<'_>,
        request: &mut Request,
        ask: Option<AdmissionRequest>,
        mut turn: Acquire,
        now: Timestamp,
    ) -> Result<Attempt, Unserved> {
        let worker = self.worker;
        let proxy = &*worker.proxy;
        let worked = now.since(request.arrived);
        let mut entry: Option<Entry> = None;
        let mut failed: Option<LocalReply> = None;
        loop {
            let permit = match turn {
                Acquire::Granted(permit) => permit,
                Acquire::Refused(_, refused) => {
                    return Err(Unserved::Refused(proxy.rules.load().reply(refused)).close(entry, proxy));
                }
                Acquire::Queued(waiting) => {
                    entry = entry.or_else(|| offer(worker, request, waiting.home()));
                    let longest = ask.map_or(Duration::ZERO, |ask| proxy.rules.load().longest_wait(&ask));
                    let waited = self.wait(client, timer, waiting, request.arrived + longest).await;
                    request.queued = proxy.clock.now().since(request.arrived).saturating_sub(worked);
                    match waited {
                        Ok(permit) => permit,
                        Err(unserved) => return Err(unserved.close(entry, proxy)),
                    }
                }
            };
            let (backend, dispatched) = (permit.backend(), proxy.clock.now());
            let mut booked = entry.take().or_else(|| offer(worker, request, backend));
            if let Some(entry) = &mut booked {
                move_to(worker, request, entry, backend);
            }
            let Some(target) = proxy.targets.of(backend) else {
                return Err(Unserved::Refused(LocalReply::BackendFailed).close(booked, proxy));
            };
            let dialled = match worker.idle.take(backend, &target, dispatched) {
                Some(stream) => Ok((stream, true)),
                None => self.dial(client, timer, backend, &target, dispatched).await.map(|stream| (stream, false)),
            };
            let now = proxy.clock.now();
            match dialled {
                Ok((stream, reused)) => {
                    let may_retry = failed.is_none();
                    let link =
                        UpstreamConnection { stream, target, reused, may_retry, since: now, begun: now - worked };
                    let mut attempt = self.begin(request, link, permit, booked, dispatched);
                    if let Some(entry) = attempt.tap.entry_mut().filter(|_| !may_retry) {
                        entry.retry(RetryReason::Connect);
                    }
                    return Ok(attempt);
                }
                Err(end) => {
                    let Some(reply) = end.local_reply() else { return Err(Unserved::ClientGone.close(booked, proxy)) };
                    let another = failed.is_none() && proxy.pool.has_another(backend) && proxy.retries.spend(now);
                    if !another {
                        return Err(give_up(request, permit, booked, end, reply, (dispatched, now)));
                    }
                    (entry, failed) = (booked, Some(reply));
                    permit.end(now);
                    turn = match ask {
                        Some(ask) => proxy.pool.arrive(ask, Some(backend), now),
                        None => match proxy.pool.pass(Some(backend)) {
                            Some(permit) => Acquire::Granted(permit),
                            None => return Err(Unserved::Refused(reply)),
                        },
                    };
                }
            }
        }
    }

    /// A fresh connection, under the connect deadline; the client is watched meanwhile. `Err`: it is gone, or the backend cannot be
    /// reached.
    async fn dial<D: Io>(
        &mut self,
        client: &mut D,
        timer: &mut Timer<'_>,
        backend: BackendId,
        target: &Target,
        now: Timestamp,
    ) -> Result<TcpStream, End> {
        let proxy = &*self.worker.proxy;
        let limits = proxy.limits.load_full();
        timer.set(now + limits.connect_timeout);
        let mut dialling = pin!(target.connect());
        let read_ahead = &mut self.read_ahead;
        poll_fn(|cx| {
            if let Poll::Ready(dialled) = dialling.as_mut().poll(cx) {
                return Poll::Ready(dialled.map_err(|e| {
                    if !is_exhausted(&e) {
                        health::on_dial_failed(proxy, backend);
                    }
                    End::Broken(Break::Reset)
                }));
            }
            if is_gone(cx, client, read_ahead, limits.half_close) {
                return Poll::Ready(Err(End::ClientGone));
            }
            if !timer.is_overdue(cx) {
                return Poll::Pending;
            }
            health::on_dial_failed(proxy, backend);
            Poll::Ready(Err(End::Broken(Break::Timeout)))
        })
        .await
    }

    // ---- the end --------------------------------------------------------------------------------------------------

    /// The exchange has ended: pool the connection, close the books, find what the client can still be told.
    fn conclude(
        &mut self,
        request: &Request,
        attempt: Attempt,
        exchange: Exchange,
        end: End,
    ) -> Result<Conclusion, LocalReply> {
        let proxy = &*self.worker.proxy;
        let now = proxy.clock.now();
        self.now = now;
        let Attempt { link, backend, tap, _permit, .. } = attempt;
        health::on_exchange_ended(proxy, backend, end, exchange.received(), now);
        if end == End::Whole && exchange.is_reusable() && request.upstream_request.is_written() {
            self.worker.idle.put(backend, link.target, link.stream, now);
        } else {
            drop(link);
        }
        let status = exchange.status();
        if let (Some(reply), None) = (end.local_reply(), status) {
            tap.close(end, Some(reply.status()), now);
            return Err(reply);
        }
        let event = tap
            .event_boundary()
            .filter(|_| end.local_reply().is_some() && !tap.has_terminated() && exchange.takes_event());
        let keeps = end == End::Whole && exchange.keeps_client() && !self.read_ahead.overflowed;
        drop(exchange);
        let outcome = tap.close(end, status, now);
        self.note(request, backend, status, end);
        let broken = end.local_reply().is_some() && outcome != Some(Outcome::Completed);
        Ok(match event {
            Some(dialect) => {
                let event = match end {
                    End::Late => LocalReply::Late.event(dialect.family()),
                    _ => error_event(
                        dialect.family(),
                        "api_error",
                        "the backend broke off in the middle of the answer",
                        "backend_failed",
                    ),
                };
                Conclusion::Event(match request.version {
                    Version::V11 => format!("{:x}\r\n{event}\r\n", event.len()),
                    Version::V10 => event,
                })
            }
            None if keeps => Conclusion::Next(AfterRequest::Request),
            None if end == End::Whole => Conclusion::Next(AfterRequest::LingeringClose),
            // Without chunks or a length, only a reset tells this from a whole answer.
            None if broken && request.version == Version::V10 => Conclusion::Broken,
            None => Conclusion::Next(AfterRequest::Close),
        })
    }

    /// The last words of an answer that the backend broke off.
    async fn say<D: Io>(
        &mut self,
        client: &mut D,
        timer: &mut Timer<'_>,
        event: &str,
    ) -> Result<AfterRequest, LocalReply> {
        timer.set(self.now + WRITE_PATIENCE);
        let _ = write_all(client, timer, event.as_bytes()).await;
        Ok(AfterRequest::Close)
    }

    /// What was relayed without being measured has ended.
    fn note(&self, request: &Request, backend: BackendId, status: Option<u16>, end: End) {
        if request.shape.is_none() {
            let took = self.now.since(request.arrived);
            self.report_unmeasured(
                UnmeasuredRequest {
                    request_id: None,
                    backend: Some(backend),
                    status: status.unwrap_or(0),
                    outcome: "passed",
                    took: Some(took),
                    bad_answer: end.bad_answer(),
                },
                Some(request),
            );
        }
    }
}

impl Attempt {
    /// The pooled connection was closed before it could say anything, and nothing was tried again yet. A backend that breaks
    /// off later than `STALE_WITHIN` had the request and may have worked on it: trying again could do the work twice.
    fn is_stale(&self, exchange: &Exchange, end: End, now: Timestamp) -> bool {
        let silent = end.is_connection_lost() && exchange.received() == 0;
        silent && self.link.reused && self.link.may_retry && now.since(self.link.since) < STALE_WITHIN
    }
}

impl Unserved {
    /// Closes the request's entry with the reason.
    fn close(self, entry: Option<Entry>, proxy: &ProxyState) -> Self {
        let Some(mut entry) = entry else { return self };
        match self {
            Self::ClientGone => entry.abandon(proxy.clock.now()),
            Self::Refused(reply) => {
                if let Some(reason) = reply.shed_reason() {
                    entry.set_client_status(reply.status());
                    entry.shed(reason, proxy.clock.now());
                }
            }
        }
        self
    }
}

/// The backend could not be reached, and nobody else is asked.
fn give_up(
    request: &Request,
    permit: Permit,
    entry: Option<Entry>,
    end: End,
    reply: LocalReply,
    (dispatched, now): (Timestamp, Timestamp),
) -> Unserved {
    if let Some((mut entry, shape)) = entry.zip(request.shape.as_ref()) {
        entry.admit(dispatched);
        Tap::measured(entry, permit, shape.dialect, now).close(end, Some(reply.status()), now);
    }
    Unserved::Refused(reply)
}

/// A connection that was closed already says so within a round trip; this is one of a bad day.
const STALE_WITHIN: Duration = Duration::from_secs(1);

/// What is left to be done for the client.
enum Conclusion {
    Next(AfterRequest),
    /// An event of ours, framed.
    Event(String),
    /// That the answer is not whole.
    Broken,
}
