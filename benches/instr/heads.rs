//! Heads: a request as an OpenAI client library sends it, and an engine's answer, each from found to written.

use std::hint::black_box;

use weir::http1::{
    HeadEnd, OutFraming, Peer, Response, ResponseContext, Version, finish_request_head, finish_response_head,
    request_head, response_head,
};

use crate::{Heap, Unit};

pub const UNITS: &[Unit] = &[
    Unit { name: "request_head", per: "request", count: 2_000, heap: Heap::Untouched, run: request },
    Unit { name: "response_head", per: "answer", count: 2_000, heap: Heap::Untouched, run: response },
];

fn request(requests: u64) {
    let peer = Peer { forwarded_for: "127.0.0.1", trusted: false, proto: "http", via: "1.1 weir-bench", traced: false };
    let mut out = Vec::with_capacity(4_096);
    for _ in 0..requests {
        out.clear();
        let received = black_box(REQUEST);
        let end = HeadEnd::new().find(received).ok().flatten().unwrap_or(0);
        let read = request_head(&received[..end], &peer, |_, _| true, &mut out);
        assert!(read.is_ok(), "the gate refused a typical head");
        finish_request_head(&mut out, b"127.0.0.1:8200", Some(b"01928c4e7d2f4a6b"), Some(160));
        black_box(&out);
    }
}

fn response(answers: u64) {
    let context = ResponseContext { head_request: false, client: Version::V11 };
    let mut out = Vec::with_capacity(4_096);
    for _ in 0..answers {
        out.clear();
        let read = response_head(black_box(RESPONSE), &context, &mut out);
        assert!(matches!(read, Ok(Response::Final(_))), "a typical answer was not understood");
        finish_response_head(&mut out, OutFraming::Chunked, false, b"", &[("x-weir-backend", b"gpu-0")]);
        black_box(&out);
    }
}

const REQUEST: &[u8] = b"POST /v1/chat/completions HTTP/1.1\r\n\
Host: proxy.example:8000\r\n\
Accept-Encoding: gzip, deflate\r\n\
Connection: keep-alive\r\n\
Accept: application/json\r\n\
Content-Type: application/json\r\n\
User-Agent: OpenAI/Python 1.109.1\r\n\
X-Stainless-Lang: python\r\n\
X-Stainless-Package-Version: 1.109.1\r\n\
X-Stainless-OS: Linux\r\n\
X-Stainless-Arch: x64\r\n\
X-Stainless-Runtime: CPython\r\n\
X-Stainless-Runtime-Version: 3.12.3\r\n\
Authorization: Bearer sk-bench-0000000000000000000000000000000000000000\r\n\
X-Stainless-Async: false\r\n\
x-stainless-retry-count: 0\r\n\
x-stainless-read-timeout: 600\r\n\
Content-Length: 160\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
date: Tue, 24 Nov 2026 04:14:00 GMT\r\n\
server: uvicorn\r\n\
cache-control: no-cache\r\n\
content-type: text/event-stream; charset=utf-8\r\n\
transfer-encoding: chunked\r\n\r\n";
