//! The identities at ten thousand scrapes.

use crate::support::chaos;
use crate::support::storm::ALL;
use crate::{Verdict, verdict};

const REQUESTS: u64 = 30_000;
const SCRAPES: u64 = 10_000;
/// Times that each kind of fault must have happened.
const LEAST: u64 = 200;

/// An identity that does not hold ends the run where it is seen.
pub fn run() -> Vec<Verdict> {
    let report = chaos::run(REQUESTS, SCRAPES, LEAST, 8, 3);
    let done: Vec<u64> = ALL.iter().map(|deed| report.clients.times(*deed)).collect();
    println!("   clients: {:?}", report.clients.done);
    println!("   backend: {:?}; dials of the dead one that count: {}", report.faults, report.dead);
    println!("   panics by phase (head, arrived, dispatched, ended): {:?}", report.panics);
    let [_, _, dispatched, ended] = report.panics;
    let fired = done.iter().chain(&report.panics).chain(report.faults.iter().map(|(_, times)| times)).min().copied();
    vec![
        verdict(
            format!(
                "exact at {} scrapes of /metrics and /status during {} requests",
                report.scrapes,
                done_once(&report)
            ),
            report.scrapes >= SCRAPES,
        ),
        verdict(
            format!(
                "every fault fired, the rarest {fired:?} times (bound: {LEAST}), the dead backend {} times",
                report.dead
            ),
            fired >= Some(LEAST) && report.dead >= 3,
        ),
        verdict(
            format!("entries dropped {}, panics with an open entry {}", report.books.dropped, dispatched + ended),
            report.books.dropped == dispatched + ended,
        ),
        verdict(
            format!(
                "{} streams broken off, {} that looked complete without their end",
                report.clients.broken, report.clients.forged
            ),
            report.clients.forged == 0,
        ),
    ]
}

fn done_once(report: &chaos::Report) -> u64 {
    report.clients.done.values().sum()
}
