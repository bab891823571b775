//! Runs one unit under valgrind and reads the count from its output. It holds no clock.

use std::io;
use std::process::{Command, Stdio};

use crate::Unit;

/// Whether `valgrind` can be started.
pub fn is_installed() -> bool {
    let tried = Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

/// Instructions per unit.
///
/// # Errors
/// valgrind failed, or printed no count.
pub fn instructions(unit: &Unit) -> io::Result<f64> {
    let tool = ["--tool=callgrind", "--callgrind-out-file=/dev/null"];
    per_unit(unit, &tool, "Collected :")
}

/// Heap allocations per unit.
///
/// # Errors
/// valgrind failed, or printed no count.
pub fn allocations(unit: &Unit) -> io::Result<f64> {
    per_unit(unit, &["--tool=memcheck", "--leak-check=no", "--undef-value-errors=no"], "total heap usage:")
}

/// (count(N) - count(N/2)) / (N/2).
fn per_unit(unit: &Unit, tool: &[&str], marker: &str) -> io::Result<f64> {
    let half = unit.count / 2;
    let (long, short) = (count(unit, unit.count, tool, marker)?, count(unit, half, tool, marker)?);
    Ok((long as f64 - short as f64) / half as f64)
}

fn count(unit: &Unit, units: u64, tool: &[&str], marker: &str) -> io::Result<u64> {
    let mut command = Command::new("valgrind");
    // Hash maps with random keys would make two runs differ by more than the gate allows; nothing here uses one, and the
    // environment is emptied because its size moves the stack.
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.args(tool).arg(std::env::current_exe()?).args(["--unit", unit.name, &units.to_string()]);
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let failed = || io::Error::other(format!("{} under valgrind: {}", unit.name, said.trim_end()));
    if !output.status.success() {
        return Err(failed());
    }
    let behind = said.split_once(marker).map(|(_, behind)| behind.trim_start()).ok_or_else(failed)?;
    let digits = behind.chars().take_while(|c| c.is_ascii_digit() || *c == ',').filter(char::is_ascii_digit);
    digits.collect::<String>().parse().map_err(|_| failed())
}
