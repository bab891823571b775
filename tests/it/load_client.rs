//! Synthetic load against a small scripted server: what the client makes of each way an answer can go.

use std::future::pending;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use weir::clock::Clock;
use weir::load::body::{Api, BodyTemplate};
use weir::load::client::{Client, GiveUp, LoadTarget, PreparedRequest};
use weir::load::record::{FailureKind, LoadOutcome, LoadRecord};
use weir::load::runner::{LevelRun, LoadLevel, run_level};
use weir::load::schedule::{Arrivals, Extent, Rate};
use weir::load::workload::{TokenLength, Workload};
use weir::vocabulary::time::Timestamp;

/// What the server does with the bytes of one answer.
#[derive(Clone)]
enum Play {
    /// Writes the pieces one by one and keeps the connection.
    Pieces(Vec<Vec<u8>>),
    /// Writes the pieces, then closes.
    PiecesThenClose(Vec<Vec<u8>>),
    /// Writes the pieces, then holds the connection without a word.
    PiecesThenHang(Vec<Vec<u8>>),
}

/// A server that answers the n-th request of a connection with the n-th play (the last one again and again).
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Server {
    async fn start(plays: Vec<Play>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (accepted, answered) = (Arc::clone(&connections), Arc::clone(&requests));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, plays.clone(), Arc::clone(&answered)));
            }
        });
        Self { address, connections, requests }
    }

    async fn target(&self) -> LoadTarget {
        LoadTarget::resolve(&format!("http://{}", self.address)).await.unwrap()
    }

    async fn client(&self) -> Client {
        Client::new(self.target().await, HeaderMap::new(), Clock::start())
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn serve(mut stream: TcpStream, plays: Vec<Play>, answered: Arc<AtomicUsize>) {
    for turn in 0.. {
        if !read_request(&mut stream).await {
            return;
        }
        answered.fetch_add(1, Ordering::SeqCst);
        let play = plays[turn.min(plays.len() - 1)].clone();
        let (Play::Pieces(pieces) | Play::PiecesThenClose(pieces) | Play::PiecesThenHang(pieces)) = &play;
        for piece in pieces {
            if stream.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        match play {
            Play::Pieces(_) => {}
            Play::PiecesThenClose(_) => return,
            Play::PiecesThenHang(_) => pending().await,
        }
    }
}

/// Reads one head and its body by Content-Length; false when the client has gone.
async fn read_request(stream: &mut TcpStream) -> bool {
    let mut received = Vec::new();
    let mut missing = None;
    loop {
        if missing.is_none() {
            missing = received.windows(4).position(|window| window == b"\r\n\r\n").map(|head| {
                let text = String::from_utf8_lossy(&received[..head]).to_lowercase();
                let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
                head + 4 + length.trim().parse::<usize>().unwrap()
            });
        }
        if missing.is_some_and(|all| received.len() >= all) {
            return true;
        }
        if stream.read_buf(&mut received).await.unwrap_or(0) == 0 {
            return false;
        }
    }
}

const SSE_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

fn chunk(payload: &str) -> Vec<u8> {
    format!("{:x}\r\n{payload}\r\n", payload.len()).into_bytes()
}

fn token(text: &str) -> Vec<u8> {
    chunk(&format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n"))
}

fn last_events(output: u64) -> Vec<u8> {
    let finish = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"length\"}]}\n\n";
    let usage =
        format!("data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":9,\"completion_tokens\":{output}}}}}\n\n");
    chunk(&format!("{finish}{usage}data: [DONE]\n\n"))
}

fn stream_of(tokens: u64) -> Vec<Vec<u8>> {
    let mut pieces = vec![SSE_HEAD.to_vec()];
    pieces.extend((0..tokens).map(|_| token("hi")));
    pieces.push(last_events(tokens));
    pieces.push(b"0\r\n\r\n".to_vec());
    pieces
}

fn whole(status: &str, extra: &str, body: &str) -> Vec<Vec<u8>> {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{extra}\r\n");
    vec![format!("{head}{body}").into_bytes()]
}

fn outgoing(give_up: GiveUp) -> PreparedRequest {
    let draw = small().draw(0);
    PreparedRequest {
        api: Api::OpenaiChat,
        body: Bytes::from(BodyTemplate::default().body(&draw)),
        give_up,
        keep_gaps: true,
    }
}

fn small() -> Workload {
    Workload { prompt: TokenLength::Fixed(20), output: TokenLength::Fixed(5), seed: 1 }
}

async fn exchange(client: &Client, give_up: GiveUp) -> LoadRecord {
    let mut record = LoadRecord::offered(&small().draw(0), Timestamp::ZERO);
    client.exchange(&outgoing(give_up), &mut record).await;
    record
}

async fn one(play: Play) -> LoadRecord {
    let server = Server::start(vec![play]).await;
    exchange(&server.client().await, GiveUp::Never).await
}

#[tokio::test]
async fn a_stream_is_stamped_in_order_and_counted() {
    let record = one(Play::Pieces(stream_of(5))).await;
    assert_eq!((record.outcome.clone(), record.status), (LoadOutcome::Completed, Some(200)));
    assert_eq!((record.content_events, record.output_usage, record.input_usage), (5, Some(5), Some(9)));
    assert_eq!(record.gaps.len(), 4);
    let stamps = [record.sent, record.first_byte, record.first_token, record.last_token, Some(record.end)];
    assert!(stamps.iter().all(Option::is_some) && stamps.is_sorted(), "{stamps:?}");
}

#[tokio::test]
async fn a_stream_means_the_same_however_it_is_split() {
    let all: Vec<u8> = stream_of(3).concat();
    for size in [1, 2, 7, 100, all.len()] {
        let record = one(Play::Pieces(all.chunks(size).map(<[u8]>::to_vec).collect())).await;
        assert_eq!((record.outcome, record.content_events, record.output_usage), (LoadOutcome::Completed, 3, Some(3)));
    }
}

#[tokio::test]
async fn a_kept_alive_connection_is_used_again() {
    let server = Server::start(vec![Play::Pieces(stream_of(2))]).await;
    let client = server.client().await;
    for _ in 0..5 {
        assert_eq!(exchange(&client, GiveUp::Never).await.outcome, LoadOutcome::Completed);
    }
    assert_eq!((server.connections(), server.requests()), (1, 5));
}

#[tokio::test]
async fn a_connection_that_died_while_idle_costs_no_request() {
    let server = Server::start(vec![Play::PiecesThenClose(stream_of(2))]).await;
    let client = server.client().await;
    for _ in 0..5 {
        assert_eq!(exchange(&client, GiveUp::Never).await.outcome, LoadOutcome::Completed);
    }
    assert_eq!((server.connections(), server.requests()), (5, 5));
}

#[tokio::test]
async fn a_connection_that_dies_under_a_request_is_replaced_once() {
    let server = Server::start(vec![Play::Pieces(stream_of(2)), Play::PiecesThenClose(vec![])]).await;
    let client = server.client().await;
    assert_eq!(exchange(&client, GiveUp::Never).await.resent, 0);
    let second = exchange(&client, GiveUp::Never).await;
    assert_eq!((second.outcome, second.resent), (LoadOutcome::Completed, 1));
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_truncated() {
    let mut pieces = stream_of(5);
    pieces.truncate(4);
    let record = one(Play::PiecesThenClose(pieces)).await;
    assert_eq!((record.outcome, record.content_events), (LoadOutcome::Truncated, 3));
}

#[tokio::test]
async fn a_body_that_ends_without_a_terminator_is_truncated_too() {
    let record = one(Play::Pieces(vec![SSE_HEAD.to_vec(), token("hi"), b"0\r\n\r\n".to_vec()])).await;
    assert_eq!(record.outcome, LoadOutcome::Truncated);
}

#[tokio::test]
async fn a_terminator_completes_even_if_the_connection_then_breaks() {
    let mut pieces = stream_of(2);
    pieces.pop();
    assert_eq!(one(Play::PiecesThenClose(pieces)).await.outcome, LoadOutcome::Completed);
}

#[tokio::test]
async fn a_refusal_has_retry_after_and_keeps_the_connection() {
    let refusal = whole("429 Too Many Requests", "retry-after: 7\r\n", "{\"error\":{\"code\":\"saturated\"}}");
    let server = Server::start(vec![Play::Pieces(refusal)]).await;
    let client = server.client().await;
    for _ in 0..2 {
        let shed = LoadOutcome::Shed { status: 429, retry_after: Some(Duration::from_secs(7)) };
        assert_eq!(exchange(&client, GiveUp::Never).await.outcome, shed);
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn other_statuses_are_errors_and_not_shed() {
    for status in ["400 Bad Request", "500 Internal Server Error", "504 Gateway Timeout"] {
        let record = one(Play::Pieces(whole(status, "", "{}"))).await;
        assert_eq!(record.outcome, LoadOutcome::Error(FailureKind::Status), "{status}");
    }
}

#[tokio::test]
async fn an_error_event_fails_the_request_whatever_follows() {
    let error = chunk("data: {\"error\":{\"message\":\"boom\",\"type\":\"server_error\"}}\n\n");
    let record = one(Play::Pieces(vec![
        SSE_HEAD.to_vec(),
        token("hi"),
        error,
        chunk("data: [DONE]\n\n"),
        b"0\r\n\r\n".to_vec(),
    ]))
    .await;
    assert_eq!((record.outcome, record.content_events), (LoadOutcome::Error(FailureKind::Stream), 1));
}

#[tokio::test]
async fn an_answer_that_does_not_stream_has_no_ttft() {
    let body = "{\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"hi\"},\
                \"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":4}}";
    let record = one(Play::Pieces(whole("200 OK", "", body))).await;
    assert_eq!((record.ttft(), record.output_tokens()), (None, 4));
    assert_eq!(record.outcome, LoadOutcome::Completed);
}

#[tokio::test]
async fn what_goes_wrong_before_the_head_is_told_apart() {
    assert_eq!(one(Play::PiecesThenClose(vec![])).await.outcome, LoadOutcome::Error(FailureKind::NoAnswer));
    let garbage = Play::PiecesThenClose(vec![b"SSH-2.0-OpenSSH\r\n\r\n".to_vec()]);
    assert_eq!(one(garbage).await.outcome, LoadOutcome::Error(FailureKind::Protocol));
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let target = LoadTarget::resolve(&format!("http://{closed}")).await.unwrap();
    let client = Client::new(target, HeaderMap::new(), Clock::start());
    assert_eq!(exchange(&client, GiveUp::Never).await.outcome, LoadOutcome::Error(FailureKind::Connect));
}

#[tokio::test]
async fn a_client_hangs_up_after_events_or_after_a_time() {
    let mut pieces = stream_of(9);
    pieces.truncate(4);
    let server = Server::start(vec![Play::PiecesThenHang(pieces)]).await;
    let client = server.client().await;
    let after_events = exchange(&client, GiveUp::AfterEvents(2)).await;
    assert_eq!(after_events.outcome, LoadOutcome::Cancelled);
    assert!((2..=3).contains(&after_events.content_events));
    let after_time = exchange(&client, GiveUp::After(Duration::from_millis(200))).await;
    assert_eq!((after_time.outcome, after_time.content_events), (LoadOutcome::Cancelled, 3));
    assert_eq!(server.connections(), 2, "a connection that was left is not used again");
}

#[tokio::test]
async fn a_target_is_a_plain_http_url() {
    for wrong in ["", "127.0.0.1:80", "https://127.0.0.1", "http://", "http://127.0.0.1/?x=1"] {
        assert!(LoadTarget::resolve(wrong).await.is_err(), "{wrong}");
    }
    assert!(LoadTarget::resolve("http://[::1]:9/prefix/").await.is_ok());
}

fn rate(per_second: f64) -> Rate {
    Rate::new(per_second).unwrap()
}

async fn run(server: &Server, level: LoadLevel) -> LevelRun {
    run_level(&server.target().await, &LoadLevel { workload: small(), ..level }, pending(), |_| {}).await
}

#[tokio::test]
async fn an_open_level_sends_every_request_at_or_after_its_time() {
    let server = Server::start(vec![Play::Pieces(stream_of(5))]).await;
    let run = run(&server, LoadLevel::open(rate(500.0), 100)).await;
    assert_eq!((run.records.len(), run.summary.counts.completed), (100, 100));
    assert!(run.records.iter().all(|record| record.sent.unwrap() >= record.intended));
    assert!(run.records.is_sorted_by_key(|record| record.id) && run.records.is_sorted_by_key(|record| record.intended));
    assert_eq!(run.summary.requested_rate, Some(500.0));
}

#[tokio::test]
async fn a_server_that_answers_nobody_does_not_slow_the_sending() {
    let server = Server::start(vec![Play::PiecesThenHang(vec![])]).await;
    let level = LoadLevel { grace: Duration::from_millis(50), ..LoadLevel::open(rate(1000.0), 100) };
    let run = run(&server, level).await;
    assert_eq!((run.summary.counts.offered, run.summary.counts.unfinished), (100, 100));
    assert_eq!(server.requests(), 100);
    assert_eq!(run.summary.ttft.count, 100, "the unfinished count with their age");
    assert!(run.records.iter().all(|record| record.e2e() >= Duration::from_millis(50)));
}

#[tokio::test]
async fn a_level_of_a_length_sends_what_the_schedule_holds() {
    let server = Server::start(vec![Play::Pieces(stream_of(1))]).await;
    let extent = Extent::Time(Duration::from_millis(100));
    let mut level = LoadLevel::open(rate(200.0), 0);
    level.extent = extent;
    let expected = weir::load::schedule::schedule(Arrivals::Poisson, rate(200.0), extent, small().seed).len();
    assert_eq!(run(&server, level).await.records.len(), expected);
}

#[tokio::test]
async fn a_closed_level_keeps_its_workers_busy_and_no_more() {
    let server = Server::start(vec![Play::Pieces(stream_of(3))]).await;
    let run = run(&server, LoadLevel::closed(NonZeroU32::new(4).unwrap(), 50)).await;
    assert_eq!((run.summary.counts.completed, run.summary.requested_rate), (50, None));
    assert_eq!(server.connections(), 4);
}

#[tokio::test]
async fn a_closed_level_of_a_length_waits_for_its_last_answers() {
    let server = Server::start(vec![Play::Pieces(stream_of(3))]).await;
    let mut level = LoadLevel::closed(NonZeroU32::new(2).unwrap(), 0);
    level.extent = Extent::Time(Duration::from_millis(50));
    let run = run(&server, level).await;
    assert!(run.summary.counts.completed > 2);
    assert_eq!(run.summary.counts.completed, run.summary.counts.offered);
}

#[tokio::test]
async fn a_stopped_level_keeps_what_is_there() {
    let mut hanging = stream_of(9);
    hanging.truncate(3);
    let server = Server::start(vec![Play::PiecesThenHang(hanging)]).await;
    let (stop, stopped) = oneshot::channel::<()>();
    let mut stop = Some(stop);
    let level = LoadLevel { workload: small(), ..LoadLevel::open(rate(100.0), 1_000_000) };
    let run = run_level(
        &server.target().await,
        &level,
        async {
            let _ = stopped.await;
        },
        |progress| {
            if progress.sent > 10 {
                stop = None;
            }
        },
    )
    .await;
    assert!(run.records.len() > 10);
    assert!(run.records.iter().all(|record| record.outcome == LoadOutcome::Unfinished));
    assert!(run.records.iter().filter(|record| record.content_events == 2).count() > 5, "their tokens are kept");
}
