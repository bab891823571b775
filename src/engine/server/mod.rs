//! The simulated engine, speaking HTTP: it plays the model in real time.
//!
//! ```text
//! request ─► service ─► pacer (one thread, owns the model) ─► a channel a request ─► stream ─► socket
//!             │                                                                     ▲
//!             └── dialect: openai · anthropic · ollama (what is asked, how it is told) ┘
//! ```
//!
//! Every dialect is served on the one port, each on its own paths. Nothing is generated: a token is a pseudo word that
//! depends on request number, choice and position alone. What it does not do: tokenise (a prompt token is four bytes),
//! cache prefixes (each of n choices holds its own copy of the prompt), embeddings, the Responses API.

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
mod stream;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::str::FromStr;
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
use super::profile::{Profile, Setup, UnknownProfile};
use crate::clock::Clock;

/// What to simulate and how to tell it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the engine, for the sentence printed at start.
    pub name: String,
    /// Step costs, limits, and the law of output lengths.
    pub setup: Setup,
    /// The dialect named first; all of them are served whatever it is.
    pub dialect: ServedFamily,
    /// The model it says it serves; any other name is answered too.
    pub model_name: String,
    /// Seed of the output lengths. Request number i draws the same lengths in every run with the same seed.
    pub seed: u64,
    /// How many times faster than the profile says time runs; above zero. Metrics and stamps stay in real seconds.
    pub speed: f64,
    /// Every streamed event carries `t_ns`, as if each request had sent `x-engine-stamps: 1`.
    pub stamps: bool,
    /// Obey `x-engine-fault`: `hang`, `status=503`, `slow-head` (with the first token), `slow-head=MS`, and for
    /// streams, after N tokens, `reset-after=N` (RST), `cut-after=N` (FIN in mid-body), `truncate-after=N` (the body
    /// ends, the stream does not), `error-event-after=N`, `stall-after=N` (silence).
    pub faults: bool,
    /// The clock of all stamps. Give it the clock of whatever they are to be compared with.
    pub clock: Clock,
    /// Where to keep what was done when, for tests in the same process.
    pub recorder: Option<Arc<Recorder>>,
}

impl Settings {
    /// The named profile, playing at its own speed with seed 1.
    ///
    /// # Errors
    /// [`UnknownProfile`], whose sentence lists the names.
    pub fn profile(name: &str, clock: Clock) -> Result<Self, UnknownProfile> {
        Profile::named(name).map(|profile| Self::setup(profile.name, profile.setup, clock))
    }

    /// An engine described by its figures.
    pub fn setup(name: &str, setup: Setup, clock: Clock) -> Self {
        Self {
            name: name.to_owned(),
            setup,
            dialect: ServedFamily::OpenAi,
            model_name: "weir-sim".to_owned(),
            seed: 1,
            speed: 1.0,
            stamps: false,
            faults: false,
            clock,
            recorder: None,
        }
    }

    /// What to print once the server listens at `address`.
    pub fn sentence(&self, address: SocketAddr) -> String {
        let params = &self.setup.params;
        format!(
            "simulated engine '{}' ({} slots, {} KV tokens, speed {}) at http://{address}{}; its metrics: http://{address}/metrics",
            self.name,
            params.max_num_seqs,
            params.kv_tokens,
            self.speed,
            self.dialect.path(),
        )
    }
}

/// A family of dialects, for [`Settings::dialect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServedFamily {
    /// `/v1/chat/completions` and `/v1/completions`.
    OpenAi,
    /// `/v1/messages`.
    Anthropic,
    /// `/api/chat` and `/api/generate`.
    Ollama,
}

impl ServedFamily {
    fn path(self) -> &'static str {
        match self {
            Self::OpenAi => "/v1/chat/completions",
            Self::Anthropic => "/v1/messages",
            Self::Ollama => "/api/chat",
        }
    }
}

impl FromStr for ServedFamily {
    type Err = UnknownFamily;

    fn from_str(text: &str) -> Result<Self, UnknownFamily> {
        match text {
            "openai" => Ok(Self::OpenAi),
            "anthropic" => Ok(Self::Anthropic),
            "ollama" => Ok(Self::Ollama),
            _ => Err(UnknownFamily(text.to_owned())),
        }
    }
}

/// Not a family of dialects.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown dialect '{0}': choose one of openai, anthropic, ollama")]
pub struct UnknownFamily(String);

/// Serves until `stop` is ready. Open connections are then dropped, as by an engine that dies.
///
/// # Errors
/// Only when the thread that plays the model cannot be started: a connection that fails is that client's affair, and a
/// failing accept is tried again.
pub async fn serve(listener: TcpListener, settings: Settings, stop: impl Future<Output = ()>) -> io::Result<()> {
    let (pacer, playing) = pacer::start(&settings)?;
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
    let _ = playing.join();
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
    // A client that leaves, and a fault that was asked for, both end here; there is nobody to tell.
    let _ = http1::Builder::new().writev(false).serve_connection(TokioIo::new(socket), service).await;
}

/// A client's socket that can be told to end in a reset.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_names_engine_and_address() {
        let settings = Settings::profile("seed", Clock::start()).unwrap();
        let sentence = settings.sentence("127.0.0.1:8200".parse().unwrap());
        assert!(sentence.starts_with(
            "simulated engine 'seed' (91 slots, 400000 KV tokens, speed 1) at http://127.0.0.1:8200/v1/chat"
        ));
    }

    #[test]
    fn an_unknown_dialect_lists_the_known_ones() {
        assert_eq!("ollama".parse(), Ok(ServedFamily::Ollama));
        let sentence = "tgi".parse::<ServedFamily>().unwrap_err().to_string();
        assert_eq!(sentence, "unknown dialect 'tgi': choose one of openai, anthropic, ollama");
    }
}
