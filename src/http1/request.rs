//! The request head: what it must be, and the one that leaves for the backend.
//!
//! Syntax is httparse's (behind the gate, no leniency); the rules on top are those that keep every server behind us from
//! seeing another request than we do: one Host, one framing, no field that a neighbour could remove or invent.

use std::ops::Range;

use super::field::{BadNomination, Claim, FieldKind, Nominated, content_length, is_token_char, kind};
use super::gate::Reject;
use super::trace::Trace;
use super::{push_decimal, push_field};

/// The methods that are passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
}

/// The client's HTTP version. What leaves is always HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: no chunked coding, no interim answers, one request a connection.
    V10,
    /// HTTP/1.1.
    V11,
}

/// Where the request's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestBody {
    /// Neither Content-Length nor Transfer-Encoding.
    None,
    /// A body of that many bytes.
    Length(u64),
    /// As `ChunkedBody` finds.
    Chunked,
}

/// A valid request head. Ranges point into the head's bytes.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// One of those that are passed on.
    pub method: Method,
    /// The target in origin form, as received.
    pub target: Range<usize>,
    /// What the client speaks.
    pub version: Version,
    /// Where the body ends.
    pub body: RequestBody,
    /// `Expect: 100-continue`: the client waits for an interim answer before it sends the body.
    pub expect_continue: bool,
    /// The connection may carry another request.
    pub keep_alive: bool,
    /// The Host field, or the authority of an absolute target that came without one.
    pub host: Option<Range<usize>>,
    /// A valid `x-request-id`.
    pub request_id: Option<Range<usize>>,
    /// What became of the trace fields.
    pub trace: Trace,
    /// As received; passed on unless nominated.
    pub content_type: Option<Range<usize>>,
    /// What a trusted peer claims, by any of the field's names; the first one counts. Always `None` from anybody else.
    pub priority: Option<Range<usize>>,
    /// See `priority`.
    pub tenant: Option<Range<usize>>,
    /// See `priority`; milliseconds as text, not yet parsed.
    pub slo_ttft: Option<Range<usize>>,
}

/// Who is at the other end of the connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// The socket's address, as text.
    pub forwarded_for: &'a str,
    /// What this peer says of others, and of priorities, is believed.
    pub trusted: bool,
    /// `http` or `https`.
    pub proto: &'static str,
    /// This process's element of a `Via` field, as in `1.1 weir-id`; its second word is what a loop is known by.
    pub via: &'a str,
    /// Spans of measured requests are recorded, so that their trace goes on from ours.
    pub traced: bool,
}

/// Reads a head and writes into `out` the head that leaves: request line and kept fields in the order received, then who
/// forwarded it. Host, request id and framing are added by `finish_request_head`, when the backend is known.
///
/// `measured` is asked with method and target whether the answer will be read: then it must not be compressed.
///
/// # Errors
/// The first rule that the head breaks; `out` is then to be thrown away.
// Long: a head is checked and written in one pass, and the parts borrow its bytes.
pub fn request_head(
    head: &[u8],
    peer: &Peer<'_>,
    measured: impl FnOnce(&[u8], &[u8]) -> bool,
    out: &mut Vec<u8>,
) -> Result<RequestHead, Reject> {
    let mut fields = [const { std::mem::MaybeUninit::uninit() }; FIELD_LIMIT];
    let mut parsed = httparse::Request::new(&mut []);
    let base = if head.starts_with(b"\r\n") { 2 } else { 0 };
    match parsed.parse_with_uninit_headers(&head[base..], &mut fields) {
        Ok(httparse::Status::Complete(n)) if n == head.len() - base => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Reject::TooManyFields),
        Err(httparse::Error::Version) => return Err(Reject::Version),
        Err(httparse::Error::HeaderName | httparse::Error::HeaderValue) => return Err(Reject::FieldSyntax),
        Ok(_) | Err(_) => return Err(Reject::RequestLine),
    }
    let method = Method::parse(parsed.method.unwrap_or_default().as_bytes())?;
    let version = if parsed.version == Some(1) { Version::V11 } else { Version::V10 };
    let (authority, target) = split_target(parsed.path.unwrap_or_default().as_bytes(), method)?;
    let reading = RequestFields::of(parsed.headers, method, version)?;
    let host = reading.host(version, authority)?;
    let measured = measured(method.as_bytes(), target);
    let unread = if measured { FieldKind::AcceptEncoding } else { FieldKind::Host };
    let trace =
        if peer.traced && measured { Trace::of(reading.traceparent, reading.traceparents) } else { Trace::Passed };
    for part in [method.as_bytes(), b" ", target, b" HTTP/1.1\r\n"] {
        out.extend_from_slice(part);
    }
    for (i, field) in parsed.headers.iter().enumerate() {
        let name = field.name.as_bytes();
        let keep = match reading.kinds[i] {
            FieldKind::Pass
            | FieldKind::Via
            | FieldKind::AcceptEncoding
            | FieldKind::ContentType
            | FieldKind::ContentEncoding
            | FieldKind::Date => reading.kinds[i] != unread && !reading.nominated.has(name),
            // Neighbours cannot nominate it.
            FieldKind::TraceParent => trace == Trace::Passed,
            FieldKind::TraceState => trace != Trace::Begun && !reading.nominated.has(name),
            FieldKind::RequestId => reading.request_id.is_some(),
            FieldKind::Forwarded | FieldKind::Claim(_) => peer.trusted,
            _ => false,
        };
        if reading.kinds[i] == FieldKind::Via && passed_here(field.value, peer.via) {
            return Err(Reject::Loop);
        }
        if keep {
            push_field(out, name, field.value);
        }
    }
    push_field(out, b"x-forwarded-for", peer.forwarded_for.as_bytes());
    if !(peer.trusted && reading.has_forwarded_proto) {
        push_field(out, b"x-forwarded-proto", peer.proto.as_bytes());
    }
    if let Some(host) = host.filter(|_| !(peer.trusted && reading.has_forwarded_host)) {
        push_field(out, b"x-forwarded-host", host);
    }
    push_field(out, b"via", peer.via.as_bytes());
    let range = |part: &[u8]| {
        let from = part.as_ptr() as usize - head.as_ptr() as usize;
        from..from + part.len()
    };
    Ok(RequestHead {
        method,
        target: range(target),
        version,
        body: reading.body,
        expect_continue: reading.expect_continue,
        keep_alive: version == Version::V11 && !reading.nominated.close,
        host: host.map(range),
        request_id: reading.request_id.map(range),
        trace,
        content_type: reading.content_type.map(range),
        priority: reading.priority.filter(|_| peer.trusted).map(range),
        tenant: reading.tenant.filter(|_| peer.trusted).map(range),
        slo_ttft: reading.slo_ttft.filter(|_| peer.trusted).map(range),
    })
}

/// Completes a head for one backend: Host, our request id if the client had none, and the framing.
pub fn finish_request_head(out: &mut Vec<u8>, host: &[u8], made_id: Option<&[u8]>, content_length: Option<u64>) {
    push_field(out, b"host", host);
    if let Some(id) = made_id {
        push_field(out, b"x-request-id", id);
    }
    if let Some(n) = content_length {
        out.extend_from_slice(b"content-length: ");
        push_decimal(out, n);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

impl RequestHead {
    /// The answer has no body.
    pub fn is_head(&self) -> bool {
        self.method == Method::Head
    }

    /// What leaves must say how long its body is, even when it is empty.
    pub fn needs_length(&self) -> bool {
        self.body != RequestBody::None && !self.method.is_read()
            || matches!(self.method, Method::Post | Method::Put | Method::Patch)
    }
}

impl Method {
    fn parse(name: &[u8]) -> Result<Self, Reject> {
        Ok(match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"PATCH" => Self::Patch,
            b"DELETE" => Self::Delete,
            b"OPTIONS" => Self::Options,
            b"TRACE" | b"CONNECT" => return Err(Reject::MethodRefused),
            _ => return Err(Reject::MethodUnknown),
        })
    }

    /// The name on the wire.
    pub const fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::Get => b"GET",
            Self::Head => b"HEAD",
            Self::Post => b"POST",
            Self::Put => b"PUT",
            Self::Patch => b"PATCH",
            Self::Delete => b"DELETE",
            Self::Options => b"OPTIONS",
        }
    }

    const fn is_read(self) -> bool {
        matches!(self, Self::Get | Self::Head)
    }
}

/// What the fields say together.
struct RequestFields<'a> {
    kinds: [FieldKind; FIELD_LIMIT],
    nominated: Nominated<'a>,
    body: RequestBody,
    expect_continue: bool,
    host: Option<&'a [u8]>,
    request_id: Option<&'a [u8]>,
    traceparent: Option<&'a [u8]>,
    traceparents: usize,
    content_type: Option<&'a [u8]>,
    priority: Option<&'a [u8]>,
    tenant: Option<&'a [u8]>,
    slo_ttft: Option<&'a [u8]>,
    has_forwarded_proto: bool,
    has_forwarded_host: bool,
}

impl<'a> RequestFields<'a> {
    // Long: one arm for each kind of field.
    fn of(fields: &[httparse::Header<'a>], method: Method, version: Version) -> Result<Self, Reject> {
        let mut reading = Self {
            kinds: [FieldKind::Pass; FIELD_LIMIT],
            nominated: Nominated::default(),
            body: RequestBody::None,
            expect_continue: false,
            host: None,
            request_id: None,
            traceparent: None,
            traceparents: 0,
            content_type: None,
            priority: None,
            tenant: None,
            slo_ttft: None,
            has_forwarded_proto: false,
            has_forwarded_host: false,
        };
        let (mut length, mut encodings, mut ids) = (None, 0, 0);
        for (i, field) in fields.iter().enumerate() {
            let (name, value) = (field.name.as_bytes(), field.value);
            reading.kinds[i] = kind(name);
            match reading.kinds[i] {
                FieldKind::Connection => reading.nominated.read(value).map_err(|BadNomination| Reject::Nomination)?,
                FieldKind::ContentLength => {
                    let n = content_length(value).ok_or(Reject::ContentLength)?;
                    if length.replace(n).is_some() {
                        return Err(Reject::ContentLength);
                    }
                }
                FieldKind::TransferEncoding => {
                    encodings += 1;
                    if encodings > 1 || version == Version::V10 || !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(Reject::TransferEncoding);
                    }
                }
                FieldKind::Host => {
                    let repeated = reading.host.replace(value).is_some();
                    if repeated || !is_authority(value) {
                        return Err(Reject::Host);
                    }
                }
                FieldKind::Expect if version == Version::V11 => {
                    if !value.eq_ignore_ascii_case(b"100-continue") {
                        return Err(Reject::Expectation);
                    }
                    reading.expect_continue = true;
                }
                FieldKind::Upgrade if offers_websocket(value) => return Err(Reject::WebSocket),
                FieldKind::TraceParent => {
                    first(&mut reading.traceparent, value);
                    reading.traceparents += 1;
                }
                FieldKind::ContentType => first(&mut reading.content_type, value),
                FieldKind::Claim(Claim::Priority) => first(&mut reading.priority, value),
                FieldKind::Claim(Claim::Tenant) => first(&mut reading.tenant, value),
                FieldKind::Claim(Claim::SloTtft) => first(&mut reading.slo_ttft, value),
                FieldKind::RequestId => {
                    let valid =
                        (1..=REQUEST_ID_LIMIT).contains(&value.len()) && value.iter().all(|b| is_token_char(*b));
                    // More than one, or not a token: none of them is kept, and weir makes one.
                    ids += 1;
                    reading.request_id = (valid && ids == 1).then_some(value);
                }
                FieldKind::Forwarded => {
                    reading.has_forwarded_proto |= name.eq_ignore_ascii_case(b"x-forwarded-proto");
                    reading.has_forwarded_host |= name.eq_ignore_ascii_case(b"x-forwarded-host");
                }
                _ => {}
            }
        }
        reading.body = match (length, encodings) {
            (Some(_), 1) => return Err(Reject::LengthAndEncoding),
            (_, 1) => RequestBody::Chunked,
            (Some(n), _) => RequestBody::Length(n),
            (None, _) => RequestBody::None,
        };
        if method.is_read() && !matches!(reading.body, RequestBody::None | RequestBody::Length(0)) {
            return Err(Reject::BodyNotAllowed);
        }
        Ok(reading)
    }

    /// Exactly one on HTTP/1.1, and the same as the target's authority when the target has one.
    fn host(&self, version: Version, authority: Option<&'a [u8]>) -> Result<Option<&'a [u8]>, Reject> {
        match (self.host, authority) {
            (None, _) if version == Version::V11 => Err(Reject::Host),
            (Some(host), Some(authority)) if !host.eq_ignore_ascii_case(authority) => Err(Reject::AuthorityMismatch),
            (host, authority) => Ok(host.or(authority)),
        }
    }
}

/// The authority of an absolute target, and the target in origin form. The authority is compared, never dialled.
fn split_target(target: &[u8], method: Method) -> Result<(Option<&[u8]>, &[u8]), Reject> {
    if target.iter().any(|b| *b <= b' ' || *b >= 0x7f || matches!(b, b'\\' | b'#')) {
        return Err(Reject::Target);
    }
    if target.first() == Some(&b'/') || (target == b"*" && method == Method::Options) {
        return Ok((None, target));
    }
    let scheme = [&b"http://"[..], b"https://"].into_iter().find(|scheme| starts_with_ignoring_case(target, scheme));
    let rest = scheme.map(|scheme| &target[scheme.len()..]).ok_or(Reject::Target)?;
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).ok_or(Reject::Target)?;
    let (authority, path) = rest.split_at(end);
    if path.first() != Some(&b'/') || !is_authority(authority) {
        return Err(Reject::Target);
    }
    Ok((Some(authority), path))
}

fn starts_with_ignoring_case(bytes: &[u8], prefix: &[u8]) -> bool {
    bytes.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// Host and port without user information.
fn is_authority(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().all(|b| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(b))
}

/// One of the elements of a `Via` value is this process's own: same pseudonym, whatever the hops between have made of
/// protocol, blanks and comment.
fn passed_here(value: &[u8], via: &str) -> bool {
    let own = received_by(via.as_bytes());
    own.is_some() && elements(value).any(|element| received_by(element) == own)
}

/// The second word of a `Via` element (RFC 9110, 7.6.3).
fn received_by(element: &[u8]) -> Option<&[u8]> {
    element.split(|b| matches!(b, b' ' | b'\t')).filter(|word| !word.is_empty()).nth(1)
}

fn offers_websocket(value: &[u8]) -> bool {
    elements(value).any(|element| starts_with_ignoring_case(element, b"websocket"))
}

fn elements(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|b| *b == b',').map(<[u8]>::trim_ascii)
}

fn first<'a>(seen: &mut Option<&'a [u8]>, value: &'a [u8]) {
    seen.get_or_insert(value);
}

const FIELD_LIMIT: usize = 100;
const REQUEST_ID_LIMIT: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Peer<'_> =
        Peer { forwarded_for: "192.0.2.7", trusted: false, proto: "http", via: "1.1 weir-abc", traced: false };

    fn read_as(peer: &Peer<'_>, lines: &str) -> Result<(RequestHead, String), Reject> {
        let head = format!("{}\r\n\r\n", lines.replace('\n', "\r\n"));
        let mut out = Vec::new();
        let read = request_head(head.as_bytes(), peer, |method, _| method == b"POST", &mut out)?;
        Ok((read, String::from_utf8(out).unwrap()))
    }

    fn read(lines: &str) -> Result<(RequestHead, String), Reject> {
        read_as(&PEER, lines)
    }

    fn refused(lines: &str) -> Reject {
        read(lines).expect_err(lines)
    }

    #[test]
    fn the_rewritten_head_keeps_order_and_drops_hop_by_hop_fields() {
        let (head, out) = read(
            "POST /v1/chat/completions?x=1 HTTP/1.1\nHost: a:1\nAuthorization: Bearer k\nConnection: keep-alive, X-Hop\n\
             X-Hop: 1\nTE: trailers\nAccept-Encoding: gzip\nContent-Length: 5\nX-Weir-Priority: system\n\
             X-Forwarded-For: 1.2.3.4\nAccept: */*\nx-request-id: r-1",
        )
        .unwrap();
        assert_eq!(
            out,
            "POST /v1/chat/completions?x=1 HTTP/1.1\r\nAuthorization: Bearer k\r\nAccept: */*\r\nx-request-id: r-1\r\n\
             x-forwarded-for: 192.0.2.7\r\nx-forwarded-proto: http\r\nx-forwarded-host: a:1\r\nvia: 1.1 weir-abc\r\n"
        );
        assert_eq!(head.body, RequestBody::Length(5));
        assert!(head.keep_alive && head.request_id.is_some());
    }

    #[test]
    fn a_trusted_peer_is_believed_and_an_untrusted_one_is_not() {
        let lines = "GET / HTTP/1.1\nHost: a\nX-Forwarded-For: 1.2.3.4\nX-Forwarded-Proto: https\nx-weir-tenant: t";
        let (_, out) = read_as(&Peer { trusted: true, ..PEER }, lines).unwrap();
        assert!(out.contains("X-Forwarded-For: 1.2.3.4\r\n") && out.contains("x-weir-tenant: t\r\n"));
        assert!(out.contains("x-forwarded-for: 192.0.2.7\r\n") && !out.contains("proto: http\r\n"));
        let (_, out) = read(lines).unwrap();
        assert!(
            !out.contains("1.2.3.4") && !out.contains("x-weir-tenant") && out.contains("x-forwarded-proto: http\r\n")
        );
    }

    #[test]
    fn claims_are_captured_from_a_trusted_peer_only() {
        let lines = "GET / HTTP/1.1\nHost: a\nx-smg-priority: bulk\nx-weir-priority: system\n\
                     x-llm-d-inference-fairness-id: t\nX_Weir_Slo-Ttft-Ms: 250\ntraceparent: 00-1-2-00";
        let head = format!("{}\r\n\r\n", lines.replace('\n', "\r\n"));
        let text = |range: Option<Range<usize>>| range.map(|range| head[range].to_owned());
        let (read_here, _) = read_as(&Peer { trusted: true, ..PEER }, lines).unwrap();
        assert_eq!(text(read_here.priority).as_deref(), Some("bulk"), "the first one counts");
        assert_eq!(text(read_here.tenant).as_deref(), Some("t"));
        assert_eq!(text(read_here.slo_ttft).as_deref(), Some("250"));
        let (read_here, out) = read(lines).unwrap();
        assert_eq!((read_here.priority, read_here.tenant, read_here.slo_ttft), (None, None, None));
        assert!(out.contains("traceparent: 00-1-2-00\r\n") && !out.contains("250"));
    }

    #[test]
    fn trace_fields_pass_unless_our_span_is_the_parent() {
        const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let left = |peer: &Peer<'_>, method: &str, parents: &[&str]| {
            let fields: String = parents.iter().map(|parent| format!("\nTraceparent: {parent}")).collect();
            let (head, out) = read_as(peer, &format!("{method} / HTTP/1.1\nHost: a{fields}\ntracestate: v=1")).unwrap();
            let kept = (out.matches("Traceparent: ").count(), out.contains("tracestate: v=1\r\n"));
            (matches!(head.trace, Trace::Joined(_)), kept.0, kept.1)
        };
        let traced = Peer { traced: true, ..PEER };
        let unsampled = SAMPLED.replace("-01", "-00");
        for (parents, with, without) in [
            (&[SAMPLED][..], (true, 0, true), (false, 1, true)),
            (&[&unsampled], (false, 1, true), (false, 1, true)),
            (&["garbage"], (false, 0, false), (false, 1, true)),
            (&[SAMPLED, SAMPLED], (false, 0, false), (false, 2, true)),
            (&[], (false, 0, false), (false, 0, true)),
        ] {
            assert_eq!(left(&traced, "POST", parents), with, "{parents:?}");
            assert_eq!(left(&PEER, "POST", parents), without, "{parents:?}, nothing recorded");
            assert_eq!(left(&traced, "GET", parents), without, "{parents:?}, not measured");
        }
    }

    #[test]
    fn framing_that_two_servers_could_read_differently_is_refused() {
        let post = |fields: &str| format!("POST / HTTP/1.1\nHost: a\n{fields}");
        assert_eq!(refused(&post("Content-Length: 5\nContent-Length: 5")), Reject::ContentLength);
        assert_eq!(refused(&post("Content-Length: 5, 5")), Reject::ContentLength);
        assert_eq!(refused(&post("Content-Length: +5")), Reject::ContentLength);
        assert_eq!(refused(&post("Content-Length: 5\nTransfer-Encoding: chunked")), Reject::LengthAndEncoding);
        assert_eq!(refused(&post("Transfer-Encoding: gzip, chunked")), Reject::TransferEncoding);
        assert_eq!(refused(&post("Transfer-Encoding: chunked\nTransfer-Encoding: chunked")), Reject::TransferEncoding);
        assert_eq!(refused("POST / HTTP/1.0\nTransfer-Encoding: chunked"), Reject::TransferEncoding);
        assert_eq!(refused("GET / HTTP/1.1\nHost: a\nContent-Length: 1"), Reject::BodyNotAllowed);
        assert_eq!(read(&post("Transfer-Encoding: Chunked")).unwrap().0.body, RequestBody::Chunked);
        assert!(read("GET / HTTP/1.1\nHost: a\nContent-Length: 0").is_ok());
    }

    #[test]
    fn there_is_one_host_and_an_absolute_target_agrees_with_it() {
        assert_eq!(refused("GET / HTTP/1.1"), Reject::Host);
        assert_eq!(refused("GET / HTTP/1.1\nHost: a\nHost: a"), Reject::Host);
        assert_eq!(refused("GET / HTTP/1.1\nHost: a b"), Reject::Host);
        assert_eq!(refused("GET http://b/x HTTP/1.1\nHost: a"), Reject::AuthorityMismatch);
        assert_eq!(refused("GET http://u@a/x HTTP/1.1\nHost: a"), Reject::Target);
        assert_eq!(refused("GET ftp://a/x HTTP/1.1\nHost: a"), Reject::Target);
        let (_, out) = read("GET http://A/x?y HTTP/1.1\nHost: a").unwrap();
        assert!(out.starts_with("GET /x?y HTTP/1.1\r\n"));
        assert!(read("GET / HTTP/1.0").is_ok());
    }

    #[test]
    fn field_syntax_is_strict() {
        for bad in ["A : b", " A: b", "A\tB: c", ": v", "A: b\u{1}c", "A: b\n folded", "no colon"] {
            assert_eq!(refused(&format!("GET / HTTP/1.1\nHost: a\n{bad}")), Reject::FieldSyntax, "{bad:?}");
        }
        let many = (0..100).map(|i| format!("\na{i}: b")).collect::<String>();
        assert_eq!(refused(&format!("GET / HTTP/1.1\nHost: a{many}")), Reject::TooManyFields);
    }

    #[test]
    fn methods_versions_and_targets_outside_the_list_are_refused() {
        assert_eq!(refused("TRACE / HTTP/1.1\nHost: a"), Reject::MethodRefused);
        assert_eq!(refused("BREW / HTTP/1.1\nHost: a"), Reject::MethodUnknown);
        assert_eq!(refused("get / HTTP/1.1\nHost: a"), Reject::MethodUnknown);
        assert_eq!(refused("GET / HTTP/2.0\nHost: a"), Reject::Version);
        for target in ["x", "/a\\b", "/a#b", "*", "/\u{e9}"] {
            assert!(read(&format!("GET {target} HTTP/1.1\nHost: a")).is_err(), "{target}");
        }
        assert!(read("OPTIONS * HTTP/1.1\nHost: a").is_ok());
        assert!(read("GET  / HTTP/1.1\nHost: a").is_err(), "two spaces");
    }

    #[test]
    fn expectations_nominations_upgrades_and_loops() {
        assert!(read("POST / HTTP/1.1\nHost: a\nExpect: 100-Continue").unwrap().0.expect_continue);
        assert_eq!(refused("POST / HTTP/1.1\nHost: a\nExpect: coffee"), Reject::Expectation);
        assert!(!read("POST / HTTP/1.0\nExpect: 100-continue").unwrap().0.expect_continue);
        assert_eq!(refused("GET / HTTP/1.1\nHost: a\nConnection: host"), Reject::Nomination);
        assert_eq!(refused("GET / HTTP/1.1\nHost: a\nConnection: upgrade\nUpgrade: websocket"), Reject::WebSocket);
        assert_eq!(refused("GET / HTTP/1.1\nHost: a\nUpgrade: h2c, WebSocket"), Reject::WebSocket);
        assert!(!read("GET / HTTP/1.1\nHost: a\nUpgrade: h2c").unwrap().1.contains("h2c"));
        for via in ["1.1 x, 1.1 weir-abc", "HTTP/1.0  weir-abc (comment)", "1.1\tweir-abc, 1.1 y"] {
            assert_eq!(refused(&format!("GET / HTTP/1.1\nHost: a\nVia: {via}")), Reject::Loop, "{via}");
        }
        for via in ["1.1 weir-abcd", "1.1 weir", "weir-abc", "1.1 x (weir-abc)"] {
            assert!(read(&format!("GET / HTTP/1.1\nHost: a\nVia: {via}")).is_ok(), "{via}: another one before us");
        }
    }

    #[test]
    fn only_a_single_token_is_a_request_id() {
        for bad in [
            "x-request-id: a b",
            "x-request-id:",
            "x-request-id: a\nx-request-id: b",
            "x-request-id: a\nx-request-id: b\nx-request-id: c",
            "x-request-id: a b\nx-request-id: c",
        ] {
            let (head, out) = read(&format!("GET / HTTP/1.1\nHost: a\n{bad}")).unwrap();
            assert!(head.request_id.is_none() && !out.contains("request-id"), "{bad}");
        }
    }

    #[test]
    fn an_underscore_in_a_name_does_not_evade_its_rules() {
        let (head, out) = read(
            "POST / HTTP/1.1\nHost: a\nContent_Length: 9\nTransfer_Encoding: chunked\nX_Forwarded-For: 1.2.3.4\n\
             X_Weir_Tenant: t\nX_Other: kept",
        )
        .unwrap();
        assert_eq!(head.body, RequestBody::None);
        let fields =
            "x-forwarded-for: 192.0.2.7\r\nx-forwarded-proto: http\r\nx-forwarded-host: a\r\nvia: 1.1 weir-abc\r\n";
        assert_eq!(out, format!("POST / HTTP/1.1\r\nX_Other: kept\r\n{fields}"));
    }

    #[test]
    fn no_forwarding_field_may_be_nominated_and_another_may() {
        for name in ["X-Forwarded-Port", "x-forwarded-for", "x-weir-any", "Via"] {
            assert_eq!(refused(&format!("GET / HTTP/1.1\nHost: a\nConnection: {name}")), Reject::Nomination, "{name}");
        }
        assert!(read("GET / HTTP/1.1\nHost: a\nConnection: x-forwarder").is_ok());
    }

    #[test]
    fn keep_alive_is_for_http_1_1_that_does_not_ask_to_close() {
        assert!(!read("GET / HTTP/1.1\nHost: a\nConnection: Close").unwrap().0.keep_alive);
        assert!(!read("GET / HTTP/1.0\nConnection: keep-alive").unwrap().0.keep_alive);
    }
}
