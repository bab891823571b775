//! A request head: the same verdict for every cut, and what leaves is a head that weir itself reads as the same request.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weir::http1::{HeadEnd, Peer, Reject, RequestBody, finish_request_head, request_head};

const BODY: u64 = 7;

fuzz_target!(|data: &[u8]| {
    let [cut, flags, bytes @ ..] = data else { return };
    let trusted = flags & 1 == 1;
    let whole = HeadEnd::new().find(bytes);
    assert_eq!(found_in_pieces(bytes, usize::from(*cut) + 1), whole.ok());
    let head = match whole {
        Ok(Some(n)) => &bytes[..n],
        // Totality holds for bytes that the gate would have stopped, too.
        Ok(None) | Err(_) => bytes,
    };
    let mut out = Vec::new();
    let Ok(read) = request_head(head, &peer(trusted, "1.1 weir-a"), |_, _| flags & 2 == 2, &mut out) else { return };
    if !matches!(whole, Ok(Some(_))) {
        return;
    }
    finish_request_head(&mut out, b"backend:1", None, read.needs_length().then_some(BODY));
    assert_eq!(HeadEnd::new().find(&out), Ok(Some(out.len())));
    let mut again = Vec::new();
    match request_head(&out, &peer(true, "1.1 weir-b"), |_, _| false, &mut again) {
        Ok(seen) => {
            assert_eq!(seen.method, read.method);
            assert_eq!(out[seen.target], head[read.target.clone()]);
            let framing = if read.needs_length() { RequestBody::Length(BODY) } else { RequestBody::None };
            assert_eq!(seen.body, framing);
            assert_eq!(seen.request_id.map(|id| &out[id]), read.request_id.map(|id| &head[id]));
        }
        // What weir adds may be the field too many for a second weir.
        Err(reject) => assert_eq!(reject, Reject::TooManyFields),
    }
});

fn peer(trusted: bool, via: &str) -> Peer<'_> {
    Peer { forwarded_for: "192.0.2.7", trusted, proto: "http", via, traced: trusted }
}

/// `None`: refused.
fn found_in_pieces(bytes: &[u8], step: usize) -> Option<Option<usize>> {
    let mut end = HeadEnd::new();
    let mut received = 0;
    while received < bytes.len() {
        received = bytes.len().min(received + step);
        match end.find(&bytes[..received]) {
            Ok(None) => {}
            decided => return decided.ok(),
        }
    }
    Some(None)
}
