//! The comparison: rounds in which every peer runs once, in an order that rotates, and what is known about the machine.
//! Returns rows; figures are made of them in `figures.rs`.

use std::fs;
use std::io;
use std::time::Duration;

use serde::Serialize;

use crate::options::Comparison;
use crate::peer::{Cores, Found, Peer};
use crate::process::load_average;
use crate::scenario::{Row, Scenario, measure_cpu, measure_memory, warm_up};

/// All that was measured, and under which conditions.
#[derive(Debug, Serialize)]
pub struct Findings {
    pub conditions: Conditions,
    pub rows: Vec<Row>,
}

/// What a reader must know to trust a row.
#[derive(Debug, Serialize)]
pub struct Conditions {
    pub commit: String,
    pub kernel: String,
    pub cpu: String,
    pub cores: usize,
    /// Whether proxies had a core to themselves.
    pub pinned: bool,
    pub quick: bool,
    pub rounds: u32,
    pub load_before: f64,
    pub load_after: f64,
    /// Name and version of every peer that ran.
    pub peers: Vec<(Peer, String)>,
    /// Peers that were asked for and are not installed.
    pub skipped: Vec<Peer>,
}

/// Lengths of the parts of a row.
#[derive(Debug, Clone, Copy)]
struct Lengths {
    warm_up: Duration,
    unary: Duration,
    stream: Duration,
    settle: Duration,
}

impl Cores {
    /// Proxies on the first core, client and backend on the second; nothing is pinned where there is only one.
    pub fn of_this_machine() -> Self {
        match cores() {
            0 | 1 => Cores { proxy: None, ends: None },
            _ => Cores { proxy: Some(0), ends: Some(1) },
        }
    }
}

/// Runs it all.
///
/// # Errors
/// A process of the bench could not be run. A peer that cannot be started is reported and left out.
pub fn compare(asked: &Comparison) -> io::Result<Findings> {
    let (found, skipped) = look_up(&asked.peers);
    let (cores, lengths, load_before) = (Cores::of_this_machine(), Lengths::of(asked.quick), load_average());
    let mut rows = Vec::new();
    for round in 0..asked.rounds {
        for turn in 0..found.len() {
            let peer = &found[(turn + round as usize) % found.len()];
            eprintln!("round {} of {}: {}", round + 1, asked.rounds, peer.peer.as_str());
            rows.extend(one_turn(asked, peer, round, cores, lengths)?);
        }
    }
    for &scenario in asked.scenarios.iter().filter(|scenario| scenario.is_hold()) {
        for peer in &found {
            eprintln!("{}: {}", scenario.as_str(), peer.peer.as_str());
            rows.push(measure_memory(scenario, peer, cores, lengths.settle)?);
        }
    }
    Ok(Findings { conditions: Conditions::of(asked, &found, skipped, cores, load_before), rows })
}

/// One peer in one round: every CPU scenario in one process, each warmed up first.
fn one_turn(asked: &Comparison, peer: &Found, round: u32, cores: Cores, lengths: Lengths) -> io::Result<Vec<Row>> {
    let scenarios = asked.scenarios.iter().copied().filter(|scenario| !scenario.is_hold());
    let standing = peer.stand_up(cores, Scenario::Stream200x20ms.pace(), None)?;
    let turn = |scenario: Scenario| {
        let window = if scenario == Scenario::Unary8 { lengths.unary } else { lengths.stream };
        warm_up(scenario, &standing, cores, lengths.warm_up)?;
        measure_cpu(scenario, (peer, round), &standing, cores, window)
    };
    scenarios.map(turn).collect()
}

fn look_up(peers: &[Peer]) -> (Vec<Found>, Vec<Peer>) {
    let (mut found, mut skipped) = (Vec::new(), Vec::new());
    for &peer in peers {
        match peer.find() {
            Some(one) => found.push(one),
            None => {
                eprintln!("{}: skipped: not installed", peer.as_str());
                skipped.push(peer);
            }
        }
    }
    (found, skipped)
}

impl Lengths {
    fn of(quick: bool) -> Self {
        let millis = |usual, short| Duration::from_millis(if quick { short } else { usual });
        Lengths {
            warm_up: millis(1_000, 300),
            unary: millis(3_000, 1_000),
            stream: millis(3_000, 1_500),
            settle: millis(7_000, 2_000),
        }
    }
}

impl Conditions {
    fn of(asked: &Comparison, found: &[Found], skipped: Vec<Peer>, proxy: Cores, load_before: f64) -> Self {
        Conditions {
            commit: commit(),
            kernel: line_of("/proc/sys/kernel/osrelease"),
            cpu: cpu_model(),
            cores: cores(),
            pinned: proxy.proxy.is_some(),
            quick: asked.quick,
            rounds: asked.rounds,
            load_before,
            load_after: load_average(),
            peers: found.iter().map(|one| (one.peer, one.version.clone())).collect(),
            skipped,
        }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn commit() -> String {
    let said = std::process::Command::new("git").args(["describe", "--always", "--dirty"]).output();
    let said = said.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned()).unwrap_or_default();
    if said.is_empty() { "of an unknown commit".to_owned() } else { said }
}

fn cpu_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(": ")).map_or_else(|| "unknown".to_owned(), |(_, name)| name.to_owned())
}

fn line_of(file: &str) -> String {
    fs::read_to_string(file).unwrap_or_default().trim().to_owned()
}
