//! The HTTP service: reads a request, submits it, and answers in its dialect.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use super::body::EngineBody;
use super::dialect::{AnswerContext, ServerDialect};
use super::engine_request::EngineRequest;
use super::fault::InjectedFault;
use super::filler_text::put_word;
use super::pacer::{Pacer, PacerTicket};
use super::recorder::EngineEnd;
use super::settings::Settings;
use super::stream::{StreamPhase, StreamRecord, StreamedAnswer};
use super::token::Token;
use super::{anthropic, ollama, openai};

/// Answers requests; shared by all connections.
pub struct EngineService {
    settings: Settings,
    pacer: Pacer,
    /// The model's name as a JSON string.
    model: String,
    served: AtomicU64,
}

impl EngineService {
    /// A service in front of a running pacer.
    pub fn new(settings: Settings, pacer: Pacer) -> Self {
        let model = Value::from(settings.model_name.as_str()).to_string();
        Self { settings, pacer, model, served: AtomicU64::new(0) }
    }

    /// Answers one request. `reset` is set when a fault asks for the connection to end in a reset.
    pub async fn answer(
        &self,
        request: Request<Incoming>,
        reset: Arc<AtomicBool>,
    ) -> Result<Response<EngineBody>, Infallible> {
        let path = request.uri().path();
        let known = dialect(path).map(EngineRoute::Inference).or_else(|| self.reading(path).map(EngineRoute::Reading));
        Ok(match (known, request.method()) {
            (Some(EngineRoute::Inference(dialect)), &Method::POST) => self.infer(dialect, request, reset).await,
            (Some(EngineRoute::Reading(response)), &Method::GET | &Method::HEAD) => response,
            (Some(_), _) => json_response(405, &openai::error(405, "method not allowed on this path")),
            (None, _) => json_response(404, &openai::error(404, "no such path")),
        })
    }

    async fn infer(
        &self,
        dialect: &'static dyn ServerDialect,
        request: Request<Incoming>,
        reset: Arc<AtomicBool>,
    ) -> Response<EngineBody> {
        let number = self.served.fetch_add(1, Ordering::Relaxed);
        let (head, body) = request.into_parts();
        let request_id = head.headers.get("x-request-id").cloned().unwrap_or_else(|| made_id(number));
        let mut response = match self.attempt(dialect, number, &request_id, &head.headers, body, reset).await {
            Ok(response) => response,
            Err(EngineRefusal { status, message }) => json_response(status, &dialect.error(status, &message)),
        };
        response.headers_mut().insert("x-request-id", request_id);
        response
    }

    async fn attempt(
        &self,
        dialect: &'static dyn ServerDialect,
        number: u64,
        request_id: &HeaderValue,
        headers: &HeaderMap,
        body: Incoming,
        reset: Arc<AtomicBool>,
    ) -> Result<Response<EngineBody>, EngineRefusal> {
        let body = Limited::new(body, LARGEST_BODY)
            .collect()
            .await
            .map_err(|error| EngineRefusal::of_body(&*error))?
            .to_bytes();
        let request_id = String::from_utf8_lossy(request_id.as_bytes());
        let mut record = StreamRecord::open(self.settings.recorder.clone(), self.settings.clock, &request_id, &body);
        let fault = self.fault(headers)?;
        match fault {
            Some(InjectedFault::Status(status)) => {
                record.end = EngineEnd::Broken;
                return Err(EngineRefusal { status, message: "refused, as it was asked to".to_owned() });
            }
            Some(InjectedFault::Hang) => {
                record.end = EngineEnd::Broken;
                std::future::pending::<()>().await;
            }
            _ => {}
        }
        let request = self.read(dialect, &body)?;
        drop(body);
        let outputs = request.outputs(&self.settings.setup, self.settings.seed, number);
        let (ticket, mut tokens) = self.pacer.submit(&request, &outputs, record.arrival());
        let created = ORIGIN + record.arrival().as_nanos() / 1_000_000_000;
        let answer = AnswerContext::new(number, self.model.clone(), created, request);
        if !answer.request.stream {
            return self.answer_whole(dialect, answer, ticket, tokens, record).await;
        }
        let early = match fault {
            Some(InjectedFault::SlowHead(None)) => tokens.recv().await,
            Some(InjectedFault::SlowHead(Some(delay))) => {
                tokio::time::sleep(delay).await;
                None
            }
            _ => None,
        };
        let breakage = match fault {
            Some(InjectedFault::Break { after, how }) => Some((after, how)),
            _ => None,
        };
        let stamped = self.settings.stamps || headers.get("x-engine-stamps").is_some_and(|value| value == "1");
        let (phase, out) = (StreamPhase::Unopened, BytesMut::with_capacity(BUFFER));
        let stream =
            StreamedAnswer { dialect, answer, ticket, early, tokens, stamped, breakage, reset, record, phase, out };
        Ok(response(200, dialect.stream_type(), EngineBody::Streamed(Box::new(stream))))
    }

    /// Waits for every token, then answers in one piece. A client that leaves drops this future, and with it the ticket.
    async fn answer_whole(
        &self,
        dialect: &'static dyn ServerDialect,
        mut answer: AnswerContext,
        mut ticket: PacerTicket,
        mut tokens: UnboundedReceiver<Token>,
        mut record: StreamRecord,
    ) -> Result<Response<EngineBody>, EngineRefusal> {
        let mut texts = vec![BytesMut::new(); answer.tokens.len()];
        while !answer.finished() {
            let Some(token) = tokens.recv().await else {
                return Err(EngineRefusal { status: 500, message: "the engine has stopped".to_owned() });
            };
            let now = self.settings.clock.now();
            answer.on_token(&token, record.age(now));
            record.on_token(now);
            put_word(&mut texts[token.choice as usize], answer.number, token.choice, token.index);
        }
        ticket.on_finish();
        let mut out = BytesMut::new();
        dialect.put_whole(&mut out, &answer, &texts);
        let out = out.freeze();
        record.on_piece(&out);
        record.close(EngineEnd::Finished, self.settings.clock.now());
        Ok(response(200, "application/json", EngineBody::whole(out)))
    }

    fn read(&self, dialect: &dyn ServerDialect, body: &[u8]) -> Result<EngineRequest, EngineRefusal> {
        let body: Value =
            serde_json::from_slice(body).map_err(|error| EngineRefusal::bad(format!("not JSON: {error}")))?;
        if !body.is_object() {
            return Err(EngineRefusal::bad("the body must be a JSON object".to_owned()));
        }
        let request = dialect.read_request(&body).map_err(|error| EngineRefusal::bad(error.to_string()))?;
        let longest = request.prompts.iter().copied().max().unwrap_or_default();
        if self.settings.setup.params.kv_left_after(longest) == 0 {
            let most = self.settings.setup.params.kv_tokens;
            let message = format!("the prompt has {longest} tokens, but this engine holds {most} in all");
            return Err(EngineRefusal::bad(message));
        }
        Ok(request)
    }

    fn fault(&self, headers: &HeaderMap) -> Result<Option<InjectedFault>, EngineRefusal> {
        let Some(value) = headers.get("x-engine-fault").filter(|_| self.settings.faults) else { return Ok(None) };
        match value.to_str().ok().and_then(InjectedFault::parse) {
            Some(fault) => Ok(Some(fault)),
            None => Err(EngineRefusal::bad("x-engine-fault names no fault".to_owned())),
        }
    }

    /// The paths that are only read.
    fn reading(&self, path: &str) -> Option<Response<EngineBody>> {
        let params = &self.settings.setup.params;
        let name = &self.settings.model_name;
        match path {
            "/health" => Some(response(200, "text/plain; charset=utf-8", EngineBody::whole(Bytes::new()))),
            "/metrics" => {
                let text = self.pacer.meter().exposition(&self.model);
                Some(response(200, "text/plain; version=0.0.4; charset=utf-8", EngineBody::whole(text)))
            }
            "/v1/models" => Some(json_response(
                200,
                &json!({"object": "list", "data": [{"id": name, "object": "model", "created": ORIGIN, "owned_by":
                    "weir", "max_model_len": params.kv_tokens}]}),
            )),
            "/api/tags" => Some(json_response(200, &json!({"models": [{"name": name, "model": name}]}))),
            "/version" | "/api/version" => Some(json_response(200, &json!({"version": env!("CARGO_PKG_VERSION")}))),
            _ => None,
        }
    }
}

enum EngineRoute {
    Inference(&'static dyn ServerDialect),
    Reading(Response<EngineBody>),
}

/// Why a request gets no tokens.
struct EngineRefusal {
    status: u16,
    message: String,
}

impl EngineRefusal {
    fn bad(message: String) -> Self {
        Self { status: 400, message }
    }

    fn of_body(error: &(dyn std::error::Error + 'static)) -> Self {
        match error.is::<http_body_util::LengthLimitError>() {
            true => Self { status: 413, message: "the body is larger than 64 MiB".to_owned() },
            false => Self::bad(format!("the body could not be read: {error}")),
        }
    }
}

fn dialect(path: &str) -> Option<&'static dyn ServerDialect> {
    match path {
        "/v1/chat/completions" => Some(&openai::OpenAiChat),
        "/v1/completions" => Some(&openai::OpenAiCompletions),
        "/v1/messages" => Some(&anthropic::Messages),
        "/api/chat" => Some(&ollama::OllamaChat),
        "/api/generate" => Some(&ollama::Generate),
        _ => None,
    }
}

fn made_id(number: u64) -> HeaderValue {
    // Letters and digits are a header value.
    HeaderValue::try_from(format!("sim-{number}")).unwrap_or_else(|_| HeaderValue::from_static("sim"))
}

fn json_response(status: u16, body: &Value) -> Response<EngineBody> {
    response(status, "application/json", EngineBody::whole(body.to_string()))
}

fn response(status: u16, content_type: &'static str, body: EngineBody) -> Response<EngineBody> {
    let mut response = Response::new(body);
    // A fault may ask for a status that does not exist; hyper accepts all from 400 to 599.
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Equal to the default of weir's data port.
const LARGEST_BODY: usize = 64 << 20;

/// `created` of an answer is this plus the clock's seconds: the server has no calendar.
const ORIGIN: u64 = 1_700_000_000;

/// Holds several events, so that a buffer is reused many times before it is replaced.
const BUFFER: usize = 4096;
