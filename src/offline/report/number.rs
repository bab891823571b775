//! Numbers for readers: three or four significant digits, with their unit.

/// Four significant digits at most, without trailing zeros: 13.68, 0.5425, 4100.
pub fn plain(value: f64) -> String {
    if !value.is_finite() {
        return "—".to_owned();
    }
    let size = value.abs();
    let decimals = match size {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 2,
        size if size >= 1.0 => 2,
        _ => 4,
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// With separators between thousands: 4,100.
pub fn whole(value: f64) -> String {
    if !value.is_finite() {
        return "—".to_owned();
    }
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    if value <= -0.5 { format!("-{text}") } else { text }
}

/// A time: 87.6 ms, 6.90 s, 12 min.
pub fn time(seconds: f64) -> String {
    if !seconds.is_finite() {
        return "—".to_owned();
    }
    match seconds {
        seconds if seconds < 0.01 => format!("{:.2} ms", 1e3 * seconds),
        seconds if seconds < 1.0 => format!("{:.1} ms", 1e3 * seconds),
        seconds if seconds < 10.0 => format!("{seconds:.2} s"),
        seconds if seconds < 120.0 => format!("{seconds:.1} s"),
        seconds if seconds < 7200.0 => format!("{:.0} min", seconds / 60.0),
        seconds => format!("{:.1} h", seconds / 3600.0),
    }
}

/// A time on an axis, as short as it can be: 50 ms, 2 s, 100 s.
pub fn time_tick(seconds: f64) -> String {
    if seconds < 1.0 { format!("{} ms", plain(1e3 * seconds)) } else { format!("{} s", plain(seconds)) }
}

/// A share: 8.9 %.
pub fn percent(share: f64) -> String {
    if !share.is_finite() {
        return "—".to_owned();
    }
    let percent = 100.0 * share;
    if percent.abs() >= 9.95 { format!("{percent:.0} %") } else { format!("{percent:.1} %") }
}

/// A factor: 78.8, 4.2, 130.
pub fn factor(value: f64) -> String {
    if !value.is_finite() {
        return "—".to_owned();
    }
    if value.abs() >= 99.95 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// Several loads: 12, 14 and so on, with commas.
pub fn list(values: &[f64]) -> String {
    values.iter().map(|value| plain(*value)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!([13.68, 9.11, 0.5425, 4100.0, 20.0].map(plain), ["13.68", "9.11", "0.5425", "4100", "20"]);
        assert_eq!([0.08758, 6.899, 17.9, 600.0].map(time), ["87.6 ms", "6.90 s", "17.9 s", "10 min"]);
        assert_eq!([4100.0, 1_234_567.0, 12.0].map(whole), ["4,100", "1,234,567", "12"]);
        assert_eq!((percent(0.0889), percent(0.5), factor(78.77)), ("8.9 %".into(), "50 %".into(), "78.8".into()));
    }

    #[test]
    fn nothing_is_shown_for_no_number() {
        assert!(
            [plain(f64::NAN), time(f64::INFINITY), percent(f64::NAN), whole(f64::NAN)].iter().all(|text| text == "—")
        );
    }
}
