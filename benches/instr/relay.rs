//! The body of a streamed answer through the framing machine: chunks whole, and with every size line cut by a read.

use std::hint::black_box;

use weir::http1::{BodyKind, Relay, Version};

use crate::{Heap, Unit};

pub const UNITS: &[Unit] = &[
    Unit { name: "relay_whole_chunks", per: "chunk", count: 2_000, heap: Heap::Untouched, run: whole },
    Unit { name: "relay_cut_size_lines", per: "chunk", count: 2_000, heap: Heap::Untouched, run: cut },
];

fn whole(chunks: u64) {
    let chunk = chunk();
    feed((0..chunks).map(|_| chunk.as_slice()));
}

/// Reads as long as chunks, but each ends behind the first digit of the next size line.
fn cut(chunks: u64) {
    let chunk = chunk();
    let shifted = [&chunk[1..], &chunk[..1]].concat();
    feed(std::iter::once(&chunk[..1]).chain((0..chunks).map(|_| shifted.as_slice())));
}

fn feed<'a>(reads: impl Iterator<Item = &'a [u8]>) {
    let (mut relay, mut scratch) = (Relay::new(BodyKind::Chunked, Version::V11), Vec::with_capacity(16 * 1024));
    let (mut payload, mut sent) = (0, 0);
    for read in reads {
        let fed = relay.feed(black_box(read), &mut scratch, |bytes| payload += bytes.len());
        sent += fed.map_or(0, |fed| fed.out.len());
    }
    assert!(sent > 0 && payload > 0, "the relay passed nothing on");
    black_box((sent, payload));
}

/// One chunk of the size of an engine's event.
fn chunk() -> Vec<u8> {
    let event = crate::wire::event();
    [format!("{:x}\r\n", event.len()).as_bytes(), event, b"\r\n"].concat()
}
