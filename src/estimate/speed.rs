//! Separates "the engine became slower" from "there is more traffic", at any load, before requests queue.
//!
//! A two-sided CUSUM on the time of a row against the time that its work should take. The residual's scale is estimated from the
//! same rows, with outliers clipped, so that a slow-down does not raise the scale to its own size. A row unlike all before it is
//! predicted less well, and its residual counts for less (it is studentised by the row's leverage).

use super::costs::Solution;
use super::steps::WorkInterval;

/// The engine's own speed changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SpeedChange {
    Slower,
    Faster,
}

/// The sequential test.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SpeedTest {
    /// 1.25 times the mean absolute residual: the standard deviation of a normal distribution.
    scale: f64,
    rows: u32,
    slower: f64,
    faster: f64,
}

impl SpeedTest {
    /// Tests a row against the costs known before it.
    pub fn on_row(&mut self, row: &WorkInterval, known: &Solution) -> Option<SpeedChange> {
        let predicted = known.predicted(row);
        // Over the smaller of the two: a slow-down by x and a speed-up by x count alike.
        let relative = (row.time - predicted) / row.time.min(predicted.max(1e-9));
        let residual = relative / (1.0 + known.leverage(row)).sqrt();
        let scale = self.scale.max(SMALLEST_SCALE);
        let z = (residual / scale).clamp(-CLIP, CLIP);
        self.slower = (self.slower + z - DRIFT).max(0.0);
        self.faster = (self.faster - z - DRIFT).max(0.0);
        self.learn(residual.abs(), scale);
        let change = match (self.slower > THRESHOLD, self.faster > THRESHOLD) {
            (true, _) => SpeedChange::Slower,
            (_, true) => SpeedChange::Faster,
            _ => return None,
        };
        (self.slower, self.faster) = (0.0, 0.0);
        Some(change)
    }

    fn learn(&mut self, residual: f64, scale: f64) {
        self.rows = self.rows.saturating_add(1);
        // The plain mean of the first rows: one outlier must not set the scale.
        let gain = (1.0 / f64::from(self.rows)).max(GAIN);
        let residual = if self.rows == 1 { residual } else { residual.min(3.0 * scale) };
        self.scale += gain * (1.25 * residual - self.scale);
    }
}

/// No row is assumed to be predicted to better than 3 %.
const SMALLEST_SCALE: f64 = 0.03;
/// One row alone moves the sum by no more than this many deviations.
const CLIP: f64 = 6.0;
/// Half of the shift that the test looks for, in deviations.
const DRIFT: f64 = 1.0;
/// For normal residuals one false alarm in about e^(2*12) rows.
const THRESHOLD: f64 = 12.0;
const GAIN: f64 = 0.03;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimate::costs::Costs;

    fn row(n: u32, slowness: f64) -> WorkInterval {
        let steps = f64::from(40 + n * 7 % 31);
        let noise = 1.0 + 0.04 * (f64::from(n * 7919 % 200) / 100.0 - 1.0);
        WorkInterval { time: 0.02 * steps * slowness * noise, steps, ..WorkInterval::default() }
    }

    fn known() -> Solution {
        let mut costs = Costs::default();
        (0..100).for_each(|n| costs.add(&row(n, 1.0)));
        *costs.solution().unwrap()
    }

    #[test]
    fn an_engine_at_its_usual_speed_never_alarms() {
        let (known, mut test) = (known(), SpeedTest::default());
        assert!((0..20_000).all(|n| test.on_row(&row(n, 1.0), &known).is_none()));
    }

    #[test]
    fn forty_percent_less_capacity_is_found_within_five_rows() {
        let (known, mut test) = (known(), SpeedTest::default());
        assert!((0..50).all(|n| test.on_row(&row(n, 1.0), &known).is_none()));
        let found = (0..5).find_map(|n| test.on_row(&row(n, 1.0 / 0.6), &known));
        assert_eq!(found, Some(SpeedChange::Slower));
    }

    #[test]
    fn a_faster_engine_is_found() {
        let (known, mut test) = (known(), SpeedTest::default());
        assert!((0..50).all(|n| test.on_row(&row(n, 1.0), &known).is_none()));
        let found = (0..8).find_map(|n| test.on_row(&row(n, 0.6), &known));
        assert_eq!(found, Some(SpeedChange::Faster));
    }

    #[test]
    fn one_row_alone_never_alarms() {
        let (known, mut test) = (known(), SpeedTest::default());
        (0..20).for_each(|n| assert_eq!(test.on_row(&row(n, 1.0), &known), None));
        assert_eq!(test.on_row(&row(3, 100.0), &known), None);
    }
}
