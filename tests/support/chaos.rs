//! weir between clients that do everything wrong and backends that do, with panics of its own, while it is scraped.
//!
//! The identities are checked at every scrape. A run proves something only if its faults have happened, so each is counted
//! where it is done.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use weir::measure::Snapshot;
use weir::proxy::state::HookPoint;
use weir::vocabulary::backend_id::BackendId;

use super::dice::Dice;
use super::exposition::{Text, status_identities};
use super::origin::{Conversation, Origin, SSE, closing, event};
use super::storm::{self, Tally};
use super::{Engine, Weir, time};

/// What happened.
#[derive(Debug)]
pub struct Report {
    pub scrapes: u64,
    pub clients: Tally,
    /// By phase: head, arrived, dispatched, ended.
    pub panics: [u64; 4],
    /// By deed of the faulty backend, in the order of `FAULTS`.
    pub faults: Vec<(&'static str, u64)>,
    /// Dials of the backend that is not there, as the books count them: retries, and requests that were refused.
    pub dead: u64,
    pub books: Snapshot,
}

/// What the faulty backend does with a request.
pub const FAULTS: [&str; 8] =
    ["no byte", "reset", "half a head", "event, then reset", "no HTTP", "silence", "bad chunk", "served"];

/// The place of the last of them.
const SERVED: usize = FAULTS.len() - 1;

static PANICS: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];
static CALLS: AtomicU64 = AtomicU64::new(0);

/// Every 61st phase ends in a panic; a request has four phases, so each of them has its turn.
fn panic_now_and_then(phase: HookPoint) {
    if CALLS.fetch_add(1, Relaxed) % 61 == 60 {
        PANICS[phase as usize].fetch_add(1, Relaxed);
        panic!("injected");
    }
}

/// Runs until `requests` were sent, `scrapes` were made, and each fault of the faulty backend was done `least` times.
///
/// # Panics
/// An identity does not hold, or something is left over.
pub fn run(requests: u64, scrapes: u64, least: u64, threads: u64, seed: u64) -> Report {
    let engine = Engine::with(weir::clock::Clock::start(), |settings| {
        (settings.speed, settings.recorder) = (50.0, None);
    });
    let counts: Arc<[AtomicU64; FAULTS.len()]> = Arc::default();
    let faulty = faulty(counts.clone(), seed);
    let rarest = || counts.iter().map(|count| count.load(Relaxed)).min().unwrap_or(0);
    let weir =
        Weir::with(&[engine.address, faulty.address, dead()], SETTINGS, |proxy| proxy.test_hook = panic_now_and_then);
    let (made, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let clients = std::thread::scope(|scope| {
        scope.spawn(|| storm::watch(&stop, || look_at_metrics(&weir, &made)));
        scope.spawn(|| storm::watch(&stop, || look_at_status(&weir, &made)));
        let start = time::now();
        let more = || (made.load(Relaxed) < scrapes || rarest() < least) && start.elapsed() < LONGEST;
        let _stops = storm::Raised(&stop);
        storm::storm(weir.address, storm::ALL, threads, requests, seed, more)
    });
    engine_is_idle(&engine);
    let books = weir.settled();
    nothing_is_left(&weir, &books);
    let text = Text::parse(&weir.page("/metrics")).unwrap();
    let dead_name = |sample: &super::exposition::Sample| sample.has("backend", "backend-2");
    let retried = text.sum("weir_upstream_retries_total", |sample| sample.has("reason", "connect"));
    let refused = text.sum("weir_requests_finished_total", dead_name);
    Report {
        scrapes: made.load(Relaxed),
        clients,
        panics: std::array::from_fn(|i| PANICS[i].load(Relaxed)),
        faults: FAULTS.into_iter().zip(counts.iter().map(|count| count.load(Relaxed))).collect(),
        dead: (retried + refused) as u64,
        books,
    }
}

/// Short limits, so that what hangs ends within the run.
const SETTINGS: &str = "
workers: 2
balance: round_robin
limits: {first_byte_timeout: 150ms, stream_stall: 200ms, connect_timeout: 500ms, header_timeout: 500ms, body_timeout: 500ms}
";

/// A run that has not made its scrapes by then is given up by its caller.
const LONGEST: Duration = Duration::from_secs(400);

fn look_at_metrics(weir: &Weir, made: &AtomicU64) {
    let page = weir.page("/metrics");
    let accounts = Text::parse(&page).and_then(|text| text.identities());
    assert!(accounts.is_ok(), "{accounts:?} in {page}");
    made.fetch_add(1, Relaxed);
}

fn look_at_status(weir: &Weir, made: &AtomicU64) {
    let status = weir.status();
    assert_eq!(status_identities(&status), Ok(3), "{status}");
    made.fetch_add(1, Relaxed);
}

fn engine_is_idle(engine: &Engine) {
    time::until("nothing runs or waits in the engine", || engine.busy() == 0.0);
}

/// Permits, memory, connections: everything is back.
fn nothing_is_left(weir: &Weir, books: &Snapshot) {
    let proxy = weir.proxy();
    for backend in 0..3 {
        assert_eq!(proxy.pool.load(BackendId(backend)), 0, "places at backend {backend}");
    }
    assert_eq!(proxy.memory.used(), 0);
    assert!(books.accounts.iter().all(|account| account.in_flight() == 0 && account.pending == 0));
    time::until("every connection has ended", || proxy.facts.open_connections.load(Relaxed) == 0);
}

fn faulty(counts: Arc<[AtomicU64; FAULTS.len()]>, seed: u64) -> Origin {
    let (dice, served) = (Mutex::new(Dice::new(seed ^ 0xfa)), AtomicU64::new(0));
    Origin::start(move |talk| {
        while talk.request().is_some() {
            // Every other request is served: a backend that only fails is avoided, and then nothing happens there.
            let deed = match served.fetch_add(1, Relaxed) % 2 {
                0 => dice.lock().unwrap().below(SERVED),
                _ => SERVED,
            };
            counts[deed].fetch_add(1, Relaxed);
            if !play(talk, deed) {
                return;
            }
        }
    })
}

/// `false`: the connection ends.
fn play(talk: &mut Conversation, deed: usize) -> bool {
    let begun = [SSE, &event("one")].concat();
    match FAULTS[deed] {
        "no byte" => {}
        "reset" => talk.reset(),
        "half a head" => say(talk, b"HTTP/1.1 200 OK\r\ncontent-"),
        "event, then reset" => {
            say(talk, &begun);
            talk.reset();
        }
        "no HTTP" => say(talk, b"SSH-2.0-OpenSSH\r\n\r\n"),
        "silence" => {
            talk.ended();
        }
        "bad chunk" => say(talk, &[&begun[..], b"zz\r\n"].concat()),
        _ => return talk.write(&[&begun[..], &closing()].concat()),
    }
    false
}

fn say(talk: &mut Conversation, bytes: &[u8]) {
    talk.write(bytes);
}

/// A port where nobody listens, for tests that need one.
pub fn dead() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
