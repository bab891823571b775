//! The corners of HTTP/1.1 over real sockets: what few clients and few engines do, and some do every day.

use std::io::Write;

use weir::measure::Outcome;

use crate::support::client::{CHAT, ask};
use crate::support::origin::{self, SSE, closing, event};
use crate::support::weir::finished;
use crate::support::{Client, Origin, Weir, chat, post, time};

/// A pass-through GET, so that only framing is looked at.
const GET: &[u8] = b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n";

fn answering(answer: impl Into<Vec<u8>>) -> (Origin, Weir) {
    let origin = Origin::always(answer);
    let weir = Weir::with(&[origin.address], "workers: 1", |_| {});
    (origin, weir)
}

// ---- Expect -----------------------------------------------------------------------------------------------------------

#[test]
fn expect_100_is_answered_and_not_passed_on() {
    let (origin, weir) = answering(origin::whole("{}"));
    let body = chat(1);
    let mut client = Client::connect(weir.address);
    let head =
        format!("POST {CHAT} HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n", body.len());
    client.send(head.as_bytes()).until("HTTP/1.1 100 Continue\r\n\r\n");
    assert!(origin.seen().is_empty(), "a slot of the engine is asked for only when the body is there");
    let answer = client.send(body.as_bytes()).answer();
    assert_eq!((answer.status, answer.informational.len()), (200, 1));
    assert!(!origin.seen()[0].head.to_ascii_lowercase().contains("expect"));
}

#[test]
fn a_body_that_comes_without_waiting_needs_no_100() {
    let (_origin, weir) = answering(origin::whole("{}"));
    let answer = ask(weir.address, &post(CHAT, "expect: 100-continue\r\n", chat(1).as_bytes()));
    assert_eq!((answer.status, answer.informational.len()), (200, 0));
}

#[test]
fn any_other_expectation_is_417_and_is_not_forwarded() {
    let (origin, weir) = answering(origin::whole("{}"));
    assert_eq!(ask(weir.address, &post(CHAT, "expect: 200-ok\r\n", b"{}")).status, 417);
    assert!(origin.seen().is_empty());
}

// ---- HTTP/1.0 ---------------------------------------------------------------------------------------------------------

#[test]
fn an_http_1_0_client_gets_no_chunks_no_1xx_and_a_close() {
    let hints = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    let (_origin, weir) = answering([hints, SSE, &event("one"), &event("two"), &closing()].concat());
    let body = chat(2);
    for keep in ["", "connection: keep-alive\r\n"] {
        let request = format!("POST {CHAT} HTTP/1.0\r\n{keep}content-length: {}\r\n\r\n{body}", body.len());
        let mut client = Client::connect(weir.address);
        let answer = client.send(request.as_bytes()).answer();
        assert_eq!((answer.status, answer.informational.len(), answer.chunked), (200, 0, false), "{}", answer.head);
        assert_eq!(answer.field("connection"), Some("close"));
        assert!(answer.text().starts_with("data: {\"choices\"") && answer.text().ends_with("data: [DONE]\n\n"));
        assert!(client.is_ended());
    }
    assert_eq!(finished(&weir.settled(), Outcome::Completed), 2);
}

#[test]
fn an_http_1_0_request_with_chunks_is_refused() {
    let (origin, weir) = answering(origin::whole("{}"));
    let request = format!("POST {CHAT} HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n");
    assert_eq!(ask(weir.address, request.as_bytes()).status, 400);
    assert!(origin.seen().is_empty());
}

// ---- one connection, many requests ------------------------------------------------------------------------------------

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::start(|talk| {
        while let Some(seen) = talk.request() {
            talk.write(&origin::whole(&seen.length.to_string()));
        }
    });
    let weir = Weir::before(&[origin.address]);
    let mut client = Client::connect(weir.address);
    let all: Vec<u8> = (0..5).flat_map(|i| post(CHAT, "", &vec![b' '; 100 + i])).collect();
    client.send(&all);
    let answers: Vec<_> = (0..5).map(|_| client.answer().text()).collect();
    assert_eq!(answers, ["100", "101", "102", "103", "104"]);
    assert_eq!(finished(&weir.settled(), Outcome::Completed), 5);
}

#[test]
fn a_client_far_ahead_is_answered_and_loses_its_connection() {
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::start(move |talk| {
        if talk.request().is_none() {
            return;
        }
        for part in [[SSE, &event("one")].concat(), closing()] {
            wait.lock().unwrap().recv().unwrap();
            talk.write(&part);
        }
    });
    let weir = Weir::before(&[origin.address]);
    let mut client = Client::connect(weir.address);
    client.send(&post(CHAT, "", b"{}"));
    time::until("the request is at the backend", || !origin.seen().is_empty());
    client.send(&[b' '; 9 * 1024]);
    // The bytes were in weir's socket before the first event was: it has read them when the event arrives here.
    go_on.send(()).unwrap();
    client.until("one");
    go_on.send(()).unwrap();
    let answer = client.answer();
    assert!(answer.status == 200 && answer.complete);
    assert!(client.is_ended(), "the rest was dropped unread, so no request can follow");
}

#[test]
fn head_204_and_304_have_no_body_and_the_connection_goes_on() {
    let origin = Origin::start(|talk| {
        while let Some(seen) = talk.request() {
            let answer: &[u8] = match seen.head.split(' ').nth(1) {
                Some("/204") => b"HTTP/1.1 204 No Content\r\n\r\n",
                Some("/304") => b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n",
                _ => b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n",
            };
            talk.write(answer);
        }
    });
    let weir = Weir::with(&[origin.address], "workers: 1", |_| {});
    let mut client = Client::connect(weir.address);
    let head = client.send(b"HEAD /a HTTP/1.1\r\nhost: a\r\n\r\n").answer_to_head();
    assert_eq!((head.status, head.field("content-length")), (200, Some("9")));
    for status in ["204", "304"] {
        let answer = client.send(format!("GET /{status} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).answer();
        assert_eq!(answer.status.to_string(), status);
    }
    assert_eq!(origin.seen().len(), 3);
}

// ---- chunks -----------------------------------------------------------------------------------------------------------

#[test]
fn extensions_and_trailers_are_checked_and_not_passed_on() {
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-secret\r\n\r\n";
    let (origin, weir) = answering([&head[..], b"5;a=b\r\nhello\r\n0;c\r\nx-secret: v\r\n\r\n"].concat());
    let mut client = Client::connect(weir.address);
    for _ in 0..2 {
        client.send(GET);
        let raw = client.until("0\r\n\r\n");
        assert!(raw.ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), "{raw}");
        assert!(!raw.contains("x-secret"), "{raw}");
        assert_eq!(client.answer().text(), "hello");
    }
    assert_eq!(origin.seen()[1].turn, 1, "the connection was good enough to be used again");
}

#[test]
fn an_answer_that_breaks_in_its_trailer_never_looks_complete() {
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    for cut in ["5\r\nhello\r\n0\r\n", "5\r\nhello\r\n0\r\nx: ", "5\r\nhello\r\n0\r\nx: v\r\n", "5\r\nhello\r\n0"] {
        let answer = [&head[..], cut.as_bytes()].concat();
        let origin = Origin::start(move |talk| {
            if talk.request().is_some() {
                talk.write(&answer);
            }
        });
        let weir = Weir::before(&[origin.address]);
        let mut client = Client::connect(weir.address);
        client.send(GET);
        let raw = String::from_utf8(client.everything()).unwrap();
        assert!(raw.ends_with("5\r\nhello\r\n"), "{cut:?}: {raw}");
    }
}

#[test]
fn a_broken_chunk_breaks_the_answer_and_is_not_passed_on() {
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
    for bad in ["zz\r\n", "5 \r\nxxxxx\r\n", "5\nxxxxx\n", "-1\r\n", "123456789\r\n", "5\r\nxxxxxyy"] {
        let origin = Origin::start(move |talk| {
            if talk.request().is_some() {
                talk.write(head);
                talk.write(bad.as_bytes());
                talk.ended();
            }
        });
        let weir = Weir::before(&[origin.address]);
        let mut client = Client::connect(weir.address);
        // Where all of it comes in one read, the answer is a 502, which would keep the connection open.
        client.send(b"GET /v1/models HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let raw = String::from_utf8(client.everything()).unwrap();
        // The good chunk may have left before the bad one came; after it nothing may.
        let body = raw.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        assert!(["", "5\r\nhello\r\n"].contains(&body) || raw.starts_with("HTTP/1.1 502"), "{bad:?}: {raw}");
        assert!(!raw.contains('x') || raw.starts_with("HTTP/1.1"), "{bad:?}: {raw}");
    }
}

// ---- early answers ----------------------------------------------------------------------------------------------------

#[test]
fn an_early_answer_is_passed_on_and_its_connection_closed() {
    let (answered, is_answered) = std::sync::mpsc::channel::<()>();
    let is_answered = std::sync::Mutex::new(is_answered);
    let origin = Origin::start(move |talk| {
        let Some(head) = talk.head() else { return };
        if head.contains("content-length: 33554432") {
            talk.write(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno");
            // More than two sockets hold is not read before: weir cannot have sent it all.
            let _ = is_answered.lock().unwrap().recv();
            talk.ended();
        } else {
            talk.body(head);
            talk.write(&origin::whole("{}"));
        }
    });
    let weir = Weir::with(&[origin.address], "workers: 1", |_| {});
    let mut client = Client::connect(weir.address);
    let answer = client.send(&post(CHAT, "", &vec![b' '; 32 << 20])).answer();
    assert_eq!((answer.status, answer.text().as_str()), (413, "no"));
    answered.send(()).unwrap();
    assert_eq!(client.send(&post(CHAT, "", b"{}")).answer().status, 200);
    assert_eq!(origin.seen().last().unwrap().connection, 1);
}

// ---- 1xx --------------------------------------------------------------------------------------------------------------

#[test]
fn a_100_of_the_engine_ends_here_and_a_103_is_passed_on() {
    let before = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    let (_origin, weir) = answering([&before[..], &origin::whole("{}")].concat());
    let answer = ask(weir.address, &post(CHAT, "", b"{}"));
    assert_eq!((answer.status, answer.informational.len()), (200, 1));
    assert!(answer.informational[0].starts_with("HTTP/1.1 103") && answer.informational[0].contains("link: </a>"));
}

#[test]
fn eight_1xx_are_borne_and_the_ninth_is_a_bad_answer() {
    for (count, status) in [(8, 200), (9, 502)] {
        let (_origin, weir) =
            answering(["HTTP/1.1 100 Continue\r\n\r\n".repeat(count).into_bytes(), origin::whole("{}")].concat());
        assert_eq!(ask(weir.address, &post(CHAT, "", b"{}")).status, status, "{count}");
    }
}

#[test]
fn a_101_that_nobody_asked_for_is_a_bad_answer() {
    let (_origin, weir) =
        answering(&b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"[..]);
    assert_eq!(ask(weir.address, &post(CHAT, "", b"{}")).status, 502);
}

// ---- timeouts of the client's side ------------------------------------------------------------------------------------

#[test]
fn a_dripping_head_is_408_and_a_silent_connection_is_closed() {
    let (origin, weir) = answering(origin::whole("{}"));
    drop(weir);
    let settings = "limits: {header_timeout: 150ms, body_timeout: 150ms, idle_timeout: 150ms}";
    let weir = Weir::with(&[origin.address], settings, |_| {});
    let head = Client::connect(weir.address).send(b"POST /v1/chat").answer();
    assert_eq!(head.status, 408);
    let body = Client::connect(weir.address)
        .send(b"POST /v1/messages HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{")
        .answer();
    assert_eq!((body.status, body.text().contains("\"type\":\"error\"")), (408, true), "in the caller's dialect");
    assert!(Client::connect(weir.address).is_ended(), "nothing was asked, so nothing is answered");
    let mut idle = Client::connect(weir.address);
    assert_eq!(idle.send(GET).answer().status, 200);
    assert!(idle.is_ended(), "idle between requests");
    assert_eq!(weir.settled().malformed.iter().sum::<u64>(), 2);
}

#[test]
fn a_slow_head_that_keeps_within_its_time_is_served() {
    let (_origin, weir) = answering(origin::whole("{}"));
    let mut client = Client::connect(weir.address);
    for byte in post(CHAT, "", b"{}") {
        client.stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(client.answer().status, 200);
}
