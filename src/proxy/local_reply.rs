//! weir's own answers: every refusal and failure, in the dialect of the request.
//!
//! The only file where an error becomes HTTP. Each answer says what happened in one sentence, when to come back, and
//! nothing that a client sent: no target, no header, no body.

use std::time::Duration;

use crate::http1::Reject;
use crate::measure::ShedReason;
use crate::vocabulary::bad_answer::BadAnswer;
use crate::wire::ApiFamily;

/// What weir answers instead of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalReply {
    /// Refused before dispatch; the client may try again after `retry_after` seconds.
    Shed { reason: ShedReason, status: u16, retry_after: u16 },
    /// Given up after dispatch: no first token within the request's objective.
    Late,
    /// The request head breaks a rule; status and sentence come from the gate.
    Malformed { status: u16, sentence: &'static str },
    /// The body is longer than `limits.max_body`.
    BodyTooLarge,
    /// The process's body budget is spent.
    BodyMemory,
    /// Head or body did not arrive in time.
    SlowRequest,
    /// The backend refused the connection, or closed it before the first byte of its answer.
    BackendFailed,
    /// The backend did not accept the connection, or did not answer, in time.
    BackendTimeout,
    /// The backend's answer is not HTTP as weir relays it.
    BadAnswer(BadAnswer),
    /// The path is not served on this port.
    NotHere,
}

impl LocalReply {
    /// For a head or a body that breaks a rule.
    pub fn malformed(reject: Reject) -> Self {
        Self::Malformed { status: reject.status(), sentence: reject.sentence() }
    }

    /// Where no queue decides: 503, and one second.
    pub fn shed(reason: ShedReason) -> Self {
        Self::Shed { reason, status: 503, retry_after: 1 }
    }

    /// The reason in the statistics, of a refusal before dispatch.
    pub fn shed_reason(self) -> Option<ShedReason> {
        match self {
            Self::Shed { reason, .. } => Some(reason),
            _ => None,
        }
    }

    /// The rule that the backend's answer broke.
    pub fn bad_answer(self) -> Option<BadAnswer> {
        if let Self::BadAnswer(cause) = self { Some(cause) } else { None }
    }

    /// The status sent.
    pub fn status(self) -> u16 {
        match self {
            Self::BodyMemory => 503,
            Self::Shed { status, .. } | Self::Malformed { status, .. } => status,
            Self::BodyTooLarge => 413,
            Self::SlowRequest => 408,
            Self::BackendFailed | Self::BadAnswer(_) => 502,
            Self::BackendTimeout | Self::Late => 504,
            Self::NotHere => 404,
        }
    }

    /// The whole answer, head and body.
    pub fn render(self, to: &ReplyContext<'_>) -> Vec<u8> {
        let status = self.status();
        let body = self.body(to.family);
        let mut out = Vec::with_capacity(320 + body.len());
        push(&mut out, &["HTTP/1.1 ", status_line(status), "\r\ncontent-type: application/json\r\n"]);
        if !to.date.is_empty() {
            push(&mut out, &["date: ", to.date, "\r\n"]);
        }
        if let Some(id) = to.request_id {
            push(&mut out, &["x-request-id: ", id, "\r\n"]);
        }
        if let Some(seconds) = self.retry_after() {
            push(&mut out, &["retry-after: ", &seconds.to_string(), "\r\n"]);
        }
        if let Some(queued) = to.queued {
            push(&mut out, &["x-weir-queue-ms: ", &queued.as_millis().to_string(), "\r\n"]);
        }
        push(
            &mut out,
            &["x-weir-shed-reason: ", self.reason(), "\r\ncontent-length: ", &body.len().to_string(), "\r\n"],
        );
        out.extend_from_slice(if to.close { b"connection: close\r\n\r\n" } else { b"\r\n" });
        if !to.head_only {
            out.extend_from_slice(body.as_bytes());
        }
        out
    }

    /// The machine-readable reason: the ledger's word where there is one.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Shed { reason, .. } => reason.as_str(),
            Self::Late => ShedReason::Deadline.as_str(),
            Self::Malformed { .. } => "malformed",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyMemory => "body_memory",
            Self::SlowRequest => "slow_request",
            Self::BackendFailed => "backend_failed",
            Self::BackendTimeout => "backend_timeout",
            Self::BadAnswer(_) => "bad_answer",
            Self::NotHere => "not_here",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::Shed { reason: ShedReason::NoBackend, .. } => "no backend is up; try again later",
            Self::Shed { reason: ShedReason::Draining, .. } => {
                "this replica is shutting down; try again, another one will answer"
            }
            Self::Shed { .. } => "the model server is at its capacity; try again later",
            Self::Late => "the model server did not begin its answer in time; try again later",
            Self::Malformed { sentence, .. } => sentence,
            Self::BodyTooLarge => "the request body is longer than this server accepts (limits.max_body)",
            Self::BodyMemory => "too many request bodies are held at the moment; try again later",
            Self::SlowRequest => "the request did not arrive completely within the time allowed",
            Self::BackendFailed => "the backend closed the connection before it answered",
            Self::BackendTimeout => "the backend did not answer in time",
            Self::BadAnswer(_) => "the backend's answer is not valid HTTP/1.1",
            Self::NotHere => "this path is not served here",
        }
    }

    /// Whole seconds until it makes sense to try again; `None` where trying the same again cannot help.
    fn retry_after(self) -> Option<u16> {
        match self {
            Self::Shed { retry_after, .. } => Some(retry_after),
            Self::Late
            | Self::BodyMemory
            | Self::BackendFailed
            | Self::BackendTimeout
            | Self::BadAnswer(_)
            | Self::SlowRequest => Some(1),
            Self::Malformed { .. } | Self::BodyTooLarge | Self::NotHere => None,
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Malformed { .. } | Self::BodyTooLarge | Self::SlowRequest | Self::NotHere => "invalid_request_error",
            Self::Shed { .. } | Self::Late | Self::BodyMemory => "overloaded_error",
            Self::BackendFailed | Self::BackendTimeout | Self::BadAnswer(_) => "api_error",
        }
    }

    /// The event that ends a stream which has begun already.
    pub fn event(self, family: ApiFamily) -> String {
        error_event(family, self.kind(), self.sentence(), self.reason())
    }

    /// The body in the caller's dialect. Sentences and reasons are ours and need no escaping.
    fn body(self, family: ApiFamily) -> String {
        body(family, self.kind(), self.sentence(), self.reason())
    }
}

/// The client that gets an answer, and in which form.
#[derive(Clone, Copy, Debug)]
pub struct ReplyContext<'a> {
    /// Whose form the body takes.
    pub family: ApiFamily,
    /// The request's id, when the head was good enough to have one.
    pub request_id: Option<&'a str>,
    /// The connection ends after this answer.
    pub close: bool,
    /// The request was a HEAD: no body may follow.
    pub head_only: bool,
    /// The `Date` field's value; empty leaves the field out.
    pub date: &'a str,
    /// How long the request waited in the queue; `None`: it was not measured.
    pub queued: Option<Duration>,
}

/// The event for a stream that the backend broke off.
///
/// Written only between two events; never followed by the dialect's terminator.
pub fn error_event(family: ApiFamily, kind: &str, sentence: &str, code: &str) -> String {
    let data = body(family, kind, sentence, code);
    match family {
        ApiFamily::Anthropic => format!("event: error\ndata: {data}\n\n"),
        ApiFamily::Ollama => format!("{data}\n"),
        ApiFamily::OpenAi | ApiFamily::Tgi => format!("data: {data}\n\n"),
    }
}

fn body(family: ApiFamily, kind: &str, sentence: &str, code: &str) -> String {
    match family {
        ApiFamily::OpenAi => {
            format!(r#"{{"error":{{"message":"{sentence}","type":"{kind}","param":null,"code":"{code}"}}}}"#)
        }
        ApiFamily::Anthropic => format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"{sentence}"}}}}"#),
        ApiFamily::Ollama => format!(r#"{{"error":"{sentence}"}}"#),
        ApiFamily::Tgi => {
            let kind = if kind == "overloaded_error" { "overloaded" } else { kind };
            format!(r#"{{"error":"{sentence}","error_type":"{kind}"}}"#)
        }
    }
}

fn push(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

fn status_line(status: u16) -> &'static str {
    match status {
        400 => "400 Bad Request",
        404 => "404 Not Found",
        405 => "405 Method Not Allowed",
        408 => "408 Request Timeout",
        413 => "413 Content Too Large",
        417 => "417 Expectation Failed",
        429 => "429 Too Many Requests",
        431 => "431 Request Header Fields Too Large",
        501 => "501 Not Implemented",
        502 => "502 Bad Gateway",
        503 => "503 Service Unavailable",
        504 => "504 Gateway Timeout",
        505 => "505 HTTP Version Not Supported",
        508 => "508 Loop Detected",
        529 => "529 Overloaded",
        _ => "500 Internal Server Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [LocalReply; 13] = [
        LocalReply::Shed { reason: ShedReason::NoBackend, status: 503, retry_after: 1 },
        LocalReply::Shed { reason: ShedReason::Draining, status: 503, retry_after: 1 },
        LocalReply::Shed { reason: ShedReason::Saturated, status: 429, retry_after: 7 },
        LocalReply::Shed { reason: ShedReason::Deadline, status: 529, retry_after: 60 },
        LocalReply::Late,
        LocalReply::Malformed { status: 400, sentence: "a sentence" },
        LocalReply::BodyTooLarge,
        LocalReply::BodyMemory,
        LocalReply::SlowRequest,
        LocalReply::BackendFailed,
        LocalReply::BackendTimeout,
        LocalReply::BadAnswer(BadAnswer::Framing),
        LocalReply::NotHere,
    ];

    fn to(family: ApiFamily) -> ReplyContext<'static> {
        ReplyContext { family, request_id: Some("r-1"), close: false, head_only: false, date: "", queued: None }
    }

    #[test]
    fn every_reply_is_well_framed_json_in_every_dialect() {
        for family in [ApiFamily::OpenAi, ApiFamily::Anthropic, ApiFamily::Ollama, ApiFamily::Tgi] {
            for reply in ALL {
                let text = String::from_utf8(reply.render(&to(family))).unwrap();
                let (head, body) = text.split_once("\r\n\r\n").unwrap();
                assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
                assert!(!head.contains("connection: close"), "the connection stays usable");
                let json: serde_json::Value = serde_json::from_str(body).unwrap();
                assert!(json.get("error").is_some(), "{body}");
            }
        }
    }

    #[test]
    fn only_a_shed_request_gets_retry_after() {
        let shed = String::from_utf8(LocalReply::shed(ShedReason::NoBackend).render(&to(ApiFamily::OpenAi))).unwrap();
        assert!(shed.starts_with("HTTP/1.1 503 ") && shed.contains("retry-after: 1\r\n"));
        assert!(shed.contains("x-weir-shed-reason: no_backend\r\n"));
        let bad = String::from_utf8(LocalReply::BodyTooLarge.render(&to(ApiFamily::OpenAi))).unwrap();
        assert!(bad.starts_with("HTTP/1.1 413 ") && !bad.contains("retry-after"));
    }

    #[test]
    fn the_answer_to_a_head_request_has_no_body() {
        let answer = LocalReply::BackendFailed.render(&ReplyContext { head_only: true, ..to(ApiFamily::OpenAi) });
        assert!(answer.ends_with(b"\r\n\r\n"));
    }

    #[test]
    fn an_error_event_never_carries_a_terminator() {
        for family in [ApiFamily::OpenAi, ApiFamily::Anthropic, ApiFamily::Ollama, ApiFamily::Tgi] {
            let event = error_event(family, "api_error", "the backend went away", "backend_failed");
            assert!(event.ends_with('\n') && !event.contains("[DONE]"));
        }
    }
}
