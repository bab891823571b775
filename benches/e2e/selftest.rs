//! The bench proves that it notices what it claims to: an event lost in a thousand makes a row invalid, a whole stream does not, and
//! a proxy with a known amount of work added per read shows that amount.

use std::io;
use std::time::Duration;

use crate::figures::Spread;
use crate::peer::{Cores, Found, Peer, SPIN};
use crate::scenario::{Row, Scenario, measure_cpu, warm_up};

/// Runs every check and prints one line each; whether all held.
///
/// # Errors
/// A process of the bench could not be run.
pub fn run() -> io::Result<bool> {
    let found = |peer: Peer| peer.find().ok_or_else(|| io::Error::other("the bench cannot find itself"));
    let (pipe, spinning, direct) = (found(Peer::Pipe)?, found(Peer::SpinningPipe)?, found(Peer::Direct)?);
    let lossy = stream(&direct, 0, Some(1_000))?;
    let whole = stream(&direct, 0, None)?;
    let mut held = said(
        lossy.invalid.is_some(),
        &format!("one event lost in 1,000: {}", lossy.invalid.as_deref().unwrap_or("not noticed")),
    );
    held &= said(whole.invalid.is_none(), &format!("none lost: {}", whole.invalid.as_deref().unwrap_or("a valid row")));
    let added = (0..ROUNDS).map(|round| spin_seen(&pipe, &spinning, round)).collect::<io::Result<Vec<f64>>>()?;
    let Some(added) = Spread::of(added) else { return Ok(false) };
    let spin = SPIN.as_secs_f64() * 1e6;
    let close = (added.median - spin).abs() <= TOLERANCE;
    held &= said(close, &format!("{spin:.0} us added per read: {} us seen, tolerance {TOLERANCE}", added.text(2)));
    Ok(held)
}

/// Microseconds per read by which the spinning pipe costs more than the other.
fn spin_seen(pipe: &Found, spinning: &Found, round: u32) -> io::Result<f64> {
    let (plain, dear) = (stream(pipe, round, None)?, stream(spinning, round, None)?);
    match (plain.cpu_us, dear.cpu_us, plain.invalid.or(dear.invalid)) {
        (Some(plain), Some(dear), None) => Ok(dear - plain),
        (.., why) => Err(io::Error::other(why.unwrap_or_else(|| "no figure".to_owned()))),
    }
}

fn stream(found: &Found, round: u32, drop_every: Option<u64>) -> io::Result<Row> {
    let (scenario, cores) = (Scenario::Stream200x20ms, Cores::of_this_machine());
    let standing = found.stand_up(cores, scenario.pace(), drop_every)?;
    warm_up(scenario, &standing, cores, Duration::from_millis(300))?;
    measure_cpu(scenario, (found, round), &standing, cores, Duration::from_secs(2))
}

fn said(held: bool, sentence: &str) -> bool {
    println!("{} {sentence}", if held { "PASS" } else { "FAIL" });
    held
}

const ROUNDS: u32 = 5;

/// Microseconds; a fifth of the spin.
const TOLERANCE: f64 = 1.0;
