//! The messages the bench sends and checks: the streamed event with its stamp and index, the unary answer, the request.
//! One file for both ends, so that the client expects what the backend sends. Holds no socket.

use std::io::Write;
use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One streamed event inside one HTTP chunk, ready to be stamped and sent again and again.
#[derive(Debug)]
pub struct EventChunk {
    bytes: Vec<u8>,
    stamp: Range<usize>,
    index: Range<usize>,
}

impl EventChunk {
    /// An event of about 265 bytes, as an OpenAI-compatible engine writes it.
    pub fn new() -> Self {
        let event = format!(
            "data: {{\"id\":\"chatcmpl-5d0c8a4f71e24b96\",\"object\":\"chat.completion.chunk\",{STAMP_KEY}{:0w$},\
             \"model\":\"meta-llama/Llama-3.1-8B-Instruct\",\"choices\":[{{\"index\":0,\"delta\":{{{INDEX_KEY}{:0i$}\"}},\
             \"logprobs\":null,\"finish_reason\":null}}]}}\n\n",
            0,
            0,
            w = STAMP_WIDTH,
            i = INDEX_WIDTH,
        );
        let bytes = format!("{:x}\r\n{event}\r\n", event.len()).into_bytes();
        let after = |key: &str| memchr::memmem::find(&bytes, key.as_bytes()).map_or(0, |at| at + key.len());
        let (stamp, index) = (after(STAMP_KEY), after(INDEX_KEY));
        EventChunk { stamp: stamp..stamp + STAMP_WIDTH, index: index..index + INDEX_WIDTH, bytes }
    }

    /// The chunk for event number `index`, stamped with the present.
    pub fn stamped(&mut self, index: u64) -> &[u8] {
        put_digits(&mut self.bytes[self.stamp.clone()], wall_nanos());
        put_digits(&mut self.bytes[self.index.clone()], index % INDEX_MODULUS);
        &self.bytes
    }
}

/// What the client reads off one event of a stream, without the blank line that ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A content event: when the backend stamped it, and its number modulo 1,000.
    Content { stamp: u64, index: u64 },
    /// The event that ends the stream.
    Done,
    /// Anything else: an error event, a damaged one.
    Strange,
}

impl Event {
    /// Reads `line`.
    pub fn read(line: &[u8]) -> Event {
        if line == b"data: [DONE]" {
            return Event::Done;
        }
        let number = |key: &str, width: usize| {
            let at = memchr::memmem::find(line, key.as_bytes())? + key.len();
            std::str::from_utf8(line.get(at..at + width)?).ok()?.parse().ok()
        };
        match (
            number(STAMP_KEY, STAMP_WIDTH),
            number(INDEX_KEY, INDEX_WIDTH),
            line.ends_with(b"\"finish_reason\":null}]}"),
        ) {
            (Some(stamp), Some(index), true) => Event::Content { stamp, index },
            _ => Event::Strange,
        }
    }

    /// The index a stream's event number `n` carries.
    pub fn index_of(n: u64) -> u64 {
        n % INDEX_MODULUS
    }
}

/// The request: small unless `prompt` is long.
pub fn request(stream: bool, max_tokens: u64, prompt: &str) -> Vec<u8> {
    let body = format!(
        "{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":\"{prompt}\"}}],\
         \"max_tokens\":{max_tokens},\"temperature\":0.7,\"top_p\":0.95,\"stream\":{stream}}}"
    );
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: weir-bench/1\r\nAccept: */*\r\n\
         Authorization: Bearer sk-bench-0000000000000000\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The unary answer, head and body, into `out`: a JSON body of [`UNARY_BODY`] bytes.
pub fn unary_answer(out: &mut Vec<u8>) {
    let body = format!(
        "{{\"id\":\"chatcmpl-5d0c8a4f71e24b96\",\"object\":\"chat.completion\",{STAMP_KEY}{:0w$},\"model\":\"m\",\"choices\":\
         [{{\"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"Water passes over the crest.\"}},\"finish_reason\":\
         \"stop\"}}],\"usage\":{{\"prompt_tokens\":9,\"completion_tokens\":7,\"total_tokens\":16}}}}",
        wall_nanos(),
        w = STAMP_WIDTH,
    );
    // Writing to a Vec cannot fail.
    let _ = write!(out, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {UNARY_BODY}\r\n\r\n");
    out.extend_from_slice(body.as_bytes());
    out.extend(std::iter::repeat_n(b' ', UNARY_BODY.saturating_sub(body.len())));
}

/// Nanoseconds of the machine's wall clock. Backend and client are two processes of one machine, and std lets no
/// monotonic reading cross a process border; a clock that steps during a run shows as an event from the future, which the
/// client counts.
pub fn wall_nanos() -> u64 {
    let now: Duration = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

fn put_digits(place: &mut [u8], mut value: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
}

/// Bytes of the unary answer's body.
pub const UNARY_BODY: usize = 300;

/// The last chunk of a stream with its event, and the terminator.
pub const STREAM_END: &[u8] = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";

/// The head of a streamed answer.
pub const STREAM_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";

const STAMP_KEY: &str = "\"created\":";
const STAMP_WIDTH: usize = 20;
const INDEX_KEY: &str = "\"content\":\" tok";
const INDEX_WIDTH: usize = 3;
const INDEX_MODULUS: u64 = 1_000;
