//! W3C trace context: the `traceparent` field read and written.
//!
//! What cannot be read counts as absent, and then `tracestate` means nothing either (W3C Trace Context, 4.3). It holds no
//! ids of its own making and no decision whether a trace is recorded.

/// The caller's span in its trace: which trace, which span of it, and whether it is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace; not all zero.
    pub trace: [u8; 16],
    /// The span that what follows belongs under; not all zero.
    pub span: [u8; 8],
    /// Bit 0: recorded by the caller. Bit 1: the trace's id is random. Others are not passed on.
    pub flags: u8,
}

/// What becomes of a request's trace fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// They leave as they came: nothing is recorded here.
    Passed,
    /// There was no usable one: both fields are taken off, and a trace may begin here.
    Begun,
    /// The caller records: its `traceparent` is taken off, for one that names our span.
    Joined(TraceParent),
}

impl TraceParent {
    /// Reads the field's value. A later version is read as far as this one goes.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (known, rest) = value.split_at_checked(LENGTH)?;
        let [version] = hex(&known[..2])?;
        let dashes = [2, 35, 52].iter().all(|at| known[*at] == b'-');
        let fits = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.first().is_none_or(|b| *b == b'-'),
        };
        let [flags] = hex(&known[53..])?;
        let parent = Self { trace: hex(&known[3..35])?, span: hex(&known[36..52])?, flags: flags & KNOWN_FLAGS };
        let named = parent.trace != [0; 16] && parent.span != [0; 8];
        (dashes && fits && named).then_some(parent)
    }

    /// The caller records its part of the trace.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The field's value.
    pub fn text(&self) -> [u8; LENGTH] {
        let mut text = [b'-'; LENGTH];
        put_hex(&mut text[..2], &[0]);
        put_hex(&mut text[3..35], &self.trace);
        put_hex(&mut text[36..52], &self.span);
        put_hex(&mut text[53..], &[self.flags]);
        text
    }
}

impl Trace {
    /// For a request with `count` such fields, the first of which says `value`.
    pub(super) fn of(value: Option<&[u8]>, count: usize) -> Self {
        match value.filter(|_| count == 1).and_then(TraceParent::parse) {
            None => Self::Begun,
            Some(parent) if parent.is_sampled() => Self::Joined(parent),
            Some(_) => Self::Passed,
        }
    }
}

/// Lower-case digits only, as the standard wants them.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn put_hex(places: &mut [u8], bytes: &[u8]) {
    for (pair, byte) in places.chunks_exact_mut(2).zip(bytes) {
        pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
        pair[1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
}

/// Version, trace, span and flags in hexadecimal, with dashes between.
pub const LENGTH: usize = 55;
/// The caller records.
pub const SAMPLED: u8 = 1;
const KNOWN_FLAGS: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_is_read_is_written_again() {
        let parent = TraceParent::parse(GOOD.as_bytes()).unwrap();
        assert_eq!((parent.trace[0], parent.span[7], parent.flags), (0x4b, 0xb7, 1));
        assert_eq!(parent.text(), GOOD.as_bytes());
    }

    #[test]
    fn what_the_standard_calls_invalid_is_absent() {
        for bad in [
            "",
            "00",
            &GOOD[..54],
            &GOOD.to_uppercase(),
            &format!("{GOOD}0"),
            &format!("{GOOD}-extra"),
            &GOOD.replace("00-4b", "ff-4b"),
            &GOOD.replace("00-4b", "0g-4b"),
            &GOOD.replace("-01", "-0x"),
            &GOOD.replace("-01", "_01"),
            &GOOD.replace('-', "_"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            &format!("cc-{}extra", &GOOD[3..]),
        ] {
            assert_eq!(TraceParent::parse(bad.as_bytes()), None, "{bad}");
            assert_eq!(Trace::of(Some(bad.as_bytes()), 1), Trace::Begun, "{bad}");
        }
    }

    #[test]
    fn a_later_version_is_read_without_its_unknown_flags() {
        let parent = TraceParent::parse(GOOD.as_bytes()).unwrap();
        for later in ["cc-{}", "01-{}-what-may-come", "fe-{}-"] {
            assert_eq!(TraceParent::parse(later.replace("{}", &GOOD[3..]).as_bytes()), Some(parent), "{later}");
        }
        assert_eq!(TraceParent::parse(GOOD.replace("-01", "-ff").as_bytes()).unwrap().flags, 3);
    }

    #[test]
    fn an_unrecorded_parent_is_kept_and_two_parents_are_none() {
        let unsampled = GOOD.replace("-01", "-00");
        assert_eq!(Trace::of(Some(unsampled.as_bytes()), 1), Trace::Passed);
        assert!(matches!(Trace::of(Some(GOOD.as_bytes()), 1), Trace::Joined(_)));
        assert_eq!(Trace::of(Some(GOOD.as_bytes()), 2), Trace::Begun);
        assert_eq!(Trace::of(None, 0), Trace::Begun);
    }
}
