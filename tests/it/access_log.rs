//! The access log: one line for every request, with its end in our words, whatever end that was; and never in anybody's way.

use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::canary::{CANARY, found};
use crate::support::chaos::dead;
use crate::support::client::{CHAT, Client, chat, post};
use crate::support::origin::{Origin, SSE, closing, event};
use crate::support::{Process, time};

const WEIR: &str = env!("CARGO_BIN_EXE_weir");
const SETTINGS: &str = "
workers: 1
limits: {first_byte_timeout: 300ms, body_timeout: 300ms, max_body: 4KiB}
log: {access: true}
drain: {min_delay: 0s, timeout: 10s}
";

/// Streams two tokens, or does what the request's `x-do` says.
fn play() -> Origin {
    Origin::start(|talk| {
        while let Some(seen) = talk.request() {
            let deed = seen.head.lines().find_map(|line| line.strip_prefix("x-do: ")).unwrap_or("serve").to_owned();
            match &*deed {
                "cut" => drop(talk.write(&[SSE, &event("a")].concat())),
                "silent" => drop(talk.ended()),
                "open" => {
                    talk.write(&[SSE, &event("a")].concat());
                    talk.ended();
                }
                "refuse" => {
                    talk.write(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n");
                    continue;
                }
                _ => {
                    talk.write(&[SSE, &event("a"), &event("b"), &closing()].concat());
                    continue;
                }
            }
            return;
        }
    })
}

/// The access line of one request.
fn line_of(weir: &Process, id: &str) -> Value {
    let named = format!("\"request_id\":\"{id}\"");
    time::until(&format!("{id} has its line"), || weir.log().contains(&named));
    let log = weir.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains(&named)).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    serde_json::from_str(lines[0]).unwrap()
}

fn send(address: SocketAddr, id: &str, deed: &str) -> u16 {
    let fields = format!("x-request-id: {id}\r\nx-do: {deed}\r\n");
    Client::connect(address).send(&post(CHAT, &fields, chat(2).as_bytes())).answer().status
}

#[test]
fn every_kind_of_end_has_one_line_that_says_so() {
    let origin = play();
    let weir = Process::serve(Path::new(WEIR), &[origin.address], SETTINGS);
    for (id, deed, told, status, outcome) in [
        ("served", "serve", 200, 200, "completed"),
        ("truncated", "cut", 200, 200, "upstream_truncated"),
        ("late", "silent", 504, 504, "upstream_timeout"),
        ("busy", "refuse", 503, 503, "upstream_error"),
    ] {
        assert_eq!(send(weir.address, id, deed), told, "{id}");
        let line = line_of(&weir, id);
        assert_eq!((&line["status"], &line["outcome"]), (&status.into(), &outcome.into()), "{line}");
    }
    let served = line_of(&weir, "served");
    for (field, value) in [
        ("level", Value::from("INFO")),
        ("message", "request finished".into()),
        ("target", "weir::access".into()),
        ("backend", "backend-0".into()),
        ("model_name", "m".into()),
        ("priority", "default".into()),
        ("dialect", "openai.chat".into()),
        ("stream", true.into()),
        ("output_tokens", 2.into()),
        ("stalls", 0.into()),
        ("retries", 0.into()),
    ] {
        assert_eq!(served[field], value, "{field}: {served}");
    }
    let number = |field: &str| served[field].as_f64().unwrap_or_else(|| panic!("{field}: {served}"));
    assert!(number("queue_wait_ms") <= number("ttft_ms") && number("ttft_ms") <= number("duration_ms"));
    assert!(number("upstream_ttft_ms") <= number("ttft_ms"));
    assert!(served.get("reason").is_none() && served.get("input_tokens").is_none() && served.get("skipped").is_none());

    let mut client = Client::connect(weir.address);
    client.send(&post(CHAT, "x-request-id: left\r\nx-do: open\r\n", chat(2).as_bytes())).until("\"a\"");
    client.leave();
    let left = line_of(&weir, "left");
    assert_eq!((&left["status"], &left["outcome"]), (&499.into(), &"client_cancelled".into()), "{left}");
}

#[test]
fn refusals_malformed_and_passed_requests_have_lines_too() {
    let origin = play();
    let weir = Process::serve(Path::new(WEIR), &[origin.address], SETTINGS);
    let pass = b"GET /v1/models?key=x HTTP/1.1\r\nhost: a\r\nx-request-id: passing\r\nx-do: refuse\r\n\r\n";
    assert_eq!(Client::connect(weir.address).send(pass).answer().status, 503);
    let passed = line_of(&weir, "passing");
    assert_eq!((&passed["status"], &passed["outcome"]), (&503.into(), &"passed".into()), "{passed}");
    assert_eq!(passed["backend"], "backend-0");
    assert_eq!(Client::connect(weir.address).send(b"BREW / HTTP/1.1\r\nhost: a\r\n\r\n").answer().status, 501);
    time::until("the malformed one is there", || weir.log().contains("\"outcome\":\"malformed\""));
    let mut open = Client::connect(weir.address);
    open.send(&post(CHAT, "x-request-id: open\r\nx-do: open\r\n", chat(2).as_bytes())).until("\"a\"");
    weir.page("/drain");
    time::until("new ones are refused", || send(weir.address, "probing", "serve") == 503);
    assert_eq!(send(weir.address, "shed", "serve"), 503);
    let shed = line_of(&weir, "shed");
    assert_eq!((&shed["outcome"], &shed["reason"]), (&"shed".into(), &"draining".into()), "{shed}");
    assert_eq!(shed["status"], 503);
    let gone = Process::serve(Path::new(WEIR), &[dead()], SETTINGS);
    let told = send(gone.address, "nobody", "serve");
    let nobody = line_of(&gone, "nobody");
    assert_eq!(nobody["status"], told, "{nobody}");
    assert!(["upstream_reset", "shed"].contains(&nobody["outcome"].as_str().unwrap()), "{nobody}");
}

#[test]
fn lines_are_written_only_on_request_and_at_every_level() {
    let origin = play();
    let weir = Process::serve(Path::new(WEIR), &[origin.address], "workers: 1");
    assert_eq!(send(weir.address, "unseen", "serve"), 200);
    weir.terminate();
    time::until("it drains", || weir.log().contains("draining"));
    assert!(!weir.log().contains("unseen"), "{}", weir.log());
}

#[test]
fn a_line_holds_no_content_and_cannot_be_forged() {
    let origin = play();
    let weir = Process::serve(Path::new(WEIR), &[origin.address], SETTINGS);
    let long = "i".repeat(129);
    for id in ["a b", "\"},{", &*long] {
        let fields = format!("authorization: Bearer {CANARY}\r\nx-request-id: {id}\r\n");
        let body = format!(r#"{{"model":"m","stream":true,"messages":[{{"content":"{CANARY}"}}]}}"#);
        let request = post(&format!("{CHAT}?key={CANARY}"), &fields, body.as_bytes());
        assert_eq!(Client::connect(weir.address).send(&request).answer().status, 200);
    }
    time::until("all are there", || weir.log().matches("request finished").count() == 3);
    let log = weir.log();
    assert_eq!(found(&log), None, "{log}");
    let ids = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).unwrap().get("request_id").cloned());
    assert!(
        ids.clone().count() == 3 && ids.clone().all(|id| id.as_str().unwrap().starts_with("weir-")),
        "ours, not theirs"
    );
}

#[test]
fn above_the_rate_lines_are_left_out_and_counted() {
    let origin = play();
    let settings = SETTINGS.replace("access: true", "access: true, access_rate: 10");
    let weir = Process::serve(Path::new(WEIR), &[origin.address], &settings);
    let mut client = Client::connect(weir.address);
    for _ in 0..300 {
        assert_eq!(client.send(&post(CHAT, "", chat(2).as_bytes())).answer().status, 200);
    }
    let accounted = || {
        let log = weir.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let count =
            |line: &Value| u64::from(line["message"] == "request finished") + line["skipped"].as_u64().unwrap_or(0);
        lines.map(|line| count(&line)).sum::<u64>()
    };
    time::until("every request is in a line or in a count", || accounted() == 300);
    let written = weir.log().matches("request finished").count();
    assert!((10..250).contains(&written), "{written} lines");
}

#[test]
fn a_log_that_nobody_reads_holds_no_request_up() {
    let origin = play();
    let file = crate::support::weir::scratch("unread");
    std::fs::write(&file, SETTINGS.replace("access: true", "access: true, access_rate: 1000000")).unwrap();
    let mut weir = Command::new(WEIR)
        .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config"])
        .arg(&file)
        .args(["--backend", &format!("http://{}", origin.address)])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Only the line that says where it serves is read; after that the pipe fills up.
    let mut stderr = weir.stderr.take().unwrap();
    let mut said = Vec::new();
    let mut byte = [0];
    while !said.ends_with(b"weir is serving\"") && stderr.read(&mut byte).is_ok_and(|n| n == 1) {
        said.push(byte[0]);
    }
    while !said.ends_with(b"\n") && stderr.read(&mut byte).is_ok_and(|n| n == 1) {
        said.push(byte[0]);
    }
    let line = String::from_utf8(said).unwrap();
    let line: Value = serde_json::from_str(line.lines().last().unwrap()).unwrap();
    let address = |key: &str| line[key].as_str().unwrap().parse::<SocketAddr>().unwrap();
    let mut client = Client::connect(address("listen"));
    let lost = || {
        let page = b"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n";
        let text = crate::support::client::ask(address("admin"), page).text();
        let lines = text.lines().filter(|line| line.starts_with("weir_log_lines_lost_total"));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum::<u64>()
    };
    let mut sent = 0;
    while lost() == 0 {
        for _ in 0..1000 {
            assert_eq!(client.send(&post(CHAT, "", chat(2).as_bytes())).answer().status, 200);
            sent += 1;
        }
        assert!(sent < 100_000, "lines go somewhere without end");
    }
    let _ = weir.kill();
    let _ = weir.wait();
}

#[test]
fn drains_are_said() {
    let origin = play();
    let mut weir = Process::serve(Path::new(WEIR), &[origin.address], SETTINGS);
    weir.page("/drain");
    Client::connect(weir.admin).send(b"POST /undrain HTTP/1.1\r\nhost: localhost\r\n\r\n").answer();
    time::until("an operator's drain is said, and its end", || {
        weir.log().contains("\"by\":\"admin\"") && weir.log().contains("the drain was cancelled")
    });
    weir.terminate();
    weir.ended(Duration::from_secs(20)).unwrap();
    time::until("both are there", || weir.log().contains("\"draining\"") && weir.log().contains("\"drained\""));
}
