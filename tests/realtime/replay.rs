//! A journal that was recorded live comes to the live verdicts when it is replayed: what the proxy measured is all there is.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use weir::clock::Clock;
use weir::engine::profile::Setup;
use weir::estimate::{EngineLimits, SaturationState, Settings};
use weir::load::client::LoadTarget;
use weir::load::runner::{LoadLevel, run_level};
use weir::load::schedule::Rate;
use weir::load::workload::{TokenLength, Workload};
use weir::measure::journal::{JournalLine, JournalRecord, StateTransition};
use weir::simulation::{SimulationOutcome, journal};

use crate::support::engine::Engine;
use crate::support::time;
use crate::support::weir::Weir;

/// Eight slots; a step takes 12 ms with eight decodes, an answer 20 of them and a little: about 32 requests a second.
const SETUP: &str = "{params: {base: 0.01, per_decode: 0.00025, per_prefill_token: 0.00002, per_kv_token: 0, \
                     max_num_seqs: 8, max_num_batched_tokens: 2048, kv_tokens: 100000}, \
                     workload: {prompt: {mean: 40, sigma: 0.3}, output: {mean: 20, sigma: 0.1}}}";
const LIMITS: EngineLimits =
    EngineLimits { max_num_seqs: Some(8), kv_tokens: Some(100_000), max_num_batched_tokens: Some(2048) };

/// Rate in requests a second, seconds: what a step costs is learnt, then there is twice too much, which takes as long again to be served.
const LEVELS: [(f64, f64); 2] = [(16.0, 6.0), (64.0, 3.5)];

async fn send(target: &LoadTarget, rate: f64, seconds: f64) {
    let mut level = LoadLevel::open(Rate::new(rate).unwrap(), (rate * seconds) as u64);
    let prompt = TokenLength::LogNormal { mean: 40.0, sigma: 0.3 };
    level.workload = Workload { prompt, output: TokenLength::LogNormal { mean: 20.0, sigma: 0.1 }, seed: 7 };
    level.grace = Duration::from_secs(10);
    run_level(target, &level, std::future::pending(), |_| {}).await;
}

fn lines(journal: &Path) -> (Vec<StateTransition>, Vec<JournalRecord>) {
    let (mut turns, mut records) = (Vec::new(), Vec::new());
    for line in std::fs::read_to_string(journal).unwrap().lines() {
        match serde_json::from_str(line).unwrap() {
            JournalLine::Request(record) => records.push(*record),
            JournalLine::Transition { transition } => turns.push(transition),
        }
    }
    (turns, records)
}

fn replayed(records: &[JournalRecord]) -> SimulationOutcome {
    let settings = Settings { slo_ttft: Duration::from_secs(1), engine: LIMITS };
    journal::replay(records, &settings).remove("backend-0").unwrap()
}

/// What each change led to.
fn states(outcome: &SimulationOutcome) -> Vec<&'static str> {
    outcome.transitions.iter().map(|change| change.to.word()).collect()
}

#[test]
fn a_live_journal_replays_to_the_live_verdicts() {
    let engine = Engine::with(Clock::start(), |settings| settings.setup = Setup::parse(SETUP).unwrap());
    let file = crate::support::weir::scratch("replay");
    let weir = Weir::reading_engines(&[engine.address], &format!("journal: {{path: '{}'}}", file.display()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let target = LoadTarget::resolve(&format!("http://{}", weir.address)).await.unwrap();
        for (rate, seconds) in LEVELS {
            send(&target, rate, seconds).await;
        }
    });
    let known: Value = serde_json::from_str(&weir.page("/knee")).unwrap();
    drop(weir);
    let (turns, mut records) = lines(&file);
    println!("{} requests, load average {}", records.len(), time::load_average());

    let outcome = replayed(&records);
    // After the last request the live estimator went on ticking.
    let live = &turns[..turns.len().min(outcome.transitions.len())];
    assert!(outcome.transitions.iter().any(|change| change.to == SaturationState::Saturated), "{:?}", states(&outcome));
    for (live, replayed) in live.iter().zip(&outcome.transitions) {
        assert_eq!((&*live.from, &*live.to), (replayed.from.word(), replayed.to.word()), "{turns:?}");
        let apart = live.at.since(replayed.at).max(replayed.at.since(live.at));
        assert!(apart < Duration::from_millis(250), "{live:?} is {apart:?} from {replayed:?}");
    }
    assert_eq!(live.len(), outcome.transitions.len(), "{turns:?} {:?}", states(&outcome));

    let live = &known["backends"][0]["knee"];
    let knee = outcome.moments.last().unwrap().reading.knee.clone().unwrap();
    // Beside each other: which of them it is turns on the share of full steps, at 0.8.
    let slots = ["slots", "mixed"];
    assert!(
        slots.contains(&live["regime"].as_str().unwrap()) && slots.contains(&knee.regime.word()),
        "{live} {knee:?}"
    );
    for (what, replayed) in [("requests_per_second", knee.requests_per_second), ("in_flight", knee.in_flight)] {
        let [value, low, high] = ["value", "low", "high"].map(|end| live[what][end].as_f64().unwrap());
        println!("{what}: live {value:.3} ({low:.3} to {high:.3}), replayed {:.3}", replayed.value);
        // Blocks begin elsewhere: the live estimator was there before the first arrival, and its ticks come when they may.
        assert!((replayed.value / value - 1.0).abs() < 0.05, "{what}: live {live}, replayed {replayed:?}");
        assert!(low <= replayed.value && replayed.value <= high, "{what}: live {live}, replayed {replayed:?}");
        assert!(replayed.low <= value && value <= replayed.high, "{what}: live {live}, replayed {replayed:?}");
    }

    // The same requests, each answered at once and its other tokens as much sooner.
    for record in &mut records {
        record.timeline.first_token = record.timeline.admitted.map(|admitted| admitted + Duration::from_millis(20));
    }
    let falsified = replayed(&records);
    assert!(
        !falsified.transitions.iter().any(|change| change.to == SaturationState::Saturated),
        "{:?}",
        states(&falsified)
    );
    assert!(falsified.moments.last().unwrap().reading.knee.is_err(), "nobody waited");
}
