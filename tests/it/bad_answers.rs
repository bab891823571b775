//! A backend's answer that breaks a rule: the client gets 502, and the rule is named in the access line, the log, `/status` and the
//! metrics. An answer that breaks none is named nowhere.

use std::path::Path;

use serde_json::Value;
use weir::vocabulary::bad_answer::BadAnswer;

use crate::support::client::{CHAT, Client, chat, post};
use crate::support::origin::{Origin, SSE, closing, event};
use crate::support::{Process, time};

const WEIR: &str = env!("CARGO_BIN_EXE_weir");
const SETTINGS: &str = "
workers: 1
mode: enforce
log: {access: true}
";
/// A whole answer is asked for, so that weir puts one together out of the stream.
const UNSTREAMED: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":4}"#;

/// Bytes that break `rule`, and no other.
fn breaking(rule: BadAnswer) -> Vec<u8> {
    let ok = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
    let chunked = |body: &str| format!("{}{body}", ok("transfer-encoding: chunked"));
    match rule {
        BadAnswer::StatusLine => "HTTP/1.1 OK\r\n\r\n".into(),
        BadAnswer::HeadSyntax => ok("a b: c\r\ncontent-length: 0").into(),
        BadAnswer::HeadTooLong => ok(&format!("content-length: 0\r\nx: {}", "a".repeat(66_000))).into(),
        BadAnswer::TooManyFields => ok(&"x: y\r\n".repeat(101)).replace("\r\n\r\n\r\n", "\r\n\r\n").into(),
        BadAnswer::Framing => ok("content-length: 0\r\ntransfer-encoding: chunked").into(),
        BadAnswer::Nomination => ok("content-length: 0\r\nconnection: x-request-id").into(),
        BadAnswer::Upgrade => "HTTP/1.1 101 Switching Protocols\r\n\r\n".into(),
        BadAnswer::TooManyInformational => {
            ["HTTP/1.1 103 Early Hints\r\n\r\n".repeat(9), ok("content-length: 0")].concat().into()
        }
        BadAnswer::ChunkSyntax => chunked("xyz\r\n").into(),
        BadAnswer::ChunkExtension => chunked(&format!("1;{}\r\na\r\n0\r\n\r\n", "e".repeat(300))).into(),
        BadAnswer::Trailer => chunked("0\r\n folded\r\n\r\n").into(),
        BadAnswer::Stream => [SSE, &event("a")[..], b"0\r\n\r\n"].concat(),
    }
}

/// Answers that come close to a rule and keep it.
fn good() -> Vec<Vec<u8>> {
    let ok = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n").into_bytes();
    vec![
        [SSE, &event("a"), &closing()].concat(),
        ok("content-length: 0\r\nconnection: keep-alive, x-own\r\nx-own: 1"),
        ok(&format!("content-length: 0\r\nx: {}", "a".repeat(60_000))),
        ok(&format!("{}content-length: 0", "x: y\r\n".repeat(99))),
        [&b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(8)[..], &ok("content-length: 0")].concat(),
        [&ok("transfer-encoding: chunked")[..], b"1;e=f\r\na\r\n0\r\nx-t: v\r\n\r\n"].concat(),
    ]
}

/// Answers by the number in `x-answer`, then closes.
fn answering(answers: Vec<Vec<u8>>) -> Origin {
    Origin::start(move |talk| {
        let Some(seen) = talk.request() else { return };
        let number: usize =
            seen.head.lines().find_map(|line| line.strip_prefix("x-answer: ")).unwrap().parse().unwrap();
        talk.write(&answers[number]);
    })
}

fn send(weir: &Process, number: usize, body: &str) -> u16 {
    let fields = format!("x-request-id: r{number}\r\nx-answer: {number}\r\n");
    Client::connect(weir.address).send(&post(CHAT, &fields, body.as_bytes())).answer().status
}

fn lines(log: &str, message: &str) -> Vec<Value> {
    let parsed = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    parsed.filter(|line| line["message"] == message).collect()
}

#[test]
fn each_broken_rule_is_named_wherever_an_operator_looks() {
    let origin = answering(BadAnswer::ALL.map(breaking).into());
    let weir = Process::serve(Path::new(WEIR), &[origin.address], SETTINGS);
    for rule in BadAnswer::ALL {
        let body = if rule == BadAnswer::Stream { UNSTREAMED.to_owned() } else { chat(2) };
        assert_eq!(send(&weir, rule.index(), &body), 502, "{rule:?}");
    }
    let count = BadAnswer::COUNT;
    time::until("every request has its line", || lines(&weir.log(), "request finished").len() == count);
    for line in lines(&weir.log(), "request finished") {
        let number: usize = line["request_id"].as_str().unwrap()[1..].parse().unwrap();
        assert_eq!(line["bad_answer"], BadAnswer::ALL[number].as_str(), "{line}");
        assert_eq!((&line["status"], &line["outcome"]), (&502.into(), &"upstream_reset".into()), "{line}");
    }
    let message = "a backend sent answers that break a rule";
    time::until("the log has reported", || !lines(&weir.log(), message).is_empty());
    for line in lines(&weir.log(), message) {
        let known = BadAnswer::ALL.iter().any(|rule| line["reason"] == rule.as_str());
        assert!(known && line["backend"] == "backend-0" && line["count"] == 1 && line["level"] == "WARN", "{line}");
    }
    let (status, metrics) = (weir.status(), weir.page("/metrics"));
    for rule in BadAnswer::ALL.map(BadAnswer::as_str) {
        assert_eq!(status["backends"][0]["bad_answers"][rule], 1, "{rule}");
        let sample = format!("weir_bad_answers_total{{backend=\"backend-0\",reason=\"{rule}\"}} 1");
        assert!(metrics.contains(&sample), "{sample}");
    }
}

#[test]
fn a_request_that_is_not_measured_names_the_rule_too() {
    let origin = answering(vec![breaking(BadAnswer::Framing)]);
    let weir = Process::serve(Path::new(WEIR), &[origin.address], SETTINGS);
    let pass = b"GET /v1/models HTTP/1.1\r\nhost: a\r\nx-answer: 0\r\n\r\n";
    assert_eq!(Client::connect(weir.address).send(pass).answer().status, 502);
    time::until("it has its line", || !lines(&weir.log(), "request finished").is_empty());
    assert_eq!(lines(&weir.log(), "request finished")[0]["bad_answer"], "framing");
}

#[test]
fn an_answer_that_keeps_the_rules_is_named_nowhere() {
    let answers = good();
    let count = answers.len();
    let origin = answering(answers);
    let weir = Process::serve(Path::new(WEIR), &[origin.address], SETTINGS);
    for number in 0..count {
        assert_eq!(send(&weir, number, &chat(2)), 200, "{number}");
    }
    time::until("every request has its line", || lines(&weir.log(), "request finished").len() == count);
    assert!(lines(&weir.log(), "request finished").iter().all(|line| line.get("bad_answer").is_none()));
    assert_eq!(weir.page("/metrics").matches("weir_bad_answers_total{").count(), BadAnswer::COUNT);
    let status = weir.status();
    let counts = status["backends"][0]["bad_answers"].as_object().unwrap();
    assert!(counts.len() == BadAnswer::COUNT && counts.values().all(|count| *count == 0), "{status}");
}
