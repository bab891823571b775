//! `weir probe`: only with the token, never in clients' books, gone within a second.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use weir::clock::Clock;
use weir::measure::AccountStats;

use crate::support::weir::total;
use crate::support::{Engine, Weir, client, time};

const SETTINGS: &str = "admin: {token: open-sesame-1}\nprobe: {step: 1s}\n";

fn rig() -> (Engine, Weir) {
    let engine = Engine::with(Clock::start(), |settings| settings.speed = 5.0);
    let weir = Weir::with(&[engine.address], SETTINGS, |_| {});
    (engine, weir)
}

fn post(weir: &Weir, set: &str, token: &str) -> (u16, String) {
    let request = format!(
        "POST /probe?set={set} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {token}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    let answer = client::ask(weir.admin, request.as_bytes());
    (answer.status, answer.text())
}

fn status(weir: &Weir) -> Value {
    serde_json::from_str(&weir.page("/probe")).unwrap()
}

#[test]
fn it_is_in_no_account_of_clients_and_ends_within_a_second() {
    let (engine, weir) = rig();
    assert_eq!(post(&weir, "start", "open-sesame-1").0, 200);
    assert_eq!(post(&weir, "start", "open-sesame-1").0, 409, "one at a time");
    assert!(time::comes_true(Duration::from_secs(60), || engine.busy() >= 4.0
        && status(&weir)["requests"]["completed"].as_u64() > Some(2)));
    assert!(weir.page("/metrics").lines().any(|line| line.starts_with("weir_probe_active{") && line.ends_with(" 1")));
    assert_eq!(post(&weir, "stop", "open-sesame-1").0, 200);
    assert!(time::comes_true(Duration::from_secs(1), || engine.busy() == 0.0), "{} still there", engine.busy());
    time::until("the run is over", || status(&weir)["running"] == false);
    let last = &status(&weir)["last"];
    assert_eq!((&last["stopped"], &last["knee"]), (&Value::from("asked"), &Value::Null), "{last}");
    assert_eq!(total(&weir.snapshot(), |books: &AccountStats| books.offered() + books.admitted()), 0);
    assert!(weir.page("/metrics").contains("weir_probe_requests_total{"));
}

#[test]
fn it_finds_the_knee_of_an_idle_engine_and_says_from_what() {
    let (_engine, weir) = rig();
    let flags = ["probe", "start", "--wait", "--token", "open-sesame-1", "--admin", &format!("http://{}", weir.admin)];
    let output = Command::new(env!("CARGO_BIN_EXE_weir")).args(flags).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}");
    let knee: Value = serde_json::from_str(&weir.page("/knee")).unwrap();
    let found = &knee["probe"];
    assert_eq!(found["source"], "probe", "{knee:#}");
    // A debug build on a busy machine, one second a step: the batch is what it is, the rate is near.
    let batch = found["in_flight"].as_f64().unwrap();
    assert!((60.0..=92.0).contains(&batch), "91 slots: {found:#}");
}
