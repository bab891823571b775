//! weir between hostile clients and hostile backends, over raw sockets: what must not be smuggled, starved, lost or miscounted.
//!
//! The backends here are scripts: each connection is given to a closure that sees the bytes and answers whatever it likes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use weir::app::{RunningServer, start};
use weir::config::{Config, Overrides};
use weir::measure::journal::JournalRecord;
use weir::measure::replay;
use weir::measure::{AbandonPhase, BucketSettings, Ledger, NoTokenReason, Outcome, Snapshot};
use weir::proxy::state::{HookPoint, ProxyState};
use weir::vocabulary::backend_id::BackendId;
use weir::vocabulary::slo::Slo;

/// A backend that gives each connection, and its number, to `script`.
fn backend(script: impl Fn(TcpStream, usize) + Send + Sync + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            let script = script.clone();
            std::thread::spawn(move || script(stream, number));
        }
    });
    address
}

/// A backend that answers each request with `answer` and tells (connection, head) of each but the health checks.
fn answering(answer: &'static [u8]) -> (SocketAddr, Receiver<(usize, String)>) {
    let (told, heard) = channel();
    let address = backend(move |mut stream, number| answer_all(&mut stream, number, answer, &told));
    (address, heard)
}

fn answer_all(stream: &mut TcpStream, number: usize, answer: &[u8], told: &Sender<(usize, String)>) {
    while let Some(head) = request(stream) {
        if head.contains("/health HTTP") {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
            continue;
        }
        let _ = told.send((number, head));
        if stream.write_all(answer).is_err() {
            return;
        }
    }
}

/// One request's head; its body, by `content-length`, is read and left behind.
fn request(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    stream.read_exact(&mut vec![0; length]).ok()?;
    Some(head)
}

/// One worker in front of `backends`, with `settings` as further lines of the file.
fn weir(backends: &[SocketAddr], settings: &str) -> RunningServer {
    let urls: Vec<String> = backends.iter().map(|backend| format!("http://{backend}")).collect();
    weir_at(&urls, settings)
}

fn weir_at(urls: &[String], settings: &str) -> RunningServer {
    weir_adjusted(urls, settings, |_| {})
}

fn weir_adjusted(urls: &[String], settings: &str, adjust: impl FnOnce(&mut ProxyState)) -> RunningServer {
    let list: String = urls.iter().map(|url| format!("  - {{url: '{url}', engine: none}}\n")).collect();
    let text =
        format!("listen: 127.0.0.1:0\nworkers: 1\nadmin: {{listen: '127.0.0.1:0'}}\nbackends:\n{list}{settings}\n");
    start(Config::parse(&text, "test", &Overrides::default(), &|_| None).unwrap(), adjust).unwrap()
}

fn open(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// What comes back until the connection ends.
fn ask(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = open(address);
    stream.write_all(request).unwrap();
    rest(&mut stream)
}

fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(address: SocketAddr, path: &str) -> String {
    ask(address, format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes())
}

fn post(path: &str, extra: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{extra}content-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

const CHAT: &str = "/v1/chat/completions";
const STREAM: &str = r#"{"model":"m","stream":true}"#;
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-type: application/json\r\n\r\n{}";
const EVENT: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n";

/// The books, once `done` says so of them; they balance at every look.
fn books(running: &RunningServer, done: impl Fn(&Snapshot) -> bool) -> Snapshot {
    for _ in 0..2_000 {
        let snapshot = running.proxy.ledger.snapshot(running.proxy.clock.now());
        snapshot.check().unwrap();
        if done(&snapshot) {
            return snapshot;
        }
        pause();
    }
    panic!("it did not come to it: {:?}", running.proxy.ledger.snapshot(running.proxy.clock.now()).accounts);
}

fn total(snapshot: &Snapshot, of: impl Fn(&weir::measure::AccountStats) -> u64) -> u64 {
    snapshot.accounts.iter().map(|account| of(account)).sum()
}

/// Waits until nothing is under way, so that what an exchange held is given back.
fn idle(running: &RunningServer) {
    while running.proxy.drain.underway() > 0 {
        pause();
    }
}

/// A moment between two looks.
#[expect(clippy::disallowed_methods, reason = "polling real sockets")]
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}

/// A backend that streams events for as long as they are taken.
fn flooding() -> SocketAddr {
    backend(|mut stream, _| {
        while let Some(head) = request(&mut stream) {
            if head.starts_with("GET /health") {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
                continue;
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n");
            while stream.write_all(EVENT.repeat(100).as_bytes()).is_ok() {}
            return;
        }
    })
}

/// A port whose backlog is full: a connection to it neither succeeds nor fails.
fn black_hole() -> (SocketAddr, Vec<socket2::Socket>) {
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let mut held = fill(&listener);
    let address = listener.local_addr().unwrap();
    held.push(listener);
    (address.as_socket().unwrap(), held)
}

/// Takes every place in the backlog of `listener`, for as long as what comes back lives.
fn fill(listener: &socket2::Socket) -> Vec<socket2::Socket> {
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let fillers = (0..4).map(|_| {
        let filler = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        filler.set_nonblocking(true).unwrap();
        let _ = filler.connect(&address);
        filler
    });
    fillers.collect()
}

// ---- what two readers could understand differently ------------------------------------------------------------------

#[test]
fn an_answer_that_may_hide_a_body_ends_its_connection() {
    for (method, answer) in [
        ("GET", &b"HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n"[..]),
        ("GET", b"HTTP/1.1 204 No Content\r\ncontent-length: 40\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"),
    ] {
        let (engine, heard) = answering(answer);
        let running = weir(&[engine], "");
        let request = format!("{method} /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let answers = [ask(running.address, request.as_bytes()), ask(running.address, request.as_bytes())];
        assert!(answers.iter().all(|answer| answer.starts_with("HTTP/1.1 2") || answer.starts_with("HTTP/1.1 3")));
        let [first, second] = [heard.recv().unwrap().0, heard.recv().unwrap().0];
        assert_ne!(first, second, "a body behind {:?} would answer somebody else", String::from_utf8_lossy(answer));
        running.stop();
    }
}

#[test]
fn an_ordinary_answer_without_a_body_keeps_its_connection() {
    let (engine, heard) = answering(b"HTTP/1.1 204 No Content\r\n\r\n");
    let running = weir(&[engine], "");
    get(running.address, "/x");
    get(running.address, "/x");
    assert_eq!(heard.recv().unwrap().0, heard.recv().unwrap().0);
    running.stop();
}

#[test]
fn a_date_that_the_engine_has_removed_is_made_anew() {
    let (engine, _heard) =
        answering(b"HTTP/1.1 200 OK\r\nconnection: date\r\ndate: never\r\ncontent-length: 0\r\n\r\n");
    let running = weir(&[engine], "");
    let answer = get(running.address, "/x");
    assert!(!answer.contains("never") && answer.matches("date: ").count() == 1, "{answer}");
    running.stop();
}

#[test]
fn fields_of_identity_cannot_be_removed_by_connection() {
    let (engine, heard) = answering(b"HTTP/1.1 200 OK\r\nconnection: content-type\r\ncontent-length: 0\r\n\r\n");
    let running = weir(&[engine], "");
    for name in ["x-api-key", "api-key", "cookie", "content-type", "content-encoding"] {
        let answer =
            ask(running.address, format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: {name}\r\n\r\n").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400 "), "{name}: {answer}");
    }
    assert!(get(running.address, "/x").starts_with("HTTP/1.1 502 "), "nor by the engine");
    assert_eq!(heard.try_iter().count(), 1);
    running.stop();
}

#[test]
fn a_request_that_returns_is_a_loop_in_any_spelling_of_via() {
    let (engine, heard) = answering(OK);
    let running = weir(&[engine], "");
    get(running.address, "/x");
    let head = heard.recv().unwrap().1;
    let via = head.lines().find_map(|line| line.strip_prefix("via: 1.1 ")).unwrap();
    assert!(via.starts_with("weir-") && !via.contains(' '), "{via}");
    for back in [format!("1.1 {via}"), format!("1.0 other, HTTP/1.1 {via} (a comment)"), format!("1.1\t{via}")] {
        let request = format!("GET /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\nvia: {back}\r\n\r\n");
        assert!(ask(running.address, request.as_bytes()).starts_with("HTTP/1.1 508 "), "{back}");
    }
    let other = format!("GET /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\nvia: 1.1 {via}0, 1.1 weir\r\n\r\n");
    assert!(ask(running.address, other.as_bytes()).starts_with("HTTP/1.1 200 "), "another weir stands before us");
    running.stop();
}

#[test]
fn a_broken_answer_framed_by_close_does_not_look_whole() {
    for (answer, whole) in [
        (&b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"[..], false),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", true),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", true),
    ] {
        let engine = backend(move |mut stream, _| {
            if request(&mut stream).is_some() {
                let _ = stream.write_all(answer);
            }
        });
        let running = weir(&[engine], "");
        let mut client = open(running.address);
        client.write_all(b"GET /x HTTP/1.0\r\n\r\n").unwrap();
        let read = client.read_to_end(&mut Vec::new());
        assert_eq!(read.is_ok(), whole, "{read:?} after {:?}", String::from_utf8_lossy(answer));
        running.stop();
    }
}

#[test]
fn a_path_in_another_spelling_is_the_same_path_and_is_counted() {
    let (engine, heard) = answering(OK);
    let running = weir(&[engine], "");
    for path in ["/v1/chat/%63ompletions", "/%761/chat%2Fcompletions", "/v1/chat/completions?x=%20"] {
        assert!(ask(running.address, &post(path, "", STREAM)).starts_with("HTTP/1.1 200 "));
        assert!(heard.recv().unwrap().1.starts_with(&format!("POST {path} ")), "it leaves as it came");
    }
    for path in ["/v1/chat/%2563ompletions", "/v1/chat/%6", "/v1/chat/%zzompletions"] {
        ask(running.address, &post(path, "", STREAM));
    }
    assert_eq!(total(&books(&running, |_| true), |books| books.offered()), 3);
    running.stop();
}

#[test]
fn the_prefix_of_a_backends_address_stands_before_every_path() {
    let (engine, heard) = answering(OK);
    let running = weir_at(&[format!("http://{engine}/llm/v2/")], "");
    ask(running.address, &post("/v1/chat/completions?a=b", "", STREAM));
    assert!(heard.recv().unwrap().1.starts_with("POST /llm/v2/v1/chat/completions?a=b HTTP/1.1\r\n"));
    running.stop();
}

#[test]
fn only_a_head_longer_than_configured_is_431() {
    let (engine, _heard) = answering(OK);
    let running = weir(&[engine], "limits: {max_header: 2KiB}");
    let request = |n: usize| format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx: {}\r\n\r\n", "y".repeat(n));
    assert!(ask(running.address, request(2_100).as_bytes()).starts_with("HTTP/1.1 431 "));
    assert!(ask(running.address, &request(4_000).as_bytes()[..3_000]).starts_with("HTTP/1.1 431 "), "before its end");
    assert!(ask(running.address, request(1_800).as_bytes()).starts_with("HTTP/1.1 200 "));
    running.stop();
}

#[test]
fn a_trusted_peer_is_trusted_with_a_mapped_address_too() {
    let (engine, _heard) = answering(OK);
    let running = weir(&[engine], "admission: {trust: ['10.0.0.0/8']}");
    assert!(running.proxy.trusts("::ffff:10.1.2.3".parse().unwrap()));
    assert!(!running.proxy.trusts("::ffff:11.1.2.3".parse().unwrap()));
    running.stop();
}

// ---- who can be starved ------------------------------------------------------------------------------------------

#[test]
fn a_dripping_head_or_body_ends_at_its_deadline() {
    let (engine, heard) = answering(OK);
    let running = weir(&[engine], "limits: {header_timeout: 400ms, body_timeout: 400ms}");
    for start in [&b"GET / HTTP/1.1\r\nx: "[..], b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n"] {
        let mut stream = open(running.address);
        stream.write_all(start).unwrap();
        let mut reader = stream.try_clone().unwrap();
        let answer = std::thread::spawn(move || rest(&mut reader));
        let began = running.proxy.clock.now();
        while !answer.is_finished() {
            let _ = stream.write_all(b"a");
            pause();
        }
        assert!(answer.join().unwrap().starts_with("HTTP/1.1 408 "));
        assert!(running.proxy.clock.now().since(began) < Duration::from_secs(8));
    }
    assert_eq!(heard.try_iter().count(), 0);
    running.stop();
}

#[test]
fn an_address_at_its_cap_is_served_once_a_slot_is_free() {
    let (engine, _heard) = answering(OK);
    let running = weir(&[engine], "limits: {max_connections_per_address: 2}");
    let places = [open(running.address), open(running.address)];
    while running.proxy.facts.open_connections.load(std::sync::atomic::Ordering::Relaxed) < 2 {
        pause();
    }
    assert_eq!(get(running.address, "/x"), "");
    drop(places);
    assert!((0..1_000).any(|_| get(running.address, "/x").starts_with("HTTP/1.1 200 ")));
    running.stop();
}

#[test]
fn a_connection_over_the_cap_is_served_when_another_ends() {
    let (engine, _heard) = answering(OK);
    let running = weir(&[engine], "limits: {max_connections: 1}");
    let place = open(running.address);
    while running.proxy.facts.open_connections.load(std::sync::atomic::Ordering::Relaxed) < 1 {
        pause();
    }
    let mut waiting = open(running.address);
    waiting.write_all(b"GET /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    drop(place);
    assert!(rest(&mut waiting).starts_with("HTTP/1.1 200 "));
    running.stop();
}

#[test]
fn a_worker_that_waits_holds_no_slot_of_the_others() {
    let (engine, _heard) = answering(OK);
    let text = "listen: 127.0.0.1:0\nworkers: 3\nadmin: {listen: '127.0.0.1:0'}\nlimits: {max_connections: 1}\n";
    let text = format!("{text}backends: [{{url: 'http://{engine}', engine: none}}]\n");
    let running = start(Config::parse(&text, "test", &Overrides::default(), &|_| None).unwrap(), |_| {}).unwrap();
    let began = running.proxy.clock.now();
    for _ in 0..30 {
        assert!(get(running.address, "/x").starts_with("HTTP/1.1 200 "));
    }
    // A place that had to change hands at each second's turn would make this half a minute.
    assert!(running.proxy.clock.now().since(began) < Duration::from_secs(8));
    running.stop();
}

#[test]
fn idle_callers_of_the_admin_port_do_not_keep_a_probe_out() {
    let (engine, _heard) = answering(OK);
    let running = weir(&[engine], "");
    let idle: Vec<_> = (0..200).map(|_| open(running.admin)).collect();
    assert!(get(running.admin, "/livez").starts_with("HTTP/1.1 200 "));
    drop(idle);
    running.stop();
}

#[test]
fn the_configured_token_guards_changes_and_is_shown_nowhere() {
    let (engine, _heard) = answering(OK);
    let running = weir(&[engine], "");
    assert!(undrain(&running, "").starts_with("HTTP/1.1 200 "), "without a token nothing is asked for");
    running.stop();
    let text = "listen: 127.0.0.1:0\nadmin: {listen: '127.0.0.1:0', token: 'canary', hosts: [weir.example]}\n";
    let text = format!("{text}backends: [{{url: 'http://{engine}', engine: none}}]\n");
    let running = start(Config::parse(&text, "test", &Overrides::default(), &|_| None).unwrap(), |_| {}).unwrap();
    assert!(undrain(&running, "").starts_with("HTTP/1.1 401 "));
    assert!(undrain(&running, "authorization: Bearer canarx\r\n").starts_with("HTTP/1.1 401 "));
    assert!(undrain(&running, "authorization: Bearer canary\r\n").starts_with("HTTP/1.1 200 "));
    let named = |host: &str| {
        let request = format!("GET /config HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        ask(running.admin, request.as_bytes())
    };
    assert!(named("weir.example").contains("masked") && !named("weir.example").contains("canary"));
    assert!(named("other.example").starts_with("HTTP/1.1 403 "));
    running.stop();
}

fn undrain(running: &RunningServer, token: &str) -> String {
    let request = format!("POST /undrain HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{token}\r\n");
    ask(running.admin, request.as_bytes())
}

#[test]
fn a_client_that_takes_nothing_is_no_silent_backend() {
    let running = weir(&[flooding()], "");
    let mut client = open(running.address);
    client.write_all(&post(CHAT, "", STREAM)).unwrap();
    let pool = running.proxy.pool.clone();
    let settled = |listening: u32| {
        (0..2_000).any(|_| {
            pause();
            pool.load(BackendId(0)) == 1 && pool.listening(BackendId(0)) == listening
        })
    };
    assert!(settled(0), "the engine is not read while its client takes nothing");
    let mut reader = client.try_clone().unwrap();
    let taking = std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
    assert!(settled(1), "once the client takes again, silence would be the engine's");
    client.shutdown(std::net::Shutdown::Both).unwrap();
    let _ = taking.join();
    books(&running, |books| total(books, |books| books.finished(Outcome::ClientCancelled)) == 1);
    idle(&running);
    assert_eq!((pool.load(BackendId(0)), pool.listening(BackendId(0))), (0, 0));
    running.stop();
}

#[test]
fn an_answer_reaches_a_client_that_has_sent_too_much() {
    let (engine, _heard) = answering(OK);
    let running = weir(&[engine], "");
    for _ in 0..20 {
        let mut stream = open(running.address);
        stream.write_all(b"GET /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
        let _ = stream.write_all(&[b'x'; 60_000]);
        pause();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        assert!(read.is_ok() && answer.ends_with(b"{}"), "{read:?} {}", answer.len());
    }
    running.stop();
}

// ---- what is counted ------------------------------------------------------------------------------------------------

#[test]
fn a_request_whose_task_ends_while_dialling_is_booked() {
    let (first, second) = (black_hole(), black_hole());
    let running = weir(&[first.0, second.0], "limits: {connect_timeout: 60s}");
    let ledger = running.proxy.ledger.clone();
    let now = running.proxy.clock.now();
    let mut client = open(running.address);
    client.write_all(&post(CHAT, "", STREAM)).unwrap();
    while running.proxy.drain.underway() == 0 {
        pause();
    }
    running.stop();
    let snapshot = ledger.snapshot(now);
    snapshot.check().unwrap();
    assert_eq!(total(&snapshot, |books| books.offered()), 1);
    assert_eq!(total(&snapshot, |books| books.abandoned[AbandonPhase::Queue.index()]), 1);
}

#[test]
fn a_client_that_leaves_during_the_dial_is_noticed() {
    let (first, second) = (black_hole(), black_hole());
    let running = weir(&[first.0, second.0], "limits: {connect_timeout: 60s}");
    for stray in ["", "\r\n"] {
        let mut client = open(running.address);
        client.write_all(&[&post(CHAT, "", STREAM), stray.as_bytes()].concat()).unwrap();
        while running.proxy.drain.underway() == 0 {
            pause();
        }
        drop(client);
        let left = |books: &weir::measure::AccountStats| books.abandoned[AbandonPhase::Queue.index()];
        let seen = if stray.is_empty() { 1 } else { 2 };
        books(&running, |books| total(books, left) == seen && total(books, |books| books.offered()) == seen);
    }
    running.stop();
}

#[test]
fn a_client_that_leaves_during_a_redial_is_noticed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut stream = loop {
            let mut stream = listener.accept().unwrap().0;
            if request(&mut stream).is_some_and(|head| head.starts_with("POST")) {
                break stream;
            }
            let _ = stream.write_all(OK);
        };
        let listener = socket2::Socket::from(listener);
        let _held = fill(&listener);
        stream.write_all(OK).unwrap();
        request(&mut stream);
        drop(stream);
        std::thread::park();
    });
    let running = weir(&[address], "limits: {connect_timeout: 60s}");
    assert!(ask(running.address, &post(CHAT, "", STREAM)).starts_with("HTTP/1.1 200 "));
    let mut client = open(running.address);
    client.write_all(&post(CHAT, "", STREAM)).unwrap();
    books(&running, |books| total(books, |books| books.retries.iter().sum()) == 1);
    drop(client);
    books(&running, |books| total(books, |books| books.finished(Outcome::ClientCancelled)) == 1);
    running.stop();
}

#[test]
fn a_request_that_a_backend_had_for_a_while_is_not_repeated() {
    for (looks, attempts) in [(250, 2), (0, 3)] {
        let (told, heard) = channel();
        let engine = backend(move |mut stream, number| {
            for before in 0.. {
                let Some(head) = request(&mut stream).filter(|head| head.starts_with("POST")) else { return };
                told.send((number, head)).unwrap();
                if before == 1 {
                    (0..looks).for_each(|_| pause());
                    return;
                }
                let _ = stream.write_all(OK);
            }
        });
        let running = weir(&[engine], "");
        assert!(ask(running.address, &post(CHAT, "", STREAM)).starts_with("HTTP/1.1 200 "));
        ask(running.address, &post(CHAT, "", STREAM));
        assert_eq!(heard.try_iter().count(), attempts, "after {looks} looks");
        running.stop();
    }
}

#[test]
fn an_early_head_may_wait_for_its_body_but_not_within_it() {
    for (first, status) in [("", Outcome::Completed), ("{", Outcome::UpstreamTimeout)] {
        let engine = backend(move |mut stream, _| {
            if request(&mut stream).is_some_and(|head| head.starts_with("POST")) {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n";
                let _ = stream.write_all(format!("{head}{first}").as_bytes());
                (0..120).for_each(|_| pause());
                let _ = stream.write_all(&b"{}"[first.len()..]);
            }
        });
        let running = weir(&[engine], "limits: {stream_stall: 200ms}");
        ask(running.address, &post(CHAT, "", "{}"));
        books(&running, |books| total(books, |books| books.finished(status)) == 1);
        running.stop();
    }
}

#[test]
fn memory_used_up_by_a_slow_client_is_no_backend_fault() {
    let running = weir(&[flooding()], "limits: {max_body: 64KiB, body_memory: 64KiB}");
    let mut client = open(running.address);
    client.write_all(&post(CHAT, "", STREAM)).unwrap();
    while running.proxy.memory.used() < 40 << 10 {
        pause();
    }
    (0..20).for_each(|_| pause());
    rest(&mut client);
    books(&running, |books| total(books, |books| books.finished(Outcome::ClientCancelled)) == 1);
    idle(&running);
    assert_eq!(running.proxy.memory.used(), 0);
    running.stop();
}

#[test]
fn an_unreadable_answer_is_not_pending() {
    for head in [
        "content-type: text/event-stream\r\ncontent-encoding: br",
        "content-type: text/event-stream\r\ncontent-encoding: gzip",
    ] {
        let (go, wait) = channel::<()>();
        let wait = Arc::new(std::sync::Mutex::new(wait));
        let engine = backend(move |mut stream, _| {
            if request(&mut stream).is_some_and(|head| head.starts_with("POST")) {
                let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\ncontent-length: 4\r\n\r\n").as_bytes());
                let _ = wait.lock().unwrap().recv();
                let _ = stream.write_all(b"\x1b\x00\x00\x00");
            }
        });
        let running = weir(&[engine], "");
        let mut client = open(running.address);
        client.write_all(&post(CHAT, "", STREAM)).unwrap();
        client.read_exact(&mut [0; 12]).unwrap();
        books(&running, |books| {
            total(books, |books| books.in_flight()) == 1 && total(books, |books| books.pending) == 0
        });
        go.send(()).unwrap();
        rest(&mut client);
        let done = books(&running, |books| total(books, |books| books.finished(Outcome::Completed)) == 1);
        assert_eq!(total(&done, |books| books.without.iter().sum()), 0, "{:?}", NoTokenReason::ALL);
        assert_eq!(total(&done, |books| books.opaque), 1);
        running.stop();
    }
}

#[test]
fn a_backend_that_closes_before_its_answer_has_reset() {
    let engine = backend(|mut stream, _| drop(request(&mut stream)));
    let running = weir(&[engine], "");
    assert!(ask(running.address, &post(CHAT, "", STREAM)).starts_with("HTTP/1.1 502 "));
    let done = books(&running, |books| total(books, |books| books.in_flight()) == 0);
    assert_eq!(total(&done, |books| books.finished(Outcome::UpstreamReset)), 1);
    running.stop();
}

#[test]
fn a_panic_is_counted_once_and_ends_one_request() {
    let (engine, _heard) = answering(OK);
    let panics: Arc<AtomicU64> = Arc::default();
    weir::export::logging::on_panic(panics.clone());
    let running = weir_adjusted(&[format!("http://{engine}")], "", |proxy| {
        proxy.facts.panics = panics;
        proxy.test_hook = |phase| assert!(phase != HookPoint::Arrived, "injected");
    });
    assert_eq!(ask(running.address, &post(CHAT, "", STREAM)), "");
    idle(&running);
    let page = get(running.admin, "/metrics");
    drop(std::panic::take_hook());
    assert!(page.contains("\nweir_panics_total 1\n"), "{page}");
    running.stop();
}

#[test]
fn a_drain_that_says_empty_takes_no_request_any_more() {
    let (engine, _heard) = answering(OK);
    let running = weir(&[engine], "drain: {min_delay: 300ms, timeout: 10s}");
    let drained = get(running.admin, "/drain?wait=20s");
    assert!(drained.contains("\"empty\""), "{drained}");
    assert!(get(running.address, "/x").starts_with("HTTP/1.1 503 "));
    let again = get(running.admin, "/drain?wait=20s");
    assert!(again.contains("\"empty\""), "{again}");
    running.stop();
}

#[test]
fn the_journal_is_readable_and_ends_with_the_process() {
    let (engine, _heard) = answering(OK);
    let path = std::env::temp_dir().join(format!("weir-attacks-{}.jsonl", std::process::id()));
    let running = weir(&[engine], &format!("journal: {{path: '{}'}}", path.display()));
    ask(running.address, &post(CHAT, "", r#"{"model":"a \"model\""}"#));
    books(&running, |books| total(books, |books| books.finished(Outcome::Completed)) == 1);
    running.stop();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let record = lines.last().unwrap();
    assert_eq!((record["backend"].as_str(), record["model"].as_str()), (Some("backend-0"), Some("a \"model\"")));
    assert!(record["epoch"].as_f64().unwrap() > 1.7e9, "its stamps count from a time on the wall");
    let records: Vec<JournalRecord> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ledger = Ledger::new(1, &replay::backends(&records), Slo::default(), BucketSettings::default(), None);
    replay::replay(&records, &ledger);
    let replayed = ledger.snapshot(weir::vocabulary::time::Timestamp::ZERO);
    assert_eq!(total(&replayed, |books| books.finished(Outcome::Completed)), 1);
}
