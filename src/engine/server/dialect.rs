//! What the server's dialects have in common: how a request is read and how an answer is written.
//!
//! One [`ServerDialect`] a path. Absent: HTTP, the model, and time, which are passed in as numbers.

use bytes::BytesMut;
use serde_json::Value;

use super::engine_request::{BadRequest, EngineRequest};
use super::token::{Finish, Token};

/// The requests and answers of one API.
pub trait ServerDialect: Send + Sync {
    /// Reads a request's body.
    fn read_request(&self, body: &Value) -> Result<EngineRequest, BadRequest>;

    /// Content type of a streamed answer.
    fn stream_type(&self) -> &'static str;

    /// What precedes the first token, in the same write.
    fn put_opening(&self, out: &mut BytesMut, answer: &AnswerContext, stamp: Stamp);

    /// One token's event. `answer` already counts the token.
    fn put_token(&self, out: &mut BytesMut, answer: &AnswerContext, token: &Token, stamp: Stamp);

    /// What follows the last token of the last choice.
    fn put_closing(&self, out: &mut BytesMut, answer: &AnswerContext, stamp: Stamp);

    /// An error in the middle of a stream, and what ends the stream after it.
    fn put_error_event(&self, out: &mut BytesMut);

    /// The answer as one document. `texts` holds one text a choice.
    fn put_whole(&self, out: &mut BytesMut, answer: &AnswerContext, texts: &[BytesMut]);

    /// The body of an error answer; `message` is plain text.
    fn error(&self, status: u16, message: &str) -> Value;
}

/// What is known about an answer while it is written.
#[derive(Debug)]
pub struct AnswerContext {
    /// Serial number of the request.
    pub number: u64,
    /// Name of the model, quoted and escaped as JSON.
    pub model: String,
    /// Seconds: an arbitrary origin plus the time the server's clock has run. Only clock.rs knows the calendar.
    pub created: u64,
    /// What was asked for.
    pub request: EngineRequest,
    /// Tokens so far, per choice.
    pub tokens: Vec<u32>,
    /// Why each choice ended, once it has.
    pub finishes: Vec<Option<Finish>>,
    /// Nanoseconds from arrival to the first token, once there is one.
    pub first_token: Option<u64>,
    /// Nanoseconds from arrival to the latest token.
    pub latest_token: u64,
}

impl AnswerContext {
    /// An answer without a token yet.
    pub fn new(number: u64, model: String, created: u64, request: EngineRequest) -> Self {
        let choices = request.choices() as usize;
        let (tokens, finishes) = (vec![0; choices], vec![None; choices]);
        Self { number, model, created, request, tokens, finishes, first_token: None, latest_token: 0 }
    }

    /// Counts a token; `age` is nanoseconds since arrival.
    pub fn on_token(&mut self, token: &Token, age: u64) {
        // The pacer only knows the choices this request was submitted with.
        self.tokens[token.choice as usize] += 1;
        self.finishes[token.choice as usize] = token.finish;
        self.first_token.get_or_insert(age);
        self.latest_token = age;
    }

    /// Prompt tokens of all prompts, each counted once however many choices it has.
    pub fn prompt_tokens(&self) -> u64 {
        self.request.prompts.iter().map(|&tokens| u64::from(tokens)).sum()
    }

    /// Tokens of all choices.
    pub fn output_tokens(&self) -> u64 {
        self.tokens.iter().map(|&tokens| u64::from(tokens)).sum()
    }

    /// Whether every choice has ended.
    pub fn finished(&self) -> bool {
        self.finishes.iter().all(Option::is_some)
    }

    /// Why a choice ended; one that has not counts as stopped.
    pub fn finish(&self, choice: usize) -> Finish {
        self.finishes.get(choice).copied().flatten().unwrap_or(Finish::Stop)
    }
}

/// `t_ns` for an event, or nothing. Displayed it is the last member of a JSON object, comma included.
#[derive(Clone, Copy, Debug)]
pub struct Stamp(pub Option<u64>);

impl std::fmt::Display for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(nanos) => write!(f, ",\"t_ns\":{nanos}"),
            None => Ok(()),
        }
    }
}

/// `write!` into a buffer that grows: it cannot fail, so there is no result to look at.
macro_rules! put {
    ($out:expr, $($format:tt)*) => {{
        use std::fmt::Write;
        let _ = write!($out, $($format)*);
    }};
}
pub(super) use put;
