//! What an operator's Prometheus pays: how many series there are, and what one scrape of many backends and models costs.

use std::time::Duration;

use weir::export::ProcessState;
use weir::export::encoding::gzip;
use weir::export::metrics::Exposition;

use crate::books;
use crate::exposition::{facts, judged};
use crate::support::exposition::Text;
use crate::support::time;
use weir::vocabulary::time::Timestamp;

const BACKENDS: usize = 20;
const MODELS: usize = 10;
/// Of one backend and model, everything seen; of a backend; of the process. docs/operate/metrics-additions.md says so too.
const PER_MODEL: usize = 499;
const PER_BACKEND: usize = 68;
const PER_PROCESS: usize = 42;
/// Asked of a release build. A debug build beside a compiler is given forty times as much: there the bar finds what grew by
/// powers, not what grew by halves.
const ASKED: Duration = Duration::from_millis(50);
const ALLOWED: Duration = if cfg!(debug_assertions) { Duration::from_secs(2) } else { ASKED };

/// All backends known as one is.
fn all_known() -> ProcessState {
    let one = facts(judged(true));
    ProcessState {
        up: vec![true; BACKENDS],
        bad_answers: vec![Default::default(); BACKENDS],
        estimates: vec![one.estimates[0].clone(); BACKENDS],
        gates: vec![one.gates[0].clone(); BACKENDS],
        engine_reports: vec![one.engine_reports[0].clone(); BACKENDS],
        gpus: Vec::new(),
        ..one
    }
}

#[test]
fn twenty_backends_with_ten_models_are_scraped_in_time() {
    let ledger = books::fleet(BACKENDS as u16, MODELS);
    let (exposition, facts) = (Exposition::new(&[]), all_known());
    let mut costs: Vec<Duration> = (0..5)
        .map(|_| {
            let begin = time::now();
            let text = exposition.write(&ledger.snapshot(Timestamp::from_nanos(60_000_000_000)), &facts, false, None);
            let packed = gzip(text.unwrap().as_bytes()).unwrap();
            assert!(packed.len() > 10_000);
            begin.elapsed()
        })
        .collect();
    costs.sort();
    let text = exposition.write(&ledger.snapshot(Timestamp::from_nanos(60_000_000_000)), &facts, false, None).unwrap();
    let series = Text::parse(&text).unwrap().samples.len();
    println!(
        "{series} series, {:.1} MiB: {:?} a scrape with gzip, median of {}, load average {}",
        text.len() as f64 / f64::from(1 << 20),
        costs[2],
        costs.len(),
        time::load_average()
    );
    assert!(series > BACKENDS * MODELS * 400, "{series}: nothing like full");
    let most = BACKENDS * (MODELS * PER_MODEL + PER_BACKEND) + PER_PROCESS;
    assert!(series <= most, "{series} series, and {most} are documented");
    assert!(costs[2] <= ALLOWED, "{costs:?}");
}

#[test]
fn the_documented_numbers_are_these() {
    let page = include_str!("../../docs/operate/metrics-additions.md");
    for said in
        [format!("{PER_MODEL} series"), format!("A backend adds {PER_BACKEND}"), format!("the process {PER_PROCESS}")]
    {
        assert!(page.contains(&said), "{said}");
    }
}
