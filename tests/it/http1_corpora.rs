//! Every raw request of the corpora through the head and body readers: refused, or hyper sees the same requests in what
//! weir would forward. Every raw answer likewise, towards hyper as the client. A corpus that is absent prints one line.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weir::http1::{
    HeadEnd, Relay, Response as Answered, ResponseContext, Version, finish_response_head, response_head,
};

#[path = "http1_reading.rs"]
mod http1_reading;

use http1_reading::{Seen, read_connection};

type Sighting = (String, String, Vec<u8>);

#[test]
fn llhttp_requests_are_refused_or_seen_alike() {
    compare("llhttp", &files(&shared("llhttp/request")));
}

#[test]
fn smuggling_gadgets_are_refused_or_seen_alike() {
    let Ok(text) = fs::read_to_string(shared("smuggler/cases.jsonl")) else { return compare("smuggler", &[]) };
    let case = |line: &str| -> (String, Vec<u8>) {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        (case["file"].as_str().unwrap().to_owned(), unhex(case["hex"].as_str().unwrap()))
    };
    compare("smuggler", &text.lines().map(case).collect::<Vec<_>>());
}

#[test]
fn our_own_requests_are_refused_or_seen_alike() {
    compare("own/h1", &files(&own()));
}

/// An answer that weir refuses or that stays incomplete reaches nobody as a whole one.
#[test]
fn llhttp_answers_are_refused_or_seen_alike() {
    let cases = files(&shared("llhttp/response"));
    if cases.is_empty() {
        return println!("llhttp answers: absent, not compared");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (mut refused, mut relayed) = (0, 0);
    for (name, bytes) in &cases {
        let Some(answer) = relay_answer(bytes) else {
            refused += 1;
            continue;
        };
        relayed += 1;
        let seen = runtime.block_on(answer_by_hyper(answer.sent)).unwrap();
        assert_eq!(seen, (answer.status, answer.body), "{name}");
    }
    println!("llhttp answers: {} cases, {refused} refused or incomplete, {relayed} compared", cases.len());
    assert!(refused > 0 && relayed > 0, "both happen in this corpus");
}

/// Where the manifest allows nothing but a refusal at the head or the body, there is one, with a status that it names.
#[test]
fn our_own_requests_meet_their_expectations() {
    let text = fs::read_to_string(own().join("manifest.json")).unwrap();
    let cases: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let mut judged = 0;
    for case in &cases {
        let (file, expected) = (case["file"].as_str().unwrap(), case["expect"].as_str().unwrap());
        let statuses: Vec<u16> = expected
            .split(|c: char| !c.is_ascii_digit())
            .filter(|d| d.len() == 3)
            .map(|d| d.parse().unwrap())
            .collect();
        let only_refusal = expected.starts_with(|c: char| c.is_ascii_digit()) && !expected.contains("or");
        let Ok(bytes) = fs::read(own().join(file)) else { continue };
        if !only_refusal || LATER.contains(&file) {
            continue;
        }
        let connection = read_connection(&bytes);
        let status = connection.refused.map(|reject| reject.status());
        let other = OTHERWISE.iter().find(|(name, _)| *name == file).map(|(_, status)| *status);
        let meets = status.is_some_and(|status| other.map_or(statuses.contains(&status), |other| status == other));
        assert!(meets, "{file}: {expected}, {status:?}");
        judged += 1;
    }
    assert!(judged > 25, "{judged} cases were judged");
}

/// Refused above this room: by the body cap, and by the head's deadline because a request line alone is no whole head.
const LATER: [&str; 3] = ["cl-huge.bin", "cl-u64max.bin", "http09.bin"];

/// Refused with a status more exact than the manifest's: a line that is too long, a version that is not spoken.
const OTHERWISE: [(&str, u16); 2] = [("uri-64k.bin", 431), ("http2-preface-on-h1.bin", 505)];

fn compare(corpus: &str, cases: &[(String, Vec<u8>)]) {
    if cases.is_empty() {
        return println!("{corpus}: absent, not compared");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (mut refused, mut forwarded) = (0, 0);
    for (name, bytes) in cases {
        let connection = read_connection(bytes);
        refused += usize::from(connection.refused.is_some());
        for seen in connection.seen {
            forwarded += 1;
            let expected = vec![sighting(&seen)];
            assert_eq!(runtime.block_on(by_hyper(seen.forwarded)), expected, "{corpus} {name}");
        }
    }
    println!("{corpus}: {} cases, {refused} refused, {forwarded} requests compared", cases.len());
    assert!(refused > 0, "a corpus of attacks has something to refuse");
}

fn sighting(seen: &Seen) -> Sighting {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&seen.method), text(&seen.target), seen.body.clone())
}

async fn by_hyper(bytes: Vec<u8>) -> Vec<Sighting> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (mut client, server) = tokio::io::duplex(bytes.len().max(1) + 64 * 1024);
    client.write_all(&bytes).await.unwrap();
    client.shutdown().await.unwrap();
    let service = service_fn(|request: Request<Incoming>| {
        let seen = Arc::clone(&seen);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes().to_vec();
            seen.lock().unwrap().push((head.method.to_string(), head.uri.to_string(), body));
            Ok::<_, hyper::Error>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    let served = builder.half_close(true).serve_connection(TokioIo::new(server), service).await;
    if let Err(error) = served {
        seen.lock().unwrap().push((error.to_string(), String::new(), Vec::new()));
    }
    let seen = seen.lock().unwrap();
    seen.clone()
}

struct Answer {
    status: u16,
    body: Vec<u8>,
    sent: Vec<u8>,
}

/// What a client of HTTP/1.1 gets; `None` when it gets no whole answer.
fn relay_answer(bytes: &[u8]) -> Option<Answer> {
    let end = HeadEnd::new().find(bytes).ok()??;
    let context = ResponseContext { head_request: false, client: Version::V11 };
    let mut sent = Vec::new();
    let Ok(Answered::Final(head)) = response_head(&bytes[..end], &context, &mut sent) else { return None };
    let (mut relay, mut scratch) = (Relay::new(head.body, context.client), Vec::new());
    finish_response_head(&mut sent, relay.out_framing(), true, b"", &[]);
    let mut body = Vec::new();
    sent.extend_from_slice(relay.feed(&bytes[end..], &mut scratch, |part| body.extend_from_slice(part)).ok()?.out);
    sent.extend_from_slice(relay.closed(&mut scratch).ok()?);
    Some(Answer { status: head.status, body, sent })
}

async fn answer_by_hyper(bytes: Vec<u8>) -> hyper::Result<(u16, Vec<u8>)> {
    let (client, mut server) = tokio::io::duplex(bytes.len() + 64 * 1024);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(client)).await?;
    let exchange = async {
        let answer = sender.send_request(Request::new(Empty::<Bytes>::new())).await?;
        Ok((answer.status().as_u16(), answer.into_body().collect().await?.to_bytes().to_vec()))
    };
    let engine = async {
        let mut request = [0; 1024];
        assert!(server.read(&mut request).await.unwrap() > 0, "a request");
        server.write_all(&bytes).await.unwrap();
        server.shutdown().await.unwrap();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        seen = exchange => seen,
        () = engine => unreachable!("it waits for the client"),
        () = async { let _ = connection.await; std::future::pending::<()>().await } => unreachable!("as above"),
    }
}

fn shared(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/corpora").join(name)
}

fn own() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpora/own/h1")
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut cases: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "bin"))
        .map(|path| (path.display().to_string(), fs::read(&path).unwrap()))
        .collect();
    cases.sort();
    cases
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}
