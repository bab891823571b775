//! One synthetic request: sent on a kept-alive connection, its answer stamped as it is read.
//!
//! The stream is read by `wire`'s scanner, the same that the proxy uses, so that both mean the same thing by a token. It holds
//! no schedule and no retry of a failed request; only a request whose kept-alive connection was dead, which the server never
//! saw, is sent once more.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::net::TcpStream;

use super::body::Api;
use super::connection::LoadConnection;
use super::record::{FailureKind, LoadOutcome, LoadRecord};
use crate::clock::Clock;
use crate::http_client::{self, AnswerBounds, ReadBody};
use crate::vocabulary::time::Timestamp;
use crate::wire::{self, BodyFormat, Dialect, StreamScanner};

/// Where a level is sent: a server's address and the path prefix of its interfaces. Plain HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadTarget {
    address: SocketAddr,
    authority: String,
    prefix: String,
}

/// Sends requests to one target and keeps connections for the next ones.
pub struct Client {
    target: LoadTarget,
    headers: HeaderMap,
    clock: Clock,
    idle: Mutex<Vec<LoadConnection>>,
}

/// One request, ready to be sent.
#[derive(Clone, Debug)]
pub struct PreparedRequest {
    /// The interface, which decides path and dialect.
    pub api: Api,
    /// The JSON body.
    pub body: Bytes,
    /// When to hang up on purpose.
    pub give_up: GiveUp,
    /// Keep the gap before each content event (8 bytes each).
    pub keep_gaps: bool,
}

/// When a client leaves before its answer is complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GiveUp {
    /// Never.
    #[default]
    Never,
    /// Once this many content events were read.
    AfterEvents(u64),
    /// This long after the send.
    After(Duration),
}

/// A target that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadTarget {
    /// Not an `http://host[:port][/path]` URL.
    #[error("`{0}` is not a target: write http://host:port")]
    Url(String),
    /// The name has no address.
    #[error("no address for `{0}`")]
    Unknown(String, #[source] Option<io::Error>),
}

impl LoadTarget {
    /// Reads `http://host[:port][/prefix]` and looks the name up once, so that a run measures no resolver.
    ///
    /// # Errors
    /// The URL is not of this form, or the name has no address.
    pub async fn resolve(url: &str) -> Result<Self, BadTarget> {
        let bad = || BadTarget::Url(url.to_owned());
        let uri: http::Uri = url.parse().map_err(|_| bad())?;
        let host = uri.host().filter(|_| uri.scheme_str() == Some("http") && uri.query().is_none()).ok_or_else(bad)?;
        let authority = uri.authority().ok_or_else(bad)?.as_str().rsplit('@').next().unwrap_or_default().to_owned();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let unknown = |cause| BadTarget::Unknown(host.to_owned(), cause);
        let mut found = tokio::net::lookup_host((bare, uri.port_u16().unwrap_or(80)))
            .await
            .map_err(|cause| unknown(Some(cause)))?;
        let address = found.next().ok_or_else(|| unknown(None))?;
        Ok(Self { address, authority, prefix: uri.path().trim_end_matches('/').to_owned() })
    }
}

impl LoadTarget {
    /// The first model in the server's list; none when there is no list.
    pub async fn first_model(&self, api: Api) -> Option<String> {
        let (path, name) = match api {
            Api::OllamaChat | Api::OllamaGenerate => ("/api/tags", "/models/0/name"),
            _ => ("/v1/models", "/data/0/id"),
        };
        let (_, answer) = self.ask(http::Method::GET, path, None, MODELS_TIMEOUT).await?;
        let list: serde_json::Value = serde_json::from_slice(&answer).ok()?;
        list.pointer(name)?.as_str().map(str::to_owned)
    }

    /// One request without a body; its status and its answer. `None`: the server does not answer within `timeout`, or with more than
    /// 4 MiB.
    pub async fn ask(
        &self,
        method: http::Method,
        path: &str,
        token: Option<&str>,
        timeout: Duration,
    ) -> Option<(u16, Bytes)> {
        let mut request = Request::new(Full::default());
        *request.method_mut() = method;
        if let Some(token) = token {
            let bearer = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
            request.headers_mut().insert(header::AUTHORIZATION, bearer);
        }
        *request.uri_mut() = format!("{}{path}", self.prefix).parse().ok()?;
        request.headers_mut().insert(header::HOST, HeaderValue::from_str(&self.authority).ok()?);
        let bounds = AnswerBounds { deadline: timeout, body: LONGEST_ANSWER };
        let connecting = TcpStream::connect(self.address);
        let answer = http_client::send(connecting, request, bounds, ReadBody::Always).await.ok()?;
        Some((answer.status().as_u16(), answer.into_body()))
    }
}

impl Client {
    /// A client whose stamps are `clock`'s. `headers` go with every request (priority, tenant, authorization).
    pub fn new(target: LoadTarget, headers: HeaderMap, clock: Clock) -> Self {
        Self { target, headers, clock, idle: Mutex::default() }
    }

    /// The clock of all stamps.
    pub const fn clock(&self) -> Clock {
        self.clock
    }

    /// Sends `prepared` and reads its answer to the end, writing into `record` as it goes.
    ///
    /// Dropped at any point it leaves a true record of how far the request got, and closes the connection: that is how
    /// an engine notices that the client has left.
    pub async fn exchange(&self, prepared: &PreparedRequest, record: &mut LoadRecord) {
        self.exchange_watched(prepared, record, |_, _| {}).await;
    }

    /// The same; `on_emission` is called for each content event with when it was read and how many tokens it holds.
    pub async fn exchange_watched(
        &self,
        prepared: &PreparedRequest,
        record: &mut LoadRecord,
        mut on_emission: impl FnMut(Timestamp, u32),
    ) {
        record.sent = Some(self.clock.now());
        let outcome = match prepared.give_up {
            GiveUp::After(timeout) => {
                let answered = tokio::time::timeout(timeout, self.outcome(prepared, record, &mut on_emission)).await;
                answered.unwrap_or(LoadOutcome::Cancelled)
            }
            GiveUp::Never | GiveUp::AfterEvents(_) => self.outcome(prepared, record, &mut on_emission).await,
        };
        record.end = self.clock.now();
        record.outcome = outcome;
    }

    async fn outcome(
        &self,
        prepared: &PreparedRequest,
        record: &mut LoadRecord,
        on_emission: &mut impl FnMut(Timestamp, u32),
    ) -> LoadOutcome {
        let (mut connection, answer) = match self.send(prepared, record).await {
            Ok(sent) => sent,
            Err(kind) => return LoadOutcome::Error(kind),
        };
        record.first_byte = Some(self.clock.now());
        record.status = Some(answer.status().as_u16());
        let outcome = if answer.status().is_success() {
            self.read_stream(&mut connection, prepared, answer, record, on_emission).await
        } else {
            read_refusal(&mut connection, answer, record).await
        };
        self.keep(connection, &outcome).await;
        outcome
    }

    async fn send(
        &self,
        prepared: &PreparedRequest,
        record: &mut LoadRecord,
    ) -> Result<(LoadConnection, Response<Incoming>), FailureKind> {
        if let Some(mut connection) = self.take_idle().await {
            match connection.send(self.request(prepared)).await {
                Ok(answer) => return Ok((connection, answer)),
                Err(error) if error.is_parse() => return Err(FailureKind::Protocol),
                Err(_) => record.resent += 1,
            }
        }
        let mut connection =
            LoadConnection::connect(self.target.address).await.map_err(|error| connect_error(&error))?;
        match connection.send(self.request(prepared)).await {
            Ok(answer) => Ok((connection, answer)),
            Err(error) => Err(if error.is_parse() { FailureKind::Protocol } else { FailureKind::NoAnswer }),
        }
    }

    /// Reads the body through the scanner, stamping once a read.
    async fn read_stream(
        &self,
        connection: &mut LoadConnection,
        prepared: &PreparedRequest,
        answer: Response<Incoming>,
        record: &mut LoadRecord,
        on_emission: &mut impl FnMut(Timestamp, u32),
    ) -> LoadOutcome {
        let format = format_of(answer.headers());
        let mut scanner = StreamScanner::new(dialect(prepared.api), format);
        let mut body = answer.into_body();
        let mut end = BodyEnd::Clean;
        while let Some(frame) = connection.drive(body.frame()).await {
            let Ok(frame) = frame else {
                end = BodyEnd::Broken;
                break;
            };
            let Some(data) = frame.data_ref() else { continue };
            let now = self.clock.now();
            record.bytes += data.len() as u64;
            scanner.feed(data, |emission| {
                if format != BodyFormat::Json {
                    record.on_emission(now, emission.tokens, prepared.keep_gaps);
                    on_emission(now, emission.tokens);
                }
            });
            if matches!(prepared.give_up, GiveUp::AfterEvents(enough) if record.content_events >= enough) {
                return LoadOutcome::Cancelled;
            }
        }
        let now = self.clock.now();
        scanner.finish(|emission| record.on_emission(now, emission.tokens, prepared.keep_gaps));
        let reading = scanner.reading();
        let usage = reading.usage.as_ref();
        record.input_usage = usage.and_then(|usage| usage.input);
        record.output_usage = usage.and_then(|usage| usage.output);
        judge(&reading, format, end, record)
    }

    fn request(&self, prepared: &PreparedRequest) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(prepared.body.clone()));
        *request.method_mut() = http::Method::POST;
        let path = format!("{}{}", self.target.prefix, prepared.api.path());
        // The prefix is from a URI that parsed and the path is a constant: together they are a path.
        *request.uri_mut() = path.parse().unwrap_or_default();
        let headers = request.headers_mut();
        if let Ok(host) = HeaderValue::from_str(&self.target.authority) {
            headers.insert(header::HOST, host);
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.extend(self.headers.clone());
        request
    }

    async fn take_idle(&self) -> Option<LoadConnection> {
        loop {
            // The newest first: the others time out and are dropped when taken, which keeps the pool as small as the load needs.
            let mut connection = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if connection.is_usable().await {
                return Some(connection);
            }
        }
    }

    async fn keep(&self, mut connection: LoadConnection, outcome: &LoadOutcome) {
        let read_to_the_end = !matches!(outcome, LoadOutcome::Cancelled | LoadOutcome::Truncated);
        if read_to_the_end && connection.is_usable().await {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
    }
}

/// How the body of an answer ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BodyEnd {
    Clean,
    Broken,
}

/// The outcome of an answer with a successful status. A terminator completes the answer even if the connection then breaks; an error event
/// is a failure whatever follows it.
fn judge(reading: &wire::StreamReading, format: BodyFormat, end: BodyEnd, record: &LoadRecord) -> LoadOutcome {
    match &reading.error {
        Some(wire::InBandError::Overloaded) if record.content_events == 0 => {
            return LoadOutcome::Shed { status: record.status.unwrap_or_default(), retry_after: None };
        }
        Some(_) => return LoadOutcome::Error(FailureKind::Stream),
        None => {}
    }
    let end_is_unmarked = matches!(format, BodyFormat::Json | BodyFormat::Opaque) || reading.opaque;
    let ended_cleanly = end == BodyEnd::Clean && (reading.finished || end_is_unmarked);
    if reading.terminated || ended_cleanly { LoadOutcome::Completed } else { LoadOutcome::Truncated }
}

/// Reads a refusal or an error to its end, so that the connection can be used again.
async fn read_refusal(
    connection: &mut LoadConnection,
    answer: Response<Incoming>,
    record: &mut LoadRecord,
) -> LoadOutcome {
    let status = answer.status().as_u16();
    let retry_after = answer.headers().get(header::RETRY_AFTER).and_then(seconds);
    let mut body = answer.into_body();
    while let Some(Ok(frame)) = connection.drive(body.frame()).await {
        record.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        if record.bytes > LONGEST_REFUSAL {
            break;
        }
    }
    if SHED_STATUSES.contains(&status) {
        LoadOutcome::Shed { status, retry_after }
    } else {
        LoadOutcome::Error(FailureKind::Status)
    }
}

fn format_of(headers: &HeaderMap) -> BodyFormat {
    let content_type = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    BodyFormat::of(content_type, headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes))
}

fn seconds(value: &HeaderValue) -> Option<Duration> {
    value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

const fn dialect(api: Api) -> Dialect {
    match api {
        Api::OpenaiChat => Dialect::OpenAiChat,
        Api::OpenaiCompletions => Dialect::OpenAiCompletions,
        Api::AnthropicMessages => Dialect::AnthropicMessages,
        Api::OllamaChat => Dialect::OllamaChat,
        Api::OllamaGenerate => Dialect::OllamaGenerate,
    }
}

fn connect_error(error: &io::Error) -> FailureKind {
    let system = error.source().and_then(|source| source.downcast_ref::<io::Error>()).unwrap_or(error);
    let out_of_descriptors = matches!(system.raw_os_error(), Some(EMFILE | ENFILE));
    let out_of_ports = system.kind() == io::ErrorKind::AddrNotAvailable;
    if out_of_descriptors || out_of_ports { FailureKind::ClientLimit } else { FailureKind::Connect }
}

/// Statuses that say "not now": RFC 6585, RFC 9110, and Anthropic's `overloaded_error`. 504 is not one of them: a request
/// aborted late was dispatched.
const SHED_STATUSES: [u16; 3] = [429, 503, 529];

/// Bytes of a refusal that are read for the sake of its connection; beyond that a new connection is cheaper.
const LONGEST_REFUSAL: u64 = 64 * 1024;

/// A server whose list of models takes longer gets requests for the model `default`.
const MODELS_TIMEOUT: Duration = Duration::from_secs(5);
const LONGEST_ANSWER: usize = 4 << 20;

/// "Too many open files", in this process and in the system: the same numbers on Linux and macOS.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;
