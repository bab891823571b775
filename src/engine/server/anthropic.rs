//! Anthropic's `/v1/messages`: named events, one text block, cumulative output tokens at the end, no `[DONE]`.

use bytes::BytesMut;
use serde_json::{Value, json};

use super::dialect::{AnswerContext, ServerDialect, Stamp, put};
use super::engine_request::{BadRequest, EngineRequest, count, flag, messages, prompt_tokens};
use super::filler_text::put_word;
use super::token::{Finish, Token};

/// `/v1/messages`.
pub struct Messages;

impl ServerDialect for Messages {
    fn read_request(&self, body: &Value) -> Result<EngineRequest, BadRequest> {
        let prompt = prompt_tokens(&[Some(messages(body)?), body.get("system")]);
        let max_tokens =
            count(body, "max_tokens")?.ok_or_else(|| BadRequest("max_tokens: field required".to_owned()))?;
        Ok(EngineRequest {
            stream: flag(body, "stream", false),
            prompts: vec![prompt],
            n: 1,
            max_tokens: Some(max_tokens),
            ignore_eos: flag(body, "ignore_eos", false),
            ..EngineRequest::default()
        })
    }

    fn stream_type(&self) -> &'static str {
        "text/event-stream; charset=utf-8"
    }

    fn put_opening(&self, out: &mut BytesMut, answer: &AnswerContext, stamp: Stamp) {
        let AnswerContext { number, model, .. } = answer;
        let input = answer.prompt_tokens();
        put!(
            out,
            "event: message_start\ndata: {{\"type\":\"message_start\",\"message\":{{\"id\":\"msg_{number}\",\"type\":\
             \"message\",\"role\":\"assistant\",\"content\":[],\"model\":{model},\"stop_reason\":null,\"stop_sequence\":null,\
             \"usage\":{{\"input_tokens\":{input},\"output_tokens\":1}}}}{stamp}}}\n\n\
             event: content_block_start\ndata: {{\"type\":\"content_block_start\",\"index\":0,\"content_block\":\
             {{\"type\":\"text\",\"text\":\"\"}}{stamp}}}\n\n"
        );
    }

    fn put_token(&self, out: &mut BytesMut, answer: &AnswerContext, token: &Token, stamp: Stamp) {
        put!(
            out,
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":\
             {{\"type\":\"text_delta\",\"text\":\""
        );
        put_word(out, answer.number, token.choice, token.index);
        put!(out, "\"}}{stamp}}}\n\n");
    }

    fn put_closing(&self, out: &mut BytesMut, answer: &AnswerContext, stamp: Stamp) {
        let (reason, output) = (reason(answer.finish(0)), answer.output_tokens());
        put!(
            out,
            "event: content_block_stop\ndata: {{\"type\":\"content_block_stop\",\"index\":0{stamp}}}\n\n\
             event: message_delta\ndata: {{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":\"{reason}\",\
             \"stop_sequence\":null}},\"usage\":{{\"output_tokens\":{output}}}{stamp}}}\n\n\
             event: message_stop\ndata: {{\"type\":\"message_stop\"{stamp}}}\n\n"
        );
    }

    fn put_error_event(&self, out: &mut BytesMut) {
        put!(out, "event: error\ndata: {}\n\n", self.error(500, "the engine failed, as it was asked to"));
    }

    fn put_whole(&self, out: &mut BytesMut, answer: &AnswerContext, texts: &[BytesMut]) {
        let AnswerContext { number, model, .. } = answer;
        let (input, output) = (answer.prompt_tokens(), answer.output_tokens());
        let (reason, text) = (reason(answer.finish(0)), texts.first().map(|text| String::from_utf8_lossy(text)));
        put!(
            out,
            "{{\"id\":\"msg_{number}\",\"type\":\"message\",\"role\":\"assistant\",\"content\":[{{\"type\":\"text\",\"text\":\
             \"{}\"}}],\"model\":{model},\"stop_reason\":\"{reason}\",\"stop_sequence\":null,\"usage\":\
             {{\"input_tokens\":{input},\"output_tokens\":{output}}}}}",
            text.unwrap_or_default()
        );
    }

    fn error(&self, status: u16, message: &str) -> Value {
        let kind = match status {
            404 => "not_found_error",
            429 => "rate_limit_error",
            400..500 => "invalid_request_error",
            503 | 529 => "overloaded_error",
            _ => "api_error",
        };
        json!({"type": "error", "error": {"type": kind, "message": message}})
    }
}

fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "end_turn",
        Finish::Length => "max_tokens",
    }
}
