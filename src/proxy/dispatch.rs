//! A request's way to a backend: admission, a connection, and the exchange over it.
//!
//! With an idle connection a request is offered and admitted in one step. Without one it waits or dials (`acquire`), and that
//! rare path is boxed. The exchange happens at most twice: an idle connection that turns out to be closed is replaced once.

use std::future::poll_fn;

use super::acquire::Unserved;
use super::attempt::{Attempt, UpstreamConnection, offer};
use super::connection::{AfterRequest, Connection};
use super::drain;
use super::end::End;
use super::exchange::{Exchange, ExchangeCx};
use super::finish::Conclusion;
use super::io::Io;
use super::local_reply::LocalReply;
use super::request::received::{PathKind, Request};
use super::state::HookPoint;
use super::timer::Timer;
use crate::admission::pool::{Acquire, Permit, Refused};
use crate::admission::{AdmissionRequest, Mode};
use crate::measure::RetryReason;
use crate::vocabulary::backend_id::BackendId;
use crate::vocabulary::shed_reason::ShedReason;

impl Connection<'_> {
    /// Finds a backend, relays, and closes the statistics. `Err`: the client still gets this reply.
    // Long: attempt and exchange stay in this one future; passed by value into another, each would be kept twice.
    pub(super) async fn dispatch<D: Io>(
        &mut self,
        client: &mut D,
        timer: &mut Timer<'_>,
        request: &mut Request,
    ) -> Result<AfterRequest, LocalReply> {
        let worker = self.worker;
        let proxy = &*worker.proxy;
        let ask = self.admission_request(request)?;
        let now = proxy.clock.now();
        let acquired = match ask {
            Some(ask) => proxy.pool.arrive(ask, None, now),
            None => proxy.pool.pass(None).map_or(Acquire::Refused(BackendId(0), Refused::NoBackend), Acquire::Granted),
        };
        let idle = |permit: &Permit| {
            let target = proxy.targets.of(permit.backend())?;
            Some((worker.idle.take(permit.backend(), &target, now)?, target))
        };
        let mut attempt = match acquired {
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
                Attempt::begin(worker, request, link, permit, None, now)
            }
            acquired => match Box::pin(self.acquire(client, timer, request, ask, acquired, now)).await {
                Ok(attempt) => attempt,
                Err(Unserved::ClientGone) => return Ok(AfterRequest::Close),
                Err(Unserved::Refused(reply)) => return Err(reply),
            },
        };
        (proxy.test_hook)(HookPoint::Dispatched);
        let target = attempt.link.target.clone();
        let (give_up_at, limits) = (proxy.rules.load().give_up_at(request), proxy.limits.load_full());
        let mut exchange = Exchange::new(attempt.link.since, attempt.link.begun).with_give_up_at(give_up_at);
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
                exchange.poll(cx, client, &mut attempt.link.stream, &mut attempt.tap, &mut exchange_cx)
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
            tracing::debug!(
                request_id = %request.id,
                backend = &*target.name,
                reason = RetryReason::StaleConnection.as_str(),
                "request sent again"
            );
            match Box::pin(self.dial(client, timer, attempt.backend, &target, proxy.clock.now())).await {
                Ok(stream) => (attempt.link.stream, attempt.link.reused) = (stream, false),
                Err(End::ClientGone) => break End::ClientGone,
                Err(_) => break end,
            }
            let now = proxy.clock.now();
            exchange = Exchange::new(now, now).with_give_up_at(give_up_at);
        };
        (proxy.test_hook)(HookPoint::Ended);
        match self.conclude(request, attempt, exchange, end)? {
            Conclusion::Next(next) => Ok(next),
            Conclusion::Broken => {
                client.reset_on_drop();
                Ok(AfterRequest::Close)
            }
            Conclusion::Event(event) => Box::pin(self.send_event(client, timer, &event)).await,
        }
    }

    /// What the request asks admission for; `None`: it is not measured and passes.
    ///
    /// # Errors
    /// It is refused whatever admission would say.
    fn admission_request(&self, request: &mut Request) -> Result<Option<AdmissionRequest>, LocalReply> {
        let proxy = self.proxy();
        let lame = proxy.drain.phase() >= drain::DrainPhase::Lame;
        if lame {
            request.keep_alive = false;
        }
        request.trace_kind();
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
}
