//! The second attempt: where there is one, that there is only one, and that no engine which answered sees a body twice.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use weir::measure::{Outcome, RetryReason};

use crate::support::client::CHAT;
use crate::support::origin::{self, SSE, closing, event};
use crate::support::weir::{finished, total};
use crate::support::{Answer, Client, Conversation, Origin, Weir, chat, post};

/// A backend whose kept-alive connections die under their second request, after `last` was written there.
fn dies_under_the_second_request(last: &'static [u8]) -> Origin {
    Origin::start(move |talk| {
        if talk.request().is_some() && talk.write(&origin::whole("{}")) && talk.request().is_some() {
            talk.write(last);
        }
    })
}

fn weir_of_one_worker(origin: &Origin) -> Weir {
    Weir::with(&[origin.address], "workers: 1", |_| {})
}

fn ask(client: &mut Client) -> Answer {
    client.send(&post(CHAT, "", chat(1).as_bytes())).answer()
}

#[test]
fn a_stale_pooled_connection_is_replaced_unnoticed() {
    let origin = dies_under_the_second_request(b"");
    let weir = weir_of_one_worker(&origin);
    let mut client = Client::connect(weir.address);
    assert_eq!((ask(&mut client).status, ask(&mut client).status), (200, 200));
    let seen: Vec<_> = origin.seen().iter().map(|seen| (seen.connection, seen.turn)).collect();
    assert_eq!(seen, [(0, 0), (0, 1), (1, 0)], "the second request went out twice, once on each connection");
    let snapshot = weir.settled();
    assert_eq!(total(&snapshot, |books| books.retries[RetryReason::StaleConnection.index()]), 1);
    assert_eq!((total(&snapshot, |books| books.offered()), finished(&snapshot, Outcome::Completed)), (2, 2));
}

#[test]
fn after_one_byte_of_an_answer_there_is_no_second_attempt() {
    for last in [&b"H"[..], b"HTTP/1.1 200 OK\r\ncontent-le", SSE] {
        let origin = dies_under_the_second_request(last);
        let weir = weir_of_one_worker(&origin);
        let mut client = Client::connect(weir.address);
        assert_eq!(ask(&mut client).status, 200);
        let broken = ask(&mut client);
        assert!(broken.status == 502 || !broken.complete, "{}", broken.head);
        assert_eq!(origin.seen().len(), 2, "{:?}", String::from_utf8_lossy(last));
        let snapshot = weir.settled();
        assert_eq!(total(&snapshot, |books| books.retries.iter().sum()), 0);
        assert_eq!(finished(&snapshot, Outcome::Completed), 1);
    }
}

#[test]
fn the_replacement_is_not_replaced() {
    let origin = Origin::start(|talk| {
        let first = talk.request().is_some_and(|seen| seen.connection == 0) && talk.write(&origin::whole("{}"));
        if first {
            talk.request();
        }
    });
    let weir = weir_of_one_worker(&origin);
    let mut client = Client::connect(weir.address);
    assert_eq!((ask(&mut client).status, ask(&mut client).status), (200, 502));
    assert_eq!(origin.seen().len(), 3, "first, second on the old connection, second on a fresh one");
    assert_eq!(total(&weir.settled(), |books| books.retries.iter().sum()), 1);
}

#[test]
fn a_fresh_connection_that_dies_is_not_retried() {
    let origin = Origin::start(|talk| drop(talk.request()));
    let weir = weir_of_one_worker(&origin);
    assert_eq!(ask(&mut Client::connect(weir.address)).status, 502);
    assert_eq!(origin.seen().len(), 1, "the engine may already be generating");
    assert_eq!(total(&weir.settled(), |books| books.retries.iter().sum()), 0);
}

#[test]
fn a_connection_closed_while_idle_costs_no_retry() {
    let (closed, is_closed) = mpsc::channel();
    let closed = Mutex::new(closed);
    let origin = Origin::start(move |talk| {
        if talk.request().is_some() {
            talk.write(&origin::whole("{}"));
            talk.stream.shutdown(std::net::Shutdown::Both).unwrap();
            closed.lock().unwrap().send(()).unwrap();
        }
    });
    let weir = weir_of_one_worker(&origin);
    let mut client = Client::connect(weir.address);
    for _ in 0..5 {
        assert_eq!(ask(&mut client).status, 200);
        is_closed.recv().unwrap();
        // The FIN has reached weir's socket by now; its reactor turns once more before the next request is read.
    }
    let connections: Vec<_> = origin.seen().iter().map(|seen| (seen.connection, seen.turn)).collect();
    assert_eq!(connections, [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0)]);
    assert_eq!(total(&weir.settled(), |books| books.retries.iter().sum()), 0);
}

#[test]
fn an_engines_own_refusal_is_passed_on_and_not_tried_again() {
    for (status, outcome) in [("429 Too Many Requests", Outcome::UpstreamError), ("503 Busy", Outcome::UpstreamError)] {
        let origin = Origin::always(format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\n{{}}"));
        let weir = weir_of_one_worker(&origin);
        let mut client = Client::connect(weir.address);
        for _ in 0..3 {
            assert_eq!(ask(&mut client).status.to_string(), status[..3]);
        }
        assert_eq!(origin.seen().len(), 3);
        let snapshot = weir.settled();
        assert_eq!((finished(&snapshot, outcome), total(&snapshot, |books| books.retries.iter().sum())), (3, 0));
    }
}

#[test]
fn an_engine_that_does_not_answer_in_time_is_not_asked_again() {
    let origin = Origin::start(|talk| {
        if let Some(seen) = talk.request() {
            if seen.turn == 0 && talk.write(&origin::whole("{}")) {
                talk.request();
            }
            talk.ended();
        }
    });
    let settings = "workers: 1\nlimits: {first_byte_timeout: 100ms}";
    let weir = Weir::with(&[origin.address], settings, |_| {});
    let mut client = Client::connect(weir.address);
    assert_eq!((ask(&mut client).status, ask(&mut client).status), (200, 504));
    assert_eq!(origin.seen().len(), 2);
    let snapshot = weir.settled();
    assert_eq!(finished(&snapshot, Outcome::UpstreamTimeout), 1);
    assert_eq!(total(&snapshot, |books| books.retries.iter().sum()), 0);
}

/// Connections die at every point of their life; whoever answered a request, with as little as one byte, saw it once.
#[test]
fn no_engine_that_answered_sees_a_request_again() {
    let answered = Arc::new(Mutex::new(Vec::new()));
    let (kept, turn) = (answered.clone(), AtomicUsize::new(0));
    let origin = Origin::start(move |talk: &mut Conversation| {
        while let Some(seen) = talk.request() {
            // A request's own number is the length of its body.
            let die = turn.fetch_add(1, SeqCst) % 5;
            if die == 0 && seen.turn > 0 {
                return;
            }
            kept.lock().unwrap().push(seen.length);
            let whole = [SSE, &event("a"), &closing()].concat();
            match die {
                1 => talk.write(b"H"),
                2 => talk.write(SSE),
                3 => talk.write(&[SSE, &event("a")].concat()),
                _ => talk.write(&whole),
            };
            if (1..=3).contains(&die) {
                return;
            }
        }
    });
    let weir = weir_of_one_worker(&origin);
    let mut served = 0;
    for i in 0..200 {
        let mut client = Client::connect(weir.address);
        served += usize::from(client.send(&post(CHAT, "", &vec![b' '; i + 1])).answer().complete);
    }
    let retries = total(&weir.settled(), |books| books.retries.iter().sum());
    assert!(retries >= 10 && served >= 40, "the faults must have fired: {retries} retries, {served} served");
    assert_eq!(origin.seen().len(), 200 + usize::try_from(retries).unwrap());
    let mut answered = answered.lock().unwrap().clone();
    answered.sort_unstable();
    let all = answered.len();
    answered.dedup();
    assert_eq!(answered.len(), all, "a request was answered twice");
}
