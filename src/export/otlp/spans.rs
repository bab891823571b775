//! One report as spans: the request, its time in the queue, its time at the backend.
//!
//! Names and attributes are those of OpenTelemetry's semantic conventions for generative AI where there is one, and weir's own
//! otherwise. Absent: content, because a report holds none.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::{Event, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};

use crate::measure::{Closed, Outcome, RequestReport, SpanIds};
use crate::vocabulary::time::Timestamp;

/// The engine behind a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpanTarget {
    /// The kind of engine, as `gen_ai.provider.name`.
    pub engine: Option<&'static str>,
    pub address: String,
    pub port: u16,
}

/// How many spans a report makes.
pub fn count(report: &RequestReport) -> u64 {
    2 + u64::from(report.timeline.admitted.is_some())
}

/// The spans of `report`; `epoch` is the Unix time in nanoseconds of the clock's zero, and `id` makes ids.
pub fn of(
    report: &RequestReport,
    ids: SpanIds,
    target: &SpanTarget,
    epoch: u64,
    id: impl FnOnce() -> [u8; 8],
) -> Vec<Span> {
    let timeline = &report.timeline;
    let unix = |at: Timestamp| epoch.saturating_add(at.as_nanos());
    let arrived = timeline.arrived;
    let ended = timeline.ended.unwrap_or(arrived);
    let dispatched = timeline.admitted.unwrap_or(ended);
    let under = |name: &str, span: [u8; 8], parent: Option<[u8; 8]>, from: Timestamp, to: Timestamp| Span {
        trace_id: ids.trace.to_vec(),
        span_id: span.to_vec(),
        parent_span_id: parent.map_or_else(Vec::new, |parent| parent.to_vec()),
        flags: u32::from(ids.flags) | PARENT_KNOWN,
        name: name.to_owned(),
        kind: SpanKind::Internal.into(),
        start_time_unix_nano: unix(from),
        end_time_unix_nano: unix(to.max(from)),
        ..Span::default()
    };
    let mut server =
        under(&format!("{} {}", operation(report.dialect), report.model), ids.server, ids.parent, arrived, ended);
    server.kind = SpanKind::Server.into();
    server.flags |= if ids.parent.is_some() { PARENT_REMOTE } else { 0 };
    server.attributes = attributes(report, target);
    server.events = events(report, unix);
    server.status = Some(status(report.closed));
    let mut queue = under("weir.queue", id(), Some(ids.server), arrived, dispatched);
    queue.attributes = vec![text("weir.priority", report.priority.as_str())];
    let mut spans = vec![server, queue];
    if timeline.admitted.is_some() {
        let mut upstream = under("weir.upstream", ids.upstream, Some(ids.server), dispatched, ended);
        upstream.kind = SpanKind::Client.into();
        upstream.attributes = upstream_attributes(report, target);
        upstream.status = Some(status(report.closed));
        spans.push(upstream);
    }
    spans
}

fn attributes(report: &RequestReport, target: &SpanTarget) -> Vec<KeyValue> {
    let mut all = upstream_attributes(report, target);
    all.push(text("weir.outcome", report.closed.as_str()));
    all.push(text("weir.priority", report.priority.as_str()));
    if report.status != 0 {
        all.push(number("http.response.status_code", report.status.into()));
    }
    if let Some(tokens) = report.input_tokens {
        all.push(number("gen_ai.usage.input_tokens", tokens));
    }
    if report.output_tokens > 0 {
        all.push(number("gen_ai.usage.output_tokens", report.output_tokens));
    }
    if report.retries > 0 {
        all.push(number("weir.retries", report.retries.into()));
    }
    if let Closed::Shed(reason) = report.closed {
        all.push(text("weir.shed.reason", reason.as_str()));
    }
    all
}

fn upstream_attributes(report: &RequestReport, target: &SpanTarget) -> Vec<KeyValue> {
    let mut all = vec![
        text("gen_ai.operation.name", operation(report.dialect)),
        text("gen_ai.provider.name", target.engine.unwrap_or("unknown")),
        text("gen_ai.request.model", &report.model),
        text("server.address", &target.address),
        number("server.port", target.port.into()),
        text("weir.backend", &report.backend),
    ];
    if !report.closed.is_well() {
        all.push(text("error.type", report.closed.as_str()));
    }
    all
}

fn events(report: &RequestReport, unix: impl Fn(Timestamp) -> u64) -> Vec<Event> {
    let event = |name: &str, at: Option<Timestamp>| {
        Some(Event { time_unix_nano: unix(at?), name: name.to_owned(), ..Event::default() })
    };
    let timeline = &report.timeline;
    [event("first_token", timeline.first_token), event("end", timeline.ended)].into_iter().flatten().collect()
}

/// A client that left is not an error.
fn status(closed: Closed) -> Status {
    let code = match closed {
        Closed::Abandoned | Closed::Finished(Outcome::Completed | Outcome::ClientCancelled) => StatusCode::Unset,
        Closed::Shed(_) | Closed::Finished(_) => StatusCode::Error,
    };
    Status { code: code.into(), ..Status::default() }
}

/// The convention's name of the operation that a dialect requests.
fn operation(dialect: &str) -> &'static str {
    match dialect {
        "openai.embeddings" | "ollama.embed" => "embeddings",
        "openai.completions" | "ollama.generate" | "tgi" | "sglang.native" | "llamacpp.native" => "text_completion",
        _ => "chat",
    }
}

pub(super) fn text(key: &str, value: &str) -> KeyValue {
    pair(key, Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: u64) -> KeyValue {
    pair(key, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)))
}

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// The flags say whether the parent is remote (trace.proto, SpanFlags).
const PARENT_KNOWN: u32 = 0x100;
const PARENT_REMOTE: u32 = 0x200;
