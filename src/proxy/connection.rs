//! One client connection: request after request, in order, until one of them ends it.
//!
//! This file reads top to bottom as the life of a request: head, body, arrival, backend, exchange, books. What it holds is
//! the connection's own state (bytes ahead of their turn, one timer); the rules are in `http1/`, the answer's way in
//! `exchange`.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::answer::{Answer, Recipient};
use super::drain;
use super::exchange::{Bench, Break, Early, End, Exchange, WORKBENCH};
use super::gateway::{Gateway, Phase, Worker, address_text};
use super::held::{Held, TooMuch};
use super::io::Io;
use super::outgoing::Outgoing;
use super::refusal::{Addressee, Refusal, error_event};
use super::tap::{Ending, Tap};
use crate::backend::BackendId;
use crate::balance::Permit;
use crate::http1::{ChunkedBody, HeadEnd, Peer, Reject, RequestBody, RequestHead, Version, request_head};
use crate::measure::{Account, Arrival, Entry, Priority, RetryReason, ShedReason};
use crate::time::Timestamp;
use crate::wire::{Endpoint, Family, RequestScanner, RequestShape, Route, is_path, route};

/// Serves `client` until it leaves, breaks a rule, or the process stops.
pub async fn serve<D: Io>(mut client: D, peer: SocketAddr, worker: &Arc<Worker>) {
    let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
    let mut connection = Connection {
        worker,
        address: address_text(peer),
        trusted: worker.gateway.trusts(peer.ip()),
        early: Early::default(),
        served: 0,
    };
    loop {
        match connection.request(&mut client, timer.as_mut()).await {
            Next::Request => connection.served += 1,
            Next::Close => return,
            Next::ClosePolitely => return close_politely(&mut client).await,
        }
    }
}

struct Connection<'w> {
    worker: &'w Arc<Worker>,
    address: String,
    trusted: bool,
    early: Early,
    served: u32,
}

/// What comes after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Request,
    Close,
    /// The client may still be sending: read for a moment, or the reset destroys the answer.
    ClosePolitely,
}

/// A request that has arrived whole.
struct Request {
    head: RequestHead,
    path: PathKind,
    out: Vec<u8>,
    host: Vec<u8>,
    id: Arc<str>,
    id_is_made: bool,
    body: Held,
    has_length: bool,
    shape: Option<RequestShape>,
    arrived: Timestamp,
}

/// What the path says.
#[derive(Clone, Copy, Debug)]
enum PathKind {
    Inference(Endpoint),
    PassThrough,
    NotHere,
}

impl Connection<'_> {
    async fn request<D: Io>(&mut self, client: &mut D, mut timer: Pin<&mut Sleep>) -> Next {
        let (bytes, length) = match self.read_head(client, timer.as_mut()).await {
            Ok(read) => read,
            Err(stop) => return self.stopped(client, stop, Family::OpenAi).await,
        };
        let request = match self.read_request(client, timer.as_mut(), bytes, length).await {
            Ok(request) => request,
            Err((stop, family)) => return self.stopped(client, stop, family).await,
        };
        let _underway = self.gateway().drain.enter();
        (self.gateway().hook)(Phase::Arrived);
        self.dispatch(client, timer, request).await
    }

    // ---- the head -------------------------------------------------------------------------------------------------

    /// Reads until a head is complete: the bytes received, and where it ends.
    async fn read_head<D: Io>(&mut self, client: &mut D, mut timer: Pin<&mut Sleep>) -> Result<(Vec<u8>, usize), Stop> {
        let gateway = self.worker.gateway.clone();
        let (limits, clock) = (&gateway.limits, gateway.clock);
        let mut received = std::mem::take(&mut self.early.bytes);
        let mut end = HeadEnd::new();
        let mut begun = !received.is_empty();
        let patience = if begun || self.served == 0 { limits.header_timeout } else { limits.idle_timeout };
        timer.as_mut().reset(clock.instant(clock.now() + patience));
        if !begun && !self.await_next(client, timer.as_mut(), &mut received).await {
            return Err(Stop::Silently);
        }
        loop {
            if !received.is_empty() {
                if !begun {
                    begun = true;
                    timer.as_mut().reset(clock.instant(clock.now() + limits.header_timeout));
                }
                let found = end.find(&received).map_err(Stop::malformed)?;
                if found.unwrap_or(received.len()) > limits.max_header {
                    return Err(Stop::malformed(Reject::HeadTooLong));
                }
                if let Some(length) = found {
                    return Ok((received, length));
                }
            }
            match read_some(client, timer.as_mut(), |bytes| received.extend_from_slice(bytes)).await {
                ReadEnd::Some => {}
                ReadEnd::Overdue if begun => return Err(Stop::Refuse(Refusal::SlowRequest)),
                ReadEnd::Closed | ReadEnd::Overdue => return Err(Stop::Silently),
            }
        }
    }

    /// Waits for the first bytes of a request; `false`: the client left, was idle for too long, or we stop.
    async fn await_next<D: Io>(&self, client: &mut D, mut timer: Pin<&mut Sleep>, into: &mut Vec<u8>) -> bool {
        let mut watch = self.gateway().drain.watch();
        let mut stopped = pin!(async move {
            let _ = watch.wait_for(|phase| *phase == drain::Phase::Stopped).await;
        });
        poll_fn(|cx| match poll_read(cx, client, |bytes| into.extend_from_slice(bytes)) {
            Poll::Ready(open) => Poll::Ready(open),
            Poll::Pending if stopped.as_mut().poll(cx).is_ready() || timer.as_mut().poll(cx).is_ready() => {
                Poll::Ready(false)
            }
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    // ---- the body -------------------------------------------------------------------------------------------------

    /// Parses the head, reads the body, and knows what is asked for.
    async fn read_request<D: Io>(
        &mut self,
        client: &mut D,
        mut timer: Pin<&mut Sleep>,
        mut received: Vec<u8>,
        length: usize,
    ) -> Result<Request, (Stop, Family)> {
        let gateway = self.worker.gateway.clone();
        let mut out = Vec::with_capacity(length + 256);
        let via = self.worker.via();
        let peer = Peer { forwarded_for: &self.address, trusted: self.trusted, proto: "http", via: &via };
        let measured = |method: &[u8], target: &[u8]| matches!(route(method, target, b""), Route::Inference(_));
        let head = request_head(&received[..length], &peer, measured, &mut out)
            .map_err(|reject| (Stop::malformed(reject), Family::OpenAi))?;
        (gateway.hook)(Phase::Head);
        let path = self.path_kind(&head, &received[..length]);
        let family = path.family();
        if let RequestBody::Length(n) = head.body
            && n > gateway.limits.max_body as u64
        {
            return Err((Stop::Refuse(Refusal::BodyTooLarge), family));
        }
        let rest = received.split_off(length);
        if head.expect_continue && rest.is_empty() && head.body != RequestBody::None {
            let line: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
            write_all(client, timer.as_mut(), line).await.map_err(|_| (Stop::Silently, family))?;
        }
        let mut scanner = match path {
            PathKind::Inference(endpoint) => Some(RequestScanner::new(endpoint)),
            PathKind::PassThrough | PathKind::NotHere => None,
        };
        let mut body = Held::new(gateway.limits.max_body, &gateway.memory);
        self.read_body(client, timer, &head, rest, &mut body, scanner.as_mut()).await.map_err(|stop| (stop, family))?;
        let (id, id_is_made) = match &head.request_id {
            Some(range) => (String::from_utf8_lossy(&received[range.clone()]).into(), false),
            None => (self.worker.make_id().into(), true),
        };
        Ok(Request {
            path,
            host: head.host.clone().map_or_else(Vec::new, |range| received[range].to_vec()),
            has_length: head.needs_length(),
            head,
            out,
            id,
            id_is_made,
            body,
            shape: scanner.map(RequestScanner::finish),
            arrived: gateway.clock.now(),
        })
    }

    async fn read_body<D: Io>(
        &mut self,
        client: &mut D,
        mut timer: Pin<&mut Sleep>,
        head: &RequestHead,
        first: Vec<u8>,
        body: &mut Held,
        mut scanner: Option<&mut RequestScanner>,
    ) -> Result<(), Stop> {
        let gateway = self.worker.gateway.clone();
        let mut framing = match head.body {
            RequestBody::None => BodyReader::Length(0),
            RequestBody::Length(n) => BodyReader::Length(n),
            RequestBody::Chunked => BodyReader::Chunked(Box::default()),
        };
        let mut take = |bytes: &[u8], early: &mut Vec<u8>| -> Result<bool, Stop> {
            let mut full = Ok(());
            let used = framing.feed(bytes, |payload| {
                if let Some(scanner) = &mut scanner {
                    scanner.feed(payload);
                }
                full = full.and_then(|()| body.push(payload));
            })?;
            full?;
            early.extend_from_slice(&bytes[used..]);
            Ok(framing.ended())
        };
        if take(&first, &mut self.early.bytes)? {
            return Ok(());
        }
        drop(first);
        let start = gateway.clock.now();
        timer.as_mut().reset(gateway.clock.instant(start + gateway.limits.body_timeout));
        let mut rate = MinimumRate { start, received: 0 };
        loop {
            let mut ended = Ok(false);
            let early = &mut self.early.bytes;
            let read = read_some(client, timer.as_mut(), |bytes| {
                rate.received += bytes.len() as u64;
                ended = take(bytes, early);
            });
            match read.await {
                ReadEnd::Some if ended? => return Ok(()),
                ReadEnd::Some if rate.is_kept(gateway.clock.now()) => {}
                ReadEnd::Some | ReadEnd::Overdue => return Err(Stop::Refuse(Refusal::SlowRequest)),
                ReadEnd::Closed => return Err(Stop::Silently),
            }
        }
    }

    // ---- the backend ----------------------------------------------------------------------------------------------

    /// Finds a backend, relays, and closes the books.
    async fn dispatch<D: Io>(&mut self, client: &mut D, timer: Pin<&mut Sleep>, request: Request) -> Next {
        let lame = self.gateway().drain.phase() >= drain::Phase::Lame;
        let family = request.family();
        let keep = request.head.keep_alive && !lame;
        let refusal = match request.path {
            PathKind::NotHere => Some(Refusal::NotHere),
            _ if lame => Some(self.shed(&request, BackendId(0), ShedReason::Draining)),
            _ => None,
        };
        if let Some(refusal) = refusal {
            return self.refuse(client, timer, refusal, family, &request, keep).await;
        }
        let Some(permit) = self.gateway().pool.pick(None) else {
            let refusal = self.shed(&request, BackendId(0), ShedReason::NoBackend);
            return self.refuse(client, timer, refusal, family, &request, keep).await;
        };
        self.exchange(client, timer, request, permit, keep).await
    }

    /// Counts a request that is refused before dispatch.
    fn shed(&self, request: &Request, backend: BackendId, reason: ShedReason) -> Refusal {
        if let Some(entry) = offer(self.worker, request, backend) {
            entry.shed(reason, self.gateway().clock.now());
        }
        Refusal::Shed(reason)
    }

    async fn exchange<D: Io>(
        &mut self,
        client: &mut D,
        mut timer: Pin<&mut Sleep>,
        mut request: Request,
        mut permit: Permit,
        keep: bool,
    ) -> Next {
        let worker = self.worker.clone();
        let gateway = &worker.gateway;
        let family = request.family();
        let mut offering = Offering::new(&worker, &request, permit.backend());
        let mut dispatched = gateway.clock.now();
        let mut may_retry = true;
        // ---- a connection: from the pool, fresh, or fresh from another backend
        let mut link = loop {
            let backend = permit.backend();
            match self.connect(client, timer.as_mut(), backend, dispatched).await {
                Dialled::Link(link) => break link,
                Dialled::ClientGone => {
                    if let Some(entry) = offering.settle() {
                        entry.abandon(gateway.clock.now());
                    }
                    return Next::Close;
                }
                Dialled::Failed(ending) => {
                    super::health::on_dial_failed(gateway, backend);
                    let now = gateway.clock.now();
                    let another = (may_retry && !offering.booked).then(|| gateway.pool.pick(Some(backend))).flatten();
                    if let Some(other) = another.filter(|_| gateway.retries.spend(now)) {
                        (permit, may_retry, dispatched) = (other, false, now);
                        offering.move_to(permit.backend());
                        continue;
                    }
                    let refusal =
                        if ending == Ending::Timeout { Refusal::BackendTimeout } else { Refusal::BackendFailed };
                    if let Some(mut entry) = offering.settle() {
                        entry.admit(dispatched);
                        let dialect = request.shape.as_ref().map(|shape| shape.dialect);
                        close_refused(entry, permit, dialect, ending, refusal, now);
                    }
                    return self.refuse(client, timer, refusal, family, &request, keep).await;
                }
            }
        };
        let backend = permit.backend();
        gateway.retries.earn();
        let mut tap = match offering.settle().zip(request.shape.as_ref()) {
            Some((mut entry, shape)) => {
                entry.admit(dispatched);
                if !may_retry {
                    entry.retry(RetryReason::Connect);
                }
                Tap::measured(entry, permit, shape.dialect, dispatched).with_prompts(shape.prompts)
            }
            None => Tap::passing(dispatched),
        };
        (gateway.hook)(Phase::Dispatched);
        // ---- the exchange, at most twice
        let target = &gateway.targets[usize::from(backend.0)];
        let body = std::mem::replace(&mut request.body, Held::new(0, &gateway.memory));
        let mut outgoing = Outgoing::new(std::mem::take(&mut request.out), body);
        let (end, exchange) = loop {
            let host = target.authority.as_ref().map_or(&request.host[..], |authority| authority.as_bytes());
            let made = request.id_is_made.then_some(&*request.id);
            outgoing.address(&target.prefix, host, made, request.has_length);
            let mut exchange =
                Exchange::new(outgoing, Answer::new(self.recipient(&request, backend, keep)), gateway.clock.now());
            let mut bench = Bench {
                clock: gateway.clock,
                vitals: &gateway.vitals[usize::from(backend.0)],
                limits: &gateway.limits,
                budget: &gateway.memory,
                early: &mut self.early,
                timer: timer.as_mut(),
            };
            let end = poll_fn(|cx| exchange.step(cx, client, &mut link.stream, &mut tap, &mut bench)).await;
            let stale =
                link.reused && exchange.received() == 0 && matches!(end, End::Broken(Break::Eof | Break::Reset));
            if stale && may_retry && gateway.retries.spend(gateway.clock.now()) {
                may_retry = false;
                if let Some(entry) = tap.entry_mut() {
                    entry.retry(RetryReason::StaleConnection);
                }
                match self.dial(client, timer.as_mut(), backend, gateway.clock.now()).await {
                    Dialled::Link(fresh) => {
                        link = fresh;
                        outgoing = exchange.into_request();
                        continue;
                    }
                    Dialled::ClientGone => break (End::ClientGone, exchange),
                    Dialled::Failed(_) => super::health::on_dial_failed(gateway, backend),
                }
            }
            break (end, exchange);
        };
        (gateway.hook)(Phase::Ended);
        self.conclude(client, timer, &request, end, exchange, tap, link, backend, keep).await
    }

    /// The exchange has ended: pool the connection, close the books, tell the client what can still be told.
    #[expect(clippy::too_many_arguments, reason = "everything that is left of one exchange")]
    async fn conclude<D: Io>(
        &mut self,
        client: &mut D,
        mut timer: Pin<&mut Sleep>,
        request: &Request,
        end: End,
        exchange: Exchange,
        tap: Tap,
        link: Link,
        backend: BackendId,
        keep: bool,
    ) -> Next {
        let gateway = self.worker.gateway.clone();
        let now = gateway.clock.now();
        super::health::on_exchange_ended(&gateway, backend, end, exchange.received(), now);
        if end == End::Whole && exchange.is_reusable() {
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
            self.note(request, backend, tap.close(ending, Some(refusal.status()), now), Some(refusal.status()));
            return self.refuse(client, timer, refusal, request.family(), request, keep).await;
        }
        let event = tap.event_boundary().filter(|_| matches!(end, End::Broken(_)) && !tap.has_terminated());
        let takes_event = exchange.takes_event();
        let keeps = end == End::Whole && exchange.keeps_client() && !self.early.overflowed;
        drop(exchange);
        self.note(request, backend, tap.close(ending, status, now), status);
        if let Some(dialect) = event.filter(|_| takes_event) {
            let event = error_event(dialect.family(), "api_error", "the backend broke off in the middle of the answer");
            let framed = match request.head.version {
                Version::V11 => format!("{:x}\r\n{event}\r\n", event.len()),
                Version::V10 => event,
            };
            let _ = write_all(client, timer.as_mut(), framed.as_bytes()).await;
        }
        match end {
            End::Whole if keeps => Next::Request,
            End::Whole => Next::ClosePolitely,
            _ => Next::Close,
        }
    }

    fn recipient(&self, request: &Request, backend: BackendId, keep: bool) -> Recipient {
        let name = &self.gateway().targets[usize::from(backend.0)].name;
        Recipient {
            version: request.head.version,
            head_request: request.head.is_head(),
            close: !keep,
            request_id: request.id.clone(),
            served_by: request.shape.is_some().then(|| name.clone()),
            date: self.worker.date(),
        }
    }

    async fn connect<D: Io>(
        &mut self,
        client: &mut D,
        timer: Pin<&mut Sleep>,
        backend: BackendId,
        now: Timestamp,
    ) -> Dialled {
        match self.worker.idle.take(backend, now) {
            Some(stream) => Dialled::Link(Link { stream, reused: true }),
            None => self.dial(client, timer, backend, now).await,
        }
    }

    /// A fresh connection, under the connect deadline; the client is watched meanwhile.
    async fn dial<D: Io>(
        &mut self,
        client: &mut D,
        mut timer: Pin<&mut Sleep>,
        backend: BackendId,
        now: Timestamp,
    ) -> Dialled {
        let gateway = self.worker.gateway.clone();
        timer.as_mut().reset(gateway.clock.instant(now + gateway.limits.connect_timeout));
        let mut dialling = pin!(gateway.targets[usize::from(backend.0)].connect());
        let early = &mut self.early;
        poll_fn(|cx| {
            if let Poll::Ready(dialled) = dialling.as_mut().poll(cx) {
                return Poll::Ready(match dialled {
                    Ok(stream) => Dialled::Link(Link { stream, reused: false }),
                    Err(_) => Dialled::Failed(Ending::Reset),
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
            if timer.as_mut().poll(cx).is_ready() {
                Poll::Ready(Dialled::Failed(Ending::Timeout))
            } else {
                Poll::Pending
            }
        })
        .await
    }

    // ---- weir's own answers ---------------------------------------------------------------------------------------

    /// A request that could not be read.
    async fn stopped<D: Io>(&mut self, client: &mut D, stop: Stop, family: Family) -> Next {
        let Stop::Refuse(refusal) = stop else { return Next::Close };
        self.worker.shard.malformed(refusal.status());
        let date = self.worker.date();
        let to = Addressee { family, request_id: None, close: true, head_only: false, date: text(&date) };
        let answer = refusal.render(&to);
        let mut timer = pin!(tokio::time::sleep(WRITE_PATIENCE));
        match write_all(client, timer.as_mut(), &answer).await {
            Ok(()) => Next::ClosePolitely,
            Err(_) => Next::Close,
        }
    }

    /// A refusal after the request was read whole: the connection stays usable.
    async fn refuse<D: Io>(
        &mut self,
        client: &mut D,
        mut timer: Pin<&mut Sleep>,
        refusal: Refusal,
        family: Family,
        request: &Request,
        keep: bool,
    ) -> Next {
        let keep = keep && !self.early.overflowed;
        let date = self.worker.date();
        let head_only = request.head.is_head();
        let to = Addressee { family, request_id: Some(&request.id), close: !keep, head_only, date: text(&date) };
        let answer = refusal.render(&to);
        timer.as_mut().reset(self.gateway().clock.instant(self.gateway().clock.now() + WRITE_PATIENCE));
        match write_all(client, timer, &answer).await {
            Ok(()) if keep => Next::Request,
            Ok(()) => Next::ClosePolitely,
            Err(_) => Next::Close,
        }
    }

    /// The access log: fields of ours and numbers, no path, no query, no header.
    fn note(
        &self,
        request: &Request,
        backend: BackendId,
        outcome: Option<crate::measure::Outcome>,
        status: Option<u16>,
    ) {
        let gateway = self.gateway();
        if !gateway.access_log {
            return;
        }
        let Some(shape) = &request.shape else { return };
        let took = gateway.clock.now().since(request.arrived);
        tracing::info!(
            target: "weir::access",
            backend = &*gateway.targets[usize::from(backend.0)].name,
            dialect = shape.dialect.as_str(),
            stream = shape.stream,
            outcome = outcome.map_or("none", crate::measure::Outcome::as_str),
            status = status.unwrap_or(0),
            seconds = took.as_secs_f64(),
            "request finished"
        );
    }

    fn path_kind(&self, head: &RequestHead, bytes: &[u8]) -> PathKind {
        let target = &bytes[head.target.clone()];
        match route(head.method.as_bytes(), target, b"") {
            Route::Inference(endpoint) => PathKind::Inference(endpoint),
            Route::PassThrough if !self.gateway().passes_metrics && is_path(target, b"/metrics") => PathKind::NotHere,
            Route::PassThrough => PathKind::PassThrough,
        }
    }

    fn gateway(&self) -> &Gateway {
        &self.worker.gateway
    }
}

impl Request {
    fn family(&self) -> Family {
        self.shape.as_ref().map_or_else(|| self.path.family(), |shape| shape.dialect.family())
    }
}

impl PathKind {
    fn family(self) -> Family {
        match self {
            Self::Inference(endpoint) => endpoint.family(),
            Self::PassThrough | Self::NotHere => Family::OpenAi,
        }
    }
}

/// Opens the books for a measured request.
fn offer(worker: &Worker, request: &Request, backend: BackendId) -> Option<Entry> {
    let shape = request.shape.as_ref()?;
    let gateway = &worker.gateway;
    let account = Account { backend, model: gateway.ledger.model(backend, shape.model.as_deref()) };
    let arrival = Arrival {
        at: request.arrived,
        stream: shape.stream,
        trace: gateway.traces,
        dialect: shape.dialect.as_str(),
        prompt_tokens: shape.prompt_tokens_estimate(),
        max_output: shape.max_output,
        choices: shape.choices,
    };
    Some(Entry::offer(&worker.shard, account, Priority::Default, arrival))
}

/// A request on its way into the books. They are opened at the backend that will serve it: with another one in reserve, only
/// once the one that is dialled answers, so that no counter ever has to be taken back. It is booked once, and on every path:
/// a task that ends before that books it as abandoned in the queue.
struct Offering<'a> {
    worker: &'a Worker,
    request: &'a Request,
    backend: BackendId,
    booked: bool,
    entry: Option<Entry>,
}

impl<'a> Offering<'a> {
    fn new(worker: &'a Worker, request: &'a Request, backend: BackendId) -> Self {
        let mut offering = Self { worker, request, backend, booked: false, entry: None };
        offering.move_to(backend);
        offering
    }

    /// `backend` is dialled now.
    fn move_to(&mut self, backend: BackendId) {
        self.backend = backend;
        if !self.worker.gateway.pool.has_another(backend) {
            self.book();
        }
    }

    /// Nothing can change the backend any more.
    fn settle(mut self) -> Option<Entry> {
        self.book();
        self.entry.take()
    }

    fn book(&mut self) {
        if !std::mem::replace(&mut self.booked, true) {
            self.entry = offer(self.worker, self.request, self.backend);
        }
    }
}

impl Drop for Offering<'_> {
    fn drop(&mut self) {
        self.book();
    }
}

/// Why a request could not be read.
enum Stop {
    /// The client left, or never began.
    Silently,
    Refuse(Refusal),
}

impl Stop {
    fn malformed(reject: Reject) -> Self {
        Self::Refuse(Refusal::Malformed { status: reject.status(), sentence: reject.sentence() })
    }
}

impl From<TooMuch> for Stop {
    fn from(too_much: TooMuch) -> Self {
        Self::Refuse(match too_much {
            TooMuch::Body => Refusal::BodyTooLarge,
            TooMuch::Memory => Refusal::BodyMemory,
        })
    }
}

/// Where a request's body ends.
enum BodyReader {
    Length(u64),
    Chunked(Box<ChunkedBody>),
}

impl BodyReader {
    /// Hands payload on and says how many bytes belonged to the body.
    fn feed(&mut self, bytes: &[u8], mut on_payload: impl FnMut(&[u8])) -> Result<usize, Stop> {
        match self {
            Self::Length(left) => {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                on_payload(&bytes[..n]);
                *left -= n as u64;
                Ok(n)
            }
            Self::Chunked(body) => body.feed(bytes, on_payload).map_err(Stop::malformed),
        }
    }

    fn ended(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(body) => body.ended(),
        }
    }
}

/// A body that drips holds memory without end.
struct MinimumRate {
    start: Timestamp,
    received: u64,
}

impl MinimumRate {
    fn is_kept(&self, now: Timestamp) -> bool {
        let judged = now.since(self.start).saturating_sub(RATE_GRACE);
        self.received >= judged.as_secs() * RATE_BYTES
    }
}

/// A connection to a backend.
struct Link {
    stream: TcpStream,
    reused: bool,
}

enum Dialled {
    Link(Link),
    ClientGone,
    Failed(Ending),
}

/// Closes the books of a request whose backend could not be reached.
fn close_refused(
    entry: Entry,
    permit: Permit,
    dialect: Option<crate::wire::Dialect>,
    ending: Ending,
    refusal: Refusal,
    now: Timestamp,
) {
    if let Some(dialect) = dialect {
        Tap::measured(entry, permit, dialect, now).close(ending, Some(refusal.status()), now);
    }
}

/// How waiting for bytes ended.
enum ReadEnd {
    Some,
    Closed,
    Overdue,
}

async fn read_some<D: Io>(client: &mut D, mut timer: Pin<&mut Sleep>, mut take: impl FnMut(&[u8])) -> ReadEnd {
    poll_fn(|cx| match poll_read(cx, client, &mut take) {
        Poll::Ready(true) => Poll::Ready(ReadEnd::Some),
        Poll::Ready(false) => Poll::Ready(ReadEnd::Closed),
        Poll::Pending if timer.as_mut().poll(cx).is_ready() => Poll::Ready(ReadEnd::Overdue),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// One read through the worker's buffer. `Ready(false)`: closed.
fn poll_read<D: Io>(cx: &mut Context<'_>, client: &mut D, mut take: impl FnMut(&[u8])) -> Poll<bool> {
    WORKBENCH.with_borrow_mut(|work| match client.rd(cx, &mut work.read) {
        Poll::Ready(Ok(n)) if n > 0 => {
            take(&work.read[..n]);
            Poll::Ready(true)
        }
        Poll::Ready(_) => Poll::Ready(false),
        Poll::Pending => Poll::Pending,
    })
}

async fn write_all<D: Io>(client: &mut D, mut timer: Pin<&mut Sleep>, bytes: &[u8]) -> io::Result<()> {
    let mut written = 0;
    poll_fn(|cx| {
        while written < bytes.len() {
            match client.wr(cx, &bytes[written..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => written += n,
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending if timer.as_mut().poll(cx).is_ready() => {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        client.fl(cx)
    })
    .await
}

/// FIN, then read and drop what the client still sends, for a moment: closing with unread bytes is a reset, and a reset
/// destroys the answer on its way.
async fn close_politely<D: Io>(client: &mut D) {
    let mut timer = pin!(tokio::time::sleep(POLITE_TIME));
    if poll_fn(|cx| client.end(cx)).await.is_err() {
        return;
    }
    let mut dropped = 0;
    while dropped < POLITE_BYTES {
        match read_some(client, timer.as_mut(), |bytes| dropped += bytes.len()).await {
            ReadEnd::Some => {}
            ReadEnd::Closed | ReadEnd::Overdue => return,
        }
    }
}

fn text(date: &[u8; 29]) -> &str {
    std::str::from_utf8(date).unwrap_or("")
}

const RATE_GRACE: Duration = Duration::from_secs(5);
const RATE_BYTES: u64 = 1024;
/// For weir's own short answers.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);
const POLITE_BYTES: usize = 256 * 1024;
const POLITE_TIME: Duration = Duration::from_secs(2);
