//! Fifty drains under load, and a stream of ten real minutes under a drain that has longer.

use std::path::Path;
use std::time::Duration;

use crate::support::drains::{under_a_long_stream, under_load};
use crate::{Verdict, timed, verdict};

const DRAINS: usize = 50;
const CLIENTS: usize = 24;
/// Ten minutes of one event a second.
const EVENTS: usize = 601;
const SOON: Duration = Duration::from_secs(1);

pub fn run() -> Vec<Verdict> {
    let program = Path::new(env!("CARGO_BIN_EXE_weir"));
    let long = std::thread::spawn(move || {
        under_a_long_stream(program, EVENTS, Duration::from_secs(1), "{min_delay: 1s, timeout: 15m}")
    });
    let seen: Vec<_> = (0..DRAINS).map(|_| under_load(program, CLIENTS)).collect();
    let whole: u64 = seen.iter().map(|seen| seen.whole).sum();
    let away: u64 = seen.iter().map(|seen| seen.turned_away).sum();
    let broken: Vec<_> = seen.iter().flat_map(|seen| &seen.broken).collect();
    let failed = seen.iter().filter(|seen| seen.failed_exit).count();
    let lag = seen.iter().map(|seen| seen.lag).max().unwrap_or_default();
    let (took, came, after) = long.join().unwrap();
    vec![
        verdict(
            format!(
                "{DRAINS} drains under load: {whole} streams whole, {} broken, {away} turned away {broken:?}",
                broken.len()
            ),
            broken.is_empty() && whole > 0,
        ),
        verdict(format!("{failed} of {DRAINS} ended otherwise than with 0"), failed == 0),
        timed(format!("after the last stream the process left within {lag:?} (most of {DRAINS})"), lag <= SOON),
        verdict(
            format!("a stream of {:.0} s under a drain of 15 min came whole: {came}", took.as_secs_f64()),
            came && took >= Duration::from_secs(600),
        ),
        timed(format!("after it the process left within {after:?}"), after <= SOON),
    ]
}
