//! weir's own HTTP/1.1: heads under a strict gate, bodies by a framing machine. Pure: bytes in, verdicts and bytes out.
//!
//! `HeadEnd` finds where a head ends and refuses what no head may contain; `request_head` and `response_head` read it
//! (field syntax by httparse, behind the gate) and write the head that goes out, in one pass; `Relay` carries an answer's
//! body into the client's framing, `ChunkedBody` takes a request's body out of its own. Payload is handed to a closure,
//! so nothing here learns what SSE is. There is no socket, no clock and no buffer that outlives a call.

mod chunk;
mod field;
mod gate;
mod relay;
mod request;
mod response;
mod trace;

pub use crate::vocabulary::bad_answer::BadAnswer;
pub use chunk::ChunkedBody;
pub use gate::{HeadEnd, Reject};
pub use relay::{Fed, OutFraming, Relay, Unfinished};
pub use request::{Method, Peer, RequestBody, RequestHead, Version, finish_request_head, request_head};
pub use response::{BodyKind, Response, ResponseContext, ResponseHead, finish_response_head, response_head};
pub use trace::{SAMPLED, Trace, TraceParent};

/// Appends `n` in decimal.
fn push_decimal(out: &mut Vec<u8>, mut n: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(n % 10).unwrap_or(0);
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends the field that names a span as the parent of what follows.
pub fn push_traceparent(out: &mut Vec<u8>, parent: &TraceParent) {
    push_field(out, b"traceparent", &parent.text());
}

/// Appends one field line.
fn push_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
