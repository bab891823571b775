//! The scanners: a MiB of SSE cut in pieces of several lengths, and the long body of a request.

use std::hint::black_box;

use weir::wire::{BodyFormat, Dialect, RequestScanner, Route, StreamScanner, route};

use crate::{Heap, Unit};

pub const UNITS: &[Unit] = &[
    Unit { name: "sse_whole_events", per: "event", count: 2_000, heap: Heap::Untouched, run: whole_events },
    Unit { name: "sse_split_1", per: "MiB", count: 2, heap: Heap::Untouched, run: |n| sse(n, 1) },
    Unit { name: "sse_split_7", per: "MiB", count: 2, heap: Heap::Untouched, run: |n| sse(n, 7) },
    Unit { name: "sse_split_265", per: "MiB", count: 2, heap: Heap::Untouched, run: |n| sse(n, 265) },
    Unit { name: "sse_split_4096", per: "MiB", count: 2, heap: Heap::Untouched, run: |n| sse(n, 4_096) },
    Unit { name: "request_scan_100k", per: "body", count: 20, heap: Heap::Used, run: requests },
];

/// The event every unit streams, about 265 bytes.
pub fn event() -> &'static [u8] {
    EVENT
}

/// What an engine that keeps up sends: one event a read.
fn whole_events(events: u64) {
    let (mut scanner, mut tokens) = (StreamScanner::new(Dialect::OpenAiChat, BodyFormat::Sse), 0_u64);
    for _ in 0..events {
        scanner.feed(black_box(EVENT), |emission| tokens += u64::from(emission.tokens));
    }
    assert!(tokens == events, "{tokens} tokens were seen in {events} events");
}

fn sse(passes: u64, split: usize) {
    let text: Vec<u8> = EVENT.iter().copied().cycle().take(1024 * 1024 / EVENT.len() * EVENT.len()).collect();
    let (mut scanner, mut tokens) = (StreamScanner::new(Dialect::OpenAiChat, BodyFormat::Sse), 0_u64);
    for _ in 0..passes {
        for piece in text.chunks(split) {
            scanner.feed(black_box(piece), |emission| tokens += u64::from(emission.tokens));
        }
    }
    assert!(tokens > 0, "no token was seen");
    black_box(tokens);
}

/// A body of 100 KiB whose fields of interest are at both ends, in reads of 16 KiB.
fn requests(bodies: u64) {
    let Route::Inference(endpoint) = route(b"POST", b"/v1/chat/completions", b"") else { return };
    let prompt = "The river rises behind the weir. ".repeat(3_100);
    let body = format!(
        "{{\"model\":\"meta-llama/Llama-3.1-8B-Instruct\",\"messages\":[{{\"role\":\"user\",\"content\":\"{prompt}\"}}],\
         \"max_tokens\":256,\"stream\":true,\"stream_options\":{{\"include_usage\":true}}}}"
    );
    for _ in 0..bodies {
        let mut scanner = RequestScanner::new(endpoint);
        for piece in body.as_bytes().chunks(16 * 1024) {
            scanner.feed(black_box(piece));
        }
        let shape = scanner.finish();
        assert!(shape.stream && shape.max_output == Some(256), "the body was not understood");
        black_box(shape);
    }
}

const EVENT: &[u8] = b"data: {\"id\":\"chatcmpl-5d0c8a4f71e24b96\",\"object\":\"chat.completion.chunk\",\
\"created\":1764000000,\"model\":\"meta-llama/Llama-3.1-8B-Instruct\",\"choices\":[{\"index\":0,\"delta\":\
{\"content\":\" tok042\"},\"logprobs\":null,\"finish_reason\":null}],\"system_fingerprint\":\"fp_0000000001\"}\n\n";
