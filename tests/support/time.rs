//! The one place of the tests that reads a clock or waits.

use std::time::{Duration, Instant};

/// A moment.
#[expect(clippy::disallowed_methods, reason = "a test of real sockets measures real time")]
pub fn now() -> Instant {
    Instant::now()
}

/// For a client that is slow on purpose, and between two looks at what is awaited.
#[expect(clippy::disallowed_methods, reason = "a thread of a test stands for a client that pauses")]
pub fn pause(span: Duration) {
    std::thread::sleep(span);
}

/// Looks again and again until `done`; says whether it came to be within `limit`.
pub fn comes_true(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let start = now();
    loop {
        if done() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        pause(Duration::from_millis(1));
    }
}

/// As `comes_true`, and stops the test when it does not.
pub fn until(what: &str, done: impl FnMut() -> bool) {
    assert!(comes_true(PATIENCE, done), "did not come true within {PATIENCE:?}: {what}");
}

/// The value below which `share` of the sorted `values` lie.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len() - 1;
    sorted[((last as f64 * share).ceil() as usize).min(last)]
}

/// The load averages as the system words them, for beside a figure that is a time.
pub fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Longer than anything here takes on a machine with other work to do.
pub const PATIENCE: Duration = Duration::from_secs(20);
