//! An answer's body through the relay: the same verdict for every cut, and the client's payload is a prefix of the
//! engine's, complete exactly when the engine's framing was.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weir::http1::{BodyKind, ChunkedBody, OutFraming, Relay, Version};

fuzz_target!(|data: &[u8]| {
    let [flags, first, step, bytes @ ..] = data else { return };
    let kind = match flags & 3 {
        0 | 1 => BodyKind::Chunked,
        2 => BodyKind::UntilClose,
        _ => BodyKind::Length(u64::from(flags >> 4) * 3),
    };
    let client = if flags & 4 == 4 { Version::V10 } else { Version::V11 };
    let whole = relay(kind, client, bytes, bytes.len(), usize::MAX);
    let pieces = relay(kind, client, bytes, usize::from(*first), usize::from(*step) + 1);
    assert_eq!(pieces.broken, whole.broken);
    assert_eq!(pieces.ended, whole.ended);
    if whole.broken {
        assert!(whole.out.is_empty(), "a read with an error forwards nothing of itself");
    } else {
        assert_eq!(pieces.payload, whole.payload);
    }
    for ran in [&pieces, &whole] {
        let (received, complete) = ran.received();
        assert!(ran.payload.starts_with(&received));
        assert!(ran.broken || received.len() == ran.payload.len());
        assert_eq!(complete, ran.ended && !ran.broken);
    }
});

struct Ran {
    framing: OutFraming,
    out: Vec<u8>,
    payload: Vec<u8>,
    ended: bool,
    broken: bool,
}

fn relay(kind: BodyKind, client: Version, bytes: &[u8], first: usize, step: usize) -> Ran {
    let (mut relay, mut scratch) = (Relay::new(kind, client), Vec::new());
    let mut ran =
        Ran { framing: relay.out_framing(), out: Vec::new(), payload: Vec::new(), ended: false, broken: false };
    let (head, rest) = bytes.split_at(first.min(bytes.len()));
    for piece in std::iter::once(head).chain(rest.chunks(step)) {
        match relay.feed(piece, &mut scratch, |part| ran.payload.extend_from_slice(part)) {
            Ok(fed) => ran.out.extend_from_slice(fed.out),
            Err(_) => {
                ran.broken = true;
                return ran;
            }
        }
    }
    if kind == BodyKind::UntilClose {
        ran.out.extend_from_slice(relay.closed(&mut scratch).expect("a close completes this body"));
    }
    ran.ended = relay.ended();
    ran
}

impl Ran {
    /// What a strict client makes of the bytes that left, and whether it takes them for a whole body.
    fn received(&self) -> (Vec<u8>, bool) {
        match self.framing {
            OutFraming::Chunked => {
                let (mut body, mut payload) = (ChunkedBody::default(), Vec::new());
                let used = body.feed(&self.out, |part| payload.extend_from_slice(part));
                assert_eq!(used, Ok(self.out.len()), "what leaves is a valid coding");
                (payload, body.ended())
            }
            OutFraming::Length(n) => (self.out.clone(), self.out.len() as u64 == n),
            OutFraming::None | OutFraming::Close => (self.out.clone(), self.ended && !self.broken),
        }
    }
}
