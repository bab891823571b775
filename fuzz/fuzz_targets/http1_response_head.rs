//! An answer's head: total, and what the client gets reads as the same answer.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weir::http1::{
    BodyKind, HeadEnd, OutFraming, Relay, Response, ResponseContext, Version, finish_response_head, response_head,
};

fuzz_target!(|data: &[u8]| {
    let [flags, bytes @ ..] = data else { return };
    let head_request = flags & 1 == 1;
    let client = if flags & 2 == 2 { Version::V10 } else { Version::V11 };
    let context = ResponseContext { head_request, client };
    let found = HeadEnd::new().find(bytes);
    let head = if let Ok(Some(n)) = found { &bytes[..n] } else { bytes };
    let mut out = Vec::new();
    let Ok(Response::Final(read)) = response_head(head, &context, &mut out) else { return };
    if !matches!(found, Ok(Some(_))) {
        return;
    }
    let framing = Relay::new(read.body, client).out_framing();
    finish_response_head(&mut out, framing, flags & 4 == 4, b"", &[("x-weir-backend", b"a")]);
    assert_eq!(HeadEnd::new().find(&out), Ok(Some(out.len())));
    // What weir adds may be the field too many for a second weir.
    let Ok(Response::Final(seen)) = response_head(&out, &context, &mut Vec::new()) else {
        assert!(out.windows(2).filter(|two| two == b"\r\n").count() > 100);
        return;
    };
    assert_eq!(seen.status, read.status);
    let expected = match framing {
        OutFraming::None => seen.body,
        OutFraming::Length(n) if matches!(read.body, BodyKind::None { .. }) => BodyKind::None { declared: Some(n) },
        OutFraming::Length(n) => BodyKind::Length(n),
        OutFraming::Chunked => BodyKind::Chunked,
        OutFraming::Close => BodyKind::UntilClose,
    };
    assert_eq!(seen.body, expected);
    assert_eq!(seen.content_type.map(|range| &out[range]), kept(head, read.content_type, &out));
});

/// A nominated Content-Type is read and not passed on; any other arrives as it was.
fn kept<'a>(head: &'a [u8], range: Option<std::ops::Range<usize>>, out: &[u8]) -> Option<&'a [u8]> {
    let passed = out.windows(13).any(|name| name.eq_ignore_ascii_case(b"content-type:"));
    range.map(|range| &head[range]).filter(|_| passed)
}
