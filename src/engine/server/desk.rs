//! The front desk: reads a request, has it submitted, and answers in its dialect.

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

use super::ask::Ask;
use super::body::Body;
use super::dialect::{Answer, Dialect};
use super::fault::Fault;
use super::pacer::{Pacer, Ticket, Token};
use super::recorder::End;
use super::stream::{Account, Phase, Stream};
use super::words::put_word;
use super::{Settings, anthropic, ollama, openai};

/// Answers requests; shared by all connections.
pub struct Desk {
    settings: Settings,
    pacer: Pacer,
    /// The model's name as a JSON string.
    model: String,
    served: AtomicU64,
}

impl Desk {
    /// A desk in front of a running pacer.
    pub fn new(settings: Settings, pacer: Pacer) -> Self {
        let model = Value::from(settings.model_name.as_str()).to_string();
        Self { settings, pacer, model, served: AtomicU64::new(0) }
    }

    /// Answers one request. `reset` tells the connection how to end, should a fault ask for it.
    pub async fn answer(
        &self,
        request: Request<Incoming>,
        reset: Arc<AtomicBool>,
    ) -> Result<Response<Body>, Infallible> {
        let path = request.uri().path();
        let known = dialect(path).map(Asked::Inference).or_else(|| self.reading(path).map(Asked::Reading));
        Ok(match (known, request.method()) {
            (Some(Asked::Inference(dialect)), &Method::POST) => self.infer(dialect, request, reset).await,
            (Some(Asked::Reading(response)), &Method::GET | &Method::HEAD) => response,
            (Some(_), _) => json_response(405, &openai::error(405, "method not allowed on this path")),
            (None, _) => json_response(404, &openai::error(404, "no such path")),
        })
    }

    async fn infer(
        &self,
        dialect: &'static dyn Dialect,
        request: Request<Incoming>,
        reset: Arc<AtomicBool>,
    ) -> Response<Body> {
        let number = self.served.fetch_add(1, Ordering::Relaxed);
        let (head, body) = request.into_parts();
        let request_id = head.headers.get("x-request-id").cloned().unwrap_or_else(|| made_id(number));
        let mut response = match self.attempt(dialect, number, &request_id, &head.headers, body, reset).await {
            Ok(response) => response,
            Err(Refusal { status, message }) => json_response(status, &dialect.error(status, &message)),
        };
        response.headers_mut().insert("x-request-id", request_id);
        response
    }

    async fn attempt(
        &self,
        dialect: &'static dyn Dialect,
        number: u64,
        request_id: &HeaderValue,
        headers: &HeaderMap,
        body: Incoming,
        reset: Arc<AtomicBool>,
    ) -> Result<Response<Body>, Refusal> {
        let body =
            Limited::new(body, LARGEST_BODY).collect().await.map_err(|error| Refusal::of_body(&*error))?.to_bytes();
        let request_id = String::from_utf8_lossy(request_id.as_bytes());
        let mut account = Account::open(self.settings.recorder.clone(), self.settings.clock, &request_id, &body);
        let fault = self.fault(headers)?;
        match fault {
            Some(Fault::Status(status)) => {
                account.end = End::Broken;
                return Err(Refusal { status, message: "refused, as it was asked to".to_owned() });
            }
            Some(Fault::Hang) => {
                account.end = End::Broken;
                std::future::pending::<()>().await;
            }
            _ => {}
        }
        let ask = self.read(dialect, &body)?;
        drop(body);
        let outputs = ask.outputs(&self.settings.setup, self.settings.seed, number);
        let (ticket, mut tokens) = self.pacer.submit(&ask, &outputs, account.arrival());
        let created = ORIGIN + account.arrival().as_nanos() / 1_000_000_000;
        let answer = Answer::new(number, self.model.clone(), created, ask);
        if !answer.ask.stream {
            return self.tell_whole(dialect, answer, ticket, tokens, account).await;
        }
        let early = match fault {
            Some(Fault::SlowHead(None)) => tokens.recv().await,
            Some(Fault::SlowHead(Some(delay))) => {
                tokio::time::sleep(delay).await;
                None
            }
            _ => None,
        };
        let breakage = match fault {
            Some(Fault::Break { after, how }) => Some((after, how)),
            _ => None,
        };
        let stamped = self.settings.stamps || headers.get("x-engine-stamps").is_some_and(|value| value == "1");
        let (phase, out) = (Phase::Silent, BytesMut::with_capacity(BUFFER));
        let stream = Stream { dialect, answer, ticket, early, tokens, stamped, breakage, reset, account, phase, out };
        Ok(response(200, dialect.stream_type(), Body::Told(Box::new(stream))))
    }

    /// Waits for every token, then answers in one piece. The client leaving drops this future, and with it the ticket.
    async fn tell_whole(
        &self,
        dialect: &'static dyn Dialect,
        mut answer: Answer,
        mut ticket: Ticket,
        mut tokens: UnboundedReceiver<Token>,
        mut account: Account,
    ) -> Result<Response<Body>, Refusal> {
        let mut texts = vec![BytesMut::new(); answer.tokens.len()];
        while !answer.finished() {
            let Some(token) = tokens.recv().await else {
                return Err(Refusal { status: 500, message: "the engine has stopped".to_owned() });
            };
            let now = self.settings.clock.now();
            answer.on_token(&token, account.age(now));
            account.on_token(now);
            put_word(&mut texts[token.choice as usize], answer.number, token.choice, token.index);
        }
        ticket.on_finish();
        let mut out = BytesMut::new();
        dialect.put_whole(&mut out, &answer, &texts);
        let out = out.freeze();
        account.on_piece(&out);
        account.close(End::Finished, self.settings.clock.now());
        Ok(response(200, "application/json", Body::whole(out)))
    }

    fn read(&self, dialect: &dyn Dialect, body: &[u8]) -> Result<Ask, Refusal> {
        let body: Value = serde_json::from_slice(body).map_err(|error| Refusal::bad(format!("not JSON: {error}")))?;
        if !body.is_object() {
            return Err(Refusal::bad("the body must be a JSON object".to_owned()));
        }
        let ask = dialect.ask(&body).map_err(|error| Refusal::bad(error.to_string()))?;
        let longest = ask.prompts.iter().copied().max().unwrap_or_default();
        if self.settings.setup.params.room_after(longest) == 0 {
            let most = self.settings.setup.params.kv_tokens;
            let message = format!("the prompt has {longest} tokens, but this engine holds {most} in all");
            return Err(Refusal::bad(message));
        }
        Ok(ask)
    }

    fn fault(&self, headers: &HeaderMap) -> Result<Option<Fault>, Refusal> {
        let Some(value) = headers.get("x-engine-fault").filter(|_| self.settings.faults) else { return Ok(None) };
        match value.to_str().ok().and_then(Fault::parse) {
            Some(fault) => Ok(Some(fault)),
            None => Err(Refusal::bad("x-engine-fault names no fault".to_owned())),
        }
    }

    /// The paths that are only read.
    fn reading(&self, path: &str) -> Option<Response<Body>> {
        let params = &self.settings.setup.params;
        let name = &self.settings.model_name;
        match path {
            "/health" => Some(response(200, "text/plain; charset=utf-8", Body::whole(Bytes::new()))),
            "/metrics" => {
                let text = self.pacer.meter().exposition(&self.model);
                Some(response(200, "text/plain; version=0.0.4; charset=utf-8", Body::whole(text)))
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

enum Asked {
    Inference(&'static dyn Dialect),
    Reading(Response<Body>),
}

/// Why a request gets no tokens.
struct Refusal {
    status: u16,
    message: String,
}

impl Refusal {
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

fn dialect(path: &str) -> Option<&'static dyn Dialect> {
    match path {
        "/v1/chat/completions" => Some(&openai::Chat),
        "/v1/completions" => Some(&openai::Completions),
        "/v1/messages" => Some(&anthropic::Messages),
        "/api/chat" => Some(&ollama::Chat),
        "/api/generate" => Some(&ollama::Generate),
        _ => None,
    }
}

fn made_id(number: u64) -> HeaderValue {
    // Letters and digits are a header value.
    HeaderValue::try_from(format!("sim-{number}")).unwrap_or_else(|_| HeaderValue::from_static("sim"))
}

fn json_response(status: u16, body: &Value) -> Response<Body> {
    response(status, "application/json", Body::whole(body.to_string()))
}

fn response(status: u16, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    // Faults may ask for a status that does not exist; hyper knows 400 to 599 all.
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// What weir's data port takes by default, too.
const LARGEST_BODY: usize = 64 << 20;

/// `created` of an answer is this plus the clock's seconds: the server does not know the calendar.
const ORIGIN: u64 = 1_700_000_000;

/// Holds several events, so that a buffer is reused many times before it is replaced.
const BUFFER: usize = 4096;
