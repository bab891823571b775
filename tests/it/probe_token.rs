//! `weir probe` begins only with the token that the settings name.

use serde_json::Value;

use crate::support::{Engine, Weir, client};

fn post(weir: &Weir, set: &str, token: &str) -> (u16, String) {
    let request = format!(
        "POST /probe?set={set} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {token}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    let answer = client::ask(weir.admin, request.as_bytes());
    (answer.status, answer.text())
}

#[test]
fn without_a_token_in_the_settings_there_is_no_synthetic_load() {
    let engine = Engine::quick();
    let weir = Weir::before(&[engine.address]);
    let (status, text) = post(&weir, "start", "anything");
    assert_eq!(status, 403, "{text}");
    assert!(text.contains("admin.token"), "{text}");
    assert!(!weir.page("/metrics").contains("weir_probe_"));
}

#[test]
fn without_the_right_token_it_is_not_begun() {
    let engine = Engine::quick();
    let weir = Weir::with(&[engine.address], "admin: {token: open-sesame-1}", |_| {});
    assert_eq!(post(&weir, "start", "open-sesame-2").0, 401);
    assert_eq!(post(&weir, "begin", "open-sesame-1").0, 400);
    let status: Value = serde_json::from_str(&weir.page("/probe")).unwrap();
    assert_eq!((status["running"].clone(), engine.busy() as u64), (Value::from(false), 0));
}
