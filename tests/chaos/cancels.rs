//! A hundred thousand clients that leave, and what is left of them.

use std::path::Path;

use crate::support::storm::{CANCELS, Deed, storm};
use crate::support::{Engine, Process, cancel, time};
use crate::{Verdict, timed, verdict};

const CANCELLED: u64 = 100_000;
/// Before memory is looked at for the first time: buffers and tables have their size by then.
const WARM_UP: u64 = 10_000;
/// What 100,000 cancels may add to resident memory, in KiB: 21 bytes each would pass, one lost kilobyte each is 100 MiB.
const GROWTH: u64 = 2048;

/// Health, and the engine's own metrics.
const OWN_QUESTIONS: usize = 2;

pub fn run() -> Vec<Verdict> {
    let (delays, _) = cancel::timed(250);
    let at = |share| time::quantile(&delays, share) * 1e3;
    let mut verdicts = vec![timed(
        format!(
            "the backend sees the end of 1,000 cancels: p50 {:.2} ms, p99 {:.2} ms, most {:.2} ms (bound: p99 100 ms)",
            at(0.5),
            at(0.99),
            at(1.0)
        ),
        at(0.99) <= 100.0,
    )];
    let engine = Engine::with(weir::clock::Clock::start(), |settings| {
        (settings.speed, settings.recorder) = (50.0, None);
    });
    let weir = Process::serve(Path::new(env!("CARGO_BIN_EXE_weir")), &[engine.address], "workers: 2");
    let fresh = weir.settled_descriptors();
    storm(weir.address, CANCELS, 8, WARM_UP, 1, || false);
    at_rest(&weir, &engine, fresh);
    let before = weir.resident();
    let start = time::now();
    let tally = storm(weir.address, CANCELS, 8, CANCELLED, 2, || false);
    let took = start.elapsed().as_secs_f64();
    at_rest(&weir, &engine, fresh);
    let (after, descriptors) = (weir.resident(), weir.descriptors());
    let times = |deed| tally.times(deed);
    let fired: Vec<u64> = CANCELS.iter().map(|deed| times(*deed)).collect();
    let sent: u64 = fired.iter().sum();
    println!("   {sent} cancels in {took:.0} s; FIN and reset early, FIN and reset late: {fired:?}");
    verdicts.push(verdict(
        format!("{sent} cancels happened, {} could not connect (bound: {CANCELLED}, 0)", tally.unconnected),
        sent >= CANCELLED && tally.unconnected == 0 && times(Deed::Stays) == 0,
    ));
    let status = weir.status();
    let totals = &status["backends"][0]["totals"];
    let (offered, abandoned) = (&totals["offered"], &totals["abandoned"]);
    println!("   offered {offered}, abandoned {abandoned}, finished {}", totals["finished"]);
    verdicts.push(verdict(
        format!("in flight in weir {}, in the engine {}", status["backends"][0]["in_flight"], engine.busy()),
        status["backends"][0]["in_flight"] == 0 && engine.busy() == 0.0,
    ));
    verdicts.push(verdict(
        format!("{descriptors} descriptors, {fresh} when it was fresh (bound: {OWN_QUESTIONS} more, its own questions to the engine)"),
        descriptors <= fresh + OWN_QUESTIONS,
    ));
    verdicts.push(verdict(
        format!("resident memory {before} KiB, then {after} KiB (bound: {GROWTH} KiB more)"),
        after <= before + GROWTH,
    ));
    let page = weir.page("/metrics");
    let zeros =
        ["weir_body_memory_bytes 0", "weir_entries_dropped_total 0", "weir_panics_total 0", "weir_connections 0"];
    verdicts.push(verdict(
        format!("zero in the end: {}", zeros.join(", ")),
        zeros.iter().all(|zero| page.lines().any(|line| line == *zero)),
    ));
    verdicts
}

/// Waits until nothing is under way and connections that rest are closed; what does not come to rest shows in the figures.
fn at_rest(weir: &Process, engine: &Engine, descriptors: usize) {
    time::comes_true(time::PATIENCE, || {
        weir.status()["backends"][0]["in_flight"] == 0
            && engine.busy() == 0.0
            && weir.descriptors() <= descriptors + OWN_QUESTIONS
    });
}
