//! The reference counts, one set per kind of machine, and how far a new count is from them.
//!
//! Code generation moves counts, so a set names its compiler: against another compiler's set nothing fails.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// Every set, and which one is of this machine.
#[derive(Debug)]
pub struct Baseline {
    sets: BTreeMap<String, Set>,
    compiler: String,
}

/// A count compared with the reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// There is none to compare with.
    New,
    /// Within the band, as a share of the old count.
    Quiet(f64),
    /// Worth a look, or counted with another compiler.
    Warn(f64),
    /// Too much: give the reason and bless, or undo.
    Fail(f64),
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Set {
    compiler: String,
    /// Instructions per unit, by name.
    units: BTreeMap<String, f64>,
}

impl Baseline {
    /// Reads the file; a missing one is an empty one.
    ///
    /// # Errors
    /// The file cannot be understood.
    pub fn read() -> io::Result<Self> {
        let sets = match fs::read(FILE) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(why) if why.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(why) => return Err(why),
        };
        Ok(Baseline { sets, compiler: compiler() })
    }

    /// Writes it back.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self) -> io::Result<()> {
        fs::write(FILE, serde_json::to_string_pretty(&self.sets)? + "\n")
    }

    /// Adds a count to this machine's set.
    pub fn put(&mut self, unit: &str, instructions: f64) {
        let set = self.sets.entry(machine()).or_default();
        set.compiler.clone_from(&self.compiler);
        set.units.insert(unit.to_owned(), (instructions * 10.0).round() / 10.0);
    }

    /// How far `instructions` is from the reference.
    pub fn change(&self, unit: &str, instructions: f64) -> Change {
        let Some(set) = self.sets.get(&machine()) else { return Change::New };
        let Some(&old) = set.units.get(unit).filter(|old| **old > 0.0) else { return Change::New };
        match instructions / old - 1.0 {
            more if more > FAIL && set.compiler == self.compiler => Change::Fail(more),
            more if more > WARN => Change::Warn(more),
            change => Change::Quiet(change),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::New => write!(f, "new"),
            Change::Quiet(change) => write!(f, "{:+.1} %", change * 100.0),
            Change::Warn(change) => write!(f, "{:+.1} %, WARN", change * 100.0),
            Change::Fail(change) => write!(f, "{:+.1} %, FAIL", change * 100.0),
        }
    }
}

fn machine() -> String {
    format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)
}

fn compiler() -> String {
    let said = Command::new("rustc").arg("--version").output();
    said.map_or_else(|_| "unknown".to_owned(), |said| String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instr/baseline.json");

/// Counts repeat to the instruction, but an innocent change elsewhere moves inlining by this much.
const WARN: f64 = 0.01;
const FAIL: f64 = 0.03;
