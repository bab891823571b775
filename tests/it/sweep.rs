//! `weir sweep`: its search in virtual time against engines whose truth is known, and the command against real sockets.

mod parts;
mod twin;

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use weir::clock::Clock;
use weir::engine::profile::Profile;
use weir::sweep::search::{SearchEnd, SearchLoad, Trial};

use crate::support::{Engine, time};

/// Capacity within 3 % of the closed-loop truth, in at most 12 levels; where slots bind, what the batch holds within 10 %.
fn finds(name: &str, slots_bind: bool) {
    let profile = Profile::named(name).unwrap();
    let (search, levels, why) = twin::search(profile, 100);
    let found = search.found().unwrap();
    let off = |value: f64, truth: f64| value / truth - 1.0;
    let capacity = off(found.capacity, profile.capacity);
    assert!(capacity.abs() < 0.03, "{name}: capacity {:.1} % off after {levels} levels: {why}", 100.0 * capacity);
    let batch = off(found.in_flight, profile.saturated_decodes);
    assert!(!slots_bind || batch.abs() < 0.10, "{name}: knee in flight {:.1} % off", 100.0 * batch);
    assert!(levels <= 12, "{name}: {levels} levels");
    let (lo, hi) = search.interval();
    let width = (hi.unwrap() - lo.unwrap()) / lo.unwrap().midpoint(hi.unwrap());
    assert!(width <= 0.10, "{name}: the interval is {:.0} % wide: {why}", 100.0 * width);
}

#[test]
fn auto_finds_the_knee_of_seed() {
    finds("seed", true);
}

#[test]
fn auto_finds_the_knee_of_smallkv() {
    finds("smallkv", false);
}

#[test]
fn auto_finds_the_knee_of_bigbatch() {
    finds("bigbatch", true);
}

#[test]
fn auto_finds_the_knee_of_prefill() {
    finds("prefill", false);
}

#[test]
fn auto_finds_the_knee_of_slots16() {
    finds("slots16", true);
}

#[test]
fn auto_finds_the_peak_of_thrash_and_says_that_overload_costs_throughput() {
    finds("thrash", false);
    let found = twin::search(Profile::named("thrash").unwrap(), 100).0.found().unwrap();
    assert!((found.overloaded / 1.235 - 1.0).abs() < 0.04, "{found:?}");
}

#[test]
fn auto_finds_the_knee_of_fastsmall() {
    finds("fastsmall", true);
}

#[test]
fn auto_stops_for_a_reason_that_can_be_read() {
    let (.., why) = twin::search(Profile::named("slots16").unwrap(), 100);
    assert!(matches!(why, SearchEnd::Narrow { .. }), "{why:?}");
    assert!(why.to_string().starts_with("the knee lies between "), "{why}");
}

/// The reference this project starts from: 10 req/s: 9.11 at 87.58 ms; 20: 12.24 at 6,899 ms; a plateau up to 13.68.
#[test]
fn the_seed_engine_reproduces_the_reference_table_and_the_steady_window_its_capacity() {
    let profile = Profile::named("seed").unwrap();
    let level = |rate: f64| twin::level(profile, Trial { load: SearchLoad::Open(rate), requests: 600 }, 1);
    let near = |value: f64, reference: f64, tolerance: f64| {
        assert!((value / reference - 1.0).abs() < tolerance, "{value} is not within {tolerance} of {reference}");
    };
    let (ten, twenty) = (level(10.0), level(20.0));
    near(ten.request_throughput, 9.11, 0.10);
    near(ten.ttft.mean, 0.08758, 0.10);
    near(twenty.request_throughput, 12.24, 0.10);
    near(twenty.ttft.mean, 6.899, 0.10);
    for rate in [20.0, 30.0, 40.0, 60.0] {
        let level = level(rate);
        near(level.request_throughput, 12.96, 0.07);
        near(level.steady.unwrap().request_throughput, profile.capacity, 0.02);
        let finite = level.request_throughput / profile.capacity;
        assert!((0.92..0.98).contains(&finite), "a finite run under-reads by about 5 %: {finite}");
    }
}

fn sweep(target: &str, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args(["sweep", "--target", target]).args(flags).stdin(Stdio::null());
    command
}

fn run(target: &str, flags: &[&str]) -> Output {
    sweep(target, flags).output().unwrap()
}

fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("sweep-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

fn said(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_sweep_leaves_its_files_and_its_verdict() {
    let engine = Engine::with(Clock::start(), |settings| settings.speed = 10.0);
    let out = folder("files");
    let target = format!("http://{}", engine.address);
    let output = run(
        &target,
        &["--rates", "60,220", "--requests", "400", "--format", "json", "--gpus", "1", "--out", out.to_str().unwrap()],
    );
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    // On a machine that is too busy to send in time the levels are refused, and rightly.
    let refused = said(&output).contains("REFUSED");
    assert_eq!(output.status.code(), Some(if refused { 3 } else { 0 }), "{}", said(&output));
    assert_eq!(report["sweeps"][0]["kind"], if refused { "noisy" } else { "interval" }, "{report:#}");
    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    let kept: Value = serde_json::from_str(&read("sweep.json")).unwrap();
    assert_eq!(
        (&kept["environment"]["gpus"], &kept["levels"][1]["request_rate"]),
        (&Value::from(1.0), &Value::from(220.0))
    );
    assert_eq!(kept["environment"]["model"], Value::Null);
    assert_eq!(read("requests.jsonl").lines().count(), 800);
    assert!(read("requests.jsonl").starts_with("{\"level\":1,\"id\":0,"));
    assert_eq!(read("sweep.csv").lines().count(), 3);
    assert!(read("report.html").contains("</html>"));
    let analysed =
        Command::new(env!("CARGO_BIN_EXE_weir")).arg("analyze").arg(out.join("sweep.json")).output().unwrap();
    assert_eq!(analysed.status.code(), output.status.code(), "analyze reads what sweep wrote: {}", said(&analysed));
}

#[test]
fn one_saturated_level_is_refused() {
    let engine = Engine::with(Clock::start(), |settings| settings.speed = 10.0);
    let output = run(&format!("http://{}", engine.address), &["--rates", "400", "--requests", "300"]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("weir: refused: the levels support no verdict"), "{}", said(&output));
}

#[test]
fn a_server_that_breaks_every_stream_is_no_sweep() {
    let engine = Engine::quick();
    let target = format!("http://{}", engine.address);
    let output = run(&target, &["--rates", "50", "--header", "x-engine-fault: truncate-after=3"]);
    assert_eq!(output.status.code(), Some(1), "nothing is answered in the warm-up: {}", said(&output));
    assert!(said(&output).contains("answers no request"), "{}", said(&output));
}

#[test]
fn a_target_that_is_not_there_fails_and_is_named() {
    let output = run("http://127.0.0.1:9", &["--rates", "5"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("http://127.0.0.1:9 answers no request"), "{}", said(&output));
    let output = run("ftp://127.0.0.1:9", &["--rates", "5"]);
    assert!(said(&output).contains("write http://host:port"), "{}", said(&output));
}

#[test]
fn levels_that_contradict_the_flags_are_usage_errors() {
    for wrong in [["--rates", "0"], ["--rates", "ten"], ["--concurrency", "0"], ["--input-tokens", "none"]] {
        let output = run("http://127.0.0.1:9", &wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", said(&output));
    }
}

#[test]
fn a_trace_is_played_at_its_own_times_and_lengths() {
    let engine = Engine::quick();
    let out = folder("trace");
    std::fs::create_dir_all(&out).unwrap();
    let trace = out.join("trace.jsonl");
    let line =
        |at: u64| format!("{{\"timestamp\": {at}, \"input_length\": 700, \"output_length\": 5, \"hash_ids\": [1]}}\n");
    std::fs::write(&trace, (0..40).map(|n| line(n / 4 * 100)).collect::<String>()).unwrap();
    let target = format!("http://{}", engine.address);
    let output = run(&target, &["--trace", trace.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert!(matches!(output.status.code(), Some(0 | 3)), "one level is no sweep: {}", said(&output));
    let requests = std::fs::read_to_string(out.join("requests.jsonl")).unwrap();
    let records: Vec<Value> = requests.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), 40);
    assert!(records.iter().all(|record| record["prompt_tokens"] == 700 && record["output_usage"] == 5));
    assert_eq!((&records[3]["intended"], &records[4]["intended"]), (&Value::from(0), &Value::from(100_000_000)));
}

#[test]
fn an_interrupt_keeps_what_there_is() {
    let engine = Engine::with(Clock::start(), |settings| settings.speed = 10.0);
    let out = folder("interrupt");
    let target = format!("http://{}", engine.address);
    let flags = ["--rates", "50,60,70,80", "--requests", "150", "--out", out.to_str().unwrap()];
    let mut child = sweep(&target, &flags).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let lines = || std::fs::read_to_string(out.join("requests.jsonl")).map_or(0, |text| text.lines().count());
    time::until("two levels are over", || lines() >= 300);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let mut status = None;
    assert!(time::comes_true(Duration::from_secs(10), || {
        status = child.try_wait().unwrap();
        status.is_some()
    }));
    let kept: Value = serde_json::from_str(&std::fs::read_to_string(out.join("sweep.json")).unwrap()).unwrap();
    assert_eq!(kept["complete"], false);
    assert!((2..4).contains(&kept["levels"].as_array().unwrap().len()), "{kept:#}");
}
