//! weir's stamps are the engine's, also for a client that takes nothing, and also beside one.
//!
//! How many microseconds lie between them is measured by `make chaos`; on a busy machine a test can only say which clock
//! the stamps follow.

use crate::support::stamps::{Pair, Plan, compare};
use crate::support::time::quantile;

/// Hundreds of times what a quiet machine needs, and a fraction of what the clients wait here.
const CLOSE: f64 = 0.05;

fn median_lag(pair: &Pair) -> f64 {
    let mut lags = pair.lags.clone();
    lags.sort_by(f64::total_cmp);
    quantile(&lags, 0.5)
}

#[test]
fn every_stream_is_stamped_with_the_engines_time() {
    let pairs = compare(Plan { readers: 8, streams: 2, stalled: 0, tokens: 100, speed: 10.0 });
    assert_eq!(pairs.len(), 16);
    for pair in &pairs {
        assert!(pair.lags.iter().all(|lag| *lag >= 0.0), "a token was stamped before it was sent: {pair:?}");
        assert!(median_lag(pair) < CLOSE && pair.ttft.abs() < 4.0 * CLOSE, "{pair:?}");
        assert_eq!(pair.limited, 0);
    }
}

#[test]
fn a_client_that_takes_nothing_moves_no_stamps() {
    // About 200 bytes a token: over what the kernel takes, under what weir holds.
    let pairs = compare(Plan { readers: 4, streams: 1, stalled: 2, tokens: 1_200, speed: 20.0 });
    for pair in &pairs {
        assert!(pair.lags.iter().all(|lag| *lag >= 0.0), "{pair:?}");
        assert!(median_lag(pair) < CLOSE, "stalled {}: {}", pair.stalled, median_lag(pair));
        assert_eq!(pair.limited, 0, "the engine was read all the time");
    }
    assert_eq!(pairs.iter().filter(|pair| pair.stalled).count(), 2);
}
