//! An answer through the stream scanner, in any dialect and framing: the same reading and the same emissions however it is
//! cut, and a reading that does not contradict itself.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weir::wire::{BodyFormat, Dialect, StreamReading, StreamScanner};

fuzz_target!(|data: &[u8]| {
    let [kind, prompts, step, cuts, rest @ ..] = data else { return };
    let (cuts, bytes) = rest.split_at(usize::from(cuts % 8).min(rest.len()));
    let scanner = || {
        let scanner = StreamScanner::new(
            Dialect::ALL[usize::from(kind % 16) % Dialect::COUNT],
            FORMATS[usize::from(kind >> 4) % 8],
        );
        if prompts % 4 == 0 { scanner } else { scanner.with_prompts(u32::from(prompts % 4)) }
    };
    let whole = read(scanner(), std::iter::once(bytes));
    assert_eq!(read(scanner(), pieces(bytes, cuts)), whole, "cut at chosen places");
    assert_eq!(read(scanner(), bytes.chunks(usize::from(step % 16) + 1)), whole, "cut evenly");

    let (reading, tokens) = whole;
    assert_eq!(reading.content_events, tokens.len() as u64);
    assert_eq!(reading.counted_tokens, tokens.iter().map(|n| u64::from(*n)).sum::<u64>());
    assert!(tokens.iter().all(|n| (1..=1 << 16).contains(n)));
    let usage = reading.usage.unwrap_or_default();
    assert!([usage.input, usage.output, usage.cached].into_iter().flatten().all(|n| n <= 1 << 24));
    assert!(usage.output.is_none_or(|n| n >= reading.content_events));
});

fn read<'a>(mut scanner: StreamScanner, pieces: impl Iterator<Item = &'a [u8]>) -> (StreamReading, Vec<u32>) {
    let (mut tokens, mut terminated) = (Vec::new(), false);
    for piece in pieces {
        scanner.feed(piece, |emission| tokens.push(emission.tokens));
        assert!(!terminated || scanner.has_terminated(), "a terminator is not taken back");
        terminated = scanner.has_terminated();
    }
    let boundary = scanner.at_event_boundary();
    scanner.finish(|emission| tokens.push(emission.tokens));
    (StreamReading { at_event_boundary: boundary, ..scanner.reading() }, tokens)
}

/// `bytes` in pieces: each of `cuts` is the length of one, a long one if it is large.
fn pieces<'a>(bytes: &'a [u8], cuts: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = bytes;
    let lengths = cuts.iter().map(|cut| if *cut < 128 { usize::from(*cut) } else { usize::from(*cut - 127) * 16 });
    lengths.chain([usize::MAX]).map(move |length| {
        let (piece, after) = rest.split_at(length.min(rest.len()));
        rest = after;
        piece
    })
}

const FORMATS: [BodyFormat; 8] = [
    BodyFormat::Sse,
    BodyFormat::Sse,
    BodyFormat::Sse,
    BodyFormat::Sse,
    BodyFormat::Ndjson,
    BodyFormat::Ndjson,
    BodyFormat::Json,
    BodyFormat::Opaque,
];
