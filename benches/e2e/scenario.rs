//! What is asked of every peer, and one measurement of it. A row holds what one peer cost in one round; nothing is averaged
//! here, and a row with an error has the error in place of a figure.

use std::io;
use std::process::Command;
use std::time::Duration;

use serde::Serialize;

use crate::load::Tally;
use crate::peer::{Cores, Found, Peer, Standing};
use crate::process::{Process, neighbours};

/// A load of fixed shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scenario {
    /// 8 connections, small JSON answers, as fast as possible.
    Unary8,
    /// 200 streams of 64 events, one every 20 ms.
    Stream200x20ms,
    /// 1,000 open streams, one event every 4 s.
    Hold1000,
    /// 5,000 of the same.
    Hold5000,
}

/// One peer, one scenario, one round.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub peer: Peer,
    pub scenario: Scenario,
    pub round: u32,
    /// Cores busy just before the row, with nothing of the bench at work: the neighbours' load.
    pub neighbours: f64,
    /// Why the row counts for nothing; its figures are then not used.
    pub invalid: Option<String>,
    /// Microseconds of CPU per request or per event; `None` for direct and for `hold`.
    pub cpu_us: Option<f64>,
    /// Share of that CPU spent in the kernel.
    pub system_share: Option<f64>,
    /// Growth of PSS per open stream, KiB; only for `hold`.
    pub stream_kib: Option<f64>,
    /// What the client counted.
    pub tally: Tally,
}

impl Scenario {
    pub const ALL: [Scenario; 4] = [Scenario::Unary8, Scenario::Stream200x20ms, Scenario::Hold1000, Scenario::Hold5000];

    pub fn as_str(self) -> &'static str {
        match self {
            Scenario::Unary8 => "unary8",
            Scenario::Stream200x20ms => "stream200x20ms",
            Scenario::Hold1000 => "hold1000",
            Scenario::Hold5000 => "hold5000",
        }
    }

    /// Whether it measures memory, once, in a fresh process, instead of CPU.
    pub fn is_hold(self) -> bool {
        matches!(self, Scenario::Hold1000 | Scenario::Hold5000)
    }

    /// The backend's pace.
    pub fn pace(self) -> Duration {
        Duration::from_millis(if self.is_hold() { 4_000 } else { 20 })
    }

    fn connections(self) -> u32 {
        match self {
            Scenario::Unary8 => 8,
            Scenario::Stream200x20ms => 200,
            Scenario::Hold1000 => 1_000,
            Scenario::Hold5000 => 5_000,
        }
    }

    /// Events asked of a stream: for `hold`, more than it will ever get.
    fn chunks(self) -> u64 {
        if self.is_hold() { 10_000 } else { 64 }
    }

    fn spread(self) -> Duration {
        match self {
            Scenario::Unary8 => Duration::ZERO,
            Scenario::Stream200x20ms => Duration::from_millis(500),
            // Every stream's events then come at their own moment of the four seconds, and no accept queue overflows.
            Scenario::Hold1000 | Scenario::Hold5000 => self.pace(),
        }
    }

    fn load(self, standing: &Standing, core: Option<usize>, window: Duration) -> io::Result<Process> {
        let mode = match self {
            Scenario::Unary8 => "unary",
            Scenario::Stream200x20ms => "stream",
            Scenario::Hold1000 | Scenario::Hold5000 => "hold",
        };
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["load", "--mode", mode, "--target", &standing.target.to_string()]);
        command.args(["--connections", &self.connections().to_string(), "--chunks", &self.chunks().to_string()]);
        command.args(["--window-ms", &window.as_millis().to_string()]);
        command.args(["--spread-ms", &self.spread().as_millis().to_string()]);
        Process::start(core, &command)
    }
}

/// Runs a load that ends by itself and discards its figures.
///
/// # Errors
/// The client could not be run.
pub fn warm_up(scenario: Scenario, standing: &Standing, cores: Cores, window: Duration) -> io::Result<()> {
    next_tally(&mut scenario.load(standing, cores.ends, window)?).map(drop)
}

/// Measures the CPU of one window of `unary8` or `stream200x20ms`.
///
/// # Errors
/// The client could not be run; what it saw go wrong makes the row invalid instead.
pub fn measure_cpu(
    scenario: Scenario,
    (found, round): (&Found, u32),
    standing: &Standing,
    cores: Cores,
    window: Duration,
) -> io::Result<Row> {
    let neighbours = neighbours(LISTENING);
    let before = standing.proxy.as_ref().map(Process::cpu);
    let tally = next_tally(&mut scenario.load(standing, cores.ends, window)?)?;
    let used = standing.proxy.as_ref().zip(before).map(|(proxy, before)| proxy.cpu().since(before));
    let units = if scenario == Scenario::Unary8 { tally.requests } else { tally.chunks };
    Ok(Row {
        peer: found.peer,
        scenario,
        round,
        neighbours,
        invalid: fault(scenario, &tally, units),
        cpu_us: used.map(|cpu| cpu.nanos as f64 / 1_000.0 / units.max(1) as f64),
        system_share: used.map(|cpu| cpu.system_share()),
        stream_kib: None,
        tally,
    })
}

/// Measures the memory of open streams in a fresh process: PSS once they have settled, less the PSS before the first.
///
/// # Errors
/// A process could not be run.
pub fn measure_memory(scenario: Scenario, found: &Found, cores: Cores, settle: Duration) -> io::Result<Row> {
    let standing = found.stand_up(cores, scenario.pace(), None)?;
    let neighbours = neighbours(LISTENING);
    let before = standing.proxy.as_ref().map(Process::pss);
    let mut client = scenario.load(&standing, cores.ends, settle)?;
    let open = next_tally(&mut client)?.open;
    let grown = standing.proxy.as_ref().zip(before).map(|(proxy, before)| proxy.pss().saturating_sub(before));
    client.close_input();
    let tally = next_tally(&mut client)?;
    let wanted = u64::from(scenario.connections());
    Ok(Row {
        peer: found.peer,
        scenario,
        round: 0,
        neighbours,
        invalid: fault(scenario, &tally, open)
            .or_else(|| (open < wanted).then(|| format!("only {open} of {wanted} streams open"))),
        cpu_us: None,
        system_share: None,
        stream_kib: grown.map(|bytes| bytes as f64 / 1_024.0 / open.max(1) as f64),
        tally,
    })
}

/// What makes a row count for nothing.
fn fault(scenario: Scenario, tally: &Tally, units: u64) -> Option<String> {
    if tally.errors > 0 {
        return Some(format!("{} errors, first: {}", tally.errors, tally.first_error.as_deref().unwrap_or("?")));
    }
    if units == 0 {
        return Some("nothing was received".to_owned());
    }
    let nominal = tally.chunks as f64 * scenario.pace().as_secs_f64();
    let kept = if tally.stream_seconds > 0.0 { nominal / tally.stream_seconds } else { 1.0 };
    (kept < PACE_KEPT).then(|| format!("the pace was kept to {:.0} % only", kept * 100.0))
}

fn next_tally(client: &mut Process) -> io::Result<Tally> {
    serde_json::from_str(&client.next_line()?).map_err(io::Error::other)
}

/// Below this share of the nominal rate events were merged somewhere, and a cost per event means nothing.
const PACE_KEPT: f64 = 0.98;

/// How long to listen for neighbours before a row.
const LISTENING: Duration = Duration::from_millis(200);
