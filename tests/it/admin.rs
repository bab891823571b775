//! The admin port over a real socket: endpoint x method x Host and Origin, limits, and the drain.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use tokio::sync::watch;
use weir::clock::Clock;
use weir::export::admin::AdminPort;
use weir::export::auth::AccessPolicy;
use weir::export::probe::ProbeControl;
use weir::export::routes::AdminPage;
use weir::export::{AdminBackend, Handles, Mode, ProcessState, ReadinessCheck, Reloaded};

use crate::books;

/// A drain that ends when the test says so.
struct Process {
    draining: watch::Sender<bool>,
    empty: watch::Sender<bool>,
    stopping: AtomicBool,
    enforcing: AtomicBool,
}

impl Process {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            draining: watch::Sender::new(false),
            empty: watch::Sender::new(false),
            stopping: AtomicBool::new(false),
            enforcing: AtomicBool::new(false),
        })
    }
}

impl AdminBackend for Process {
    fn state(&self) -> ProcessState {
        ProcessState { up: vec![true], reload_accepted: true, ..ProcessState::default() }
    }

    fn config(&self) -> String {
        "{\"mode\":\"observe\"}".into()
    }

    fn readiness(&self) -> Vec<ReadinessCheck> {
        vec![ReadinessCheck { name: "not draining".into(), passed: !*self.draining.borrow() }]
    }

    fn mode(&self) -> Mode {
        if self.enforcing.load(SeqCst) { Mode::Enforce } else { Mode::Observe }
    }

    fn set_mode(&self, mode: Mode) {
        self.enforcing.store(mode == Mode::Enforce, SeqCst);
    }

    fn reload(&self) -> Result<Reloaded, String> {
        let reloaded = Reloaded { changed: vec!["mode".to_owned()], needs_restart: vec!["listen".to_owned()] };
        if *self.draining.borrow() { Err("weir.yaml:1:1: mode: unknown value".to_owned()) } else { Ok(reloaded) }
    }

    fn begin_drain(&self) {
        self.draining.send_replace(true);
    }

    fn cancel_drain(&self) -> bool {
        let cancelled = !self.stopping.load(SeqCst);
        if cancelled {
            self.draining.send_replace(false);
        }
        cancelled
    }

    fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    fn in_flight(&self) -> usize {
        usize::from(!*self.empty.borrow())
    }

    fn drained(&self) -> Pin<Box<dyn Future<Output = bool> + Send>> {
        let (mut draining, mut empty) = (self.draining.subscribe(), self.empty.subscribe());
        Box::pin(async move {
            tokio::select! {
                _ = draining.wait_for(|draining| !draining) => false,
                _ = empty.wait_for(|empty| *empty) => true,
            }
        })
    }

    fn probe(&self) -> Option<&dyn ProbeControl> {
        None
    }
}

struct Rig {
    port: AdminPort,
    process: Arc<Process>,
}

impl Rig {
    fn start(admission: AccessPolicy) -> Self {
        let process = Process::new();
        let handles = Handles {
            clock: Clock::start(),
            ledger: books::ledger(),
            backend: process.clone(),
            disabled: Arc::new([]),
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { port: AdminPort::start(listener, admission, handles).unwrap(), process }
    }

    fn open(&self) -> TcpStream {
        let stream = TcpStream::connect(self.port.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// One request on its own connection; the answer is (status, whole text).
    fn raw(&self, request: &[u8]) -> (u16, Vec<u8>) {
        let mut stream = self.open();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
        (status, answer)
    }

    fn ask(&self, method: &str, path: &str, headers: &str) -> (u16, String) {
        let request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
        let (status, answer) = self.raw(request.as_bytes());
        (status, String::from_utf8_lossy(&answer).into_owned())
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.ask("GET", path, "Host: localhost\r\n")
    }
}

#[test]
fn every_path_answers_the_methods_it_lists_and_405_to_others() {
    let rig = Rig::start(AccessPolicy::default());
    for (path, page) in AdminPage::PATHS.into_iter().filter(|(path, _)| *path != "/events") {
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
            let (status, answer) = rig.ask(method, path, "Host: 127.0.0.1\r\nContent-Length: 0\r\n");
            if page.allow().split(", ").any(|allowed| allowed == method) {
                // This rig has no synthetic load.
                let expected = match (path, method) {
                    ("/readyz", _) => [200, 503],
                    ("/probe", "POST") => [403, 403],
                    _ => [200, 200],
                };
                assert!(expected.contains(&status), "{method} {path}: {answer}");
            } else {
                assert_eq!(status, 405, "{method} {path}");
                assert!(answer.contains(&format!("allow: {}", page.allow())), "{answer}");
            }
        }
        rig.process.cancel_drain();
    }
}

#[test]
fn every_path_refuses_foreign_hosts_and_origins() {
    let rig = Rig::start(AccessPolicy::default());
    let foreign = [
        ("Host: evil.example\r\n", 403),
        ("Host: localhost\r\nOrigin: http://evil.example\r\n", 403),
        ("Host: localhost\r\nOrigin: null\r\n", 403),
        ("Host: localhost\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n", 403),
        ("", 400),
        ("Host: localhost\r\nHost: localhost\r\n", 400),
    ];
    for path in AdminPage::PATHS.iter().map(|(path, _)| *path).chain(["/nowhere"]) {
        for method in ["GET", "POST"] {
            for (headers, expected) in foreign {
                let (status, answer) = rig.ask(method, path, headers);
                assert_eq!(status, expected, "{method} {path} {headers}: {answer}");
            }
        }
    }
    assert!(!rig.process.is_draining(), "a refused caller must not have begun the drain");
}

#[test]
fn an_unknown_path_is_404_with_the_list() {
    let rig = Rig::start(AccessPolicy::default());
    let (status, answer) = rig.get("/nope");
    assert_eq!(status, 404);
    assert!(AdminPage::PATHS.iter().all(|(path, _)| answer.contains(path)), "{answer}");
}

#[test]
fn changes_need_the_token_and_a_local_drain_does_not() {
    let rig = Rig::start(AccessPolicy { token: Some("secret".into()), ..AccessPolicy::default() });
    assert_eq!(rig.get("/drain").0, 200);
    assert!(rig.process.is_draining());
    assert_eq!(rig.ask("POST", "/undrain", "Host: localhost\r\n").0, 401);
    assert!(rig.process.is_draining());
    assert_eq!(rig.ask("POST", "/undrain", "Host: localhost\r\nAuthorization: Bearer secret\r\n").0, 200);
    assert!(!rig.process.is_draining());
}

#[test]
fn the_mode_is_switched_by_who_may_and_read_by_everybody() {
    let rig = Rig::start(AccessPolicy { token: Some("secret".into()), ..AccessPolicy::default() });
    let switch = |word: &str, token: &str| {
        rig.ask("POST", &format!("/mode?set={word}"), &format!("Host: localhost\r\nAuthorization: Bearer {token}\r\n"))
            .0
    };
    assert_eq!((switch("enforce", "guess"), rig.process.mode()), (401, Mode::Observe));
    assert_eq!((switch("everything", "secret"), rig.process.mode()), (400, Mode::Observe));
    assert_eq!((switch("enforce", "secret"), rig.process.mode()), (200, Mode::Enforce));
    assert!(rig.get("/mode?set=observe").1.ends_with("{\"mode\":\"enforce\"}\n"), "reading changes nothing");
}

#[test]
fn a_waiting_drain_ends_with_the_last_request_or_its_limit() {
    let rig = Rig::start(AccessPolicy::default());
    assert_eq!(rig.get("/drain?wait=50ms").0, 504);
    assert_eq!(rig.get("/drain?wait=soon").0, 400);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| rig.get("/drain?wait=10s").0);
        assert_eq!(rig.get("/livez").0, 200, "others are answered meanwhile");
        while rig.process.draining.receiver_count() == 0 {
            std::thread::yield_now();
        }
        assert_eq!(rig.ask("POST", "/undrain", "Host: localhost\r\n").0, 200);
        assert_eq!(waiting.join().unwrap(), 409);
    });
    rig.process.empty.send_replace(true);
    assert_eq!(rig.get("/drain?wait=10s").0, 200);
    rig.process.stopping.store(true, SeqCst);
    assert_eq!(rig.ask("POST", "/undrain", "Host: localhost\r\n").0, 409);
}

#[test]
fn readiness_follows_the_checks_and_liveness_does_not() {
    let rig = Rig::start(AccessPolicy::default());
    assert_eq!(rig.get("/readyz").0, 200);
    rig.process.begin_drain();
    let (status, answer) = rig.get("/readyz?verbose");
    assert_eq!(status, 503);
    assert!(answer.contains("[-] not draining"), "{answer}");
    assert_eq!((rig.get("/livez").0, rig.get("/healthz").0), (200, 200));
}

#[test]
fn metrics_are_packed_only_for_those_who_take_it() {
    let rig = Rig::start(AccessPolicy::default());
    let (_, plain) = rig.get("/metrics");
    assert!(plain.contains("content-type: text/plain; version=0.0.4"), "{plain}");
    assert!(plain.contains("weir_build_info{") && !plain.contains("content-encoding"));
    let (status, packed) =
        rig.raw(b"GET /metrics HTTP/1.1\r\nHost: [::1]\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n");
    let start = packed.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    let mut text = String::new();
    flate2::read::GzDecoder::new(&packed[start..]).read_to_string(&mut text).unwrap();
    assert_eq!(status, 200);
    assert!(text.contains("weir_build_info{"));
}

#[test]
fn a_body_of_a_mebibyte_is_read_and_more_is_413() {
    let rig = Rig::start(AccessPolicy::default());
    let post = |length: usize| {
        let mut request =
            format!("POST /drain HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n")
                .into_bytes();
        request.resize(request.len() + length.min(1 << 20), b'x');
        rig.raw(&request).0
    };
    assert_eq!(post(1 << 20), 200);
    assert_eq!(post((1 << 20) + 1), 413);
}

#[test]
fn the_sixty_fifth_connection_is_refused_until_a_slot_is_free() {
    let rig = Rig::start(AccessPolicy::default());
    let waiting: Vec<_> = (0..64)
        .map(|_| {
            let mut stream = rig.open();
            stream.write_all(b"GET /drain?wait=60s HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            stream
        })
        .collect();
    while rig.process.draining.receiver_count() < 64 {
        std::thread::yield_now();
    }
    let mut extra = rig.open();
    let mut answer = String::new();
    let _ = extra.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    for stream in waiting {
        stream.shutdown(Shutdown::Both).unwrap();
    }
    let deadline = Duration::from_secs(5);
    let served = (0..500).any(|_| {
        let mut stream = rig.open();
        let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer.starts_with("HTTP/1.1 200")
    });
    assert!(served, "no place became free within {deadline:?}");
}

#[test]
fn stopping_the_port_ends_its_thread_under_callers() {
    let rig = Rig::start(AccessPolicy::default());
    let mut stream = rig.open();
    let Rig { port, .. } = rig;
    drop(port);
    let mut rest = Vec::new();
    assert!(!matches!(stream.read_to_end(&mut rest), Ok(n) if n > 0));
}

#[test]
fn a_reload_answers_what_it_did_or_every_mistake() {
    let rig = Rig::start(AccessPolicy::default());
    let (status, text) = rig.raw(b"POST /-/reload HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n");
    let text = String::from_utf8(text).unwrap();
    assert!(status == 200 && text.ends_with("{\"changed\":[\"mode\"],\"needs_restart\":[\"listen\"]}\n"), "{text}");
    rig.process.draining.send_replace(true);
    let (status, text) = rig.raw(b"POST /-/reload HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n");
    let text = String::from_utf8(text).unwrap();
    assert!(status == 400 && text.ends_with("\r\n\r\nweir.yaml:1:1: mode: unknown value\n"), "{text}");
    let (status, _) = rig.raw(b"GET /-/reload HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n");
    assert_eq!(status, 405);
}
