//! The goals of the comparison with other proxies, each with its bar, and the verdict of one comparison. A bar fails the run; an aim is
//! printed beside it. What the machine or the rounds cannot decide is NOT-JUDGED, and a peer that is missing decides nothing.

use std::fmt;

use crate::compare::Findings;
use crate::figures::{added, cpu_ratio, rows_of, spread};
use crate::peer::Peer;
use crate::scenario::{Row, Scenario};

/// The verdict on a goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Fail,
    NotJudged,
}

/// One goal after one comparison.
#[derive(Debug)]
pub struct Judgement {
    id: &'static str,
    pub verdict: Verdict,
    sentence: String,
}

/// Judges everything.
pub fn judge(findings: &Findings) -> Vec<Judgement> {
    let (stream, unary) = (Scenario::Stream200x20ms, Scenario::Unary8);
    vec![
        ratio(findings, "P1", stream, Peer::Nginx, Bar { bar: 1.0, aim: 0.90 }),
        ratio(findings, "P1", stream, Peer::Haproxy, Bar { bar: 1.0, aim: 0.95 }),
        ratio(findings, "P2", unary, Peer::Haproxy, Bar { bar: 1.0, aim: 0.90 }),
        added_ttft(findings, "p50", |row| row.tally.ttft.p50, 100.0),
        added_ttft(findings, "p99", |row| row.tally.ttft.p99, 300.0),
        memory(findings, Scenario::Hold1000),
        memory(findings, Scenario::Hold5000),
        no_errors(findings),
    ]
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Pass => "PASS",
            Verdict::Fail => "FAIL",
            Verdict::NotJudged => "NOT-JUDGED",
        };
        write!(f, "{} {verdict}: {}", self.id, self.sentence)
    }
}

/// What must be reached, and what is aimed for.
#[derive(Debug, Clone, Copy)]
struct Bar {
    bar: f64,
    aim: f64,
}

fn ratio(findings: &Findings, id: &'static str, scenario: Scenario, other: Peer, Bar { bar, aim }: Bar) -> Judgement {
    let what = format!("CPU per unit of {} against {}", scenario.as_str(), other.as_str());
    let Some(ratio) = cpu_ratio(&findings.rows, scenario, Peer::Weir, other) else {
        return unknown(findings, id, &what, &[(Peer::Weir, scenario), (other, scenario)]);
    };
    let sentence = format!("{what}: {} in {} rounds, bar {bar:.2}, aim {aim:.2}", ratio.text(2), ratio.count);
    let enough = ratio.count >= ROUNDS && findings.conditions.pinned;
    Judgement { id, verdict: verdict(enough, ratio.median <= bar), sentence }
}

fn added_ttft(findings: &Findings, which: &str, time: impl Fn(&Row) -> f64, bar: f64) -> Judgement {
    let (scenario, what) = (Scenario::Stream200x20ms, format!("added TTFT {which}"));
    let Some(added) = added(&findings.rows, scenario, Peer::Weir, time) else {
        return unknown(findings, "P3", &what, &[(Peer::Weir, scenario), (Peer::Direct, scenario)]);
    };
    let loudest =
        findings.rows.iter().filter(|row| row.scenario == scenario).map(|row| row.neighbours).fold(0.0, f64::max);
    let sentence = format!("{what}: {} us, bar {bar:.0} us; neighbours up to {loudest:.2} cores", added.text(0));
    Judgement { id: "P3", verdict: verdict(added.count >= ROUNDS && loudest <= QUIET, added.median <= bar), sentence }
}

fn memory(findings: &Findings, scenario: Scenario) -> Judgement {
    let what = format!("memory per open stream, {}", scenario.as_str());
    let Some(kib) = spread(&findings.rows, Peer::Weir, scenario, |row| row.stream_kib) else {
        return unknown(findings, "P4", &what, &[(Peer::Weir, scenario)]);
    };
    let Bar { bar, aim } = MEMORY;
    let sentence = format!("{what}: {:.1} KiB, bar {bar:.0} KiB, aim {aim:.0} KiB", kib.median);
    Judgement { id: "P4", verdict: verdict(true, kib.median <= bar), sentence }
}

fn no_errors(findings: &Findings) -> Judgement {
    let of_weir = |row: &&Row| row.peer == Peer::Weir && row.scenario == Scenario::Hold5000;
    let Some(row) = findings.rows.iter().find(of_weir) else {
        return Judgement { id: "P5", verdict: Verdict::NotJudged, sentence: "5,000 open streams: not run".to_owned() };
    };
    let said = row.invalid.clone().unwrap_or_else(|| "0 errors".to_owned());
    Judgement {
        id: "P5",
        verdict: verdict(true, row.invalid.is_none()),
        sentence: format!("5,000 open streams: {said}"),
    }
}

/// A goal without a figure: failed where a row of weir itself is invalid, undecided otherwise.
fn unknown(findings: &Findings, id: &'static str, what: &str, needed: &[(Peer, Scenario)]) -> Judgement {
    let missing = needed.iter().find(|(peer, scenario)| rows_of(&findings.rows, *peer, *scenario).next().is_none());
    let Some(&(peer, scenario)) = missing else {
        let sentence = format!("{what}: no round has both rows");
        return Judgement { id, verdict: Verdict::NotJudged, sentence };
    };
    let ran = findings.rows.iter().any(|row| row.peer == peer && row.scenario == scenario);
    let state = if ran { "every row invalid" } else { "not run" };
    let verdict = if ran && peer == Peer::Weir { Verdict::Fail } else { Verdict::NotJudged };
    Judgement { id, verdict, sentence: format!("{what}: {}, {}: {state}", peer.as_str(), scenario.as_str()) }
}

fn verdict(decidable: bool, reached: bool) -> Verdict {
    match (decidable, reached) {
        (false, _) => Verdict::NotJudged,
        (true, true) => Verdict::Pass,
        (true, false) => Verdict::Fail,
    }
}

/// Fewer rounds than this do not separate a ratio from chance.
const ROUNDS: usize = 3;

/// Cores. With neighbours busier than this before any row, latencies are partly due to them.
const QUIET: f64 = 0.15;

/// KiB of PSS per open stream.
const MEMORY: Bar = Bar { bar: 8.0, aim: 6.0 };
