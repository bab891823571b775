//! Clients that take bytes slowly or not at all: what they cost is bounded, and they are not borne for ever.

use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use weir::measure::{AbandonPhase, Outcome};

use crate::support::client::CHAT;
use crate::support::dice::Dice;
use crate::support::origin::{SSE, chunk, closing, event, sized};
use crate::support::weir::{finished, total};
use crate::support::{Client, Conversation, Origin, Process, Weir, chat, post, time};

/// What one client that takes nothing may cost: a bound of 256 KiB, one read beyond it, and change.
const STALLED: usize = 320 * 1024;
const STALL: Duration = Duration::from_millis(400);

/// Writes events of a kilobyte until weir will not have them any more; says when that was.
fn flood(talk: &mut Conversation) -> std::time::Instant {
    talk.write(SSE);
    let event = event(&"x".repeat(1024));
    while talk.write(&event) {}
    time::now()
}

#[test]
fn a_client_that_never_reads_is_given_up_at_the_stall_limit() {
    let (done, is_done) = mpsc::channel();
    let done = Mutex::new(done);
    let origin = Origin::start(move |talk| {
        if talk.request().is_some() {
            let ended = flood(talk);
            done.lock().unwrap().send(ended).unwrap();
        }
    });
    let weir = Weir::with(&[origin.address], "limits: {write_stall: 400ms}", |_| {});
    let mut client = Client::with_receive_buffer(weir.address, 32 * 1024);
    let asked = time::now();
    client.send(&post(CHAT, "", chat(9).as_bytes()));
    let mut most = 0;
    let ended = loop {
        most = most.max(weir.proxy().memory.used());
        if let Ok(ended) = is_done.try_recv() {
            break ended;
        }
        assert!(asked.elapsed() < time::PATIENCE, "it was never given up");
    };
    assert!(ended - asked >= STALL, "given up after {:?}", ended - asked);
    assert!((64 * 1024..=STALLED).contains(&most), "{most} bytes were held");
    let snapshot = weir.settled();
    assert_eq!(finished(&snapshot, Outcome::ClientCancelled), 1);
    assert_eq!(total(&snapshot, |books| books.abandoned[AbandonPhase::Decode.index()]), 1);
    assert_eq!(weir.proxy().memory.used(), 0);
    let rest = client.everything();
    assert!(!rest.ends_with(b"0\r\n\r\n") && !rest.windows(6).any(|w| w == b"[DONE]"), "it must not look complete");
}

#[test]
fn a_slow_but_steady_client_is_served_whole_within_the_bound() {
    let body = Dice::new(7).noise(4 << 20);
    let expected: [u8; 32] = Sha256::digest(&body).into();
    for chunked in [false, true] {
        let body = body.clone();
        let origin = Origin::start(move |talk| {
            if talk.request().is_none() {
                return;
            }
            if chunked {
                talk.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
                let all = body.chunks(10_000).all(|piece| talk.write(&chunk(piece)));
                assert!(all && talk.write(b"0\r\n\r\n"));
            } else {
                talk.write(&sized(&body));
            }
        });
        let weir = Weir::with(&[origin.address], "limits: {write_stall: 400ms}", |_| {});
        let mut client = Client::with_receive_buffer(weir.address, 32 * 1024);
        client.send(b"GET /v1/files/1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let (mut received, mut most, start) = (Vec::new(), 0, time::now());
        loop {
            // Longer than the stall limit in all, never that long between two reads.
            if start.elapsed() < 3 * STALL {
                time::pause(STALL / 10);
            }
            let piece = client.take_some(24 * 1024);
            most = most.max(weir.proxy().memory.used());
            if piece.is_empty() {
                break;
            }
            received.extend_from_slice(&piece);
        }
        assert!((64 * 1024..=STALLED).contains(&most), "{most} bytes were held");
        let answer = Client::replay(received).answer();
        assert!(answer.complete, "{} bytes came", answer.body.len());
        assert_eq!(<[u8; 32]>::from(Sha256::digest(&answer.body)), expected);
        weir.settled();
        assert_eq!(weir.proxy().memory.used(), 0);
    }
}

#[test]
fn two_hundred_stalled_streams_cost_their_bound_of_memory() {
    const STREAMS: u64 = 200;
    let origin = Origin::start(|talk| {
        if talk.request().is_some() {
            flood(talk);
        }
    });
    let program = Path::new(env!("CARGO_BIN_EXE_weir"));
    let weir = Process::serve(program, &[origin.address], "workers: 2");
    let mut stalled = Vec::new();
    let mut stall = |count: u64| {
        for _ in 0..count {
            let mut client = Client::with_receive_buffer(weir.address, 32 * 1024);
            client.send(&post(CHAT, "", chat(9).as_bytes()));
            stalled.push(client);
        }
        let held = || {
            weir.page("/metrics").lines().find_map(|line| line.strip_prefix("weir_body_memory_bytes ")?.parse().ok())
        };
        let all = stalled.len() as f64 * 256.0 * 1024.0;
        time::until("every stream is at its bound", || held().is_some_and(|held: f64| held >= all));
    };
    stall(10);
    let before = weir.resident();
    stall(STREAMS);
    let each = weir.resident().saturating_sub(before) / STREAMS;
    println!("{each} KiB a stalled stream");
    assert!((200..=320).contains(&each), "{each} KiB");
}

#[test]
fn a_stalled_client_that_comes_back_gets_everything() {
    let origin = Origin::start(|talk| {
        if talk.request().is_some() {
            talk.write(SSE);
            let event = event(&"x".repeat(1000));
            assert!((0..2000).all(|_| talk.write(&event)) && talk.write(&closing()));
        }
    });
    let weir = Weir::before(&[origin.address]);
    let mut client = Client::with_receive_buffer(weir.address, 32 * 1024);
    client.send(&post(CHAT, "connection: close\r\n", chat(9).as_bytes()));
    time::until("the stream is at its bound", || weir.proxy().memory.used() >= 256 * 1024);
    let answer = client.answer();
    assert!(answer.complete && answer.body.ends_with(b"data: [DONE]\n\n"));
    assert_eq!(answer.text().matches("\"content\":\"xxx").count(), 2000);
    let snapshot = weir.settled();
    assert_eq!(finished(&snapshot, Outcome::Completed), 1);
    assert_eq!(total(&snapshot, |books| books.chunks), 2000);
    let limited = total(&snapshot, |books| books.limited_gaps);
    assert!(limited > 0, "gaps that the client stretched are counted apart");
    assert_eq!(total(&snapshot, |books| books.gap.count()) + limited, 1999);
}
