//! Detects that the throughput in saturation has shifted, whatever the cause.
//!
//! A two-sided CUSUM on the blocks' tokens per second, whitened by their own lag-one correlation: neighbouring blocks share
//! their long streams, and without whitening a slow fluctuation would look like a shift.

use crate::vocabulary::average::Moments;

/// The sequential test.
#[derive(Clone, Debug)]
pub(super) struct DriftTest {
    reference: Moments,
    last: Option<f64>,
    product: f64,
    square: f64,
    up: f64,
    down: f64,
}

impl DriftTest {
    pub fn new() -> Self {
        Self { reference: Moments::new(KEEP), last: None, product: 0.0, square: 0.0, up: 0.0, down: 0.0 }
    }

    /// Adds one block's tokens per second. Returns whether they have drifted, and starts again then.
    pub fn on_block(&mut self, throughput: f64) -> bool {
        if let Some(last) = self.last {
            if self.reference.effective() >= ENOUGH && self.has_drifted(throughput, last) {
                *self = Self::new();
                self.reference.add(throughput);
                return true;
            }
            if self.reference.weight > 2.0 {
                let (now, before) = (throughput - self.reference.mean, last - self.reference.mean);
                self.product = CORRELATION_KEEP * self.product + (1.0 - CORRELATION_KEEP) * now * before;
                let square = 0.5 * (now * now + before * before);
                self.square = CORRELATION_KEEP * self.square + (1.0 - CORRELATION_KEEP) * square;
            }
        }
        self.reference.add(throughput);
        self.last = Some(throughput);
        false
    }

    /// Starts again, because the engine changed for a known reason.
    pub fn reset(&mut self) {
        *self = Self::new();
    }

    fn has_drifted(&mut self, throughput: f64, last: f64) -> bool {
        let mean = self.reference.mean;
        let correlation = self.correlation();
        let deviation = self.reference.deviation().max(SMALLEST_DEVIATION * mean);
        let whitened = (throughput - mean) - correlation * (last - mean);
        let z = whitened / (deviation * (1.0 - correlation * correlation).sqrt()).max(1e-9);
        self.up = (self.up + z - DRIFT).max(0.0);
        self.down = (self.down - z - DRIFT).max(0.0);
        self.up > THRESHOLD || self.down > THRESHOLD
    }

    fn correlation(&self) -> f64 {
        if self.square > 0.0 { (self.product / self.square).clamp(0.0, 0.6) } else { 0.3 }
    }
}

/// Blocks remembered: about 14.
const KEEP: f64 = 0.93;
const CORRELATION_KEEP: f64 = 0.95;
/// Independent blocks before anything can have drifted.
const ENOUGH: f64 = 8.0;
/// No throughput is assumed to vary by less than 3 %.
const SMALLEST_DEVIATION: f64 = 0.03;
const DRIFT: f64 = 0.75;
const THRESHOLD: f64 = 7.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn throughput(n: u32) -> f64 {
        1000.0 * (1.0 + 0.05 * (f64::from(n * 7919 % 200) / 100.0 - 1.0))
    }

    #[test]
    fn a_steady_throughput_never_drifts() {
        let mut test = DriftTest::new();
        assert!((0..5_000).all(|n| !test.on_block(throughput(n))));
    }

    #[test]
    fn a_fifth_more_or_less_is_found_within_ten_blocks() {
        for factor in [0.8, 1.2] {
            let mut test = DriftTest::new();
            assert!((0..40).all(|n| !test.on_block(throughput(n))));
            let found = (0..10).position(|n| test.on_block(factor * throughput(n)));
            assert!(found.is_some(), "{factor}");
        }
    }
}
