//! `log.level: debug` follows one request by its id, and shows nothing of its content.

use std::path::Path;

use serde_json::Value;

use crate::support::canary::{CANARY, found};
use crate::support::client::{CHAT, Client, post};
use crate::support::origin::{Origin, SSE, closing, event};
use crate::support::{Process, time};

const WEIR: &str = env!("CARGO_BIN_EXE_weir");

/// What the log has on the request `id` of a client whose every text is the canary, at this level.
fn log_of_one(level: &str) -> (String, Vec<Value>) {
    let origin = Origin::always([SSE, &event(CANARY), &closing()].concat());
    let settings = format!("workers: 1\nlog: {{access: true, level: {level}}}\n");
    let weir = Process::serve(Path::new(WEIR), &[origin.address], &settings);
    let body = format!(r#"{{"model":"{CANARY}","stream":true,"messages":[{{"role":"user","content":"{CANARY}"}}]}}"#);
    let fields = format!("x-request-id: r1\r\nauthorization: Bearer {CANARY}\r\nx-weir-tenant: {CANARY}\r\n");
    let path = format!("{CHAT}?key={CANARY}");
    assert_eq!(Client::connect(weir.address).send(&post(&path, &fields, body.as_bytes())).answer().status, 200);
    time::until("it has its access line", || weir.log().contains("request finished"));
    let log = weir.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let lines = lines.filter(|line| line["request_id"] == "r1" && line["message"] != "request finished").collect();
    (log, lines)
}

#[test]
fn debug_shows_each_step_of_a_request_and_no_content() {
    let (log, lines) = log_of_one("debug");
    let messages: Vec<_> = lines.iter().map(|line| line["message"].as_str().unwrap()).collect();
    assert_eq!(
        messages,
        [
            "request received",
            "request classified",
            "request dispatched",
            "first byte of the answer",
            "first token of the answer",
            "request ended"
        ]
    );
    assert!(lines.iter().all(|line| line["level"] == "DEBUG"), "{lines:?}");
    assert_eq!((&lines[1]["kind"], &lines[1]["dialect"]), (&"measured".into(), &"openai.chat".into()));
    assert_eq!((&lines[2]["backend"], &lines[2]["pooled"]), (&"backend-0".into(), &false.into()));
    assert_eq!((&lines[5]["outcome"], &lines[5]["status"]), (&"completed".into(), &200.into()));
    // The access line has the model's name, which is a label of the metrics too.
    let own: String = log.lines().filter(|line| !line.contains("request finished")).collect();
    assert_eq!(found(&own), None, "{own}");
}

#[test]
fn info_shows_none_of_them() {
    assert_eq!(log_of_one("info").1, Vec::<Value>::new());
}
