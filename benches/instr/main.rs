//! Instructions per unit of the hot path, counted by valgrind: they do not depend on the load of the machine, so this bench is
//! a gate where a stopwatch cannot be one.
//!
//! ```text
//! cargo bench --bench instr                 compare with benches/instr/baseline.json
//! cargo bench --bench instr -- --bless      write it
//! cargo bench --bench instr -- relay        only units whose name contains a word
//! ```
//!
//! The binary runs itself under callgrind with N and with N/2 units: (Ir(N) - Ir(N/2)) / (N/2) cancels start-up and set-up.
//! Heap allocations are counted the same way under memcheck; where the hot path must not allocate, one is a failure.
//! Absent: the kernel, caches, branch prediction. A gain here is a gain only once `e2e` shows it.

#![allow(clippy::disallowed_methods, reason = "the runner ends with a status of its own")]

mod baseline;
mod estimate;
mod heads;
mod ledger;
mod pool;
mod relay;
mod valgrind;
mod wire;

use std::io;
use std::process::ExitCode;

use baseline::{Baseline, Change};

/// One piece of work whose cost is known by the unit.
#[derive(Debug, Clone, Copy)]
pub struct Unit {
    /// Its name in the baseline.
    pub name: &'static str,
    /// What one unit is, for the table.
    pub per: &'static str,
    /// Units of the longer run; even.
    pub count: u64,
    /// Whether steady state may allocate.
    pub heap: Heap,
    /// Does N units, with their set-up.
    pub run: fn(u64),
}

/// Whether a unit may allocate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heap {
    /// Nothing.
    Untouched,
    /// Something; it is reported.
    Used,
}

fn units() -> impl Iterator<Item = Unit> {
    [relay::UNITS, heads::UNITS, ledger::UNITS, estimate::UNITS, pool::UNITS, wire::UNITS]
        .into_iter()
        .flatten()
        .copied()
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let [flag, name, count] = words.as_slice()
        && flag == "--unit"
    {
        return run_unit(name, count);
    }
    if cfg!(debug_assertions) {
        // `cargo test` over all targets runs this too; counts of a debug build mean nothing.
        return ExitCode::SUCCESS;
    }
    match count_all(&words) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("instr: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run_unit(name: &str, count: &str) -> ExitCode {
    let unit = units().find(|unit| unit.name == name);
    let Some((unit, count)) = unit.zip(count.parse().ok()) else { return ExitCode::from(2) };
    (unit.run)(count);
    ExitCode::SUCCESS
}

/// Counts the units asked for; returns whether none failed.
fn count_all(words: &[String]) -> io::Result<bool> {
    let bless = words.iter().any(|word| word == "--bless");
    let filters: Vec<&String> = words.iter().filter(|word| *word != "--bless").collect();
    if !valgrind::is_installed() {
        println!("skipped: valgrind is not installed");
        return Ok(true);
    }
    let mut baseline = Baseline::read()?;
    let mut held = true;
    println!("{:<28}{:>16}{:>12}  {:<14}change", "unit", "instructions", "allocations", "per");
    for unit in units().filter(|unit| filters.is_empty() || filters.iter().any(|word| unit.name.contains(*word))) {
        let (instructions, allocations) = (valgrind::instructions(&unit)?, valgrind::allocations(&unit)?);
        let change = baseline.change(unit.name, instructions);
        let allocates = unit.heap == Heap::Untouched && allocations > 0.0;
        let note = if allocates { ", FAIL: the heap must stay untouched" } else { "" };
        println!("{:<28}{instructions:>16.1}{allocations:>12.2}  {:<14}{change}{note}", unit.name, unit.per);
        held &= !allocates && (bless || !matches!(change, Change::Fail(_)));
        baseline.put(unit.name, instructions);
    }
    if bless {
        baseline.write()?;
    }
    Ok(held)
}
