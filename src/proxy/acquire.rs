//! A permit and a connection for a request that did not get both at once: it waits in the queue, or a backend is dialled.
//!
//! The client is watched meanwhile: one that hangs up leaves the queue at once and is never dispatched. The deadline is a timer
//! of the waiting task itself, so that it holds when nothing else runs.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;

use super::attempt::{Attempt, UpstreamConnection, move_to, offer};
use super::client_io::is_gone;
use super::connection::Connection;
use super::end::{Break, End};
use super::io::{Io, is_exhausted};
use super::local_reply::LocalReply;
use super::request::received::Request;
use super::response::tap::Tap;
use super::state::ProxyState;
use super::timer::Timer;
use super::upstream::health;
use super::upstream::target::Target;
use crate::admission::AdmissionRequest;
use crate::admission::pool::{Acquire, Permit, QueueWait};
use crate::measure::{Entry, RetryReason};
use crate::vocabulary::backend_id::BackendId;
use crate::vocabulary::time::Timestamp;

/// Why a request reached no backend.
pub(super) enum Unserved {
    ClientGone,
    Refused(LocalReply),
}

impl Connection<'_> {
    /// Waits for a permit if need be, and gets a connection; to another backend when the first one cannot be reached.
    // Long: one loop over at most two backends, whose entry and permit move through every arm.
    pub(super) async fn acquire<D: Io>(
        &mut self,
        client: &mut D,
        timer: &mut Timer<'_>,
        request: &mut Request,
        ask: Option<AdmissionRequest>,
        mut acquired: Acquire,
        now: Timestamp,
    ) -> Result<Attempt, Unserved> {
        let worker = self.worker;
        let proxy = &*worker.proxy;
        let worked = now.since(request.arrived);
        let mut entry: Option<Entry> = None;
        let mut failed: Option<LocalReply> = None;
        loop {
            let permit = match acquired {
                Acquire::Granted(permit) => permit,
                Acquire::Refused(_, refused) => {
                    return Err(Unserved::Refused(proxy.rules.load().reply(refused)).close(entry, proxy));
                }
                Acquire::Queued(waiting) => {
                    let home = waiting.home();
                    entry = entry.or_else(|| offer(worker, request, home));
                    tracing::debug!(request_id = %request.id, backend = &*proxy.targets.name(home), "request queued");
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
            let mut offered = entry.take().or_else(|| offer(worker, request, backend));
            if let Some(entry) = &mut offered {
                move_to(worker, request, entry, backend);
            }
            let Some(target) = proxy.targets.of(backend) else {
                return Err(Unserved::Refused(LocalReply::BackendFailed).close(offered, proxy));
            };
            let dialled = match worker.idle.take(backend, &target, dispatched) {
                Some(stream) => Ok((stream, true)),
                None => self.dial(client, timer, backend, &target, dispatched).await.map(|stream| (stream, false)),
            };
            let now = proxy.clock.now();
            let end = match dialled {
                Ok((stream, reused)) => {
                    let may_retry = failed.is_none();
                    let link =
                        UpstreamConnection { stream, target, reused, may_retry, since: now, begun: now - worked };
                    let mut attempt = Attempt::begin(worker, request, link, permit, offered, dispatched);
                    if let Some(entry) = attempt.tap.entry_mut().filter(|_| !may_retry) {
                        entry.retry(RetryReason::Connect);
                    }
                    return Ok(attempt);
                }
                Err(end) => end,
            };
            let Some(reply) = end.local_reply() else { return Err(Unserved::ClientGone.close(offered, proxy)) };
            let another = failed.is_none() && proxy.pool.has_another(backend) && proxy.retries.spend(now);
            if !another {
                return Err(give_up(request, permit, offered, end, reply, (dispatched, now)));
            }
            tracing::debug!(request_id = %request.id, backend = &*target.name, reason = "connect", "request sent again");
            (entry, failed) = (offered, Some(reply));
            permit.end(now);
            acquired = match ask {
                Some(ask) => proxy.pool.arrive(ask, Some(backend), now),
                None => match proxy.pool.pass(Some(backend)) {
                    Some(permit) => Acquire::Granted(permit),
                    None => return Err(Unserved::Refused(reply)),
                },
            };
        }
    }

    /// Waits for the permit, until `deadline`, or until the client is gone.
    async fn wait<D: Io>(
        &mut self,
        client: &mut D,
        timer: &mut Timer<'_>,
        mut waiting: QueueWait,
        deadline: Timestamp,
    ) -> Result<Permit, Unserved> {
        let half_close = self.proxy().limits.load().half_close;
        timer.set(deadline);
        let read_ahead = &mut self.read_ahead;
        let ended = poll_fn(|cx| {
            // The client first: a permit that comes with the hang-up passes to the next request.
            if is_gone(cx, client, read_ahead, half_close) {
                return Poll::Ready(None);
            }
            if let Poll::Ready(granted) = waiting.poll(cx) {
                return Poll::Ready(Some(Some(granted)));
            }
            if timer.is_overdue(cx) { Poll::Ready(Some(None)) } else { Poll::Pending }
        })
        .await;
        let granted = match ended {
            None => return Err(Unserved::ClientGone),
            Some(Some(granted)) => granted,
            Some(None) => waiting.expire(self.proxy().clock.now()),
        };
        granted.map_err(|refused| Unserved::Refused(self.proxy().rules.load().reply(refused)))
    }

    /// A fresh connection, under the connect deadline; the client is watched meanwhile. `Err`: it is gone, or the backend cannot
    /// be reached.
    pub(super) async fn dial<D: Io>(
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

/// The backend could not be reached, and no other one is tried.
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
