//! The client leaves: the engine is told at once, nothing is dispatched for it any more, and nothing stays behind.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

use weir::measure::{AbandonPhase, Outcome};

use crate::support::client::CHAT;
use crate::support::origin;
use crate::support::storm::{CANCELS, storm};
use crate::support::weir::{finished, total};
use crate::support::{Client, Engine, Origin, Process, Weir, chat, post, time};

#[test]
fn a_client_that_stays_is_not_taken_for_one_that_left() {
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let origin = Origin::start(move |talk| {
        if talk.request().is_some() {
            let _ = wait.lock().unwrap().recv();
            talk.write(&origin::whole("{}"));
        }
    });
    let weir = Weir::with(&[origin.address], "limits: {half_close: false}", |_| {});
    for finishes_sending in [false, true] {
        let mut client = Client::connect(weir.address);
        client.send(&post(CHAT, "", b"{}"));
        if finishes_sending {
            client.finish_sending();
        }
        time::until("the request is at the backend", || origin.seen().len() == 1 + usize::from(finishes_sending));
        go_on.send(()).unwrap();
        assert_eq!(client.answer().status, 200);
    }
    assert_eq!(finished(&weir.settled(), Outcome::Completed), 2);
}

#[test]
fn nothing_is_dispatched_for_a_client_that_left_in_the_dial() {
    // A listener whose queue is full: the kernel drops what else wants in, and a dial waits.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    full.listen(0).unwrap();
    let full: TcpListener = full.into();
    let address = full.local_addr().unwrap();
    let mut fillers = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
        fillers.push(stream);
    }
    let weir = Weir::with(&[address], "limits: {connect_timeout: 20s}", |_| {});
    for stray in ["", "G"] {
        let mut client = Client::connect(weir.address);
        client.send(&post(CHAT, "", chat(1).as_bytes())).send(stray.as_bytes());
        time::until("the request was offered", || total(&weir.snapshot(), |books| books.queued.iter().sum()) == 1);
        let left = time::now();
        client.leave();
        time::until("it is abandoned", || total(&weir.snapshot(), |books| books.queued.iter().sum()) == 0);
        assert!(left.elapsed() < Duration::from_secs(5), "long before the dial would have ended: {:?}", left.elapsed());
    }
    let snapshot = weir.settled();
    assert_eq!(total(&snapshot, |books| books.abandoned[AbandonPhase::Queue.index()]), 2);
    assert_eq!(total(&snapshot, |books| books.admitted()), 0);
}

#[test]
fn thousands_of_cancels_leave_nothing_behind() {
    let engine = Engine::with(weir::clock::Clock::start(), |settings| {
        (settings.speed, settings.recorder) = (50.0, None);
    });
    let program = Path::new(env!("CARGO_BIN_EXE_weir"));
    let weir = Process::serve(program, &[engine.address], "workers: 2");
    let fresh = weir.settled_descriptors();
    let tally = storm(weir.address, CANCELS, 4, 2_000, 2, || false);
    assert!(CANCELS.iter().all(|deed| tally.times(*deed) > 300), "{tally:?}");
    time::until("nothing is in flight in weir", || weir.status()["backends"][0]["in_flight"] == 0);
    time::until("nothing runs or waits in the engine", || engine.busy() == 0.0);
    // Connections to the engine that rest are closed after four seconds; weir's own questions to it may be under way.
    time::until("every descriptor was given back", || weir.descriptors() <= fresh + OWN_QUESTIONS);
    let page = weir.page("/metrics");
    for zero in
        ["weir_connections 0", "weir_body_memory_bytes 0", "weir_entries_dropped_total 0", "weir_panics_total 0"]
    {
        assert!(page.lines().any(|line| line == zero), "{zero}");
    }
}

/// Health, and the engine's own metrics.
const OWN_QUESTIONS: usize = 2;
