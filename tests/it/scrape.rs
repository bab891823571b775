//! Reading an engine's own metrics over a real socket: what is read, and everything that can be wrong with it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use weir::clock::Clock;
use weir::engine_metrics::agreement::Accord;
use weir::engine_metrics::client::{Address, ask};
use weir::engine_metrics::settings::{EngineKind, Series};
use weir::engine_metrics::table::SeriesTable;
use weir::engine_metrics::{EngineReading, LatestReading, MetricsSource, PollPace, ReportedLimits, watch};
use weir::http_client::Unanswered;

/// A server that answers every connection with what `answer` makes of its request's target, then closes it.
fn server(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            serve(stream, &answer);
        }
    });
    address
}

fn serve(mut stream: TcpStream, answer: &impl Fn(&str) -> Vec<u8>) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        request.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&request).into_owned();
    let _ = stream.write_all(&answer(head.split(' ').nth(1).unwrap_or_default()));
}

fn page(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";

fn at(address: SocketAddr) -> Address {
    Address { host: address.ip().to_string().into(), port: address.port(), authority: address.to_string().into() }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Fast enough for a test, slow enough for a busy machine to answer.
fn pace() -> PollPace {
    let interval = Duration::from_millis(5);
    PollPace { interval, timeout: Duration::from_secs(5), rest: interval }
}

/// Reads until `done`, at most ten seconds.
fn read_until(
    engine: EngineKind,
    address: SocketAddr,
    own: u32,
    done: impl Fn(&EngineReading) -> bool,
) -> EngineReading {
    let source = MetricsSource {
        name: "gpu-0".into(),
        engine,
        series: Series::default(),
        address: at(address),
        path: None,
        configured: ReportedLimits::default(),
    };
    let (clock, seat) = (Clock::start(), LatestReading::new(PollPace::default()));
    runtime().block_on(async {
        let watching = tokio::spawn(watch(source, seat.clone(), pace(), clock, move || own));
        let wait = async {
            loop {
                let reading = seat.reading(clock.now());
                if done(&reading) {
                    return reading;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let reading = tokio::time::timeout(Duration::from_secs(10), wait).await;
        watching.abort();
        reading.unwrap_or_else(|_| panic!("still {:?}", seat.reading(clock.now())))
    })
}

fn fixture(name: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/engines").join(name);
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn every_engines_page_is_recognised_and_read() {
    for (name, engine, running, waiting, kv) in [
        ("vllm.txt", EngineKind::Vllm, 7.0, 5.0, Some(0.35)),
        ("vllm-old.txt", EngineKind::Vllm, 8.0, 2.0, Some(0.5)),
        ("weir-engine.txt", EngineKind::Vllm, 2.0, 0.0, Some(0.0004)),
        ("sglang.txt", EngineKind::Sglang, 12.0, 3.0, Some(0.28)),
        ("trtllm-serve.txt", EngineKind::TrtllmServe, 6.0, 1.0, Some(0.125)),
        ("triton.txt", EngineKind::Triton, 4.0, 9.0, Some(0.4875)),
        ("llamacpp.txt", EngineKind::Llamacpp, 4.0, 46.0, None),
    ] {
        let text = fixture(name);
        assert_eq!(SeriesTable::recognise(text.as_bytes()), Some(engine), "{name}");
        let report = SeriesTable::of(engine, &Series::default()).unwrap().read(text.as_bytes()).unwrap();
        assert_eq!((report.running, report.waiting()), (Some(running), Some(waiting)), "{name}");
        assert_eq!(report.kv_usage.map(|share| (share * 1e4).round() / 1e4), kv, "{name}");
    }
    let tgi = fixture("tgi.txt");
    assert_eq!(SeriesTable::recognise(tgi.as_bytes()), None, "by configuration only");
    let report = SeriesTable::of(EngineKind::Tgi, &Series::default()).unwrap().read(tgi.as_bytes()).unwrap();
    assert_eq!((report.running, report.waiting()), (Some(32.0), Some(11.0)));
}

#[test]
fn a_page_is_read_and_foreign_load_is_told_once_it_persists() {
    let address = server(|_| page(&fixture("vllm.txt")));
    let reading = read_until(EngineKind::Auto, address, 4, |reading| reading.accord == Accord::ForeignLoad);
    assert_eq!(reading.up, Some((EngineKind::Vllm, true)));
    assert_eq!(reading.excess, Some(8.0), "7 running and 5 waiting, 4 of them ours");
    let reading = read_until(EngineKind::Auto, address, 12, |reading| reading.accord != Accord::Unjudged);
    assert_eq!(reading.accord, Accord::Agrees, "all of them ours");
}

#[test]
fn the_page_of_trtllm_serve_is_found_at_its_own_path() {
    let address = server(|path| match path {
        "/metrics" => page("[{\"iter\": 1}]"),
        "/prometheus/metrics" => page(&fixture("trtllm-serve.txt")),
        _ => NOT_FOUND.to_vec(),
    });
    let reading = read_until(EngineKind::Auto, address, 7, |reading| reading.last.is_some());
    assert_eq!(reading.up, Some((EngineKind::TrtllmServe, true)));
}

#[test]
fn metrics_may_be_missing_unless_the_engine_was_named() {
    let asked = Arc::new(AtomicU32::new(0));
    let count = asked.clone();
    let address = server(move |_| {
        count.fetch_add(1, SeqCst);
        NOT_FOUND.to_vec()
    });
    let reading = read_until(EngineKind::Auto, address, 0, |_| asked.load(SeqCst) > 8);
    assert_eq!(reading, EngineReading::default());
    let reading = read_until(EngineKind::Vllm, address, 0, |_| asked.load(SeqCst) > 12);
    assert_eq!((reading.up, reading.last), (Some((EngineKind::Vllm, false)), None));
}

#[test]
fn an_engine_that_comes_back_is_read_again() {
    let asked = AtomicU32::new(0);
    let address = server(move |_| match asked.fetch_add(1, SeqCst) {
        0..10 => page("nothing of interest 1\n"),
        _ => page(&fixture("llamacpp.txt")),
    });
    let reading = read_until(EngineKind::Llamacpp, address, 50, |reading| reading.last.is_some());
    assert_eq!(reading.up, Some((EngineKind::Llamacpp, true)));
}

#[test]
fn a_report_older_than_three_intervals_is_not_shown() {
    let address = server(|_| page(&fixture("vllm.txt")));
    let source = MetricsSource {
        name: "a".into(),
        engine: EngineKind::Auto,
        series: Series::default(),
        address: at(address),
        path: None,
        configured: ReportedLimits::default(),
    };
    let (clock, seat) = (Clock::start(), LatestReading::new(PollPace::default()));
    runtime().block_on(async {
        let watching = tokio::spawn(watch(source, seat.clone(), pace(), clock, || 0));
        while seat.reading(clock.now()).last.is_none() {
            tokio::task::yield_now().await;
        }
        watching.abort();
    });
    let (read, _) = seat.reading(clock.now()).last.unwrap();
    assert!(seat.reading(read + Duration::from_secs(3)).last.is_some());
    let stale = seat.reading(read + Duration::from_millis(3_001));
    assert_eq!((stale.last, stale.accord, stale.excess), (None, Accord::Unjudged, None));
    assert!(stale.up.is_some() && stale.read_at == Some(read), "that it was read, and when, stays known");
}

#[test]
fn a_hanging_a_garbled_and_an_endless_answer_are_given_up() {
    let ask_it = |answer: Vec<u8>, patience: Duration| {
        let address = server(move |_| answer.clone());
        runtime().block_on(ask(&at(address), "/metrics", patience))
    };
    let long = Duration::from_secs(20);
    assert!(matches!(ask_it(b"SSH-2.0-x\r\n".to_vec(), long), Err(Unanswered::Protocol)));
    assert!(matches!(
        ask_it(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\na".to_vec(), long),
        Err(Unanswered::Protocol)
    ));
    assert!(matches!(
        ask_it(b"HTTP/1.1 501 No\r\ncontent-length: 0\r\n\r\n".to_vec(), long),
        Err(Unanswered::Status(_))
    ));
    let huge = page(&"a 1\n".repeat((4 << 20) / 4 + 1));
    assert!(matches!(ask_it(huge, long), Err(Unanswered::TooLong(_))));
    let whole = page(&"a 1\n".repeat((4 << 20) / 4));
    assert_eq!(ask_it(whole, long).unwrap().len(), 4 << 20);
    // A listener that never accepts: the kernel takes the connection, and then nothing comes.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let answer = runtime().block_on(ask(&at(silent.local_addr().unwrap()), "/metrics", Duration::from_millis(50)));
    assert!(matches!(answer, Err(Unanswered::Late)));
}

#[test]
fn an_engine_is_never_asked_at_a_link_local_address() {
    let address = Address { host: "169.254.169.254".into(), port: 80, authority: "a".into() };
    let answer = runtime().block_on(ask(&address, "/metrics", Duration::from_secs(5)));
    assert!(
        matches!(&answer, Err(Unanswered::Connection(why)) if why.kind() == std::io::ErrorKind::PermissionDenied),
        "{answer:?}"
    );
}
