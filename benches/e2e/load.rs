//! The client: connections in a closed loop, kept alive, every answer checked to its last byte. It counts what it has
//! really received; the CPU of a proxy is divided by these counts. It holds no proxy.
//!
//! `unary` and `stream` start no request after the window but finish those under way, so that all work a proxy did for the
//! window is counted in it. `hold` opens its streams, lets them settle, prints it, and keeps them until its input closes.

use std::cell::RefCell;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, timeout};

use crate::answer::{Answer, Progress};
use crate::event::{request, wall_nanos};

/// What kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One JSON answer a request.
    Unary,
    /// One stream a request.
    Stream,
    /// Streams that stay open.
    Hold,
}

/// What to send, and for how long.
#[derive(Debug, Clone)]
pub struct Settings {
    pub target: SocketAddr,
    pub mode: Mode,
    pub connections: u32,
    /// How long requests start; `hold` takes it as the time to settle once every stream is open.
    pub window: Duration,
    /// Events asked of one stream.
    pub chunks: u64,
    /// Starts are spread over this time, so that paced events are not sent all at once.
    pub spread: Duration,
}

/// What the client counted, printed as one line of JSON.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Answers received whole and found right.
    pub requests: u64,
    /// Events received in order.
    pub chunks: u64,
    pub errors: u64,
    /// The first error, as a sentence.
    pub first_error: Option<String>,
    /// Streams open now: past their head, before their end.
    pub open: u64,
    /// Reads that returned bytes of a body.
    pub reads: u64,
    /// Seconds all whole streams took, from the request sent to the terminator received.
    pub stream_seconds: f64,
    /// Events stamped later than they were received: the clock stepped.
    pub from_the_future: u64,
    /// Time to the first event, or to the end of a unary answer, in microseconds.
    pub ttft: Quantiles,
    /// Backend's stamp to client's reading, in microseconds.
    pub latency: Quantiles,
}

/// Two quantiles of a sample, microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Quantiles {
    pub p50: f64,
    pub p99: f64,
}

/// Runs the load and prints the tally.
///
/// # Errors
/// The runtime could not be built; what goes wrong on a connection is counted instead.
pub fn run(settings: Settings) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let sight = Rc::new(RefCell::new(Sight::default()));
    LocalSet::new().block_on(&runtime, async {
        let connections = start(&settings, &sight);
        if settings.mode == Mode::Hold {
            settle(&settings, &sight).await;
            print(&sight);
            input_closed().await;
        } else {
            for connection in connections {
                // A connection never panics on purpose; one that did shows as missing requests.
                let _ = connection.await;
            }
        }
        print(&sight);
    });
    Ok(())
}

/// The tally and the samples behind its quantiles.
#[derive(Debug, Default)]
struct Sight {
    tally: Tally,
    ttft: Vec<u32>,
    latency: Vec<u32>,
}

fn start(settings: &Settings, sight: &Rc<RefCell<Sight>>) -> Vec<tokio::task::JoinHandle<()>> {
    let end = Instant::now() + settings.window;
    let bytes: Rc<[u8]> = request(settings.mode != Mode::Unary, settings.chunks, "Say hello.").into();
    let one = |number: u32| {
        let delay = settings.spread * number / settings.connections.max(1);
        let connection = Connection {
            target: settings.target,
            request: Rc::clone(&bytes),
            stream: settings.mode != Mode::Unary,
            chunks: settings.chunks,
            sight: Rc::clone(sight),
        };
        let hold = settings.mode == Mode::Hold;
        tokio::task::spawn_local(async move {
            sleep(delay).await;
            connection.keep_asking(|| hold || Instant::now() < end).await;
        })
    };
    (0..settings.connections).map(one).collect()
}

/// Waits until every stream is open, or will not be, and then for the window.
async fn settle(settings: &Settings, sight: &RefCell<Sight>) {
    let patience = Instant::now() + settings.spread + OPENING;
    while sight.borrow().tally.open < u64::from(settings.connections) && Instant::now() < patience {
        sleep(Duration::from_millis(50)).await;
    }
    sleep(settings.window).await;
}

async fn input_closed() {
    // An unreadable input counts as closed.
    let _ = tokio::task::spawn_blocking(|| io::stdin().read_to_end(&mut Vec::new())).await;
}

fn print(sight: &RefCell<Sight>) {
    let mut sight = sight.borrow_mut();
    let Sight { tally, ttft, latency } = &mut *sight;
    (tally.ttft, tally.latency) = (quantiles(ttft), quantiles(latency));
    // A struct of numbers and strings always serialises.
    println!("{}", serde_json::to_string(tally).unwrap_or_default());
}

fn quantiles(samples: &mut [u32]) -> Quantiles {
    samples.sort_unstable();
    let at = |q: usize| samples.get(samples.len().saturating_sub(1) * q / 100).copied().map_or(0.0, f64::from);
    Quantiles { p50: at(50), p99: at(99) }
}

struct Connection {
    target: SocketAddr,
    request: Rc<[u8]>,
    stream: bool,
    chunks: u64,
    sight: Rc<RefCell<Sight>>,
}

impl Connection {
    async fn keep_asking(self, more: impl Fn() -> bool) {
        let (mut socket, mut buffer) = (None, Vec::with_capacity(4096));
        while more() {
            match self.ask(&mut socket, &mut buffer).await {
                Ok(true) => {}
                Ok(false) => socket = None,
                Err(why) => {
                    socket = None;
                    let tally = &mut self.sight.borrow_mut().tally;
                    tally.errors += 1;
                    tally.first_error.get_or_insert_with(|| why.to_string());
                }
            }
            if socket.is_none() {
                buffer.clear();
                sleep(Duration::from_millis(5)).await;
            }
        }
    }

    /// One request and its whole answer; whether the connection can carry another.
    async fn ask(&self, socket: &mut Option<TcpStream>, buffer: &mut Vec<u8>) -> io::Result<bool> {
        let socket = match socket {
            Some(socket) => socket,
            None => {
                let fresh = TcpStream::connect(self.target).await?;
                fresh.set_nodelay(true)?;
                socket.insert(fresh)
            }
        };
        let (began, mut answer) = (Instant::now(), Answer::expected(self.stream, self.chunks));
        socket.write_all(&self.request).await?;
        let ended = self.receive(socket, buffer, &mut answer, began).await;
        if answer.is_open_stream() {
            self.sight.borrow_mut().tally.open -= 1;
        }
        ended?;
        let sight = &mut *self.sight.borrow_mut();
        sight.tally.requests += 1;
        if self.stream {
            sight.tally.stream_seconds += began.elapsed().as_secs_f64();
        } else {
            sight.ttft.push(micros(began.elapsed()));
        }
        Ok(answer.keeps_alive())
    }

    async fn receive(
        &self,
        socket: &mut TcpStream,
        buffer: &mut Vec<u8>,
        answer: &mut Answer,
        began: Instant,
    ) -> io::Result<()> {
        loop {
            let read = timeout(SILENCE, socket.read_buf(buffer)).await.map_err(|_| io::Error::other("silence"))??;
            if read == 0 {
                return Err(io::Error::other("closed before the answer's end"));
            }
            let (now, sight) = (wall_nanos(), &mut *self.sight.borrow_mut());
            sight.tally.reads += 1;
            let was_open = answer.is_open_stream();
            let progress = answer.feed(buffer, |stamp, first| {
                sight.tally.chunks += 1;
                sight.tally.from_the_future += u64::from(stamp > now);
                sight.latency.push(micros(Duration::from_nanos(now.saturating_sub(stamp))));
                if first {
                    sight.ttft.push(micros(began.elapsed()));
                }
            });
            sight.tally.open += u64::from(!was_open && answer.is_open_stream());
            if progress? == Progress::Whole {
                return Ok(());
            }
        }
    }
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

/// How long a stream may be silent: several gaps of the slowest scenario.
const SILENCE: Duration = Duration::from_secs(30);

/// How long the last streams of `hold` may take to open.
const OPENING: Duration = Duration::from_secs(20);
