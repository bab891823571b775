//! The admin port's server: its own listener, its own thread, hyper for HTTP/1.
//!
//! It never waits for the data path: it shares no runtime, no socket and no queue with it, and of its locks only the one
//! that a scrape holds for the length of a copy. A connection has a deadline that every request moves on; idle, slow and
//! stuck callers end by it, and sooner when somebody else needs their place (places.rs). It holds no pages (routes.rs) and no
//! rules about who may call (visitor.rs).

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
use super::auth::{AccessPolicy, Action, Ends};
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
    pub fn start(listener: std::net::TcpListener, admission: AccessPolicy, handles: Handles) -> io::Result<Self> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stop = Arc::new(Notify::new());
        let stopped = stop.clone();
        let server = Arc::new(AdminServer { admission, pages: Pages::new(handles) });
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

    /// Where it listens.
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

/// What every connection shares.
struct AdminServer {
    admission: AccessPolicy,
    pages: Pages,
}

/// The instant a connection is given up; each request moves it.
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
    let places = ConnLimit::new(CONNECTIONS);
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the admin port could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        match places.take() {
            Some(place) => _ = tokio::spawn(serve_conn(stream, peer, server.clone(), place)),
            None => reject(stream),
        }
    }
}

/// What the live page shows is made here, once for all who look.
async fn every_second(server: Arc<AdminServer>) {
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        seconds.tick().await;
        server.pages.on_second();
    }
}

/// Over the cap: the answer fits any send buffer, and whether it arrives is not waited for.
fn reject(stream: TcpStream) {
    // Through the standard library: the runtime has not yet heard that a socket this young can be written.
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write(FULL_HOUSE);
    }
}

async fn serve_conn(stream: TcpStream, peer: SocketAddr, server: Arc<AdminServer>, place: ConnSlot) {
    let Ok(local) = stream.local_addr() else { return };
    // Best effort: without it a reader that has stopped is noticed later.
    let _ = socket2::SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER);
    let ends = Ends { peer: peer.ip(), local: local.ip() };
    let deadline = Arc::new(Deadline::new(HEAD_TIME));
    let place = &place;
    let service = service_fn(|request| {
        let (server, deadline) = (server.clone(), deadline.clone());
        async move { Ok::<_, Infallible>(server.receive(request, ends, &deadline, place).await) }
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
        () = place.needed() => tracing::debug!("an idle admin connection made room for another one"),
    }
}

impl AdminServer {
    async fn receive(
        &self,
        request: Request<Incoming>,
        ends: Ends,
        deadline: &Arc<Deadline>,
        place: &ConnSlot,
    ) -> AdminResponse {
        place.on_request();
        let page = AdminPage::at(request.uri().path());
        let patience = page.map_or(Duration::ZERO, |page| Pages::patience(page, request.uri()));
        deadline.extend(ANSWER_TIME + patience);
        let mut answer = self.answer(request, page, ends).await;
        match answer.body_mut() {
            Either::Left(_) => {
                deadline.extend(IDLE_TIME);
                place.on_answered();
            }
            // Its answer has no end: it stays for as long as its reader keeps up, and its place stays taken.
            Either::Right(frames) => {
                let deadline = deadline.clone();
                frames.note_taken(move || deadline.extend(VIEW_TIME));
            }
        }
        answer
    }

    async fn answer(&self, request: Request<Incoming>, page: Option<AdminPage>, ends: Ends) -> AdminResponse {
        let act = page.map_or(Action::Read, |page| page.act(request.method()));
        if let Err(turned) = self.admission.admit(&request, ends, act) {
            let status = StatusCode::from_u16(turned.status()).unwrap_or(StatusCode::FORBIDDEN);
            return routes::problem(status, &turned.to_string());
        }
        let Some(page) = page else { return routes::not_found() };
        if !page.takes(request.method()) {
            return routes::not_allowed(page);
        }
        let (head, body) = request.into_parts();
        match tokio::time::timeout(BODY_TIME, whole(body)).await {
            Err(_) => routes::problem(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"),
            Ok(Err(refusal)) => refusal,
            Ok(Ok(_)) => self.pages.answer(page, &head.method, &head.uri, &head.headers).await,
        }
    }
}

/// The whole body, or 413 when it is too long and 400 when it breaks off.
async fn whole(body: Incoming) -> Result<Bytes, AdminResponse> {
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
/// Between two events that a viewer of the live page takes; there is one a second.
const VIEW_TIME: Duration = Duration::from_secs(15);
/// Twenty seconds of a small process's events: what a viewer that stopped reading may hold of the kernel.
const SEND_BUFFER: usize = 64 << 10;
/// No descriptors left: they come back when somebody else closes one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const FULL_HOUSE: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_passes_when_nobody_moves_it() {
        let started = soon(Duration::ZERO);
        Deadline::new(HEAD_TIME).passed().await;
        assert_eq!(soon(Duration::ZERO) - started, HEAD_TIME);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_was_moved_does_not_pass_at_the_old_instant() {
        let started = soon(Duration::ZERO);
        let deadline = Deadline::new(HEAD_TIME);
        tokio::join!(deadline.passed(), async {
            tokio::time::sleep(HEAD_TIME / 2).await;
            deadline.extend(IDLE_TIME);
        });
        assert_eq!(soon(Duration::ZERO) - started, HEAD_TIME / 2 + IDLE_TIME);
    }
}
