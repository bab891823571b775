//! What clients that take nothing, or little, cost in resident memory.

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::support::client::CHAT;
use crate::support::origin::{SSE, event};
use crate::support::{Client, Origin, Process, chat, post, time};
use crate::{Verdict, verdict};

const STREAMS: usize = 500;
/// KiB of resident memory a stalled stream.
const EACH: u64 = 320;
const SLOW_BYTES: usize = 256 << 20;
/// KiB that one slow but steady client may add at any moment, measuring noise included.
const STEADY: u64 = 1024;

pub fn run() -> Vec<Verdict> {
    vec![stalled(), steady()]
}

fn stalled() -> Verdict {
    let origin = Origin::start(|talk| {
        if talk.request().is_some() {
            talk.write(SSE);
            let event = event(&"x".repeat(1024));
            while talk.write(&event) {}
        }
    });
    let weir = Process::serve(
        Path::new(env!("CARGO_BIN_EXE_weir")),
        &[origin.address],
        "{workers: 2, limits: {write_stall: 10m}}",
    );
    let mut clients = Vec::new();
    let mut stall = |count: usize| {
        for _ in 0..count {
            let mut client = Client::with_receive_buffer(weir.address, 32 * 1024);
            client.send(&post(CHAT, "", chat(9).as_bytes()));
            clients.push(client);
        }
        let bound = clients.len() as f64 * 256.0 * 1024.0;
        let line =
            |page: String| page.lines().find_map(|line| line.strip_prefix("weir_body_memory_bytes ")?.parse().ok());
        time::until("every stream is at its bound", || {
            line(weir.page("/metrics")).is_some_and(|held: f64| held >= bound)
        });
    };
    stall(20);
    let before = weir.resident();
    stall(STREAMS);
    let each = weir.resident().saturating_sub(before) / STREAMS as u64;
    verdict(format!("{STREAMS} stalled streams: {each} KiB of resident memory each (bound: {EACH} KiB)"), each <= EACH)
}

fn steady() -> Verdict {
    let origin = Origin::start(|talk| {
        if talk.request().is_none() {
            return;
        }
        talk.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {SLOW_BYTES}\r\n\r\n").as_bytes());
        let piece = pattern();
        (0..SLOW_BYTES / piece.len()).all(|_| talk.write(&piece));
    });
    let weir = Process::serve(Path::new(env!("CARGO_BIN_EXE_weir")), &[origin.address], "workers: 1");
    let ask = |bytes: usize| {
        let mut client = Client::with_receive_buffer(weir.address, 128 * 1024);
        client.send(b"GET /v1/files/1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let (mut sha256, mut received, mut most) = (Sha256::new(), 0, weir.resident());
        loop {
            let piece = client.take_some(32 * 1024);
            if piece.is_empty() || received > bytes {
                return (sha256.finalize(), received, most);
            }
            received += piece.len();
            sha256.update(&piece);
            if received % (1 << 20) < piece.len() {
                most = most.max(weir.resident());
            }
        }
    };
    ask(8 << 20);
    let before = weir.resident();
    let (_, received, most) = ask(usize::MAX);
    let grown = most.saturating_sub(before);
    let whole = received > SLOW_BYTES && received < SLOW_BYTES + 1024;
    verdict(
        format!(
            "{} MiB to a client that reads in small pieces: {grown} KiB more at any moment (bound: {STEADY} KiB)",
            received >> 20
        ),
        whole && grown <= STEADY,
    )
}

fn pattern() -> Vec<u8> {
    (0..64 * 1024).map(|i| (i % 251) as u8).collect()
}
