//! Numbers and times as the screen shows them. What is not known is a dash or is said in words, never 0.

/// A rate: three digits that matter, no more. The bounds are where rounding would add one.
pub fn number(value: Option<f64>) -> String {
    match value {
        Some(value) if value.abs() >= 10_000.0 => format!("{:.1}k", value / 1e3),
        Some(value) if value.abs() >= 99.95 || value == 0.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 9.995 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
        None => DASH.to_owned(),
    }
}

/// Seconds, in the unit that fits.
pub fn seconds(value: Option<f64>) -> String {
    match value {
        Some(value) if value < 0.1 => format!("{:.1} ms", value * 1e3),
        Some(value) if value < 1.0 => format!("{:.0} ms", value * 1e3),
        Some(value) if value < 10.0 => format!("{value:.2} s"),
        Some(value) if value < 100.0 => format!("{value:.1} s"),
        Some(value) => span(value),
        None => DASH.to_owned(),
    }
}

/// A long time: the two largest units.
pub fn span(value: f64) -> String {
    let whole = value.max(0.0) as u64;
    let units = [("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1)];
    match units.into_iter().find(|(_, size, ..)| whole >= *size) {
        Some((unit, size, next, small)) => format!("{} {unit} {} {next}", whole / size, whole % size / small),
        None => format!("{whole} s"),
    }
}

/// A share as whole percent.
pub fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| DASH.to_owned(), |share| format!("{:.0} %", share * 100.0))
}

const DASH: &str = "-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_is_a_dash_and_nothing_is_a_nought() {
        assert_eq!([number(None), seconds(None), percent(None)], ["-", "-", "-"]);
        assert_eq!([number(Some(0.0)), percent(Some(0.0))], ["0", "0 %"]);
    }

    #[test]
    fn numbers_and_times_keep_three_digits() {
        assert_eq!(
            [0.123, 9.999, 12.34, 99.99, 1973.0, 21_400.0].map(|n| number(Some(n))),
            ["0.12", "10.0", "12.3", "100", "1973", "21.4k"]
        );
        assert_eq!([0.0198, 0.25, 1.94, 20.0].map(|s| seconds(Some(s))), ["19.8 ms", "250 ms", "1.94 s", "20.0 s"]);
        assert_eq!([59.9, 60.0, 3_725.0, 90_000.0].map(span), ["59 s", "1 min 0 s", "1 h 2 min", "1 d 1 h"]);
    }
}
