//! OpenAI's chat and text completions, with the habits of vLLM: unset fields left out, the role event in the same write
//! as the first output, the finish reason on the last token's event, usage in an event of its own.

use bytes::BytesMut;
use serde_json::{Value, json};

use super::dialect::{AnswerContext, ServerDialect, Stamp, put};
use super::engine_request::{BadRequest, EngineRequest, count, flag, messages, prompt_tokens};
use super::filler_text::put_word;
use super::token::{Finish, Token};

/// `/v1/chat/completions`.
pub struct OpenAiChat;

/// `/v1/completions`.
pub struct OpenAiCompletions;

impl ServerDialect for OpenAiChat {
    fn read_request(&self, body: &Value) -> Result<EngineRequest, BadRequest> {
        let prompt = prompt_tokens(&[Some(messages(body)?)]);
        let newer = count(body, "max_completion_tokens")?;
        ask(body, vec![prompt], newer.or(count(body, "max_tokens")?))
    }

    fn stream_type(&self) -> &'static str {
        EVENT_STREAM
    }

    fn put_opening(&self, out: &mut BytesMut, answer: &AnswerContext, stamp: Stamp) {
        for choice in 0..answer.tokens.len() {
            put_head(out, answer, "chatcmpl", "chat.completion.chunk");
            put!(
                out,
                "[{{\"index\":{choice},\"delta\":{{\"role\":\"assistant\",\"content\":\"\"}},\"logprobs\":null,\
                 \"finish_reason\":null}}]"
            );
            put_tail(out, answer, answer.request.prompt_of(choice as u32), 0, stamp);
        }
    }

    fn put_token(&self, out: &mut BytesMut, answer: &AnswerContext, token: &Token, stamp: Stamp) {
        put_head(out, answer, "chatcmpl", "chat.completion.chunk");
        put!(out, "[{{\"index\":{},\"delta\":{{\"content\":\"", token.choice);
        put_word(out, answer.number, token.choice, token.index);
        put!(out, "\"}},\"logprobs\":null,\"finish_reason\":{}}}]", reason(token.finish));
        put_tail(out, answer, answer.request.prompt_of(token.choice), token.index + 1, stamp);
    }

    fn put_closing(&self, out: &mut BytesMut, answer: &AnswerContext, stamp: Stamp) {
        put_end(out, answer, "chatcmpl", "chat.completion.chunk", stamp);
    }

    fn put_error_event(&self, out: &mut BytesMut) {
        put_failure(out);
    }

    fn put_whole(&self, out: &mut BytesMut, answer: &AnswerContext, texts: &[BytesMut]) {
        put_document(out, answer, "chatcmpl", "chat.completion", texts, |text| {
            format!("\"message\":{{\"role\":\"assistant\",\"content\":\"{text}\"}}")
        });
    }

    fn error(&self, status: u16, message: &str) -> Value {
        error(status, message)
    }
}

impl ServerDialect for OpenAiCompletions {
    fn read_request(&self, body: &Value) -> Result<EngineRequest, BadRequest> {
        let prompts = prompts(body.get("prompt").unwrap_or(&Value::Null))?;
        ask(body, prompts, count(body, "max_tokens")?)
    }

    fn stream_type(&self) -> &'static str {
        EVENT_STREAM
    }

    fn put_opening(&self, _out: &mut BytesMut, _answer: &AnswerContext, _stamp: Stamp) {}

    fn put_token(&self, out: &mut BytesMut, answer: &AnswerContext, token: &Token, stamp: Stamp) {
        put_head(out, answer, "cmpl", "text_completion");
        put!(out, "[{{\"index\":{},\"text\":\"", token.choice);
        put_word(out, answer.number, token.choice, token.index);
        put!(out, "\",\"logprobs\":null,\"finish_reason\":{}}}]", reason(token.finish));
        put_tail(out, answer, answer.request.prompt_of(token.choice), token.index + 1, stamp);
    }

    fn put_closing(&self, out: &mut BytesMut, answer: &AnswerContext, stamp: Stamp) {
        put_end(out, answer, "cmpl", "text_completion", stamp);
    }

    fn put_error_event(&self, out: &mut BytesMut) {
        put_failure(out);
    }

    fn put_whole(&self, out: &mut BytesMut, answer: &AnswerContext, texts: &[BytesMut]) {
        put_document(out, answer, "cmpl", "text_completion", texts, |text| format!("\"text\":\"{text}\""));
    }

    fn error(&self, status: u16, message: &str) -> Value {
        error(status, message)
    }
}

/// The body of an error, also for unknown paths.
pub fn error(status: u16, message: &str) -> Value {
    let kind = match status {
        400..500 => "BadRequestError",
        _ => "InternalServerError",
    };
    json!({"error": {"message": message, "type": kind, "param": null, "code": status}})
}

fn ask(body: &Value, prompts: Vec<u32>, max_tokens: Option<u32>) -> Result<EngineRequest, BadRequest> {
    let n = count(body, "n")?.unwrap_or(1);
    if u64::from(n) * prompts.len() as u64 > MOST_CHOICES {
        return Err(BadRequest(format!("n times the number of prompts must not exceed {MOST_CHOICES}")));
    }
    let stream = flag(body, "stream", false);
    let options = body.get("stream_options").filter(|_| stream).unwrap_or(&Value::Null);
    Ok(EngineRequest {
        stream,
        prompts,
        n,
        max_tokens,
        ignore_eos: flag(body, "ignore_eos", false),
        include_usage: flag(options, "include_usage", false),
        continuous_usage: flag(options, "continuous_usage_stats", false),
    })
}

/// A string, a list of strings, a list of token ids (one prompt), or a list of such lists.
fn prompts(prompt: &Value) -> Result<Vec<u32>, BadRequest> {
    let refused = || BadRequest("prompt must be a string, a list of strings, or token ids".to_owned());
    let ids = |list: &[Value]| list.iter().all(Value::is_u64).then_some(list.len() as u32);
    match prompt {
        Value::String(_) => Ok(vec![prompt_tokens(&[Some(prompt)])]),
        Value::Array(list) if list.is_empty() => Err(refused()),
        Value::Array(list) => match ids(list) {
            Some(tokens) => Ok(vec![tokens]),
            None => list
                .iter()
                .map(|one| match one {
                    Value::String(_) => Ok(prompt_tokens(&[Some(one)])),
                    Value::Array(list) => ids(list).map(|tokens| tokens.max(1)).ok_or_else(refused),
                    _ => Err(refused()),
                })
                .collect(),
        },
        _ => Err(refused()),
    }
}

/// An event up to its `choices`.
fn put_head(out: &mut BytesMut, answer: &AnswerContext, prefix: &str, object: &str) {
    let AnswerContext { number, created, model, .. } = answer;
    put!(
        out,
        "data: {{\"id\":\"{prefix}-{number}\",\"object\":\"{object}\",\"created\":{created},\"model\":{model},\"choices\":"
    );
}

/// The rest of an event behind its `choices`.
fn put_tail(out: &mut BytesMut, answer: &AnswerContext, prompt: u32, output: u32, stamp: Stamp) {
    if answer.request.continuous_usage {
        put!(out, ",");
        put_usage(out, u64::from(prompt), u64::from(output));
    }
    put!(out, "{stamp}}}\n\n");
}

fn put_end(out: &mut BytesMut, answer: &AnswerContext, prefix: &str, object: &str, stamp: Stamp) {
    if answer.request.include_usage {
        put_head(out, answer, prefix, object);
        put!(out, "[],");
        put_usage(out, answer.prompt_tokens(), answer.output_tokens());
        put!(out, "{stamp}}}\n\n");
    }
    put!(out, "data: [DONE]\n\n");
}

fn put_failure(out: &mut BytesMut) {
    put!(out, "data: {}\n\ndata: [DONE]\n\n", error(500, "the engine failed, as it was asked to"));
}

fn put_document(
    out: &mut BytesMut,
    answer: &AnswerContext,
    prefix: &str,
    object: &str,
    texts: &[BytesMut],
    member: impl Fn(&str) -> String,
) {
    let AnswerContext { number, created, model, .. } = answer;
    put!(
        out,
        "{{\"id\":\"{prefix}-{number}\",\"object\":\"{object}\",\"created\":{created},\"model\":{model},\"choices\":["
    );
    for (index, text) in texts.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let member = member(&String::from_utf8_lossy(text));
        let reason = reason(Some(answer.finish(index)));
        put!(out, "{comma}{{\"index\":{index},{member},\"logprobs\":null,\"finish_reason\":{reason}}}");
    }
    put!(out, "],");
    put_usage(out, answer.prompt_tokens(), answer.output_tokens());
    put!(out, "}}");
}

fn put_usage(out: &mut BytesMut, prompt: u64, output: u64) {
    let total = prompt + output;
    put!(out, "\"usage\":{{\"prompt_tokens\":{prompt},\"total_tokens\":{total},\"completion_tokens\":{output}}}");
}

fn reason(finish: Option<Finish>) -> &'static str {
    match finish {
        None => "null",
        Some(Finish::Stop) => "\"stop\"",
        Some(Finish::Length) => "\"length\"",
    }
}

const EVENT_STREAM: &str = "text/event-stream; charset=utf-8";

/// Keeps one request from filling the engine with sequences.
const MOST_CHOICES: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_come_in_four_shapes() {
        assert_eq!(prompts(&json!("12345678")).unwrap(), [2]);
        assert_eq!(prompts(&json!(["1234", "12345678"])).unwrap(), [1, 2]);
        assert_eq!(prompts(&json!([5, 6, 7])).unwrap(), [3]);
        assert_eq!(prompts(&json!([[5], [6, 7]])).unwrap(), [1, 2]);
        for bad in [json!([]), json!(null), json!({}), json!([1, "x"])] {
            assert!(prompts(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_newer_cap_wins() {
        let body = json!({"messages": [{"content": "x"}], "max_tokens": 9, "max_completion_tokens": 4});
        assert_eq!(OpenAiChat.read_request(&body).unwrap().max_tokens, Some(4));
    }

    #[test]
    fn usage_options_count_only_when_streaming() {
        let body = |stream| json!({"prompt": "x", "stream": stream, "stream_options": {"include_usage": true}});
        assert!(OpenAiCompletions.read_request(&body(true)).unwrap().include_usage);
        assert!(!OpenAiCompletions.read_request(&body(false)).unwrap().include_usage);
    }
}
