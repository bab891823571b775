//! Ollama's `/api/chat` and `/api/generate`: one JSON object a line, streaming by default, counts and nanoseconds on the line
//! with `done`.

use bytes::BytesMut;
use serde_json::{Value, json};

use super::dialect::{AnswerContext, ServerDialect, Stamp, put};
use super::engine_request::{BadRequest, EngineRequest, flag, messages, prompt_tokens};
use super::filler_text::put_word;
use super::token::{Finish, Token};

/// `/api/chat`.
pub struct OllamaChat;

/// `/api/generate`.
pub struct Generate;

impl ServerDialect for OllamaChat {
    fn read_request(&self, body: &Value) -> Result<EngineRequest, BadRequest> {
        ask(body, prompt_tokens(&[Some(messages(body)?)]))
    }

    fn stream_type(&self) -> &'static str {
        NDJSON
    }

    fn put_opening(&self, _out: &mut BytesMut, _answer: &AnswerContext, _stamp: Stamp) {}

    fn put_token(&self, out: &mut BytesMut, answer: &AnswerContext, token: &Token, stamp: Stamp) {
        put_head(out, answer);
        put!(out, "\"message\":{{\"role\":\"assistant\",\"content\":\"");
        put_word(out, answer.number, token.choice, token.index);
        put!(out, "\"}},\"done\":false{stamp}}}\n");
    }

    fn put_closing(&self, out: &mut BytesMut, answer: &AnswerContext, stamp: Stamp) {
        put_head(out, answer);
        put!(out, "\"message\":{{\"role\":\"assistant\",\"content\":\"\"}},");
        put_done(out, answer, stamp);
        put!(out, "\n");
    }

    fn put_error_event(&self, out: &mut BytesMut) {
        put_failure(out);
    }

    fn put_whole(&self, out: &mut BytesMut, answer: &AnswerContext, texts: &[BytesMut]) {
        put_head(out, answer);
        put!(out, "\"message\":{{\"role\":\"assistant\",\"content\":\"{}\"}},", joined(texts));
        put_done(out, answer, Stamp(None));
    }

    fn error(&self, _status: u16, message: &str) -> Value {
        json!({ "error": message })
    }
}

impl ServerDialect for Generate {
    fn read_request(&self, body: &Value) -> Result<EngineRequest, BadRequest> {
        match body.get("prompt") {
            Some(Value::String(_)) => ask(body, prompt_tokens(&[body.get("prompt"), body.get("system")])),
            _ => Err(BadRequest("prompt must be a string".to_owned())),
        }
    }

    fn stream_type(&self) -> &'static str {
        NDJSON
    }

    fn put_opening(&self, _out: &mut BytesMut, _answer: &AnswerContext, _stamp: Stamp) {}

    fn put_token(&self, out: &mut BytesMut, answer: &AnswerContext, token: &Token, stamp: Stamp) {
        put_head(out, answer);
        put!(out, "\"response\":\"");
        put_word(out, answer.number, token.choice, token.index);
        put!(out, "\",\"done\":false{stamp}}}\n");
    }

    fn put_closing(&self, out: &mut BytesMut, answer: &AnswerContext, stamp: Stamp) {
        put_head(out, answer);
        put!(out, "\"response\":\"\",");
        put_done(out, answer, stamp);
        put!(out, "\n");
    }

    fn put_error_event(&self, out: &mut BytesMut) {
        put_failure(out);
    }

    fn put_whole(&self, out: &mut BytesMut, answer: &AnswerContext, texts: &[BytesMut]) {
        put_head(out, answer);
        put!(out, "\"response\":\"{}\",", joined(texts));
        put_done(out, answer, Stamp(None));
    }

    fn error(&self, _status: u16, message: &str) -> Value {
        json!({ "error": message })
    }
}

fn ask(body: &Value, prompt: u32) -> Result<EngineRequest, BadRequest> {
    let most = match body.get("options").and_then(|options| options.get("num_predict")) {
        None | Some(Value::Null) => None,
        Some(value) => match value.as_i64() {
            // -1 is "as long as it takes", -2 "until the context is full".
            Some(number) if number < 0 => None,
            Some(number) if number > 0 => Some(u32::try_from(number).unwrap_or(u32::MAX)),
            _ => return Err(BadRequest("num_predict must be a whole number other than 0".to_owned())),
        },
    };
    let ignore_eos = flag(body, "ignore_eos", false);
    Ok(EngineRequest {
        stream: flag(body, "stream", true),
        prompts: vec![prompt],
        n: 1,
        max_tokens: most,
        ignore_eos,
        ..EngineRequest::default()
    })
}

fn put_head(out: &mut BytesMut, answer: &AnswerContext) {
    put!(out, "{{\"model\":{},\"created_at\":\"{CREATED_AT}\",", answer.model);
}

/// The members of the last line, and its closing brace.
fn put_done(out: &mut BytesMut, answer: &AnswerContext, stamp: Stamp) {
    let reason = match answer.finish(0) {
        Finish::Stop => "stop",
        Finish::Length => "length",
    };
    let (total, first) = (answer.latest_token, answer.first_token.unwrap_or(answer.latest_token));
    put!(
        out,
        "\"done\":true,\"done_reason\":\"{reason}\",\"total_duration\":{total},\"load_duration\":0,\"prompt_eval_count\":{},\
         \"prompt_eval_duration\":{first},\"eval_count\":{},\"eval_duration\":{}{stamp}}}",
        answer.prompt_tokens(),
        answer.output_tokens(),
        total - first,
    );
}

fn put_failure(out: &mut BytesMut) {
    put!(out, "{{\"error\":\"the engine failed, as it was asked to\"}}\n");
}

fn joined(texts: &[BytesMut]) -> String {
    texts.iter().map(|text| String::from_utf8_lossy(text)).collect()
}

const NDJSON: &str = "application/x-ndjson";

/// The server has no calendar; clients need the field and do not read it.
const CREATED_AT: &str = "2026-01-01T00:00:00Z";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_streams_by_default() {
        assert!(Generate.read_request(&json!({"prompt": "x"})).unwrap().stream);
        assert!(!Generate.read_request(&json!({"prompt": "x", "stream": false})).unwrap().stream);
    }

    #[test]
    fn negative_num_predict_is_no_limit() {
        let most = |number: i64| Generate.read_request(&json!({"prompt": "x", "options": {"num_predict": number}}));
        assert_eq!(most(-1).unwrap().max_tokens, None);
        assert_eq!(most(12).unwrap().max_tokens, Some(12));
        assert!(most(0).is_err());
    }
}
