//! A request's passage: to a backend, its answer back, and the books closed.
//!
//! With a pooled connection in hand a request is offered and admitted in one step. Without one it is dialled for, and that
//! seldom way is boxed. The exchange itself happens at most twice: a pooled connection that dies before it has said anything
//! is replaced once.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;

use super::arriving::{PathKind, Request};
use super::connection::{Connection, Next, WRITE_PATIENCE};
use super::drain;
use super::exchange::{Bench, Break, End, Exchange};
use super::gateway::Phase;
use super::health;
use super::io::Io;
use super::listener::is_exhausted;
use super::offering::{Offering, account, offer};
use super::refusal::{Refusal, error_event};
use super::talk::{poll_read, write_all};
use super::tap::{Ending, Tap};
use super::timer::Timer;
use crate::backend::BackendId;
use crate::balance::Permit;
use crate::http1::Version;
use crate::measure::{Entry, Outcome, Priority, RetryReason, ShedReason};
use crate::time::Timestamp;

/// A connection to a backend, and the books of the request that is about to use it.
struct Passage {
    link: Link,
    backend: BackendId,
    tap: Tap,
    /// The place of a request that is not measured; else the tap has it.
    _permit: Option<Permit>,
}

/// A connection to a backend.
struct Link {
    stream: TcpStream,
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
enum Barred {
    ClientGone,
    Refused(Refusal),
}

impl Connection<'_> {
    /// Finds a backend, relays, and closes the books. `Err`: the client is still to be told.
    pub(super) async fn pass<D: Io>(
        &mut self,
        client: &mut D,
        timer: &mut Timer<'_>,
        request: &mut Request,
    ) -> Result<Next, Refusal> {
        let worker = self.worker;
        let gateway = &*worker.gateway;
        let permit = self.choose(request)?;
        let now = gateway.clock.now();
        let mut passage = match worker.idle.take(permit.backend(), now) {
            Some(stream) => {
                let link = Link { stream, reused: true, may_retry: true, since: now, begun: request.arrived };
                self.embark(request, link, permit, None, now)
            }
            None => match Box::pin(self.embark_afresh(client, timer, request, permit, now)).await {
                Ok(passage) => passage,
                Err(Barred::ClientGone) => return Ok(Next::Close),
                Err(Barred::Refused(refusal)) => return Err(refusal),
            },
        };
        (gateway.hook)(Phase::Dispatched);
        let target = &gateway.targets[usize::from(passage.backend.0)];
        let mut exchange = Exchange::new(passage.link.since, passage.link.begun);
        let end = loop {
            let host = target.authority.as_deref().map_or(&*request.host, str::as_bytes);
            request.outgoing.address(&target.prefix, host, request.id.made(), request.has_length);
            let end = poll_fn(|cx| {
                let mut bench = Bench {
                    worker,
                    target,
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
            match Box::pin(self.dial(client, timer, passage.backend, gateway.clock.now())).await {
                Dialled::Connection(stream) => (passage.link.stream, passage.link.reused) = (stream, false),
                Dialled::ClientGone => break End::ClientGone,
                Dialled::Failed(_) => break end,
            }
            let now = gateway.clock.now();
            exchange = Exchange::new(now, now);
        };
        (gateway.hook)(Phase::Ended);
        match self.conclude(request, passage, exchange, end)? {
            Conclusion::Next(next) => Ok(next),
            Conclusion::Broken => {
                client.break_off();
                Ok(Next::Close)
            }
            Conclusion::Event(event) => Box::pin(self.say(client, timer, &event)).await,
        }
    }

    /// A place at a backend, or why there is none.
    fn choose(&self, request: &mut Request) -> Result<Permit, Refusal> {
        let gateway = self.gateway();
        let lame = gateway.drain.phase() >= drain::Phase::Lame;
        if lame {
            request.keep_alive = false;
        }
        if matches!(request.path, PathKind::NotHere) {
            return Err(Refusal::NotHere);
        }
        if lame {
            return Err(self.shed(request, ShedReason::Draining));
        }
        gateway.pool.pick(None).ok_or_else(|| self.shed(request, ShedReason::NoBackend))
    }

    /// Counts a request that is refused before dispatch.
    fn shed(&self, request: &Request, reason: ShedReason) -> Refusal {
        if let Some(entry) = offer(self.worker, request, BackendId(0)) {
            entry.shed(reason, self.gateway().clock.now());
        }
        Refusal::Shed(reason)
    }

    /// A connection is in hand. Without an `entry` so far, the request is offered and admitted in one step.
    fn embark(
        &self,
        request: &Request,
        link: Link,
        permit: Permit,
        entry: Option<Entry>,
        dispatched: Timestamp,
    ) -> Passage {
        let backend = permit.backend();
        self.gateway().retries.earn();
        let Some(((account, arrival), shape)) = account(self.worker, request, backend).zip(request.shape.as_ref())
        else {
            return Passage { link, backend, tap: Tap::passing(dispatched), _permit: Some(permit) };
        };
        let entry = match entry {
            Some(mut entry) => {
                entry.admit(dispatched);
                entry
            }
            None => Entry::admitted(&self.worker.shard, account, Priority::Default, arrival, dispatched),
        };
        let tap = Tap::measured(entry, permit, shape.dialect, dispatched).with_prompts(shape.prompts);
        Passage { link, backend, tap, _permit: None }
    }

    // ---- without a pooled connection ------------------------------------------------------------------------------

    /// A fresh connection, or one to another backend when this one cannot be reached.
    async fn embark_afresh<D: Io>(
        &mut self,
        client: &mut D,
        timer: &mut Timer<'_>,
        request: &Request,
        mut permit: Permit,
        mut dispatched: Timestamp,
    ) -> Result<Passage, Barred> {
        let worker = self.worker;
        let gateway = &*worker.gateway;
        let worked = dispatched.since(request.arrived);
        let mut offering = Offering::new(worker, request, permit.backend());
        let mut may_retry = true;
        let (stream, reused) = loop {
            let backend = permit.backend();
            let dialled = match worker.idle.take(backend, dispatched) {
                Some(stream) => break (stream, true),
                None => self.dial(client, timer, backend, dispatched).await,
            };
            let ending = match dialled {
                Dialled::Connection(stream) => break (stream, false),
                Dialled::ClientGone => {
                    if let Some(entry) = offering.settle() {
                        entry.abandon(gateway.clock.now());
                    }
                    return Err(Barred::ClientGone);
                }
                Dialled::Failed(ending) => ending,
            };
            let now = gateway.clock.now();
            let another = (may_retry && !offering.booked).then(|| gateway.pool.pick(Some(backend))).flatten();
            if let Some(other) = another.filter(|_| gateway.retries.spend(now)) {
                (permit, may_retry, dispatched) = (other, false, now);
                offering.move_to(permit.backend());
                continue;
            }
            let refusal = if ending == Ending::Timeout { Refusal::BackendTimeout } else { Refusal::BackendFailed };
            if let Some((mut entry, shape)) = offering.settle().zip(request.shape.as_ref()) {
                entry.admit(dispatched);
                let tap = Tap::measured(entry, permit, shape.dialect, now);
                tap.close(ending, Some(refusal.status()), now);
            }
            return Err(Barred::Refused(refusal));
        };
        let since = gateway.clock.now();
        let link = Link { stream, reused, may_retry, since, begun: since - worked };
        let mut passage = self.embark(request, link, permit, offering.settle(), dispatched);
        if let Some(entry) = passage.tap.entry_mut().filter(|_| !may_retry) {
            entry.retry(RetryReason::Connect);
        }
        Ok(passage)
    }

    /// A fresh connection, under the connect deadline; the client is watched meanwhile.
    async fn dial<D: Io>(
        &mut self,
        client: &mut D,
        timer: &mut Timer<'_>,
        backend: BackendId,
        now: Timestamp,
    ) -> Dialled {
        let gateway = &*self.worker.gateway;
        timer.set(now + gateway.limits.connect_timeout);
        let mut dialling = pin!(gateway.targets[usize::from(backend.0)].connect());
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
            // Bytes ahead of their turn do not end the watch: a hang-up may follow them.
            while !early.half_closed {
                let mut borne = true;
                match poll_read(cx, client, |bytes| borne = early.keep(bytes)) {
                    Poll::Pending => break,
                    Poll::Ready(true) if borne => {}
                    Poll::Ready(false) if !gateway.limits.half_close => early.half_closed = true,
                    Poll::Ready(_) => return Poll::Ready(Dialled::ClientGone),
                }
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
        passage: Passage,
        exchange: Exchange,
        end: End,
    ) -> Result<Conclusion, Refusal> {
        let gateway = &*self.worker.gateway;
        let now = gateway.clock.now();
        self.now = now;
        let Passage { link, backend, tap, _permit, .. } = passage;
        health::on_exchange_ended(gateway, backend, end, exchange.received(), now);
        if end == End::Whole && exchange.is_reusable() && request.outgoing.is_written() {
            self.worker.idle.put(backend, link.stream, now);
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
            End::Broken(Break::Eof | Break::Reset | Break::Protocol) => Ending::Reset,
        };
        let status = exchange.status();
        if let (End::Broken(broken), None) = (end, status) {
            let refusal = match broken {
                Break::Timeout => Refusal::BackendTimeout,
                Break::Protocol => Refusal::BadAnswer,
                Break::Memory => Refusal::BodyMemory,
                Break::Eof | Break::Reset => Refusal::BackendFailed,
            };
            let told = Some(refusal.status());
            self.note(request, backend, tap.close(ending, told, now), told);
            return Err(refusal);
        }
        let event = tap
            .event_boundary()
            .filter(|_| matches!(end, End::Broken(_)) && !tap.has_terminated() && exchange.takes_event());
        let keeps = end == End::Whole && exchange.keeps_client() && !self.early.overflowed;
        drop(exchange);
        let outcome = tap.close(ending, status, now);
        self.note(request, backend, outcome, status);
        let broken = matches!(end, End::Broken(_)) && outcome != Some(Outcome::Completed);
        Ok(match event {
            Some(dialect) => {
                let event =
                    error_event(dialect.family(), "api_error", "the backend broke off in the middle of the answer");
                Conclusion::Event(match request.version {
                    Version::V11 => format!("{:x}\r\n{event}\r\n", event.len()),
                    Version::V10 => event,
                })
            }
            None if keeps => Conclusion::Next(Next::Request),
            None if end == End::Whole => Conclusion::Next(Next::ClosePolitely),
            // Without chunks or a length, only a reset tells this from a whole answer.
            None if broken && request.version == Version::V10 => Conclusion::Broken,
            None => Conclusion::Next(Next::Close),
        })
    }

    /// The last words of an answer that the backend broke off.
    async fn say<D: Io>(&mut self, client: &mut D, timer: &mut Timer<'_>, event: &str) -> Result<Next, Refusal> {
        timer.set(self.now + WRITE_PATIENCE);
        let _ = write_all(client, timer, event.as_bytes()).await;
        Ok(Next::Close)
    }

    /// The access log: fields of ours and numbers, no path, no query, no header.
    fn note(&self, request: &Request, backend: BackendId, outcome: Option<Outcome>, status: Option<u16>) {
        let gateway = self.gateway();
        if !gateway.access_log {
            return;
        }
        let Some(shape) = &request.shape else { return };
        let took = self.now.since(request.arrived);
        tracing::info!(
            target: "weir::access",
            backend = &*gateway.targets[usize::from(backend.0)].name,
            dialect = shape.dialect.as_str(),
            stream = shape.stream,
            outcome = outcome.map_or("none", Outcome::as_str),
            status = status.unwrap_or(0),
            seconds = took.as_secs_f64(),
            "request finished"
        );
    }
}

impl Passage {
    /// The pooled connection was closed before it could say anything, and nothing was tried again yet. A backend that breaks
    /// off later than `STALE_WITHIN` had the request and may have worked on it: trying again could do the work twice.
    fn is_stale(&self, exchange: &Exchange, end: End, now: Timestamp) -> bool {
        let broke = matches!(end, End::Broken(Break::Eof | Break::Reset)) && exchange.received() == 0;
        broke && self.link.reused && self.link.may_retry && now.since(self.link.since) < STALE_WITHIN
    }
}

/// A connection that was closed already says so within a round trip; this is one of a bad day.
const STALE_WITHIN: Duration = Duration::from_secs(1);

/// What is left to be done for the client.
enum Conclusion {
    Next(Next),
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
