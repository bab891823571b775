//! Saturation found in real time: weir before a small simulated engine, below and beyond its capacity.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use weir::clock::Clock;
use weir::engine::profile::Setup;
use weir::load::client::LoadTarget;
use weir::load::runner::{LoadLevel, run_level};
use weir::load::schedule::Rate;
use weir::load::workload::{TokenLength, Workload};

use crate::support::engine::Engine;
use crate::support::exposition::Text;
use crate::support::time;
use crate::support::weir::Weir;

/// Eight slots; a step takes 24 ms with eight decodes, an answer 20 of them and a little: about 16 requests a second.
const SETUP: &str = "{params: {base: 0.02, per_decode: 0.0005, per_prefill_token: 0.00002, per_kv_token: 0, \
                     max_num_seqs: 8, max_num_batched_tokens: 2048, kv_tokens: 100000}, \
                     workload: {prompt: {mean: 40, sigma: 0.3}, output: {mean: 20, sigma: 0.1}}}";
const CAPACITY: f64 = 16.0;

fn engine() -> Engine {
    let setup = Setup::parse(SETUP).unwrap();
    Engine::with(Clock::start(), |settings| settings.setup = setup)
}

/// Sends `share` of the engine's capacity for `seconds` from a thread of its own, which ends with its last answer.
fn load(address: SocketAddr, share: f64, seconds: f64) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let rate = CAPACITY * share;
        let mut level = LoadLevel::open(Rate::new(rate).unwrap(), (rate * seconds) as u64);
        level.workload = Workload {
            prompt: TokenLength::LogNormal { mean: 40.0, sigma: 0.3 },
            output: TokenLength::LogNormal { mean: 20.0, sigma: 0.1 },
            seed: 7,
        };
        level.grace = Duration::from_secs(1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let target = LoadTarget::resolve(&format!("http://{address}")).await.unwrap();
            run_level(&target, &level, std::future::pending(), |_| {}).await;
        });
    })
}

fn page(weir: &Weir, path: &str) -> Value {
    serde_json::from_str(&weir.page(path)).unwrap()
}

fn state(weir: &Weir) -> String {
    page(weir, "/saturation")["state"].as_str().unwrap().to_owned()
}

fn would_shed(weir: &Weir) -> f64 {
    Text::parse(&weir.page("/metrics")).unwrap().sum("weir_requests_would_shed_total", |_| true)
}

#[test]
fn twice_the_capacity_is_saturated_and_the_knee_is_known() {
    let engine = engine();
    let journal = crate::support::weir::scratch("saturation");
    let weir = Weir::reading_engines(&[engine.address], &format!("journal: {{path: '{}'}}", journal.display()));
    // What a step costs is learned from ordinary traffic.
    load(weir.address, 0.6, 9.0).join().unwrap();
    assert_eq!(state(&weir), "healthy");
    let began = time::now();
    let sender = load(weir.address, 2.0, 20.0);
    time::until("the backend is saturated", || state(&weir) == "saturated");
    let took = began.elapsed();
    println!("saturated after {took:?}, load average {}", time::load_average());
    assert!(took < Duration::from_secs(12), "{took:?}");
    assert!(page(&weir, "/saturation")["retry_after_s"].as_u64().unwrap() >= 1);

    let known = || page(&weir, "/knee");
    let came = time::comes_true(time::PATIENCE, || !known()["backends"][0]["knee"].is_null());
    let known = known();
    assert!(came, "{known:#}");
    let knee = &known["backends"][0]["knee"];
    println!("{knee:#}");
    let in_flight = knee["in_flight"]["value"].as_f64().unwrap();
    assert!((7.0..=9.0).contains(&in_flight), "eight slots: {knee}");
    assert_eq!(knee["regime"], "slots");
    let advised = known["backends"][0]["advice"].as_array().unwrap();
    let slots = advised.iter().find(|advice| advice["setting"] == "--max-num-seqs").unwrap();
    assert_eq!(slots["value"].as_f64(), Some(in_flight.round()), "{slots}");
    assert!(slots["low"].as_u64() <= slots["value"].as_u64() && slots["why"].as_str().unwrap().contains("slots bind"));
    let rate = &knee["requests_per_second"];
    assert!(rate["low"].as_f64() <= rate["value"].as_f64() && rate["value"].as_f64() <= rate["high"].as_f64());
    let served = page(&weir, "/status")["backends"][0]["rates_10s"]["completed"].as_f64().unwrap();
    let value = rate["value"].as_f64().unwrap();
    assert!((value / served - 1.0).abs() < 0.35, "{value} is not what is served, {served}");

    let status = page(&weir, "/status");
    let backend = &status["backends"][0];
    assert_eq!(backend["saturation"]["state"], "saturated");
    assert!(backend["saturation"]["ratio"].as_f64().unwrap() > 1.0, "{backend}");
    assert!(backend["saturation"]["reason"].as_str().unwrap().contains("arrived"), "{backend}");
    assert_eq!(backend["engine"]["kind"], "vllm");
    assert_eq!(backend["engine"]["kv_tokens"].as_f64(), Some(100_000.0));
    let metrics = weir.page("/metrics");
    for family in [
        "weir_saturation_state{backend=\"backend-0\",model_name=\"unknown\",state=\"saturated\"} 1",
        "weir_knee_concurrency{backend=\"backend-0\",model_name=\"unknown\"} ",
        "weir_knee_requests_per_second_low{",
        "weir_backend_reported_running_requests{",
        "weir_backend_reported_waiting_requests{backend=\"backend-0\",model_name=\"unknown\",reason=\"capacity\"}",
        "weir_samples_faulty_total{backend=\"backend-0\",fault=\"lost\"} 0",
    ] {
        assert!(metrics.lines().any(|line| line.starts_with(family)), "{family} is missing in\n{metrics}");
    }
    sender.join().unwrap();
    assert!(would_shed(&weir) > 50.0, "half of what comes would be refused");
    drop(weir);
    let text = std::fs::read_to_string(&journal).unwrap();
    assert!(text.lines().any(|line| line.contains("\"transition\":{") && line.contains("\"to\":\"saturated\"")));
}

#[test]
fn half_the_capacity_is_never_saturated_and_no_knee_is_made_up() {
    let engine = engine();
    let weir = Weir::reading_engines(&[engine.address], "");
    let sender = load(weir.address, 0.5, 10.0);
    time::until("there is traffic enough to judge", || state(&weir) != "unknown");
    while !sender.is_finished() {
        assert_ne!(state(&weir), "saturated", "{}", weir.page("/knee"));
        time::pause(Duration::from_millis(50));
    }
    assert!(would_shed(&weir) < 0.5, "{}", would_shed(&weir));
    let known = page(&weir, "/knee");
    let backend = &known["backends"][0];
    assert!(backend["knee"].is_null(), "{backend}");
    assert!(!backend["missing"].as_array().unwrap().is_empty());
    assert_eq!(backend["advice"].as_array().map(Vec::len), Some(0), "no knee, no advice: {backend}");
    assert!(page(&weir, "/saturation")["ratio"].is_null());
    assert!(
        weir.page("/metrics").lines().any(|line| line.starts_with("weir_saturation_ratio{") && line.ends_with("NaN"))
    );
}

#[test]
fn load_that_does_not_come_through_weir_is_told() {
    let engine = engine();
    let weir = Weir::reading_engines(&[engine.address], "");
    let accord = |weir: &Weir| page(weir, "/status")["backends"][0]["engine"]["accord"].clone();
    let sender = load(engine.address, 1.5, 12.0);
    time::until("foreign load is told", || accord(&weir) == "foreign_load");
    sender.join().unwrap();
    time::until("it is over", || accord(&weir) == "agrees");
    assert_ne!(state(&weir), "saturated", "what others do is no measurement of ours");
}
