//! Traces: whose span is whose parent, what spans say, what they never say, and that a collector can do no harm.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use weir::measure::Outcome;

use crate::support::canary::{CANARY, found};
use crate::support::chaos::dead;
use crate::support::client::{CHAT, Client, chat, post};
use crate::support::collector::{Collector, Manner, attribute};
use crate::support::origin::{Origin, SSE, closing, event};
use crate::support::time;
use crate::support::weir::{Weir, finished};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// Streams three tokens.
fn engine() -> Origin {
    Origin::always([SSE, &event("a"), &event("b"), &event("c"), &closing()].concat())
}

fn traced(origin: &Origin, collector: &Collector) -> Weir {
    Weir::with(
        &[origin.address],
        &format!("drain: {{min_delay: 50ms}}\notlp: {{endpoint: 'http://{}'}}", collector.address),
        |_| {},
    )
}

fn ask(weir: &Weir, fields: &str) {
    let answer = Client::connect(weir.address).send(&post(CHAT, fields, chat(3).as_bytes())).answer();
    assert_eq!(answer.status, 200);
}

/// What the engine was told, the last time.
fn told(origin: &Origin, field: &str) -> Option<String> {
    let head = origin.seen().last().unwrap().head.clone();
    let mut values =
        head.lines().filter_map(|line| line.split_once(": ")).filter(|(name, _)| name.eq_ignore_ascii_case(field));
    let value = values.next().map(|(_, value)| value.to_owned());
    assert_eq!(values.next(), None, "{head}");
    value
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The request's own span, its wait and its time at the backend.
fn apart(spans: &[Span]) -> (&Span, &Span, Option<&Span>) {
    let named = |name: &str| spans.iter().find(|span| span.name == name);
    let server = spans.iter().find(|span| span.kind() == SpanKind::Server).unwrap();
    (server, named("weir.queue").unwrap(), named("weir.upstream"))
}

#[test]
fn a_callers_trace_goes_through_our_span_to_the_engine() {
    let (origin, collector) = (engine(), Collector::start(Manner::Takes));
    let weir = traced(&origin, &collector);
    ask(&weir, &format!("traceparent: 00-{TRACE}-{SPAN}-01\r\ntracestate: vendor=1\r\n"));
    let spans = collector.wait_for(3);
    let (server, queue, upstream) = apart(&spans);
    let upstream = upstream.unwrap();
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE));
    assert_eq!(hex(&server.parent_span_id), SPAN);
    assert_eq!((&queue.parent_span_id, &upstream.parent_span_id), (&server.span_id, &server.span_id));
    let parent = told(&origin, "traceparent").unwrap();
    assert_eq!(parent, format!("00-{TRACE}-{}-01", hex(&upstream.span_id)), "the engine hangs below our span");
    assert_eq!(told(&origin, "tracestate").as_deref(), Some("vendor=1"));
}

#[test]
fn spans_say_what_was_asked_where_and_when() {
    let (origin, collector) = (engine(), Collector::start(Manner::Takes));
    let weir = traced(&origin, &collector);
    ask(&weir, "");
    let spans = collector.wait_for(3);
    let (server, queue, upstream) = apart(&spans);
    let upstream = upstream.unwrap();
    assert!(server.parent_span_id.is_empty() && server.trace_id != [0; 16]);
    let port = origin.address.port().to_string();
    for (key, value) in [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "unknown"),
        ("gen_ai.request.model", "m"),
        ("gen_ai.usage.output_tokens", "3"),
        ("server.address", "127.0.0.1"),
        ("server.port", &*port),
        ("http.response.status_code", "200"),
        ("weir.outcome", "completed"),
    ] {
        assert_eq!(attribute(&server.attributes, key).as_deref(), Some(value), "{key}");
    }
    assert_eq!(attribute(&server.attributes, "error.type"), None);
    assert_eq!(upstream.kind(), SpanKind::Client);
    let names: Vec<_> = server.events.iter().map(|event| &*event.name).collect();
    assert_eq!(names, ["first_token", "end"]);
    assert!(server.start_time_unix_nano <= queue.end_time_unix_nano);
    assert!(queue.end_time_unix_nano == upstream.start_time_unix_nano);
    assert!(upstream.start_time_unix_nano <= server.events[0].time_unix_nano);
    assert_eq!(server.events[1].time_unix_nano, server.end_time_unix_nano);
    assert!(server.start_time_unix_nano > 1_500_000_000_000_000_000, "in the time of the world");
    let message = &collector.messages()[0];
    let resource = message.resource_spans[0].resource.as_ref().unwrap();
    assert_eq!(attribute(&resource.attributes, "service.name").as_deref(), Some("weir"));
}

#[test]
fn an_unsampled_caller_is_followed_and_a_bad_field_ignored() {
    let (origin, collector) = (engine(), Collector::start(Manner::Takes));
    let weir = traced(&origin, &collector);
    let unsampled = format!("00-{TRACE}-{SPAN}-00");
    ask(&weir, &format!("traceparent: {unsampled}\r\ntracestate: vendor=1\r\n"));
    assert_eq!(told(&origin, "traceparent"), Some(unsampled));
    assert_eq!(told(&origin, "tracestate").as_deref(), Some("vendor=1"));
    ask(&weir, "traceparent: 00-garbage-01\r\ntracestate: vendor=1\r\n");
    let parent = told(&origin, "traceparent").unwrap();
    assert!(parent.len() == 55 && !parent.contains("garbage"), "{parent}");
    assert_eq!(told(&origin, "tracestate"), None);
    let spans = collector.wait_for(3);
    assert!(parent.contains(&hex(&apart(&spans).2.unwrap().span_id)), "only the second one is recorded");
}

#[test]
fn without_a_collector_the_fields_pass_as_they_came() {
    let origin = engine();
    let weir = Weir::before(&[origin.address]);
    assert!(weir.proxy().reports.is_none() && weir.proxy().sampling.is_none());
    for parent in [&*format!("00-{TRACE}-{SPAN}-01"), "garbage"] {
        ask(&weir, &format!("traceparent: {parent}\r\ntracestate: vendor=1\r\n"));
        assert_eq!(told(&origin, "traceparent").as_deref(), Some(parent));
        assert_eq!(told(&origin, "tracestate").as_deref(), Some("vendor=1"));
    }
    ask(&weir, "");
    assert_eq!(told(&origin, "traceparent"), None);
    assert!(!weir.page("/metrics").contains("weir_otlp_spans_total"));
}

#[test]
fn a_share_of_none_records_only_what_callers_record() {
    let (origin, collector) = (engine(), Collector::start(Manner::Takes));
    let settings = format!("otlp: {{endpoint: 'http://{}', sample_ratio: 0.0}}", collector.address);
    let weir = Weir::with(&[origin.address], &settings, |_| {});
    ask(&weir, "");
    assert!(told(&origin, "traceparent").unwrap().ends_with("-00"), "the engine does not record either");
    ask(&weir, &format!("traceparent: 00-{TRACE}-{SPAN}-01\r\n"));
    assert!(collector.wait_for(3).iter().all(|span| hex(&span.trace_id) == TRACE));
}

#[test]
fn what_failed_says_how() {
    let collector = Collector::start(Manner::Takes);
    let cut = Origin::start(|talk| {
        if talk.request().is_some() {
            talk.write(&[SSE, &event("a")].concat());
        }
    });
    let weir = traced(&cut, &collector);
    Client::connect(weir.address).send(&post(CHAT, "", chat(3).as_bytes())).answer();
    let spans = collector.wait_for(3);
    let (server, _, upstream) = apart(&spans);
    for span in [server, upstream.unwrap()] {
        assert_eq!(attribute(&span.attributes, "error.type").as_deref(), Some("upstream_truncated"));
        assert_eq!(span.status.as_ref().unwrap().code, 2);
    }
    weir.page("/drain");
    time::until("it refuses", || weir.proxy().drain.phase() == weir::proxy::drain::DrainPhase::Lame);
    let answer = Client::connect(weir.address).send(&post(CHAT, "", chat(3).as_bytes())).answer();
    assert_eq!(answer.status, 503);
    time::until("the refusal has come", || collector.spans().len() == 5);
    let spans = collector.spans();
    let shed = spans.iter().find(|span| attribute(&span.attributes, "weir.shed.reason").is_some()).unwrap();
    assert_eq!(attribute(&shed.attributes, "weir.shed.reason").as_deref(), Some("draining"));
    assert_eq!(attribute(&shed.attributes, "error.type").as_deref(), Some("shed"));
    assert_eq!(attribute(&shed.attributes, "http.response.status_code").as_deref(), Some("503"));
}

#[test]
fn no_prompt_key_query_or_answer_reaches_the_collector() {
    let collector = Collector::start(Manner::Takes);
    let origin = Origin::always([SSE, &event(CANARY), &closing()].concat());
    let weir = traced(&origin, &collector);
    let fields = format!(
        "authorization: Bearer {CANARY}\r\nx-api-key: {CANARY}\r\nuser-agent: {CANARY}\r\nx-request-id: {CANARY}\r\n\
         tracestate: v={CANARY}\r\nbaggage: k={CANARY}\r\ntraceparent: 00-{TRACE}-{SPAN}-01\r\n"
    );
    let body = format!(
        r#"{{"model":"m","stream":true,"messages":[{{"role":"user","content":"{CANARY}"}}],"user":"{CANARY}"}}"#
    );
    let request = post(&format!("{CHAT}?api_key={CANARY}"), &fields, body.as_bytes());
    assert_eq!(Client::connect(weir.address).send(&request).answer().status, 200);
    collector.wait_for(3);
    for (head, body) in collector.everything() {
        assert_eq!(found(&head), None, "{head}");
        assert_eq!(found(&String::from_utf8_lossy(&body)), None);
    }
    assert!(format!("{:?}", collector.spans()).contains("weir.queue"), "something was there to be searched");
}

#[test]
fn a_broken_collector_costs_spans_and_nothing_else() {
    let (refusing, hanging) = (Collector::start(Manner::Says(400)), Collector::start(Manner::Hangs));
    for (address, told) in [(dead(), true), (refusing.address, true), (hanging.address, false)] {
        let origin = engine();
        let settings = format!("otlp: {{endpoint: 'http://{address}'}}");
        let weir = Weir::with(&[origin.address], &settings, |_| {});
        let mut client = Client::connect(weir.address);
        for _ in 0..1000 {
            assert_eq!(client.send(&post(CHAT, "", chat(3).as_bytes())).answer().status, 200);
        }
        assert_eq!(finished(&weir.settled(), Outcome::Completed), 1000);
        if told {
            time::until("spans are counted as lost", || lost(&weir.page("/metrics")) > 0);
        }
        let begin = time::now();
        weir.stop();
        assert!(begin.elapsed() < Duration::from_secs(8), "{address}: the exit took {:?}", begin.elapsed());
    }
    assert!(hanging.connections() >= 1 && refusing.connections() >= 1);
}

/// Spans that did not reach the collector.
fn lost(metrics: &str) -> u64 {
    let lines = metrics.lines().filter(|line| line.starts_with("weir_otlp_spans_total") && !line.contains("sent"));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn a_full_queue_drops_spans_and_counts_every_one_of_them() {
    static SENT: AtomicU64 = AtomicU64::new(0);
    let (origin, collector) = (engine(), Collector::start(Manner::Hangs));
    let weir = traced(&origin, &collector);
    let mut client = Client::connect(weir.address);
    while lost(&weir.page("/metrics")) == 0 {
        for _ in 0..500 {
            assert_eq!(client.send(&post(CHAT, "", chat(3).as_bytes())).answer().status, 200);
            SENT.fetch_add(1, Relaxed);
        }
        assert!(SENT.load(Relaxed) < 20_000, "the queue has no end");
    }
    // At most one batch on its way, one that fills, and what the queue holds.
    assert!(SENT.load(Relaxed) <= 2048 + 2 * 512 + 1000, "{SENT:?}");
}

#[test]
fn what_is_left_is_sent_at_the_end() {
    let (origin, collector) = (engine(), Collector::start(Manner::Takes));
    let weir = traced(&origin, &collector);
    (0..5).for_each(|_| ask(&weir, ""));
    weir.stop();
    assert_eq!(collector.spans().len(), 15);
}
