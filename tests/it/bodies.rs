//! Payload arrives as it was sent, both ways, at every size where a buffer begins or ends.

use std::io::Write;
use std::sync::Arc;
use std::thread;

use sha2::{Digest, Sha256};

use crate::support::client::{CHAT, post_chunked};
use crate::support::dice::Dice;
use crate::support::origin::{self, Conversation};
use crate::support::{Client, Origin, Weir, post};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// One byte, one piece of a held body and its neighbours, many pieces, and the default cap itself.
const SIZES: [usize; 7] = [0, 1, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, MIB, 64 * MIB];

#[test]
fn request_bodies_of_every_size_arrive_with_the_same_hash() {
    let origin = Origin::always(origin::whole("{}"));
    let weir = Weir::before(&[origin.address]);
    let mut expected = Vec::new();
    for (i, size) in SIZES.into_iter().enumerate() {
        let body = noise(size, i as u64);
        // One path is measured, and its body scanned; the other only passes through.
        for path in [CHAT, "/v1/files"] {
            for chunk in [None, Some(5000)] {
                let request = match chunk {
                    None => post(path, "", &body),
                    Some(chunk) => post_chunked(path, "", &body, chunk),
                };
                let answer = Client::connect(weir.address).send(&request).answer();
                assert_eq!(answer.status, 200, "{size} bytes to {path}, {chunk:?}: {}", answer.text());
                expected.push((size, sha256(&body)));
            }
        }
    }
    let seen = origin.seen();
    assert_eq!(seen.len(), expected.len());
    for (seen, (size, sha256)) in seen.iter().zip(expected) {
        assert!((seen.length, seen.sha256) == (size, sha256), "{size} bytes: {}", seen.head);
        let lengths = seen.head.lines().filter(|line| line.to_ascii_lowercase().starts_with("content-length:"));
        assert_eq!(lengths.count(), 1, "{}", seen.head);
        assert!(!seen.head.to_ascii_lowercase().contains("transfer-encoding"), "{}", seen.head);
    }
}

#[test]
fn a_body_one_byte_over_the_cap_is_not_forwarded() {
    let origin = Origin::always(origin::whole("{}"));
    let weir = Weir::with(&[origin.address], "limits: {max_body: 64KiB}", |_| {});
    let (fits, over) = (noise(64 * KIB, 1), noise(64 * KIB + 1, 1));
    for request in [post(CHAT, "", &over), post_chunked(CHAT, "", &over, 5000)] {
        assert_eq!(Client::connect(weir.address).send(&request).answer().status, 413);
    }
    assert_eq!(origin.seen().len(), 0);
    for request in [post(CHAT, "", &fits), post_chunked(CHAT, "", &fits, 5000)] {
        assert_eq!(Client::connect(weir.address).send(&request).answer().status, 200);
    }
    assert_eq!(origin.seen().len(), 2);
}

#[test]
fn answers_of_every_size_and_framing_arrive_with_the_same_hash() {
    let bodies: Arc<[Vec<u8>]> = SIZES.into_iter().enumerate().map(|(i, size)| noise(size, i as u64)).collect();
    let origin = Origin::start({
        let bodies = bodies.clone();
        move |talk| while play(talk, &bodies) {}
    });
    let weir = Weir::before(&[origin.address]);
    for (i, size) in SIZES.into_iter().enumerate() {
        let expected = sha256(&bodies[i]);
        for framing in ["sized", "chunked", "close"] {
            for (path, version) in [(CHAT, "1.1"), ("/v1/files", "1.1"), ("/v1/files", "1.0")] {
                let request = format!(
                    "POST {path} HTTP/{version}\r\nhost: a\r\nx-want: {framing} {i}\r\ncontent-length: 2\r\n\r\n{{}}"
                );
                let answer = Client::connect(weir.address).send(request.as_bytes()).answer();
                let what = format!("{size} bytes {framing} from {path} to {version}");
                assert!(answer.status == 200 && answer.complete, "{what}: {}", answer.head);
                assert_eq!((answer.body.len(), sha256(&answer.body)), (size, expected), "{what}");
                // An HTTP/1.0 client knows no chunks; a sized answer stays sized for everybody.
                assert_eq!(answer.chunked, version == "1.1" && framing != "sized", "{what}: {}", answer.head);
            }
        }
    }
    assert_eq!(weir.settled().accounts.iter().map(|account| account.in_flight()).sum::<u64>(), 0);
}

/// Answers one request as its `x-want` says; `false` when the connection is over.
fn play(talk: &mut Conversation, bodies: &[Vec<u8>]) -> bool {
    let Some(seen) = talk.request() else { return false };
    let want = seen.head.lines().find_map(|line| line.strip_prefix("x-want: ")).unwrap();
    let (framing, body) = want.split_once(' ').unwrap();
    let body = &bodies[body.parse::<usize>().unwrap()];
    match framing {
        "sized" => talk.write(&origin::sized(body)),
        "chunked" => {
            talk.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n");
            // Pieces that fall on no boundary of anything.
            body.chunks(7919).all(|piece| talk.write(&origin::chunk(piece))) && talk.write(b"0\r\n\r\n")
        }
        _ => {
            talk.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n");
            talk.write(body);
            false
        }
    }
}

#[test]
fn two_uploads_at_once_do_not_mix() {
    let origin = Origin::always(origin::whole("{}"));
    let weir = Weir::before(&[origin.address]);
    let bodies: Vec<_> = (0..8).map(|i| noise(300 * KIB + i as usize, 100 + i)).collect();
    thread::scope(|scope| {
        for body in &bodies {
            scope.spawn(|| {
                let mut client = Client::connect(weir.address);
                let request = post(CHAT, "", body);
                // In slices, so that the uploads interleave on weir's one buffer.
                for slice in request.chunks(4099) {
                    client.stream.write_all(slice).unwrap();
                    thread::yield_now();
                }
                assert_eq!(client.answer().status, 200);
            });
        }
    });
    let mut seen: Vec<_> = origin.seen().iter().map(|seen| seen.sha256).collect();
    let mut sent: Vec<_> = bodies.iter().map(|body| sha256(body)).collect();
    seen.sort_unstable();
    sent.sort_unstable();
    assert_eq!(seen, sent);
}

fn noise(size: usize, seed: u64) -> Vec<u8> {
    Dice::new(seed).noise(size)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
