//! What a client sends and an engine answers is in no log at any level, no page, no journal and no error of ours, on any path
//! a request can take.

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use weir::proxy::state::HookPoint;

use crate::support::canary::{CANARY, found};
use crate::support::chaos::dead;
use crate::support::client::{CHAT, post_chunked};
use crate::support::origin::{self, SSE, closing, event};
use crate::support::weir::scratch;
use crate::support::{Answer, Client, Conversation, Origin, Process, Weir, post, time};

/// Everything that any crate says at TRACE and above in this process.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

/// What the backend does is written in a field of the request, so that every path is a request of its own.
fn play(talk: &mut Conversation) {
    while let Some(seen) = talk.request() {
        let deed = seen.head.lines().find_map(|line| line.strip_prefix("x-do: ")).unwrap_or("serve").to_owned();
        let one = [SSE, &event(CANARY)].concat();
        match &*deed {
            "serve" => {
                talk.write(&[&one[..], &closing()].concat());
                continue;
            }
            "whole" => {
                let usage = r#","usage":{"prompt_tokens":3,"completion_tokens":1}}"#;
                talk.write(&origin::whole(&format!(r#"{{"choices":[{{"message":{{"content":"{CANARY}"}}}}]{usage}"#)));
                continue;
            }
            "refuse" => {
                let body = format!(r#"{{"error":{{"message":"{CANARY}"}}}}"#);
                talk.write(format!("HTTP/1.1 503 {CANARY}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes());
                continue;
            }
            "eof" => {}
            "reset" => talk.reset(),
            "garbage" => say(talk, format!("{CANARY} {CANARY}\r\n\r\n").as_bytes()),
            "bad-field" => say(talk, format!("HTTP/1.1 200 OK\r\n{CANARY} : {CANARY}\r\n\r\n").as_bytes()),
            "two-lengths" => say(talk, b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n"),
            "long-head" => say(talk, format!("HTTP/1.1 200 OK\r\nx: {}\r\n", CANARY.repeat(9000)).as_bytes()),
            "cut-head" => say(talk, format!("HTTP/1.1 200 OK\r\nx: {CANARY}").as_bytes()),
            "many-1xx" => say(talk, "HTTP/1.1 100 Continue\r\n\r\n".repeat(9).as_bytes()),
            "hang" => {
                talk.ended();
            }
            "cut" => say(talk, &one),
            "cut-event" => say(talk, &[&one[..], &origin::chunk(format!("data: {CANARY}").as_bytes())].concat()),
            "bad-chunk" => say(talk, &[&one[..], CANARY.as_bytes(), b"\r\n"].concat()),
            "error-event" => {
                let error = format!("data: {{\"error\":{{\"message\":\"{CANARY}\"}}}}\n\n");
                say(talk, &[&one[..], &origin::chunk(error.as_bytes()), b"0\r\n\r\n"].concat());
            }
            "reset-late" => {
                talk.write(&one);
                talk.reset();
            }
            "stall" => {
                talk.write(&one);
                talk.ended();
            }
            other => panic!("no such deed: {other}"),
        }
        return;
    }
}

fn say(talk: &mut Conversation, bytes: &[u8]) {
    talk.write(bytes);
}

/// Field lines with the canary in every place where people keep secrets.
fn fields(deed: &str) -> String {
    format!(
        "authorization: Bearer {CANARY}-token\r\nx-api-key: sk-{CANARY}\r\ncookie: session={CANARY}\r\n\
         user-agent: {CANARY}\r\nx-forwarded-for: {CANARY}\r\nx-{CANARY}: {CANARY}\r\nx-request-id: {CANARY} {CANARY}\r\n\
         traceparent: 00-{CANARY}-{CANARY}-01\r\nx-do: {deed}\r\n"
    )
}

fn body(stream: bool) -> Vec<u8> {
    format!(
        r#"{{"model":"m","stream":{stream},"messages":[{{"role":"user","content":"{CANARY} {CANARY}"}}],"user":"{CANARY}","{CANARY}":1}}"#
    )
    .into_bytes()
}

/// A path with a query; only the part before `?` decides.
fn path(path: &str) -> String {
    format!("{path}?api_key={CANARY}&{CANARY}")
}

/// Searches every answer that weir itself wrote: those say so in a field.
fn search_answer(what: &str, answer: &Answer) {
    if answer.field("x-weir-shed-reason").is_some() || answer.status == 0 {
        assert_eq!(found(&answer.text()), None, "{what}: {}", answer.text());
    }
}

const SETTINGS: &str = "
workers: 1
limits: {first_byte_timeout: 100ms, stream_stall: 1ms, header_timeout: 150ms, body_timeout: 150ms, max_body: 4KiB, max_header: 8KiB}
log: {access: true}
metrics: {passthrough: off}
";

#[test]
fn no_content_is_logged_shown_or_kept_on_any_path() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .try_init()
        .unwrap();
    let origin = Origin::start(play);
    let journal = scratch("canaries");
    let weir = Weir::with(&[origin.address], &format!("{SETTINGS}journal: {{path: {}}}", journal.display()), |_| {});
    let mut paths = served(&weir) + refused(&weir) + left(&weir) + asked_of_admin(&weir);
    for page in ["/metrics", "/status", "/config", "/readyz?verbose", "/healthz"] {
        let shown = weir.page(page);
        assert_eq!(found(&shown), None, "{page}");
    }
    weir.settled();
    let records = weir.stop();
    assert!(records.len() > 20, "{} records", records.len());
    assert_eq!(found(&std::fs::read_to_string(&journal).unwrap()), None, "the journal");
    paths += dead_draining_and_full(&origin);
    paths += panicking(&origin);
    assert!(paths >= 60, "{paths} paths");
    let text = log.text();
    assert!(text.contains("TRACE") || text.contains("DEBUG"), "other crates were heard: {text}");
    assert!(text.contains("request finished") && text.contains("panicked"), "and our own lines");
    for line in text.lines() {
        assert_eq!(found(line), None, "the log: {line}");
    }
    assert_eq!(found(&text), None, "the log as a whole");
}

/// What the backend makes of a request that weir forwards.
fn served(weir: &Weir) -> usize {
    let deeds = [
        "serve",
        "whole",
        "refuse",
        "eof",
        "reset",
        "garbage",
        "bad-field",
        "two-lengths",
        "long-head",
        "cut-head",
        "many-1xx",
        "hang",
        "cut",
        "cut-event",
        "bad-chunk",
        "error-event",
        "reset-late",
        "stall",
    ];
    let mut done = 0;
    for endpoint in [CHAT, "/v1/messages", "/api/chat", &format!("/{CANARY}/{CANARY}")] {
        for deed in deeds {
            let request = post(&path(endpoint), &fields(deed), &body(deed != "whole"));
            let answer = Client::connect(weir.address).send(&request).answer();
            search_answer(deed, &answer);
            done += 1;
        }
    }
    // A pooled connection that dies under its second request, and the retry behind it.
    let mut client = Client::connect(weir.address);
    for deed in ["serve", "eof"] {
        let answer = client.send(&post(&path(CHAT), &fields(deed), &body(true))).answer();
        search_answer(deed, &answer);
    }
    done + 1
}

/// What weir refuses by itself.
fn refused(weir: &Weir) -> usize {
    let (secrets, text) = (fields("serve"), String::from_utf8(body(true)).unwrap());
    let target = path(CHAT);
    let long = CANARY.repeat(1000);
    let requests = [
        (
            "400",
            format!(
                "POST {target} HTTP/1.1\r\nhost: a\r\n{secrets}content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n{text}"
            ),
        ),
        ("400", format!("POST {target} HTTP/1.1\r\n{secrets}content-length: 2\r\n\r\n{{}}")),
        ("400", format!("POST {target} HTTP/1.1\r\nhost: a\r\n{CANARY} {CANARY}\r\n\r\n")),
        ("400", format!("POST {target} HTTP/1.1\r\nhost: a\r\n{CANARY} : x\r\n\r\n")),
        ("400", format!("POST {target} HTTP/1.1\r\nhost: {CANARY} {CANARY}\r\n\r\n")),
        ("400", format!("POST {target}#{CANARY} HTTP/1.1\r\nhost: a\r\n\r\n")),
        ("400", format!("{CANARY} {CANARY}\r\n\r\n")),
        ("400", format!("GET /{CANARY} HTTP/1.1\nhost: a\n\n")),
        ("400", format!("POST {target} HTTP/1.1\r\nhost: a\r\n{secrets}content-length: {CANARY}\r\n\r\n")),
        (
            "400",
            format!(
                "POST {target} HTTP/1.1\r\nhost: a\r\n{secrets}transfer-encoding: chunked\r\n\r\n{CANARY}\r\n{text}"
            ),
        ),
        (
            "400",
            format!(
                "POST {target} HTTP/1.1\r\nhost: a\r\n{secrets}connection: {CANARY}, host\r\ncontent-length: 0\r\n\r\n"
            ),
        ),
        ("400", format!("POST {target} HTTP/1.1\r\nhost: a\r\n{secrets}transfer-encoding: {CANARY}\r\n\r\n{text}")),
        ("405", format!("TRACE /{CANARY} HTTP/1.1\r\nhost: a\r\n{secrets}\r\n")),
        ("405", format!("CONNECT {CANARY}:443 HTTP/1.1\r\nhost: {CANARY}:443\r\n{secrets}\r\n")),
        ("408", format!("POST {target} HTTP/1.1\r\nhost: a\r\n{secrets}")),
        ("408", format!("POST {target} HTTP/1.1\r\nhost: a\r\n{secrets}content-length: 999\r\n\r\n{text}")),
        ("413", format!("POST {target} HTTP/1.1\r\nhost: a\r\n{secrets}content-length: 9999\r\n\r\n{text}")),
        ("417", format!("POST {target} HTTP/1.1\r\nhost: a\r\n{secrets}expect: {CANARY}\r\ncontent-length: 0\r\n\r\n")),
        ("431", format!("POST {target} HTTP/1.1\r\nhost: a\r\nx: {long}\r\n\r\n")),
        ("501", format!("BREW {target} HTTP/1.1\r\nhost: a\r\n{secrets}\r\n")),
        ("505", format!("POST {target} HTTP/3.7\r\nhost: a\r\n{secrets}\r\n")),
        ("404", format!("GET /metrics?{CANARY} HTTP/1.1\r\nhost: a\r\n{secrets}\r\n")),
    ];
    for (status, request) in &requests {
        let answer = Client::connect(weir.address).send(request.as_bytes()).answer();
        assert_eq!(answer.status.to_string(), *status, "{request}");
        search_answer(request, &answer);
    }
    let chunked = post_chunked(&path(CHAT), &secrets, text.repeat(40).as_bytes(), 100);
    let answer = Client::connect(weir.address).send(&chunked).answer();
    assert_eq!(answer.status, 413);
    search_answer("413 in chunks", &answer);
    requests.len() + 1
}

/// Clients that leave at every point.
fn left(weir: &Weir) -> usize {
    let request = post(&path(CHAT), &fields("stall"), &body(true));
    for cut in [10, request.len() - 30, request.len()] {
        for reset in [false, true] {
            let mut client = Client::connect(weir.address);
            client.send(&request[..cut]);
            if reset { client.reset() } else { client.leave() }
        }
    }
    let mut client = Client::connect(weir.address);
    client.send(&request).until(CANARY);
    client.reset();
    7
}

/// The admin port is asked with the same secrets.
fn asked_of_admin(weir: &Weir) -> usize {
    let requests = [
        format!("GET /{CANARY}?{CANARY} HTTP/1.1\r\nhost: localhost\r\n"),
        format!("GET /status?{CANARY} HTTP/1.1\r\nhost: {CANARY}\r\n"),
        format!("POST /status HTTP/1.1\r\nhost: localhost\r\norigin: http://{CANARY}\r\n"),
        format!("GET /drain?wait={CANARY} HTTP/1.1\r\nhost: localhost\r\n"),
        format!("{CANARY} /status HTTP/1.1\r\nhost: localhost\r\n"),
        format!("GET /undrain HTTP/1.1\r\nhost: localhost\r\n{CANARY} {CANARY}\r\n"),
    ];
    for request in &requests {
        let whole = format!("{request}authorization: Bearer {CANARY}\r\ncookie: {CANARY}\r\nconnection: close\r\n\r\n");
        let answer = Client::connect(weir.admin).send(whole.as_bytes()).answer();
        assert_eq!(found(&answer.text()), None, "{request}: {}", answer.text());
    }
    requests.len()
}

/// A backend that is not there, a process that drains, and a budget that is spent.
fn dead_draining_and_full(origin: &Origin) -> usize {
    let dead = dead();
    let request = post(&path(CHAT), &fields("serve"), &body(true));
    let expect = |weir: &Weir, statuses: &[u16]| {
        let answer = Client::connect(weir.address).send(&request).answer();
        assert!(statuses.contains(&answer.status), "{}", answer.head);
        search_answer("dead, draining, full", &answer);
        let shown = [weir.page("/status"), weir.page("/metrics")].concat();
        assert_eq!(found(&shown), None);
    };
    let alone = Weir::before(&[dead]);
    (0..5).for_each(|_| expect(&alone, &[502, 503]));
    let full = Weir::with(&[origin.address], "limits: {body_memory: 4KiB, max_body: 4KiB}", |_| {});
    let mut holder = Client::connect(full.address);
    let most = post(&path(CHAT), &fields("serve"), &[b' '; 4096]);
    holder.send(&most[..most.len() - 5]);
    time::until("most of the budget is held", || full.proxy().memory.used() == 4091);
    expect(&full, &[503]);
    let draining = Weir::with(&[origin.address], "drain: {min_delay: 0s, timeout: 60s}", |_| {});
    draining.page("/drain");
    time::until("it refuses", || draining.proxy().drain.phase() == weir::proxy::drain::DrainPhase::Lame);
    expect(&draining, &[503]);
    7
}

/// Panics whose payload is the canary itself, in each phase.
fn panicking(origin: &Origin) -> usize {
    let before = std::panic::take_hook();
    let panics = Arc::default();
    weir::export::logging::on_panic(Arc::clone(&panics));
    let hooks: [fn(HookPoint); 4] = [
        |phase| assert!(phase != HookPoint::Head, "{CANARY}"),
        |phase| assert!(phase != HookPoint::Arrived, "{CANARY}"),
        |phase| assert!(phase != HookPoint::Dispatched, "{CANARY}"),
        |phase| assert!(phase != HookPoint::Ended, "{CANARY}"),
    ];
    for test_hook in hooks {
        let weir = Weir::with(&[origin.address], SETTINGS, |proxy| proxy.test_hook = test_hook);
        let request = post(&path(CHAT), &fields("serve"), &body(true));
        let answer = Client::connect(weir.address).send(&request).answer();
        search_answer("a panic", &answer);
        weir.settled();
        let shown = [weir.page("/status"), weir.page("/metrics")].concat();
        assert_eq!(found(&shown), None);
    }
    std::panic::set_hook(before);
    assert_eq!(panics.load(std::sync::atomic::Ordering::Relaxed), 4, "every panic must have been injected");
    4
}

#[test]
fn the_process_writes_nothing_of_a_request_to_standard_error() {
    let origin = Origin::start(play);
    let dead = dead();
    for form in ["json", "text"] {
        let settings = SETTINGS.replace("access: true", &format!("access: true, format: {form}"));
        let program = Path::new(env!("CARGO_BIN_EXE_weir"));
        let weir = Process::serve(program, &[origin.address, dead], &settings);
        for deed in ["serve", "garbage", "eof", "hang", "cut", "bad-chunk", "long-head"].iter().cycle().take(28) {
            let answer = Client::connect(weir.address).send(&post(&path(CHAT), &fields(deed), &body(true))).answer();
            search_answer(deed, &answer);
        }
        time::until("requests are in the log", || weir.log().matches("request finished").count() >= 20);
        let shown = [weir.log(), weir.page("/metrics"), weir.page("/status"), weir.page("/config")].concat();
        assert_eq!(found(&shown), None, "{form}: {shown}");
    }
}
