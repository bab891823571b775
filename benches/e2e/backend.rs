//! A backend in place of an engine: answers `POST /v1/chat/completions` on two ports, streamed at a fixed pace or at once. It measures
//! nothing; each event carries the moment it was made.
//!
//! `drop_every` leaves out one event in N, so that the selftest can check that the client notices.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep_until};

use crate::event::{EventChunk, STREAM_END, STREAM_HEAD, unary_answer};
use crate::framing::{Body, wrong};

/// How the backend behaves.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Gap between two events of a stream, the first included; zero sends as fast as the client reads.
    pub pace: Duration,
    /// Leaves out every n-th event of the whole process; `None` leaves out none.
    pub drop_every: Option<u64>,
}

/// The two fields of a request that matter here.
#[derive(Debug, Deserialize)]
struct Wish {
    #[serde(default)]
    stream: bool,
    #[serde(default = "one")]
    max_tokens: u64,
}

/// Listens on two free ports of the loopback, prints them on one line, and serves until killed.
///
/// # Errors
/// No port could be had.
pub fn run(settings: Settings) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async move {
        let (first, second) = (listen()?, listen()?);
        println!("{} {}", first.local_addr()?.port(), second.local_addr()?.port());
        let losses = Rc::new(Losses { every: settings.drop_every, made: Cell::new(0) });
        let other = tokio::task::spawn_local(accept(second, settings.pace, Rc::clone(&losses)));
        accept(first, settings.pace, losses).await;
        other.abort();
        Ok(())
    })
}

fn listen() -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    socket.listen(BACKLOG)
}

async fn accept(listener: TcpListener, pace: Duration, losses: Rc<Losses>) {
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        let losses = Rc::clone(&losses);
        // A connection that breaks is the client's to report.
        tokio::task::spawn_local(async move { drop(serve(socket, pace, &losses).await) });
    }
}

async fn serve(mut socket: TcpStream, pace: Duration, losses: &Losses) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let (mut received, mut out) = (Vec::with_capacity(2048), Vec::with_capacity(512));
    let mut chunk = EventChunk::new();
    while let Some(wish) = next_wish(&mut socket, &mut received).await? {
        if !wish.stream {
            out.clear();
            unary_answer(&mut out);
            socket.write_all(&out).await?;
            continue;
        }
        socket.write_all(STREAM_HEAD).await?;
        let mut due = Instant::now();
        for index in 0..wish.max_tokens {
            due += pace;
            if pace.is_zero() {
                tokio::task::yield_now().await
            } else {
                sleep_until(due).await
            }
            if !losses.lose() {
                socket.write_all(chunk.stamped(index)).await?;
            }
        }
        socket.write_all(STREAM_END).await?;
    }
    Ok(())
}

/// Reads one whole request; `None` when the peer closed between two.
async fn next_wish(socket: &mut TcpStream, received: &mut Vec<u8>) -> io::Result<Option<Wish>> {
    let (head_len, mut body) = loop {
        if let Some(head) = head(received)? {
            break head;
        }
        if socket.read_buf(received).await? == 0 {
            return if received.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
    };
    let (mut payload, mut at) = (Vec::new(), head_len);
    loop {
        at += body.feed(&received[at..], &mut payload)?;
        if body.ended() {
            received.drain(..at);
            let wish = if payload.is_empty() {
                Wish { stream: false, max_tokens: 1 }
            } else {
                serde_json::from_slice(&payload)?
            };
            return Ok(Some(wish));
        }
        if socket.read_buf(received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The length of a complete head and the body behind it.
fn head(received: &[u8]) -> io::Result<Option<(usize, Body)>> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(received).map_err(|_| wrong("request head"))? {
        httparse::Status::Complete(len) => Ok(Some((len, Body::of(request.headers)?))),
        httparse::Status::Partial => Ok(None),
    }
}

/// Which events get lost.
struct Losses {
    every: Option<u64>,
    made: Cell<u64>,
}

impl Losses {
    fn lose(&self) -> bool {
        self.made.set(self.made.get() + 1);
        self.every.is_some_and(|every| self.made.get().is_multiple_of(every))
    }
}

fn one() -> u64 {
    1
}

/// Backlog for every stream of the largest scenario to connect at once.
const BACKLOG: u32 = 8_192;
