//! weir compared with the proxies in common use: one command, no network, no root.
//!
//! ```text
//! cargo bench --bench e2e                  five rounds, all scenarios: about six minutes
//! cargo bench --bench e2e -- --quick       does everything run? nothing is judged
//! cargo bench --bench e2e -- --selftest    does the bench notice what it claims to?
//! ```
//!
//! The measure is CPU per unit of work: on-CPU nanoseconds of every thread of a proxy's process tree, divided by what the
//! client received and checked. The binary is its own client (`load`), backend (`backend`) and simplest proxy (`pipe`);
//! without a subcommand it runs the comparison. Absent: TLS, HTTP/2, more than one worker, a real network.

#![allow(clippy::disallowed_methods, reason = "a bench reads clocks, sleeps and ends with a status of its own")]

mod answer;
mod backend;
mod compare;
mod event;
mod figures;
mod framing;
mod goal;
mod load;
mod options;
mod peer;
mod pipe;
mod process;
mod report;
mod scenario;
mod selftest;

use std::fs;
use std::io;
use std::process::ExitCode;

use goal::Verdict;
use options::{Command, Comparison, HELP};
use peer::Peer;

fn main() -> ExitCode {
    let command = match Command::read(std::env::args().skip(1)) {
        Ok(command) => command,
        Err(why) => {
            eprintln!("e2e: {why}\n\n{HELP}");
            return ExitCode::from(USAGE);
        }
    };
    match run(command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("e2e: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything that was judged held.
fn run(command: Command) -> io::Result<bool> {
    if !matches!(command, Command::Nothing | Command::Help) {
        // 5,000 streams are 10,000 descriptors of a proxy, which inherits the limit. A low hard limit shows as errors there.
        let _ = rlimit::increase_nofile_limit(u64::MAX);
    }
    match command {
        Command::Compare(asked) => compare_and_report(&asked),
        Command::Selftest => selftest::run(),
        Command::Backend(settings) => backend::run(settings).map(|()| true),
        Command::Load(settings) => load::run(settings).map(|()| true),
        Command::Pipe { front, back, spin } => pipe::run(front, back, spin).map(|()| true),
        Command::Help => {
            print!("{HELP}");
            Ok(true)
        }
        Command::Nothing => Ok(true),
    }
}

fn compare_and_report(asked: &Comparison) -> io::Result<bool> {
    if !cfg!(target_os = "linux") {
        return Err(io::Error::other("CPU and memory are read from /proc: this bench runs on Linux only"));
    }
    if Peer::Weir.find().is_some_and(|weir| weir.is_debug_build()) {
        return Err(io::Error::other("this weir is a debug build, whose speed means nothing: use cargo bench"));
    }
    let findings = compare::compare(asked)?;
    let judgements = goal::judge(&findings);
    let page = report::page(&findings, &judgements);
    fs::create_dir_all(&asked.out)?;
    fs::write(asked.out.join("e2e.json"), serde_json::to_string_pretty(&findings)?)?;
    fs::write(asked.out.join("e2e.md"), &page)?;
    print!("{page}");
    Ok(judgements.iter().all(|judgement| judgement.verdict != Verdict::Fail))
}

/// Exit status for a command line that cannot be read.
const USAGE: u8 = 2;
