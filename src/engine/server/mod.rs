//! The simulated engine as an HTTP server: it runs the model in real time.
//!
//! ```text
//! request ─► service ─► pacer (one thread, owns the model) ─► a channel a request ─► stream ─► socket
//!             │                                                                     ▲
//!             └─ dialect: openai · anthropic · ollama (what is asked, how it is written) ┘
//! ```
//!
//! Every dialect is served on the one port, each on its own paths. Nothing is generated: a token is a pseudo word that
//! depends on request number, choice and position alone. Absent: a tokeniser (a prompt token is four bytes),
//! a prefix cache (each of n choices holds its own copy of the prompt), embeddings, the Responses API.

mod anthropic;
mod body;
mod dialect;
mod engine_request;
mod fault;
mod filler_text;
mod meter;
mod ollama;
mod openai;
mod pacer;
mod recorder;
mod service;
mod settings;
mod stream;
mod token;

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

pub use self::recorder::{EngineEnd, EngineRecord, Recorder};
use self::service::EngineService;
pub use self::settings::{ServedFamily, Settings, UnknownFamily};

/// Serves until `stop` is ready. Open connections are then dropped, as by an engine that dies.
///
/// # Errors
/// Only when the thread that runs the model cannot be started: a connection that fails ends alone, and a failing accept is
/// tried again.
pub async fn serve(listener: TcpListener, settings: Settings, stop: impl Future<Output = ()>) -> io::Result<()> {
    let (pacer, thread) = pacer::start(&settings)?;
    let service = Arc::new(EngineService::new(settings, pacer));
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, Arc::clone(&service)));
            }
            // Out of descriptors, most likely: some will be free again soon.
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
    connections.shutdown().await;
    drop(service);
    // The pacer returns as soon as the last handle to it is gone, which is now.
    let _ = thread.join();
    Ok(())
}

async fn connection(stream: TcpStream, service: Arc<EngineService>) {
    // Without it a token would wait for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let reset = Arc::new(AtomicBool::new(false));
    let socket = Socket { stream, reset: Arc::clone(&reset) };
    let service = service_fn(move |request| {
        let (service, reset) = (Arc::clone(&service), Arc::clone(&reset));
        async move { service.answer(request, reset).await }
    });
    // A client that leaves and a fault that was asked for both end here: neither is an error of the server.
    let _ = http1::Builder::new().writev(false).serve_connection(TokioIo::new(socket), service).await;
}

/// A client's socket, which ends in a reset when the flag is set.
struct Socket {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
