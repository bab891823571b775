//! The findings as a Markdown page: conditions, one table per kind of figure, invalid rows, verdicts.

use std::fmt::Write;

use crate::compare::Findings;
use crate::figures::{Spread, added, cpu_ratio, rows_of, spread};
use crate::goal::Judgement;
use crate::peer::Peer;
use crate::scenario::{Row, Scenario};

/// The page.
pub fn page(findings: &Findings, judgements: &[Judgement]) -> String {
    let mut page = conditions(findings);
    page += &cpu_table(findings, Scenario::Unary8, "request");
    page += &cpu_table(findings, Scenario::Stream200x20ms, "chunk");
    page += &latency_table(findings);
    page += &memory_table(findings);
    page += &invalid_rows(findings);
    for judgement in judgements {
        line(&mut page, &format!("- {judgement}"));
    }
    page
}

fn conditions(findings: &Findings) -> String {
    let known = &findings.conditions;
    let peers: Vec<String> =
        known.peers.iter().filter(|(_, version)| !version.is_empty()).map(|(_, version)| version.clone()).collect();
    let mut text = format!(
        "weir {}, {} rounds{}, {}, {} cores{}, kernel {}, load {:.2} before and {:.2} after.\nPeers: {}.",
        known.commit,
        known.rounds,
        if known.quick { " (quick)" } else { "" },
        known.cpu,
        known.cores,
        if known.pinned { ", proxy alone on core 0" } else { ", nothing pinned" },
        known.kernel,
        known.load_before,
        known.load_after,
        peers.join("; "),
    );
    for skipped in &known.skipped {
        text += &format!(" {}: skipped: not installed.", skipped.as_str());
    }
    text + "\nMedian (min–max) over the rounds; ratios are taken inside a round.\n\n"
}

fn cpu_table(findings: &Findings, scenario: Scenario, unit: &str) -> String {
    let title = format!("| {} | us CPU/{unit} | / nginx | / HAProxy | kernel % | {unit}s/window |", scenario.as_str());
    table(&title, 6, findings, scenario, |peer| {
        let cpu = spread(&findings.rows, peer, scenario, |row| row.cpu_us);
        let share = spread(&findings.rows, peer, scenario, |row| row.system_share.map(|share| share * 100.0));
        let to = |other| cpu_ratio(&findings.rows, scenario, peer, other);
        let units = |row: &Row| Some(if unit == "chunk" { row.tally.chunks } else { row.tally.requests } as f64);
        let counted = spread(&findings.rows, peer, scenario, units);
        vec![
            cell(cpu, 1),
            cell(to(Peer::Nginx), 2),
            cell(to(Peer::Haproxy), 2),
            share.map_or(NONE.to_owned(), |share| format!("{:.0}", share.median)),
            counted.map_or(NONE.to_owned(), |units| format!("{:.0}", units.median)),
        ]
    })
}

fn latency_table(findings: &Findings) -> String {
    let scenario = Scenario::Stream200x20ms;
    let title =
        "| stream200x20ms | TTFT p50 us | p99 us | added p50 us | added p99 us | chunk latency p50 us | p99 us |";
    table(title, 7, findings, scenario, |peer| {
        let of = |value: fn(&Row) -> f64| cell(spread(&findings.rows, peer, scenario, |row| Some(value(row))), 0);
        let over = |value: fn(&Row) -> f64| cell(added(&findings.rows, scenario, peer, value), 0);
        vec![
            of(|row| row.tally.ttft.p50),
            of(|row| row.tally.ttft.p99),
            over(|row| row.tally.ttft.p50),
            over(|row| row.tally.ttft.p99),
            of(|row| row.tally.latency.p50),
            of(|row| row.tally.latency.p99),
        ]
    })
}

fn memory_table(findings: &Findings) -> String {
    let mut page = String::new();
    for scenario in Scenario::ALL.into_iter().filter(|scenario| scenario.is_hold()) {
        let title = format!("| {} | KiB PSS per open stream | open | errors |", scenario.as_str());
        page += &table(&title, 4, findings, scenario, |peer| {
            let row = rows_of(&findings.rows, peer, scenario).next();
            vec![
                row.and_then(|row| row.stream_kib).map_or(NONE.to_owned(), |kib| format!("{kib:.1}")),
                row.map_or(NONE.to_owned(), |row| row.tally.open.to_string()),
                row.map_or(NONE.to_owned(), |row| row.tally.errors.to_string()),
            ]
        });
    }
    page
}

/// A table of one line per peer that ran the scenario; empty where none did.
fn table(
    title: &str,
    columns: usize,
    findings: &Findings,
    scenario: Scenario,
    cells: impl Fn(Peer) -> Vec<String>,
) -> String {
    let mut text = String::new();
    for peer in Peer::COMPARED {
        if rows_of(&findings.rows, peer, scenario).next().is_some() {
            line(&mut text, &format!("| {} | {} |", peer.as_str(), cells(peer).join(" | ")));
        }
    }
    if text.is_empty() { text } else { format!("{title}\n|{}\n{text}\n", "---|".repeat(columns)) }
}

fn invalid_rows(findings: &Findings) -> String {
    let mut text = String::new();
    for row in &findings.rows {
        if let Some(why) = &row.invalid {
            let (peer, scenario) = (row.peer.as_str(), row.scenario.as_str());
            line(&mut text, &format!("- INVALID {peer}, {scenario}, round {}: {why}", row.round + 1));
        }
    }
    text
}

fn cell(spread: Option<Spread>, places: usize) -> String {
    spread.map_or_else(|| NONE.to_owned(), |spread| spread.text(places))
}

fn line(text: &mut String, content: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{content}");
}

const NONE: &str = "—";
