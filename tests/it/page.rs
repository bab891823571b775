//! The live page over a real socket: its files and what is sent with them, and the events that its viewers are told.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use weir::export::page::hub::VIEWERS;

use crate::support::client;
use crate::support::time;
use crate::support::weir::Weir;

/// A port where nobody listens: the page needs no backend that is up.
const NOWHERE: &str = "127.0.0.1:9";

fn lonely() -> Weir {
    Weir::before(&[NOWHERE.parse().unwrap()])
}

/// Somebody who looks at the page.
struct Viewer {
    lines: BufReader<TcpStream>,
    head: String,
}

impl Viewer {
    fn open(admin: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(admin).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut lines = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(lines.read_line(&mut head).unwrap() > 0, "{head}");
        }
        Self { lines, head }
    }

    /// The next event; `None` when there are no more.
    fn next(&mut self) -> Option<Value> {
        loop {
            let mut line = String::new();
            match self.lines.read_line(&mut line) {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
            if let Some(data) = line.strip_prefix("data: ") {
                return Some(serde_json::from_str(data).unwrap());
            }
        }
    }
}

#[test]
fn the_policy_of_the_page_allows_only_its_own_files() {
    let weir = lonely();
    for (path, media) in [("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n");
        let answer = client::ask(weir.admin, request.as_bytes());
        assert_eq!(answer.status, 200, "{path}");
        let head = answer.head.to_lowercase();
        assert!(head.contains(&format!("content-type: {media}; charset=utf-8")), "{head}");
        assert!(
            head.contains("content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'"),
            "{head}"
        );
        assert!(!head.contains("unsafe") && head.contains("x-content-type-options: nosniff"), "{head}");
        assert!(head.contains("referrer-policy: no-referrer"), "{head}");
    }
}

#[test]
fn a_viewer_gets_the_status_at_once_and_every_second() {
    let weir = lonely();
    let mut viewer = Viewer::open(weir.admin);
    assert!(
        viewer.head.starts_with("HTTP/1.1 200") && viewer.head.contains("content-type: text/event-stream"),
        "{}",
        viewer.head
    );
    let began = time::now();
    let events: Vec<Value> = (0..3).map(|_| viewer.next().unwrap()).collect();
    assert!(began.elapsed() >= Duration::from_millis(900), "three events are two seconds, give or take a tick");
    let (first, status) = (&events[0], weir.status());
    assert_eq!(
        (&first["mode"], &first["version"], &first["draining"]),
        (&status["mode"], &status["version"], &status["draining"])
    );
    assert_eq!(first["backends"][0]["name"], status["backends"][0]["name"]);
    assert_eq!(first["backends"][0]["state"], status["backends"][0]["saturation"]["state"]);
    assert!(first["turns"].is_array(), "who comes is told the last changes");
    assert!(events[1..].iter().all(|event| event["turns"].is_null()), "and then only when there is one");
    assert!(events.windows(2).all(|two| two[0]["at"].as_f64() < two[1]["at"].as_f64()));
    assert!(first.to_string().len() < 2_000, "small: {first}");
}

#[test]
fn viewers_are_limited_and_probes_are_answered_beside_them() {
    let weir = lonely();
    let mut viewers: Vec<Viewer> = (0..VIEWERS).map(|_| Viewer::open(weir.admin)).collect();
    let refused = Viewer::open(weir.admin);
    assert!(refused.head.starts_with("HTTP/1.1 503") && refused.head.contains("retry-after: 5"), "{}", refused.head);
    // Idle connections, more than there are places: none of them pushes a viewer out, and a probe finds one.
    let _idle: Vec<_> = (0..80).map(|_| TcpStream::connect(weir.admin).unwrap()).collect();
    assert_eq!(weir.page("/livez"), "ok\n");
    assert!(viewers.iter_mut().all(|viewer| (0..3).all(|_| viewer.next().is_some())), "all are still told");
    drop(viewers.pop());
    time::until("a place is free again", || Viewer::open(weir.admin).head.starts_with("HTTP/1.1 200"));
}

#[test]
fn events_end_when_weir_does() {
    let weir = lonely();
    let mut viewer = Viewer::open(weir.admin);
    assert!(viewer.next().is_some());
    let began = time::now();
    weir.stop();
    while viewer.next().is_some() {}
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn a_viewer_that_does_not_read_is_hung_up_on_and_others_go_on() {
    // So many backends that a few events fill what the sockets hold.
    let weir = Weir::before(&vec![NOWHERE.parse().unwrap(); 200]);
    let sleeper = Viewer::open(weir.admin);
    let mut reader = Viewer::open(weir.admin);
    let mut probe = sleeper.lines.get_ref().try_clone().unwrap();
    // Whoever was hung up on cannot be written to any more, and learns it without reading.
    let hung_up = || probe.write_all(b" ").is_err();
    let mut hung_up = hung_up;
    let mut seconds = 0;
    while !hung_up() {
        assert!(reader.next().is_some(), "the one who reads is told");
        seconds += 1;
        assert!(seconds < 90, "the sleeper is still there");
    }
    println!("hung up after {seconds} events");
    assert!(reader.next().is_some());
}
