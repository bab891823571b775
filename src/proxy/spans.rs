//! The spans of a request: which trace it belongs to, and whether that trace is recorded.
//!
//! Decided with the head, because the head sent to the backend names weir's span. It sends no span.

use crate::http1::{SAMPLED, Trace, TraceParent, push_traceparent};
use crate::measure::SpanIds;

/// Which of the traces that begin here are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    below: u64,
}

impl Sampling {
    /// A share of them, 0 to 1. The same share decides the same for the same trace, in every process.
    pub fn share(share: f64) -> Self {
        // The lower 56 bits of an id are random (Trace Context, level 2), and a double holds 53 of them.
        Self { below: (share.clamp(0.0, 1.0) * (1_u64 << RANDOM_BITS) as f64) as u64 }
    }

    fn takes(self, trace: &[u8; 16]) -> bool {
        let low = trace[8..].iter().fold(0_u64, |low, byte| low << 8 | u64::from(*byte));
        (low & ((1 << RANDOM_BITS) - 1)) < self.below
    }
}

/// The spans of a request whose trace fields were `trace`; the head so far in `out` gets the field that names the parent.
pub(super) fn begin(sampling: Sampling, trace: Trace, out: &mut Vec<u8>) -> Option<Box<SpanIds>> {
    let (trace, parent, flags) = match trace {
        Trace::Passed => return None,
        Trace::Joined(parent) => (parent.trace, Some(parent.span), parent.flags),
        Trace::Begun => {
            let trace = some(rand::random::<[u8; 16]>());
            (trace, None, if sampling.takes(&trace) { SAMPLED } else { 0 })
        }
    };
    let ids = SpanIds { trace, parent, server: some(rand::random()), upstream: some(rand::random()), flags };
    push_traceparent(out, &TraceParent { trace, span: ids.upstream, flags });
    (flags & SAMPLED != 0).then(|| Box::new(ids))
}

/// An id of zeros means none.
fn some<const N: usize>(mut id: [u8; N]) -> [u8; N] {
    if id == [0; N] {
        id[N - 1] = 1;
    }
    id
}

const RANDOM_BITS: u32 = 56;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_traces_is_taken_and_always_the_same_ones() {
        let mut taken = 0;
        for n in 0..10_000_u64 {
            let mut trace = [7; 16];
            trace[8..].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
            let quarter = Sampling::share(0.25).takes(&trace);
            taken += u32::from(quarter);
            assert!(Sampling::share(1.0).takes(&trace) && !Sampling::share(0.0).takes(&trace));
            assert!(!quarter || Sampling::share(0.5).takes(&trace), "a larger share holds the smaller one");
        }
        assert!((2_300..2_700).contains(&taken), "{taken}");
    }

    #[test]
    fn a_trace_continues_and_an_unrecorded_one_has_an_id() {
        let parent = TraceParent { trace: [3; 16], span: [4; 8], flags: SAMPLED };
        let mut out = Vec::new();
        let ids = begin(Sampling::share(0.0), Trace::Joined(parent), &mut out).unwrap();
        assert_eq!((ids.trace, ids.parent), ([3; 16], Some([4; 8])), "its own flag decides");
        let field = String::from_utf8(std::mem::take(&mut out)).unwrap();
        let sent = TraceParent::parse(field.trim_end().strip_prefix("traceparent: ").unwrap().as_bytes()).unwrap();
        assert_eq!(sent, TraceParent { span: ids.upstream, ..parent });
        assert_ne!(ids.upstream, ids.server);
        assert_eq!(begin(Sampling::share(0.0), Trace::Begun, &mut out), None);
        assert!(String::from_utf8(std::mem::take(&mut out)).unwrap().ends_with("-00\r\n"));
        assert_eq!(begin(Sampling::share(1.0), Trace::Passed, &mut out), None);
        assert!(out.is_empty(), "an unrecorded one gets no field");
    }
}
