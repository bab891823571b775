//! Prometheus' text exposition, read line by line: a name, its labels, its value.
//!
//! A line that is not a sample is skipped, and the sample on the next line still counts. Only label values with escapes allocate.
//! Absent: families, types and timestamps; OpenMetrics' exemplars and `# EOF` are skipped.

use std::borrow::Cow;

/// One sample line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MetricSample<'a> {
    /// The name as written, suffix included.
    pub name: &'a str,
    pub labels: Labels<'a>,
    /// May be NaN or infinite, as the format allows.
    pub value: f64,
}

/// Labels of one sample, as well-formed text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Labels<'a>(&'a str);

/// A line of which only the name is parsed, so that other lines cost no more than their name.
#[derive(Clone, Copy, Debug)]
pub struct SeriesLine<'a> {
    /// The name as written.
    pub name: &'a str,
    rest: &'a str,
}

/// The lines of an exposition that begin with a name.
pub fn lines(body: &[u8]) -> impl Iterator<Item = SeriesLine<'_>> {
    body.split(|byte| *byte == b'\n').filter(|line| line.len() <= LONGEST_LINE).filter_map(SeriesLine::read)
}

impl<'a> SeriesLine<'a> {
    fn read(line: &'a [u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?.trim_matches([' ', '\t', '\r']);
        let length = line.bytes().position(|byte| !is_name_byte(byte)).unwrap_or(line.len());
        let (name, rest) = line.split_at(length);
        let begins = name.bytes().next().is_some_and(|first| !first.is_ascii_digit());
        begins.then_some(Self { name, rest })
    }

    /// The whole sample; `None` when what follows the name is not labels and a value.
    pub fn sample(self) -> Option<MetricSample<'a>> {
        let rest = self.rest.trim_start();
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(inside) => {
                let end = end_of_labels(inside)?;
                (&inside[..end], &inside[end + 1..])
            }
            // A name and its value are separated by a blank.
            None if rest.len() < self.rest.len() => ("", rest),
            None => return None,
        };
        let value = rest.split_whitespace().next()?.parse().ok()?;
        Some(MetricSample { name: self.name, labels: Labels(labels), value })
    }
}

impl<'a> Labels<'a> {
    /// The value of a label.
    pub fn get(&self, name: &str) -> Option<Cow<'a, str>> {
        let mut rest = self.0;
        while let Some((key, quoted)) = rest.split_once('"') {
            let end = end_of_string(quoted)?;
            if key.trim_matches([' ', '\t', ',', '=']) == name {
                return Some(unescaped(&quoted[..end]));
            }
            rest = &quoted[end + 1..];
        }
        None
    }
}

/// Index of the closing brace, outside of every string.
fn end_of_labels(inside: &str) -> Option<usize> {
    let mut at = 0;
    loop {
        let next = inside[at..].find(['"', '}'])? + at;
        if inside.as_bytes()[next] == b'}' {
            return Some(next);
        }
        at = next + 1;
        at += end_of_string(&inside[at..])? + 1;
    }
}

/// Index of the closing quote: the first one without a backslash before it.
fn end_of_string(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return text.into();
    }
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n') => plain.push('\n'),
                Some(other) => plain.push(other),
                None => {}
            },
            (other, false) => plain.push(other),
        }
    }
    plain.into()
}

/// Colons included: vLLM and SGLang write them.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':')
}

/// No known sample is longer; `# HELP` and label values of an engine's flags come to a few KiB.
const LONGEST_LINE: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Vec<MetricSample<'_>> {
        lines(text.as_bytes()).filter_map(SeriesLine::sample).collect()
    }

    fn one(text: &str) -> Option<(String, f64)> {
        read(text).first().map(|sample| (sample.name.to_owned(), sample.value))
    }

    #[test]
    fn a_sample_is_read_with_and_without_labels_and_timestamp() {
        for line in ["a:b 2.5", "a:b{} 2.5", "a:b{x=\"y\"} 2.5 1395066363000", "  a:b {x=\"y\",}\t2.5 # {t=\"1\"} 9\r"]
        {
            assert_eq!(one(line), Some(("a:b".into(), 2.5)), "{line}");
        }
        assert_eq!(one("a +Inf"), Some(("a".into(), f64::INFINITY)));
        assert!(one("a NaN").unwrap().1.is_nan());
    }

    #[test]
    fn what_is_no_sample_is_passed_over_and_the_next_line_counts() {
        for line in
            ["# TYPE a gauge", "", "a", "a{x=\"y\" 1", "a{x=\"y} 1", "a one", "9a 1", "{\"a\"} 1", "a\u{e9} 1", "a-b 1"]
        {
            assert_eq!(read(&format!("{line}\nb 1")).len(), 1, "{line}");
        }
        let long = format!("a{{x=\"{}\"}} 1\nb 1", "y".repeat(LONGEST_LINE));
        assert_eq!(read(&long).len(), 1);
        assert_eq!(lines(b"a\xff 1\nb 1").count(), 1);
    }

    #[test]
    fn label_values_may_hold_anything_quoted() {
        let sample = read(r#"a{x="1,y=\"2\"}",z="a\\",y="3\n4",w="}"} 5"#)[0];
        let get = |name| sample.labels.get(name).map(Cow::into_owned);
        assert_eq!(get("x").unwrap(), "1,y=\"2\"}");
        assert_eq!(get("y").unwrap(), "3\n4");
        assert_eq!((get("z").unwrap().as_str(), get("w").unwrap().as_str()), ("a\\", "}"));
        assert_eq!((get("v"), sample.value), (None, 5.0));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in prop::collection::vec(prop_oneof![
            Just(b'"'), Just(b'{'), Just(b'}'), Just(b'\\'), Just(b'\n'), Just(b'='), Just(b' '), Just(b'a'), any::<u8>()
        ], 0..200)) {
            for sample in lines(&body).filter_map(SeriesLine::sample) {
                let _ = sample.labels.get("a");
            }
        }
    }
}
