//! `weir sweep`: its search in virtual time against engines whose truth is known, and what the command refuses at once.

mod parts;
mod twin;

use std::process::{Command, Output, Stdio};

use weir::engine::profile::Profile;
use weir::sweep::search::{SearchEnd, SearchLoad, Trial};

use crate::support::Engine;

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
fn auto_finds_the_peak_of_thrash_and_the_cost_of_overload() {
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
fn the_seed_engine_reproduces_the_reference_table() {
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

fn said(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
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
