//! Which rates to run around a capacity, and with how many requests.

use super::round::tidy;

/// Evenly spaced round rates from about a third of a capacity to at least 1.4 times it.
pub fn ladder(capacity: f64) -> Vec<f64> {
    if !(capacity.is_finite() && capacity > 0.0) {
        return Vec::new();
    }
    let step = step(FIRST * capacity);
    let steps = (HIGHEST * capacity / step).ceil().clamp(4.0, 8.0) as u32;
    (1..=steps).map(|number| tidy(step * f64::from(number))).collect()
}

/// N with N / (N/R + tail) = (1 − share) R.
pub fn requests_for(tail: f64, rate: f64, share: f64) -> f64 {
    (tail.max(0.0) * rate * (1.0 - share) / share).ceil()
}

/// 1, 2, 2.5, 4, 5 or 10 times a power of ten, the nearest in proportion.
fn step(wanted: f64) -> f64 {
    let power = 10_f64.powf(wanted.log10().floor());
    let far = |step: &f64| (step / wanted).ln().abs();
    let steps = [1.0, 2.0, 2.5, 4.0, 5.0, 10.0].map(|digit| digit * power);
    tidy(steps.into_iter().min_by(|left, right| far(left).total_cmp(&far(right))).unwrap_or(wanted))
}

/// The lowest level lies near this share of the ideal capacity, the highest at or beyond the other.
const FIRST: f64 = 0.365;
const HIGHEST: f64 = 1.4;
