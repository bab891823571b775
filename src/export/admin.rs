//! The admin port's server: its own listener, its own thread, hyper for HTTP/1.
//!
//! It never waits for the data path: it shares no runtime, no socket and no queue with it, and of its locks only the one that a
//! scrape holds for the length of a copy. A connection has a deadline that every request extends; it ends idle, slow and stuck
//! connections, and at the limit of connections the longest idle one is displaced (`conn_limit`). Absent: pages (`routes`) and
//! access rules (`auth`).

use std::convert::Infallible;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Either, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::Handles;
use super::auth::{AccessPolicy, Action, Endpoints};
use super::conn_limit::{ConnLimit, ConnSlot};
use super::routes::{self, AdminPage, AdminResponse, Pages};

/// The running admin port. Dropping it stops the port and waits for its thread.
#[derive(Debug)]
pub struct AdminPort {
    address: SocketAddr,
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl AdminPort {
    /// Serves the pages on `listener` from a thread of its own until dropped.
    ///
    /// Fails when the listener has no address, the runtime cannot be made or the thread cannot be started.
    pub fn start(listener: std::net::TcpListener, policy: AccessPolicy, handles: Handles) -> io::Result<Self> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stop = Arc::new(Notify::new());
        let stopped = stop.clone();
        let server = Arc::new(AdminServer { policy, pages: Pages::new(handles) });
        let thread = std::thread::Builder::new().name("weir-admin".into()).spawn(move || {
            runtime.block_on(async {
                tokio::spawn(every_second(server.clone()));
                tokio::select! {
                    () = stopped.notified() => {}
                    () = serve(listener, server) => {}
                }
            });
        })?;
        Ok(Self { address, stop, thread: Some(thread) })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for AdminPort {
    fn drop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the admin port's thread ended in a panic");
        }
    }
}

/// The state shared by all connections.
struct AdminServer {
    policy: AccessPolicy,
    pages: Pages,
}

/// The instant at which a connection is closed; each request extends it.
#[derive(Debug)]
struct Deadline(watch::Sender<Instant>);

impl Deadline {
    fn new(span: Duration) -> Self {
        Self(watch::Sender::new(soon(span)))
    }

    fn extend(&self, span: Duration) {
        self.0.send_replace(soon(span));
    }

    async fn passed(&self) {
        loop {
            let at = *self.0.borrow();
            tokio::time::sleep_until(at).await;
            if *self.0.borrow() <= at {
                return;
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a timer of this port's own runtime, no stamp of anything measured")]
fn soon(span: Duration) -> Instant {
    Instant::now() + span
}

async fn serve(listener: std::net::TcpListener, server: Arc<AdminServer>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the admin port cannot be served"),
    };
    let limit = ConnLimit::new(CONNECTIONS);
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the admin port could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        match limit.take() {
            Some(slot) => _ = tokio::spawn(serve_conn(stream, peer, server.clone(), slot)),
            None => reject(stream),
        }
    }
}

/// Makes the live page's frames, once for all viewers.
async fn every_second(server: Arc<AdminServer>) {
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        seconds.tick().await;
        server.pages.on_second();
    }
}

/// Over the limit: the answer fits any send buffer, and nothing waits until it arrives.
fn reject(stream: TcpStream) {
    // Through the standard library: the runtime does not know yet that a new socket can be written.
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write(LIMIT_REACHED);
    }
}

async fn serve_conn(stream: TcpStream, peer: SocketAddr, server: Arc<AdminServer>, slot: ConnSlot) {
    let Ok(local) = stream.local_addr() else { return };
    // Best effort: without it a stalled reader is noticed later.
    let _ = socket2::SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER);
    let endpoints = Endpoints { peer: peer.ip(), local: local.ip() };
    let deadline = Arc::new(Deadline::new(HEAD_TIME));
    let slot = &slot;
    let service = service_fn(|request| {
        let (server, deadline) = (server.clone(), deadline.clone());
        async move { Ok::<_, Infallible>(server.receive(request, endpoints, &deadline, slot).await) }
    });
    let connection = http1::Builder::new()
        .header_read_timeout(None)
        .max_buf_size(HEAD_SIZE)
        .half_close(false)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        ended = connection => {
            if let Err(error) = ended {
                tracing::debug!(%error, "an admin connection broke");
            }
        }
        () = deadline.passed() => tracing::debug!("an admin connection ran out of time"),
        () = slot.displaced() => tracing::debug!("an idle admin connection was closed for another one"),
    }
}

impl AdminServer {
    async fn receive(
        &self,
        request: Request<Incoming>,
        endpoints: Endpoints,
        deadline: &Arc<Deadline>,
        slot: &ConnSlot,
    ) -> AdminResponse {
        slot.on_request();
        let page = AdminPage::at(request.uri().path());
        let extra = page.map_or(Duration::ZERO, |page| Pages::extra_time(page, request.uri()));
        deadline.extend(ANSWER_TIME + extra);
        let mut answer = self.answer(request, page, endpoints).await;
        match answer.body_mut() {
            Either::Left(_) => {
                deadline.extend(IDLE_TIME);
                slot.on_answered();
            }
            // The answer has no end: the connection stays open while its reader keeps up, and its slot stays taken.
            Either::Right(frames) => {
                let deadline = deadline.clone();
                frames.on_taken(move || deadline.extend(VIEW_TIME));
            }
        }
        answer
    }

    async fn answer(&self, request: Request<Incoming>, page: Option<AdminPage>, endpoints: Endpoints) -> AdminResponse {
        let action = page.map_or(Action::Read, |page| page.action(request.method()));
        if let Err(denied) = self.policy.admit(&request, endpoints, action) {
            let status = StatusCode::from_u16(denied.status()).unwrap_or(StatusCode::FORBIDDEN);
            return routes::problem(status, &denied.to_string());
        }
        let Some(page) = page else { return routes::not_found() };
        if !page.takes(request.method()) {
            return routes::not_allowed(page);
        }
        let (head, body) = request.into_parts();
        match tokio::time::timeout(BODY_TIME, read_body(body)).await {
            Err(_) => routes::problem(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"),
            Ok(Err(problem)) => problem,
            Ok(Ok(_)) => self.pages.answer(page, &head.method, &head.uri, &head.headers).await,
        }
    }
}

/// The whole body, or 413 when it is too long and 400 when it breaks off.
async fn read_body(body: Incoming) -> Result<Bytes, AdminResponse> {
    let too_long = || routes::problem(StatusCode::PAYLOAD_TOO_LARGE, "a body on this port is 1 MiB at most");
    if body.size_hint().lower() > BODY_SIZE as u64 {
        return Err(too_long());
    }
    match Limited::new(body, BODY_SIZE).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_long()),
        Err(_) => Err(routes::problem(StatusCode::BAD_REQUEST, "the body broke off")),
    }
}

/// A scraper, two probes, a browser and some terminals need a handful.
const CONNECTIONS: usize = 64;
const HEAD_SIZE: usize = 64 << 10;
const BODY_SIZE: usize = 1 << 20;
const HEAD_TIME: Duration = Duration::from_secs(10);
const BODY_TIME: Duration = Duration::from_secs(10);
/// Body and answer together.
const ANSWER_TIME: Duration = Duration::from_secs(20);
/// For writing the answer and then waiting for the next request; longer than the usual scrape interval of 15 s to 30 s.
const IDLE_TIME: Duration = Duration::from_secs(75);
/// Between two events that a viewer of the live page reads; there is one a second.
const VIEW_TIME: Duration = Duration::from_secs(15);
/// Twenty seconds of a small process's events: kernel memory that a stalled viewer may use.
const SEND_BUFFER: usize = 64 << 10;
/// No descriptors left: one is free when another connection closes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const LIMIT_REACHED: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_passes_when_it_is_not_extended() {
        let started = soon(Duration::ZERO);
        Deadline::new(HEAD_TIME).passed().await;
        assert_eq!(soon(Duration::ZERO) - started, HEAD_TIME);
    }

    #[tokio::test(start_paused = true)]
    async fn an_extended_deadline_does_not_pass_at_the_old_instant() {
        let started = soon(Duration::ZERO);
        let deadline = Deadline::new(HEAD_TIME);
        tokio::join!(deadline.passed(), async {
            tokio::time::sleep(HEAD_TIME / 2).await;
            deadline.extend(IDLE_TIME);
        });
        assert_eq!(soon(Duration::ZERO) - started, HEAD_TIME / 2 + IDLE_TIME);
    }
}
