//! A client leaves, and the backend sees it: before the first token and in mid-stream, by FIN and by reset.

use std::time::Duration;

use weir::measure::{AbandonPhase, Outcome};

use crate::support::cancel;
use crate::support::time;
use crate::support::weir::{finished, total};

/// Each of the four ways this often.
const ROUNDS: usize = 250;
/// From the client's close to the close at the backend, 99 of 100 times.
const PROMPT: Duration = Duration::from_millis(100);

#[test]
fn the_backend_sees_a_cancel_within_100_ms() {
    let (delays, snapshot) = cancel::timed(ROUNDS);
    assert_eq!(delays.len(), 4 * ROUNDS);
    let p99 = time::quantile(&delays, 0.99);
    assert!(p99 <= PROMPT.as_secs_f64(), "p99 {p99} s");
    let abandoned = |phase: AbandonPhase| total(&snapshot, |books| books.abandoned[phase.index()]);
    assert_eq!([abandoned(AbandonPhase::Prefill), abandoned(AbandonPhase::Decode)], [2 * ROUNDS as u64; 2]);
    assert_eq!(finished(&snapshot, Outcome::ClientCancelled), 4 * ROUNDS as u64);
}
