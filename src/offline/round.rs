//! Round numbers for load levels.

/// The nearest number with a round mantissa: 1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6 or 8.
pub fn nice(value: f64) -> f64 {
    if !(value.is_finite() && value > 0.0) {
        return value;
    }
    let power = 10_f64.powf(value.log10().floor());
    let far = |digit: &f64| (digit * power - value).abs();
    let digit = DIGITS.into_iter().min_by(|left, right| far(left).total_cmp(&far(right))).unwrap_or(1.0);
    tidy(digit * power)
}

/// About `count` round numbers between two, without the ends.
pub fn nice_between(low: f64, high: f64, count: u32) -> Vec<f64> {
    let gap = (high - low) / f64::from(count + 1);
    if !(gap.is_finite() && gap > 0.0) {
        return Vec::new();
    }
    let power = 10_f64.powf(gap.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .map(|digit| digit * power)
        .into_iter()
        .rfind(|step| *step <= gap * 1.001)
        .unwrap_or(gap);
    let mut values: Vec<f64> =
        (1..=count).map(|number| tidy(((low + gap * f64::from(number)) / step).round() * step)).collect();
    values.dedup();
    values.retain(|value| *value > low && *value < high);
    values
}

/// Without the rounding errors of binary fractions.
pub fn tidy(value: f64) -> f64 {
    format!("{value:.9e}").parse().unwrap_or(value)
}

const DIGITS: [f64; 11] = [1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_round() {
        assert_eq!([0.37, 13.7, 41.0, 96.0, 1240.0].map(nice), [0.4, 15.0, 40.0, 100.0, 1200.0]);
    }

    #[test]
    fn an_interval_is_cut_at_round_numbers() {
        assert_eq!(nice_between(10.0, 20.0, 3), [12.5, 15.0, 17.5]);
        assert_eq!(nice_between(92.19, 122.59, 3), [100.0, 105.0, 115.0]);
        assert!(nice_between(4.0, 4.0, 3).is_empty());
    }
}
