//! One request on its way in: bytes go in as they come, a request comes out.
//!
//! The head is rewritten as soon as it is complete, so that nothing of what was received has to be kept; the body is held,
//! and scanned while it arrives. A request that comes in one read is read where it lies. It touches no socket and no timer.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::body_buffer::{BodyBuffer, BodyLimit};
use super::hints::TrustedHints;
use super::received::{PathKind, Request};
use super::request_id::RequestId;
use super::upstream_request::UpstreamRequest;
use crate::http1::{ChunkedBody, HeadEnd, Peer, Reject, RequestBody, RequestHead, request_head};
use crate::proxy::local_reply::LocalReply;
use crate::proxy::spans;
use crate::proxy::state::{HookPoint, Worker, address_text};
use crate::vocabulary::time::Timestamp;
use crate::wire::{ApiFamily, RequestScanner};

/// Who is at the other end of a connection.
pub(in crate::proxy) struct ClientPeer {
    address: Box<str>,
    /// What it says of others, and of priorities, is believed.
    trusted: bool,
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum ReadProgress {
    /// The head is not complete.
    Head,
    /// The client waits for `100 Continue` before it sends the body.
    Expects,
    /// The body is not complete.
    Body,
    /// Everything is here.
    Whole,
}

/// Why a request could not be read.
pub(in crate::proxy) enum ReadFailure {
    /// The client left, or never began.
    ClientGone,
    Refuse(LocalReply, ApiFamily),
}

/// A request that is arriving.
pub(in crate::proxy) struct RequestReader<'c> {
    worker: &'c Worker,
    client: &'c ClientPeer,
    /// The head so far, when it did not come in one read.
    head: Vec<u8>,
    end: HeadEnd,
    request: Option<Request>,
    framing: BodyReader,
    scanner: Option<RequestScanner>,
}

impl ClientPeer {
    /// The client at `peer`.
    pub fn new(peer: IpAddr, worker: &Worker) -> Self {
        Self { address: address_text(peer).into(), trusted: worker.proxy.trusts(peer) }
    }
}

impl<'c> RequestReader<'c> {
    /// Nothing has come yet.
    pub fn new(worker: &'c Worker, client: &'c ClientPeer) -> Self {
        Self {
            worker,
            client,
            head: Vec::new(),
            end: HeadEnd::new(),
            request: None,
            framing: BodyReader::Length(0),
            scanner: None,
        }
    }

    /// Takes what was read. What belongs to the next request is appended to `rest`.
    pub fn feed(&mut self, bytes: &[u8], rest: &mut Vec<u8>) -> Result<ReadProgress, ReadFailure> {
        if self.request.is_some() {
            return self.take(bytes, rest);
        }
        if self.head.is_empty() {
            return match self.head_end(bytes)? {
                Some(length) => self.begin(bytes, length, rest),
                None => {
                    self.head.extend_from_slice(bytes);
                    Ok(ReadProgress::Head)
                }
            };
        }
        let mut whole = std::mem::take(&mut self.head);
        whole.extend_from_slice(bytes);
        if let Some(length) = self.head_end(&whole)? {
            return self.begin(&whole, length, rest);
        }
        self.head = whole;
        Ok(ReadProgress::Head)
    }

    /// The head is complete.
    pub fn has_head(&self) -> bool {
        self.request.is_some()
    }

    /// Whose form an error takes.
    pub fn family(&self) -> ApiFamily {
        self.request.as_ref().map_or(ApiFamily::OpenAi, |request| request.path.family())
    }

    /// The request, once everything was there at `now`.
    pub fn finish(self, now: Timestamp) -> Result<Request, ReadFailure> {
        let mut request = self.request.ok_or(ReadFailure::ClientGone)?;
        request.shape = self.scanner.map(RequestScanner::finish);
        request.arrived = now;
        Ok(request)
    }

    fn head_end(&mut self, received: &[u8]) -> Result<Option<usize>, ReadFailure> {
        let found = self.end.find(received).map_err(ReadFailure::malformed)?;
        if found.unwrap_or(received.len()) > self.worker.proxy.limits.load().max_header {
            return Err(ReadFailure::malformed(Reject::HeadTooLong));
        }
        Ok(found)
    }

    /// The head is complete: the first `length` bytes of `received`.
    fn begin(&mut self, received: &[u8], length: usize, rest: &mut Vec<u8>) -> Result<ReadProgress, ReadFailure> {
        let proxy = &*self.worker.proxy;
        let (bytes, body) = received.split_at(length);
        let mut out = Vec::with_capacity(length + ADDED + body.len());
        let peer = Peer {
            forwarded_for: &self.client.address,
            trusted: self.client.trusted,
            proto: "http",
            via: self.worker.via(),
            traced: proxy.sampling.is_some(),
        };
        let mut path = PathKind::PassThrough;
        let measured = |method: &[u8], target: &[u8]| {
            path = PathKind::of(method, target, proxy.passes_metrics.load(Relaxed));
            matches!(path, PathKind::Inference(_))
        };
        let head = request_head(bytes, &peer, measured, &mut out).map_err(ReadFailure::malformed)?;
        (proxy.test_hook)(HookPoint::Head);
        if matches!(head.body, RequestBody::Length(n) if n > proxy.limits.load().max_body as u64) {
            return Err(ReadFailure::Refuse(LocalReply::BodyTooLarge, path.family()));
        }
        self.framing = BodyReader::of(head.body);
        if let PathKind::Inference(endpoint) = path {
            self.scanner = Some(RequestScanner::new(endpoint));
        }
        let expects = head.expect_continue && body.is_empty() && head.body != RequestBody::None;
        let span = proxy.sampling.and_then(|sampling| spans::begin(sampling, head.trace, &mut out));
        self.request = Some(Request { span, ..self.open(bytes, &head, path, out) });
        if expects { Ok(ReadProgress::Expects) } else { self.take(body, rest) }
    }

    fn open(&self, bytes: &[u8], head: &RequestHead, path: PathKind, out: Vec<u8>) -> Request {
        let proxy = &self.worker.proxy;
        let value = |range: &Option<Range<usize>>| range.clone().map(|range| &bytes[range]);
        let [priority, tenant, slo] = [&head.priority, &head.tenant, &head.slo_ttft].map(value);
        let rules = proxy.rules.load();
        let hints = TrustedHints::read(priority, tenant, slo, &rules.tenants);
        let route = rules.route(&bytes[head.target.clone()]);
        let slo_ttft = route.into_iter().chain(hints.slo_ttft).min();
        Request {
            upstream_request: UpstreamRequest::new(out, BodyBuffer::new(proxy.limits.load().max_body, &proxy.memory)),
            host: head.host.clone().map_or_else(Box::default, |range| bytes[range].into()),
            id: head
                .request_id
                .clone()
                .map_or_else(|| self.worker.make_id(), |range| RequestId::Given(bytes[range].into())),
            path,
            shape: None,
            hints,
            span: None,
            slo_ttft,
            arrived: Timestamp::ZERO,
            assembling: None,
            queued: Duration::ZERO,
            version: head.version,
            is_head: head.is_head(),
            keep_alive: head.keep_alive,
            has_length: head.needs_length(),
        }
    }

    /// Bytes behind the head.
    fn take(&mut self, bytes: &[u8], rest: &mut Vec<u8>) -> Result<ReadProgress, ReadFailure> {
        let family = self.family();
        let (Some(request), scanner) = (&mut self.request, &mut self.scanner) else { return Ok(ReadProgress::Head) };
        let mut held = Ok(());
        let fed = self.framing.feed(bytes, |payload| {
            if let Some(scanner) = scanner {
                scanner.feed(payload);
            }
            held = held.and_then(|()| request.upstream_request.hold(payload));
        });
        let used = fed.map_err(|reject| ReadFailure::Refuse(LocalReply::malformed(reject), family))?;
        held.map_err(|too_much| ReadFailure::Refuse(too_much.into(), family))?;
        rest.extend_from_slice(&bytes[used..]);
        Ok(if self.framing.ended() { ReadProgress::Whole } else { ReadProgress::Body })
    }
}

impl ReadFailure {
    /// A head that breaks a rule.
    fn malformed(reject: Reject) -> Self {
        Self::Refuse(LocalReply::malformed(reject), ApiFamily::OpenAi)
    }
}

impl From<BodyLimit> for LocalReply {
    fn from(too_much: BodyLimit) -> Self {
        match too_much {
            BodyLimit::Body => Self::BodyTooLarge,
            BodyLimit::Memory => Self::BodyMemory,
        }
    }
}

/// Where a request's body ends.
enum BodyReader {
    Length(u64),
    Chunked(Box<ChunkedBody>),
}

impl BodyReader {
    fn of(body: RequestBody) -> Self {
        match body {
            RequestBody::None => Self::Length(0),
            RequestBody::Length(n) => Self::Length(n),
            RequestBody::Chunked => Self::Chunked(Box::default()),
        }
    }

    /// Hands payload on and says how many bytes belonged to the body.
    fn feed(&mut self, bytes: &[u8], mut on_payload: impl FnMut(&[u8])) -> Result<usize, Reject> {
        match self {
            Self::Length(left) => {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                on_payload(&bytes[..n]);
                *left -= n as u64;
                Ok(n)
            }
            Self::Chunked(body) => body.feed(bytes, on_payload),
        }
    }

    fn ended(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(body) => body.ended(),
        }
    }
}

/// Room for the fields that are added to a head: who forwarded it, Host, an id and the length.
const ADDED: usize = 320;
