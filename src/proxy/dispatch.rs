//! A request's passage: to a backend, its answer back, and the books closed.
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
use super::exchange::{Break, End, Exchange, ExchangeCx};
use super::io::Io;
use super::listener::is_exhausted;
use super::local_reply::{LocalReply, error_event};
use super::policy::priority;
use super::queue_wait::{Waited, is_gone};
use super::request::reader::{PathKind, Request};
use super::response::tap::{Ending, Tap};
use super::spans::caption;
use super::state::{HookPoint, ProxyState};
use super::timer::Timer;
use super::upstream::health;
use super::upstream::target::Target;
use crate::admission::pool::{Acquire, Permit, Refused};
use crate::admission::{AdmissionRequest, Mode};
use crate::http1::Version;
use crate::measure::{Entry, Outcome, RetryReason, ShedReason};
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

/// Why there is no passage.
enum Unserved {
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
        let gateway = &*worker.gateway;
        let ask = self.may_ask(request)?;
        let now = gateway.clock.now();
        let turn = match ask {
            Some(ask) => gateway.pool.arrive(ask, None, now),
            None => {
                gateway.pool.pass(None).map_or(Acquire::Refused(BackendId(0), Refused::NoBackend), Acquire::Granted)
            }
        };
        let idle = |permit: &Permit| {
            let target = gateway.targets.of(permit.backend())?;
            Some((worker.idle.take(permit.backend(), &target, now)?, target))
        };
        let mut passage = match turn {
            Acquire::Refused(backend, refused) => {
                return Err(self.shed(request, backend, gateway.rules.load().refusal(refused)));
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
                self.embark(request, link, permit, None, now)
            }
            turn => match Box::pin(self.embark_slowly(client, timer, request, ask, turn, now)).await {
                Ok(passage) => passage,
                Err(Unserved::ClientGone) => return Ok(AfterRequest::Close),
                Err(Unserved::Refused(refusal)) => return Err(refusal),
            },
        };
        (gateway.hook)(HookPoint::Dispatched);
        let target = passage.link.target.clone();
        let (patience, limits) = (gateway.rules.load().patience(request), gateway.limits.load_full());
        let mut exchange = Exchange::new(passage.link.since, passage.link.begun).with_patience(patience);
        let end = loop {
            let host = target.authority.as_deref().map_or(&*request.host, str::as_bytes);
            request.outgoing.address(&target.prefix, host, request.id.made(), request.has_length);
            let end = poll_fn(|cx| {
                let mut bench = ExchangeCx {
                    worker,
                    target: &target,
                    limits: &limits,
                    vitals: &gateway.vitals[usize::from(passage.backend.0)],
                    early: &mut self.early,
                    timer,
                    request,
                };
                exchange.step(cx, client, &mut passage.link.stream, &mut passage.tap, &mut bench)
            });
            let end = end.await;
            let now = gateway.clock.now();
            if !passage.is_stale(&exchange, end, now) || !gateway.retries.spend(now) {
                break end;
            }
            passage.link.may_retry = false;
            if let Some(entry) = passage.tap.entry_mut() {
                entry.retry(RetryReason::StaleConnection);
            }
            match Box::pin(self.dial(client, timer, passage.backend, &target, gateway.clock.now())).await {
                Dialled::Connection(stream) => (passage.link.stream, passage.link.reused) = (stream, false),
                Dialled::ClientGone => break End::ClientGone,
                Dialled::Failed(_) => break end,
            }
            let now = gateway.clock.now();
            exchange = Exchange::new(now, now).with_patience(patience);
        };
        (gateway.hook)(HookPoint::Ended);
        match self.conclude(request, passage, exchange, end)? {
            Conclusion::Next(next) => Ok(next),
            Conclusion::Broken => {
                client.break_off();
                Ok(AfterRequest::Close)
            }
            Conclusion::Event(event) => Box::pin(self.say(client, timer, &event)).await,
        }
    }

    /// Whether the request may ask for a place at all, and what for.
    fn may_ask(&self, request: &mut Request) -> Result<Option<AdmissionRequest>, LocalReply> {
        let gateway = self.gateway();
        let lame = gateway.drain.phase() >= drain::DrainPhase::Lame;
        if lame {
            request.keep_alive = false;
        }
        if matches!(request.path, PathKind::NotHere) {
            return Err(LocalReply::NotHere);
        }
        if lame {
            return Err(self.shed(request, gateway.pool.first(), LocalReply::shed(ShedReason::Draining)));
        }
        let rules = gateway.rules.load();
        if rules.reassemble && rules.mode() == Mode::Enforce {
            request.ask_for_stream().inspect_err(|refusal| self.refused(Some(request), *refusal))?;
        }
        Ok(rules.ask(request))
    }

    /// Counts a request that is refused before dispatch.
    fn shed(&self, request: &Request, backend: BackendId, refusal: LocalReply) -> LocalReply {
        if let (Some(mut entry), Some(reason)) = (offer(self.worker, request, backend), refusal.shed_reason()) {
            entry.told(refusal.status());
            entry.shed(reason, self.gateway().clock.now());
        }
        refusal
    }

    /// A connection is in hand. Without an `entry` so far, the request is offered and admitted in one step.
    fn embark(
        &self,
        request: &Request,
        link: UpstreamConnection,
        permit: Permit,
        entry: Option<Entry>,
        dispatched: Timestamp,
    ) -> Attempt {
        let backend = permit.backend();
        self.gateway().retries.earn();
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
                let class = priority(request.claims.class);
                let mut entry = Entry::admitted(&self.worker.shard, account, class, arrival, dispatched);
                entry.caption(caption(self.worker, request));
                entry
            }
        };
        let tap = Tap::measured(entry, permit, shape.dialect, dispatched).with_prompts(shape.prompts);
        Attempt { link, backend, tap, _permit: None }
    }

    // ---- with a wait, or without a pooled connection ---------------------------------------------------------------

    /// Waits for a turn if need be, and gets a connection; to another backend when the first one cannot be reached.
    async fn embark_slowly<D: Io>(
        &mut self,
        client: &mut D,
        timer: &mut Timer<'_>,
        request: &mut Request,
        ask: Option<AdmissionRequest>,
        mut turn: Acquire,
        now: Timestamp,
    ) -> Result<Attempt, Unserved> {
        let worker = self.worker;
        let gateway = &*worker.gateway;
        let worked = now.since(request.arrived);
        let mut entry: Option<Entry> = None;
        let mut failed: Option<LocalReply> = None;
        loop {
            let permit = match turn {
                Acquire::Granted(permit) => permit,
                Acquire::Refused(_, refused) => {
                    return Err(refuse(entry, gateway.rules.load().refusal(refused), gateway));
                }
                Acquire::Queued(waiting) => {
                    entry = entry.or_else(|| offer(worker, request, waiting.home()));
                    let longest = ask.map_or(Duration::ZERO, |ask| gateway.rules.load().longest_wait(&ask));
                    let waited = self.wait(client, timer, waiting, request.arrived + longest).await;
                    request.queued = gateway.clock.now().since(request.arrived).saturating_sub(worked);
                    match waited {
                        Waited::Turn(permit) => permit,
                        Waited::Refused(refused) => {
                            return Err(refuse(entry, gateway.rules.load().refusal(refused), gateway));
                        }
                        Waited::ClientGone => return Err(leave(entry, gateway)),
                    }
                }
            };
            let (backend, dispatched) = (permit.backend(), gateway.clock.now());
            let mut booked = entry.take().or_else(|| offer(worker, request, backend));
            if let Some(entry) = &mut booked {
                move_to(worker, request, entry, backend);
            }
            let Some(target) = gateway.targets.of(backend) else {
                return Err(refuse(booked, LocalReply::BackendFailed, gateway));
            };
            let dialled = match worker.idle.take(backend, &target, dispatched) {
                Some(stream) => Ok((stream, true)),
                None => match self.dial(client, timer, backend, &target, dispatched).await {
                    Dialled::Connection(stream) => Ok((stream, false)),
                    Dialled::ClientGone => return Err(leave(booked, gateway)),
                    Dialled::Failed(ending) => Err(ending),
                },
            };
            let now = gateway.clock.now();
            match dialled {
                Ok((stream, reused)) => {
                    let may_retry = failed.is_none();
                    let link =
                        UpstreamConnection { stream, target, reused, may_retry, since: now, begun: now - worked };
                    let mut passage = self.embark(request, link, permit, booked, dispatched);
                    if let Some(entry) = passage.tap.entry_mut().filter(|_| !may_retry) {
                        entry.retry(RetryReason::Connect);
                    }
                    return Ok(passage);
                }
                Err(ending) => {
                    let refusal =
                        if ending == Ending::Timeout { LocalReply::BackendTimeout } else { LocalReply::BackendFailed };
                    let another = failed.is_none() && gateway.pool.has_another(backend) && gateway.retries.spend(now);
                    if !another {
                        return Err(give_up(request, permit, booked, ending, refusal, (dispatched, now)));
                    }
                    (entry, failed) = (booked, Some(refusal));
                    permit.end(now);
                    turn = match ask {
                        Some(ask) => gateway.pool.arrive(ask, Some(backend), now),
                        None => match gateway.pool.pass(Some(backend)) {
                            Some(permit) => Acquire::Granted(permit),
                            None => return Err(Unserved::Refused(refusal)),
                        },
                    };
                }
            }
        }
    }

    /// A fresh connection, under the connect deadline; the client is watched meanwhile.
    async fn dial<D: Io>(
        &mut self,
        client: &mut D,
        timer: &mut Timer<'_>,
        backend: BackendId,
        target: &Target,
        now: Timestamp,
    ) -> Dialled {
        let gateway = &*self.worker.gateway;
        let limits = gateway.limits.load_full();
        timer.set(now + limits.connect_timeout);
        let mut dialling = pin!(target.connect());
        let early = &mut self.early;
        poll_fn(|cx| {
            if let Poll::Ready(dialled) = dialling.as_mut().poll(cx) {
                return Poll::Ready(match dialled {
                    Ok(stream) => Dialled::Connection(stream),
                    Err(e) => {
                        if !is_exhausted(&e) {
                            health::on_dial_failed(gateway, backend);
                        }
                        Dialled::Failed(Ending::Reset)
                    }
                });
            }
            if is_gone(cx, client, early, limits.half_close) {
                return Poll::Ready(Dialled::ClientGone);
            }
            if !timer.is_overdue(cx) {
                return Poll::Pending;
            }
            health::on_dial_failed(gateway, backend);
            Poll::Ready(Dialled::Failed(Ending::Timeout))
        })
        .await
    }

    // ---- the end --------------------------------------------------------------------------------------------------

    /// The exchange has ended: pool the connection, close the books, find what the client can still be told.
    fn conclude(
        &mut self,
        request: &Request,
        passage: Attempt,
        exchange: Exchange,
        end: End,
    ) -> Result<Conclusion, LocalReply> {
        let gateway = &*self.worker.gateway;
        let now = gateway.clock.now();
        self.now = now;
        let Attempt { link, backend, tap, _permit, .. } = passage;
        health::on_exchange_ended(gateway, backend, end, exchange.received(), now);
        if end == End::Whole && exchange.is_reusable() && request.outgoing.is_written() {
            self.worker.idle.put(backend, link.target, link.stream, now);
        } else {
            drop(link);
        }
        let ending = match end {
            End::Whole => Ending::Whole,
            // Memory ran out over what this client has not taken: not the backend's doing.
            End::ClientGone | End::ClientStalled | End::Broken(Break::Memory) => Ending::ClientGone,
            // Before a head there is no body that could be truncated.
            End::Broken(Break::Eof) if exchange.status().is_some() => Ending::Eof,
            End::Broken(Break::Timeout) => Ending::Timeout,
            End::Late => Ending::Late,
            End::Broken(Break::Eof | Break::Reset | Break::Protocol) => Ending::Reset,
        };
        let status = exchange.status();
        if let (Some(refusal), None) = (refusal_of(end), status) {
            let told = Some(refusal.status());
            tap.close(ending, told, now);
            return Err(refusal);
        }
        let event = tap
            .event_boundary()
            .filter(|_| refusal_of(end).is_some() && !tap.has_terminated() && exchange.takes_event());
        let keeps = end == End::Whole && exchange.keeps_client() && !self.early.overflowed;
        drop(exchange);
        let outcome = tap.close(ending, status, now);
        self.note(request, backend, status);
        let broken = refusal_of(end).is_some() && outcome != Some(Outcome::Completed);
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
            None if end == End::Whole => Conclusion::Next(AfterRequest::ClosePolitely),
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
    fn note(&self, request: &Request, backend: BackendId, status: Option<u16>) {
        if request.shape.is_none() {
            let took = self.now.since(request.arrived);
            self.unbooked(Some(request), Some(backend), status.unwrap_or(0), "passed", Some(took));
        }
    }
}

impl Attempt {
    /// The pooled connection was closed before it could say anything, and nothing was tried again yet. A backend that breaks
    /// off later than `STALE_WITHIN` had the request and may have worked on it: trying again could do the work twice.
    fn is_stale(&self, exchange: &Exchange, end: End, now: Timestamp) -> bool {
        let broke = matches!(end, End::Broken(Break::Eof | Break::Reset)) && exchange.received() == 0;
        broke && self.link.reused && self.link.may_retry && now.since(self.link.since) < STALE_WITHIN
    }
}

/// What a client is told of an end before any of the answer was sent; `None`: there is nothing to tell.
fn refusal_of(end: End) -> Option<LocalReply> {
    match end {
        End::Whole | End::ClientGone | End::ClientStalled => None,
        End::Late => Some(LocalReply::Late),
        End::Broken(Break::Timeout) => Some(LocalReply::BackendTimeout),
        End::Broken(Break::Protocol) => Some(LocalReply::BadAnswer),
        End::Broken(Break::Memory) => Some(LocalReply::BodyMemory),
        End::Broken(Break::Eof | Break::Reset) => Some(LocalReply::BackendFailed),
    }
}

/// Refused in the queue.
fn refuse(entry: Option<Entry>, refusal: LocalReply, gateway: &ProxyState) -> Unserved {
    if let (Some(mut entry), Some(reason)) = (entry, refusal.shed_reason()) {
        entry.told(refusal.status());
        entry.shed(reason, gateway.clock.now());
    }
    Unserved::Refused(refusal)
}

/// The client is gone before dispatch.
fn leave(entry: Option<Entry>, gateway: &ProxyState) -> Unserved {
    if let Some(entry) = entry {
        entry.abandon(gateway.clock.now());
    }
    Unserved::ClientGone
}

/// The backend could not be reached, and nobody else is asked.
fn give_up(
    request: &Request,
    permit: Permit,
    entry: Option<Entry>,
    ending: Ending,
    refusal: LocalReply,
    (dispatched, now): (Timestamp, Timestamp),
) -> Unserved {
    if let Some((mut entry, shape)) = entry.zip(request.shape.as_ref()) {
        entry.admit(dispatched);
        Tap::measured(entry, permit, shape.dialect, now).close(ending, Some(refusal.status()), now);
    }
    Unserved::Refused(refusal)
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

enum Dialled {
    Connection(TcpStream),
    ClientGone,
    Failed(Ending),
}
