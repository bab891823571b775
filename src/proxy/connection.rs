//! One client connection: request after request, in order, until one of them ends it.
//!
//! It holds the connection's own state: bytes of the next request, one timer. `request::reader` reads a request, `dispatch` takes
//! it to a backend. The task of an open stream is mostly memory that waits, so what happens seldom (refusals, the lingering
//! close) is boxed, and nothing large is passed by value from one `async fn` into another: the compiler would keep both copies.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::futures::Notified;

use super::client_io::{lingering_close, poll_read, write_all};
use super::io::Io;
use super::local_reply::{LocalReply, ReplyContext};
use super::read_ahead::ReadAhead;
use super::request::reader::{ClientPeer, ReadFailure, ReadProgress, RequestReader};
use super::request::received::Request;
use super::state::{HookPoint, ProxyState, Worker};
use super::timer::Timer;
use crate::measure::UnmeasuredRequest;
use crate::vocabulary::time::Timestamp;
use crate::wire::ApiFamily;

/// Serves `client` until it leaves, breaks a rule, or the process stops.
pub async fn serve<D: Io>(client: &mut D, peer: IpAddr, worker: &Worker) {
    let clock = worker.proxy.clock;
    let sleep = pin!(tokio::time::sleep(Duration::ZERO));
    let mut timer = Timer::new(clock, sleep);
    let mut stopped = pin!(worker.proxy.drain.stopped());
    let mut connection = Connection {
        worker,
        peer: ClientPeer::new(peer, worker),
        read_ahead: ReadAhead::default(),
        served: 0,
        now: clock.now(),
    };
    loop {
        match connection.request(client, &mut timer, stopped.as_mut()).await {
            AfterRequest::Request => connection.served += 1,
            AfterRequest::Close => return,
            AfterRequest::LingeringClose => return Box::pin(lingering_close(client, &mut timer, clock.now())).await,
        }
    }
}

/// The state of one connection.
pub(super) struct Connection<'w> {
    pub worker: &'w Worker,
    peer: ClientPeer,
    pub read_ahead: ReadAhead,
    served: u32,
    /// The last reading of the clock, good enough for deadlines.
    pub now: Timestamp,
}

/// What comes after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterRequest {
    Request,
    Close,
    /// The client may still be sending: read for a moment, or the reset destroys the answer.
    LingeringClose,
}

impl Connection<'_> {
    async fn request<D: Io>(
        &mut self,
        client: &mut D,
        timer: &mut Timer<'_>,
        stopped: Pin<&mut Notified<'_>>,
    ) -> AfterRequest {
        let mut request = match self.receive(client, timer, stopped).await {
            Ok(request) => request,
            Err(ReadFailure::ClientGone) => return AfterRequest::Close,
            Err(ReadFailure::Refuse(reply, family)) => {
                return Box::pin(self.refuse_unread(client, timer, reply, family)).await;
            }
        };
        let worker = self.worker;
        let _underway = worker.proxy.drain.enter();
        (worker.proxy.test_hook)(HookPoint::Arrived);
        match self.dispatch(client, timer, &mut request).await {
            Ok(next) => next,
            Err(reply) => Box::pin(self.refuse(client, timer, reply, &request)).await,
        }
    }

    /// Reads one request.
    // Long: the deadlines of head and body, and the closures that borrow them, stand in one loop.
    async fn receive<D: Io>(
        &mut self,
        client: &mut D,
        timer: &mut Timer<'_>,
        mut stopped: Pin<&mut Notified<'_>>,
    ) -> Result<Request, ReadFailure> {
        let proxy = &*self.worker.proxy;
        let (limits, clock) = (proxy.limits.load_full(), proxy.clock);
        let mut reader = RequestReader::new(self.worker, &self.peer);
        let read_ahead = std::mem::take(&mut self.read_ahead.bytes);
        let mut begun = !read_ahead.is_empty();
        let limit = if begun || self.served == 0 { limits.header_timeout } else { limits.idle_timeout };
        timer.set(self.now + limit);
        if !begun && proxy.drain.has_stopped() {
            return Err(ReadFailure::ClientGone);
        }
        let mut progress =
            if begun { reader.feed(&read_ahead, &mut self.read_ahead.bytes) } else { Ok(ReadProgress::Head) };
        drop(read_ahead);
        let mut body: Option<MinimumRate> = None;
        loop {
            match progress? {
                ReadProgress::Whole => return reader.finish(self.now),
                ReadProgress::Expects => {
                    Box::pin(write_all(client, timer, CONTINUE)).await.map_err(|_| ReadFailure::ClientGone)?
                }
                ReadProgress::Head | ReadProgress::Body => {}
            }
            if body.is_none() && reader.has_head() {
                body = Some(MinimumRate { start: self.now, received: 0 });
                timer.set(self.now + limits.body_timeout);
            }
            progress = Ok(ReadProgress::Head);
            let read = poll_fn(|cx| {
                let read = poll_read(cx, client, |bytes| {
                    self.now = clock.now();
                    if let Some(body) = &mut body {
                        body.received += bytes.len() as u64;
                    }
                    progress = reader.feed(bytes, &mut self.read_ahead.bytes);
                });
                match read {
                    Poll::Ready(true) => Poll::Ready(ReadEnd::Some),
                    Poll::Ready(false) => Poll::Ready(ReadEnd::Closed),
                    Poll::Pending if !begun && stopped.as_mut().poll(cx).is_ready() => Poll::Ready(ReadEnd::Closed),
                    Poll::Pending if timer.is_overdue(cx) => Poll::Ready(ReadEnd::Overdue),
                    Poll::Pending => Poll::Pending,
                }
            });
            match read.await {
                ReadEnd::Some => {}
                ReadEnd::Overdue if begun => {
                    return Err(ReadFailure::Refuse(LocalReply::SlowRequest, reader.family()));
                }
                ReadEnd::Overdue | ReadEnd::Closed => return Err(ReadFailure::ClientGone),
            }
            if matches!(progress, Ok(ReadProgress::Body)) && body.as_ref().is_some_and(|body| !body.is_kept(self.now)) {
                return Err(ReadFailure::Refuse(LocalReply::SlowRequest, reader.family()));
            }
            if !std::mem::replace(&mut begun, true) {
                timer.set(self.now + limits.header_timeout);
            }
        }
    }

    // ---- weir's own answers ---------------------------------------------------------------------------------------

    /// A request that could not be read.
    async fn refuse_unread<D: Io>(
        &mut self,
        client: &mut D,
        timer: &mut Timer<'_>,
        reply: LocalReply,
        family: ApiFamily,
    ) -> AfterRequest {
        self.worker.shard.malformed(reply.status());
        self.refused(None, reply);
        let date = self.worker.date();
        let to =
            ReplyContext { family, request_id: None, close: true, head_only: false, date: text(&date), queued: None };
        self.answer(client, timer, &reply.render(&to), false).await
    }

    /// A reply after the request was read whole: the connection stays usable.
    async fn refuse<D: Io>(
        &mut self,
        client: &mut D,
        timer: &mut Timer<'_>,
        reply: LocalReply,
        request: &Request,
    ) -> AfterRequest {
        tracing::debug!(request_id = %request.id, reason = reply.reason(), status = reply.status(), "request refused");
        if request.shape.is_none() {
            self.refused(Some(request), reply);
        }
        let keep = request.keep_alive && !self.read_ahead.overflowed;
        let (date, id) = (self.worker.date(), request.id.to_string());
        let to = ReplyContext {
            family: request.family(),
            request_id: Some(&id),
            close: !keep,
            head_only: request.is_head,
            date: text(&date),
            queued: request.shape.is_some().then_some(request.queued),
        };
        self.answer(client, timer, &reply.render(&to), keep).await
    }

    async fn answer<D: Io>(
        &mut self,
        client: &mut D,
        timer: &mut Timer<'_>,
        answer: &[u8],
        keep: bool,
    ) -> AfterRequest {
        self.now = self.proxy().clock.now();
        timer.set(self.now + WRITE_PATIENCE);
        match write_all(client, timer, answer).await {
            Ok(()) if keep => AfterRequest::Request,
            Ok(()) => AfterRequest::LingeringClose,
            Err(_) => AfterRequest::Close,
        }
    }

    /// A request that is not in the statistics was refused.
    pub(super) fn refused(&self, request: Option<&Request>, reply: LocalReply) {
        self.report_unmeasured(
            UnmeasuredRequest {
                request_id: None,
                backend: None,
                status: reply.status(),
                outcome: reply.reason(),
                took: None,
                bad_answer: reply.bad_answer(),
            },
            request,
        );
    }

    /// Reports the end of a request that is not in the statistics, under the id of `request`.
    pub(super) fn report_unmeasured(&self, report: UnmeasuredRequest, request: Option<&Request>) {
        let proxy = self.proxy();
        if let (true, Some(reports)) = (proxy.access_log, &proxy.reports) {
            let request_id = request.map(|request| request.id.to_string().into());
            reports.unmeasured(UnmeasuredRequest { request_id, ..report });
        }
    }

    pub(super) fn proxy(&self) -> &ProxyState {
        &self.worker.proxy
    }
}

/// How waiting for bytes ended.
enum ReadEnd {
    Some,
    Closed,
    Overdue,
}

/// The least rate at which a body must arrive: one that trickles would hold memory without end.
struct MinimumRate {
    start: Timestamp,
    received: u64,
}

impl MinimumRate {
    fn is_kept(&self, now: Timestamp) -> bool {
        let due = now.since(self.start).saturating_sub(RATE_GRACE);
        self.received >= due.as_secs() * RATE_BYTES
    }
}

fn text(date: &[u8; 29]) -> &str {
    std::str::from_utf8(date).unwrap_or("")
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
const RATE_GRACE: Duration = Duration::from_secs(5);
const RATE_BYTES: u64 = 1024;
/// For weir's own short answers.
pub(super) const WRITE_PATIENCE: Duration = Duration::from_secs(5);
