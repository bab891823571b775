//! weir in front of the simulated engine, over real sockets: bytes, books, refusals.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use weir::measure::Outcome;
use weir::proxy::state::HookPoint;

use crate::support::weir::{finished, total};
use crate::support::{Client, Engine, Origin, Weir, chat, origin, time};

fn ask(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn post(path: &str, extra: &str, body: &str) -> Vec<u8> {
    crate::support::post(path, &format!("connection: close\r\n{extra}"), body.as_bytes())
}

#[test]
fn a_streamed_request_is_whole_and_its_tokens_are_counted() {
    let running = Weir::before(&[Engine::quick().address]);
    let answer = ask(running.address, &post("/v1/chat/completions", "", &chat(17)));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("x-weir-backend: backend-0") && answer.contains("data: [DONE]"));
    assert!(answer.ends_with("0\r\n\r\n"));
    let snapshot = running.settled();
    let books = &snapshot.accounts[0].stats;
    assert_eq!((books.offered(), books.finished(Outcome::Completed)), (1, 1));
    assert_eq!(books.output_tokens, [17, 0]);
    assert_eq!((books.ttft[1].count(), books.itl.count(), books.chunks), (1, 16, 17));
}

#[test]
fn weirs_own_work_is_told_apart_from_what_the_engine_takes() {
    const WAIT: Duration = Duration::from_millis(200);
    let origin = Origin::start(|talk| {
        while talk.request().is_some() {
            time::pause(WAIT);
            talk.write(&origin::whole("{}"));
        }
    });
    let weir = Weir::with(&[origin.address], "workers: 1", |_| {});
    let mut client = Client::connect(weir.address);
    for _ in 0..2 {
        assert_eq!(client.send(&crate::support::post("/v1/embeddings", "", b"{}")).answer().status, 200);
    }
    client.send(b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n").answer();
    let books = &weir.settled().accounts[0].stats;
    let [request, first_byte] = &books.overhead;
    assert_eq!((request.count(), first_byte.count()), (2, 2), "what is not measured is not booked");
    let own = request.sum() + first_byte.sum();
    let all = books.duration[Outcome::Completed.index()].sum();
    assert!(own > 0 && own + 2 * WAIT.as_nanos() <= all, "{own} of {all}");
}

#[test]
fn every_dialect_of_the_engine_is_counted() {
    let running = Weir::before(&[Engine::quick().address]);
    for (path, body) in [
        (
            "/v1/completions",
            r#"{"prompt":"a","max_tokens":5,"ignore_eos":true,"stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        ("/v1/chat/completions", r#"{"messages":[{"role":"user","content":"a"}],"max_tokens":5,"ignore_eos":true}"#),
        (
            "/v1/messages",
            r#"{"messages":[{"role":"user","content":"a"}],"max_tokens":5,"ignore_eos":true,"stream":true}"#,
        ),
        ("/api/chat", r#"{"messages":[{"role":"user","content":"a"}],"options":{"num_predict":5},"ignore_eos":true}"#),
        ("/api/generate", r#"{"prompt":"a","options":{"num_predict":5},"ignore_eos":true,"stream":false}"#),
    ] {
        let answer = ask(running.address, &post(path, "", body));
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    let snapshot = running.settled();
    assert_eq!(finished(&snapshot, Outcome::Completed), 5);
}

#[test]
fn a_chunked_upload_and_a_byte_by_byte_request_are_one_request() {
    let running = Weir::before(&[Engine::quick().address]);
    let body = chat(3);
    let chunked = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n{:x};x=y\r\n{body}\r\n0\r\nt: v\r\n\r\n",
        body.len()
    );
    assert!(ask(running.address, chunked.as_bytes()).contains("[DONE]"));
    let mut stream = TcpStream::connect(running.address).unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in post("/v1/chat/completions", "", &body) {
        stream.write_all(&[byte]).unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("[DONE]"));
    assert_eq!(running.settled().accounts[0].finished(Outcome::Completed), 2);
}

#[test]
fn malformed_requests_are_answered_in_dialect_and_not_offered() {
    let running = Weir::before(&[Engine::quick().address]);
    for (request, status) in [
        (&b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n"[..], "400"),
        (b"GET / HTTP/1.1\nhost: a\n\n", "400"),
        (b"TRACE / HTTP/1.1\r\nhost: a\r\n\r\n", "405"),
        (b"POST /v1/messages HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999\r\n\r\n", "413"),
    ] {
        let answer = ask(running.address, request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(answer.contains("\"error\""), "{answer}");
    }
    let snapshot = running.settled();
    assert_eq!(total(&snapshot, |books| books.offered()), 0);
    assert_eq!(snapshot.malformed.iter().sum::<u64>(), 4);
}

#[test]
fn a_dead_backend_is_a_502_unless_there_is_another() {
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let alone = Weir::before(&[dead]);
    let answer = ask(alone.address, &post("/v1/chat/completions", "", &chat(3)));
    assert!(answer.starts_with("HTTP/1.1 50"), "{answer}");
    alone.settled();
    let both = Weir::before(&[dead, Engine::quick().address]);
    for _ in 0..4 {
        assert!(ask(both.address, &post("/v1/chat/completions", "", &chat(3))).contains("[DONE]"));
    }
    assert_eq!(finished(&both.settled(), Outcome::Completed), 4);
}

#[test]
fn a_stream_that_breaks_is_visibly_broken_and_never_completed() {
    let running = Weir::before(&[Engine::quick().address]);
    let answer = ask(running.address, &post("/v1/chat/completions", "x-engine-fault: reset-after=3\r\n", &chat(50)));
    assert!(answer.contains("backend_failed") || !answer.contains("[DONE]"), "{answer}");
    assert!(!answer.ends_with("0\r\n\r\n"));
    assert_eq!(running.settled().accounts[0].finished(Outcome::Completed), 0);
}

#[test]
fn a_panic_ends_one_request_and_the_books_balance() {
    for phase in [HookPoint::Head, HookPoint::Arrived, HookPoint::Dispatched, HookPoint::Ended] {
        let test_hook: fn(HookPoint) = match phase {
            HookPoint::Head => |phase| assert!(phase != HookPoint::Head, "injected"),
            HookPoint::Arrived => |phase| assert!(phase != HookPoint::Arrived, "injected"),
            HookPoint::Dispatched => |phase| assert!(phase != HookPoint::Dispatched, "injected"),
            HookPoint::Ended => |phase| assert!(phase != HookPoint::Ended, "injected"),
        };
        let running = Weir::with(&[Engine::quick().address], "", |proxy| proxy.test_hook = test_hook);
        ask(running.address, &post("/v1/chat/completions", "", &chat(3)));
        let snapshot = running.settled();
        assert!(snapshot.accounts.iter().all(|account| account.in_flight() == 0), "{phase:?}");
    }
}

#[test]
fn the_same_exchange_runs_over_pingoras_stream() {
    let running = Weir::before(&[Engine::quick().address]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let proxy = running.shared();
    let server = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (stream, peer) = tokio::net::TcpListener::from_std(listener).unwrap().accept().await.unwrap();
            let stream = pingora_core::protocols::l4::stream::Stream::from(stream);
            let worker = weir::proxy::state::Worker::new(proxy, 0, 7);
            weir::proxy::serve(&mut weir::proxy::io::Piped(Box::new(stream)), peer.ip(), &worker).await;
        });
    });
    assert!(ask(address, &post("/v1/chat/completions", "", &chat(9))).contains("[DONE]"));
    server.join().unwrap();
    assert_eq!(running.settled().accounts[0].output_tokens, [9, 0]);
}

#[test]
fn no_prompt_and_no_key_is_in_metrics_or_status() {
    let running = Weir::before(&[Engine::quick().address]);
    let body = chat(3).replace("hello", "canary-prompt");
    ask(running.address, &post("/v1/chat/completions?key=canary-query", "authorization: Bearer canary-key\r\n", &body));
    running.settled();
    for page in ["/metrics", "/status", "/config"] {
        let shown = ask(
            running.admin,
            format!("GET {page} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").as_bytes(),
        );
        assert!(shown.starts_with("HTTP/1.1 200") && !shown.contains("canary"), "{page}");
    }
}
