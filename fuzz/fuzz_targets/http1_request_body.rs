//! A chunked request body: the same payload, end and verdict for every cut, and nothing is read beyond the end.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weir::http1::{ChunkedBody, Reject};

fuzz_target!(|data: &[u8]| {
    let [first, step, bytes @ ..] = data else { return };
    let whole = read(bytes, bytes.len().max(1), usize::MAX);
    let pieces = read(bytes, usize::from(*first), usize::from(*step) + 1);
    assert_eq!(pieces, whole);
    if let Ok((_, used, ended)) = whole {
        assert!(ended || used == bytes.len());
        assert_eq!(read(&bytes[..used], used.max(1), usize::MAX).map(|again| again.2), Ok(ended));
    }
});

fn read(bytes: &[u8], first: usize, step: usize) -> Result<(Vec<u8>, usize, bool), Reject> {
    let (mut body, mut payload, mut used) = (ChunkedBody::default(), Vec::new(), 0);
    let (head, rest) = bytes.split_at(first.min(bytes.len()));
    for piece in std::iter::once(head).chain(rest.chunks(step)) {
        used += body.feed(piece, |part| payload.extend_from_slice(part))?;
    }
    Ok((payload, used, body.ended()))
}
