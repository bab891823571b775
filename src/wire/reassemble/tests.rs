//! Whole answers taken apart into streams and put together again.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn assembled(dialect: Dialect, stream: &[u8], cut: usize) -> Result<String, ReassemblyFault> {
    let mut assembler = Assembler::new(dialect).unwrap();
    stream.chunks(cut.max(1)).for_each(|piece| assembler.feed(piece));
    assembler.finish().map(|whole| String::from_utf8(whole).unwrap())
}

fn sse(events: &[String]) -> Vec<u8> {
    events.iter().map(|event| format!("data: {event}\n\n")).collect::<String>().into_bytes()
}

const HEAD: &str = r#""id":"c-1","object":"chat.completion.chunk","created":17,"model":"m","system_fingerprint":null"#;

fn chunk(choices: &str) -> String {
    format!("{{{HEAD},\"choices\":[{choices}]}}")
}

#[test]
fn a_chat_is_put_together_in_the_engines_own_order_and_numbers() {
    let stream = sse(&[
        chunk(r#"{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}"#),
        chunk(r#"{"index":0,"delta":{"reasoning_content":"hm"},"logprobs":null,"finish_reason":null}"#),
        chunk(
            r#"{"index":0,"delta":{"content":"a\u00e4\n"},"logprobs":{"content":[{"token":"a","logprob":-0.10000000149}]},"finish_reason":null}"#,
        ),
        chunk(
            r#"{"index":0,"delta":{"content":"\ud83d"},"logprobs":{"content":[{"token":"b","logprob":-1e-9}]},"finish_reason":null}"#,
        ),
        chunk(r#"{"index":0,"delta":{"content":"\ude00"},"finish_reason":"stop"}"#),
        format!("{{{HEAD},\"choices\":[],\"usage\":{{\"prompt_tokens\":3,\"completion_tokens\":4}}}}"),
        "[DONE]".into(),
    ]);
    let expected = concat!(
        r#"{"id":"c-1","object":"chat.completion","created":17,"model":"m","system_fingerprint":null,"choices":"#,
        r#"[{"index":0,"message":{"role":"assistant","content":"a\u00e4\n\ud83d\ude00","reasoning_content":"hm"},"#,
        r#""logprobs":{"content":[{"token":"a","logprob":-0.10000000149},{"token":"b","logprob":-1e-9}]},"finish_reason":"stop"}],"#,
        r#""usage":{"prompt_tokens":3,"completion_tokens":4}}"#
    );
    for cut in [1, 2, 7, 64, 100_000] {
        assert_eq!(assembled(Dialect::OpenAiChat, &stream, cut).unwrap(), expected, "cut at {cut}");
    }
}

#[test]
fn tool_calls_are_joined_by_index_and_leave_the_content_null() {
    let tool = |index: u32, rest: &str| {
        chunk(&format!(r#"{{"index":0,"delta":{{"tool_calls":[{{"index":{index}{rest}}}]}},"finish_reason":null}}"#))
    };
    let stream = sse(&[
        chunk(r#"{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}"#),
        tool(0, r#","id":"t0","type":"function","function":{"name":"f","arguments":""}"#),
        tool(0, r#","function":{"arguments":"{\"a\""}"#),
        tool(1, r#","id":"t1","type":"function","function":{"name":"g","arguments":"{}"}"#),
        tool(0, r#","function":{"arguments":":1}"}"#),
        chunk(r#"{"index":0,"delta":{},"finish_reason":"tool_calls"}"#),
        "[DONE]".into(),
    ]);
    let whole: Value = serde_json::from_str(&assembled(Dialect::OpenAiChat, &stream, 5).unwrap()).unwrap();
    assert_eq!(
        whole["choices"][0]["message"],
        json!({"role": "assistant", "content": null, "tool_calls": [
            {"id": "t0", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}},
            {"id": "t1", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        ]})
    );
    assert_eq!(whole["choices"][0]["finish_reason"], "tool_calls");
}

#[test]
fn messages_have_their_blocks_inputs_and_usage() {
    let stream = sse(&[
        r#"{"type":"message_start","message":{"id":"m","type":"message","role":"assistant","model":"x","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":9,"output_tokens":1}}}"#.into(),
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}"#.into(),
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hm"}}"#.into(),
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"abc"}}"#.into(),
        r#"{"type":"ping"}"#.into(),
        r#"{"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}"#.into(),
        r#"{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"a"}}"#.into(),
        r#"{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"b"}}"#.into(),
        r#"{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"t","name":"f","input":{}}}"#.into(),
        r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"a\":"}}"#.into(),
        r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"1}"}}"#.into(),
        r#"{"type":"content_block_stop","index":2}"#.into(),
        r#"{"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":7}}"#.into(),
        r#"{"type":"message_stop"}"#.into(),
    ]);
    let expected = concat!(
        r#"{"id":"m","type":"message","role":"assistant","model":"x","content":[{"type":"thinking","thinking":"hm","signature":"abc"},"#,
        r#"{"type":"text","text":"ab"},{"type":"tool_use","id":"t","name":"f","input":{"a":1}}],"stop_reason":"tool_use","#,
        r#""stop_sequence":null,"usage":{"input_tokens":9,"output_tokens":7}}"#
    );
    for cut in [1, 13, 100_000] {
        assert_eq!(assembled(Dialect::AnthropicMessages, &stream, cut).unwrap(), expected);
    }
}

#[test]
fn ollamas_last_line_gets_what_came_before_it() {
    let chat = concat!(
        "{\"model\":\"m\",\"created_at\":\"t1\",\"message\":{\"role\":\"assistant\",\"content\":\"a\"},\"done\":false}\n",
        "{\"model\":\"m\",\"created_at\":\"t2\",\"message\":{\"role\":\"assistant\",\"content\":\"b\"},\"done\":true,\"eval_count\":2}",
    );
    let whole = assembled(Dialect::OllamaChat, chat.as_bytes(), 9).unwrap();
    let expected =
        r#"{"model":"m","created_at":"t2","message":{"role":"assistant","content":"ab"},"done":true,"eval_count":2}"#;
    assert_eq!(whole, expected);
    let generate =
        b"{\"response\":\"a\",\"done\":false}\r\n\r\n{\"response\":\"\",\"done\":true,\"done_reason\":\"stop\"}\n";
    assert_eq!(
        assembled(Dialect::OllamaGenerate, generate, 3).unwrap(),
        r#"{"response":"a","done":true,"done_reason":"stop"}"#
    );
}

#[test]
fn an_error_event_is_the_answer_and_a_missing_end_is_none() {
    let begun = chunk(r#"{"index":0,"delta":{"content":"a"},"finish_reason":null}"#);
    let said = sse(&[begun.clone(), r#"{"error":{"message":"x","code":503}}"#.into(), "[DONE]".into()]);
    let body = br#"{"error":{"message":"x","code":503}}"#.to_vec();
    assert_eq!(assembled(Dialect::OpenAiChat, &said, 4), Err(ReassemblyFault::Said { status: 503, body }));
    assert_eq!(assembled(Dialect::OpenAiChat, &sse(&[begun]), 4), Err(ReassemblyFault::Broken));
    assert_eq!(assembled(Dialect::OpenAiChat, &sse(&["[DONE]".into()]), 4), Err(ReassemblyFault::Broken));
    let overloaded = sse(&[r#"{"type":"error","error":{"type":"overloaded_error","message":"x"}}"#.into()]);
    assert!(matches!(
        assembled(Dialect::AnthropicMessages, &overloaded, 4),
        Err(ReassemblyFault::Said { status: 529, .. })
    ));
    assert_eq!(assembled(Dialect::OllamaChat, b"{\"message\":{},\"done\":false}\n", 4), Err(ReassemblyFault::Broken));
}

#[test]
fn a_request_is_turned_only_where_its_answer_surely_can_be() {
    let turned = |dialect, body: &str| streamed(body.as_bytes(), dialect).map(|body| String::from_utf8(body).unwrap());
    let usage = r#""stream_options":{"include_usage":true},"#;
    let chat = |body: &str| turned(Dialect::OpenAiChat, body);
    assert_eq!(
        chat(r#" {"model":"m","stream" : false, "n":2}"#),
        Some(format!(r#" {{{usage}"model":"m","stream" : true, "n":2}}"#))
    );
    assert_eq!(chat(r#"{"model":"m"}"#), Some(format!(r#"{{{usage}"stream":true,"model":"m"}}"#)));
    assert_eq!(turned(Dialect::AnthropicMessages, r#"{"model":"m"}"#), Some(r#"{"stream":true,"model":"m"}"#.into()));
    assert_eq!(
        turned(Dialect::OllamaChat, r#"{"model":"m","stream":false}"#),
        Some(r#"{"model":"m","stream":true}"#.into())
    );
    for body in [
        r#"{"model":"m","stream":true}"#,
        r#"{"model":"m","stream_options":{}}"#,
        r#"{"model":"m","return_token_ids":true}"#,
        r#"{"model":"m","best_of":3}"#,
        r#"{"model":"m","stream":false,"stream":false}"#,
        r#"{"model":"m","str\u0065am":1}"#,
        r#"{"model":"m""#,
        r#"[{"model":"m"}]"#,
        "{}",
        "",
    ] {
        assert_eq!(chat(body), None, "{body}");
    }
    assert_eq!(turned(Dialect::OllamaChat, r#"{"model":"m"}"#), None);
    assert_eq!(turned(Dialect::Tgi, r#"{"inputs":"m"}"#), None);
}

/// Text as it may stand in an answer, escapes and all.
fn words() -> impl Strategy<Value = String> {
    prop_oneof![".{0,12}", Just("data: [DONE]\n\n\"\\u0000".to_owned()), Just("\u{1F600}\u{e4}".to_owned())]
}

fn pieces(text: &str, seed: usize) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    chars.chunks(1 + seed % 4).map(|piece| piece.iter().collect()).collect()
}

proptest! {
    #[test]
    fn a_whole_chat_taken_apart_and_put_together_is_itself(
        contents in prop::collection::vec((words(), words(), prop::option::of(words())), 1..4),
        seed in 0..97_usize,
        cut in 1..200_usize,
    ) {
        let choices: Vec<Value> = contents.iter().enumerate().map(|(i, (content, reason, arguments))| {
            let mut message = json!({"role": "assistant", "content": content, "reasoning": reason});
            if let Some(arguments) = arguments {
                message["tool_calls"] = json!([{"id": "t", "type": "function", "function": {"name": "f", "arguments": arguments}}]);
                if content.is_empty() {
                    message["content"] = Value::Null;
                }
            }
            json!({"index": i, "message": message, "finish_reason": "stop"})
        }).collect();
        let whole = json!({"id": "c", "object": "chat.completion", "choices": choices, "usage": {"completion_tokens": 7}});
        let mut events: Vec<Vec<String>> = Vec::new();
        let event = |i: usize, delta: Value, finish: Value| {
            json!({"id": "c", "object": "chat.completion.chunk", "choices": [{"index": i, "delta": delta, "finish_reason": finish}]}).to_string()
        };
        for (i, (content, reason, arguments)) in contents.iter().enumerate() {
            let mut own = vec![event(i, json!({"role": "assistant", "content": "", "reasoning": ""}), Value::Null)];
            own.extend(pieces(reason, seed).iter().map(|piece| event(i, json!({"reasoning": piece}), Value::Null)));
            own.extend(pieces(content, seed + 1).iter().map(|piece| event(i, json!({"content": piece}), Value::Null)));
            if let Some(arguments) = arguments {
                let call = |rest: Value| event(i, json!({"tool_calls": [rest]}), Value::Null);
                own.push(call(json!({"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": ""}})));
                own.extend(pieces(arguments, seed + 2).iter().map(|piece| call(json!({"index": 0, "function": {"arguments": piece}}))));
            }
            own.push(event(i, json!({}), json!("stop")));
            events.push(own);
        }
        // The choices take turns.
        let mut stream = Vec::new();
        for turn in 0.. {
            let now: Vec<String> = events.iter().filter_map(|own| own.get(turn).cloned()).collect();
            if now.is_empty() { break; }
            stream.extend(now);
        }
        stream.push(json!({"choices": [], "usage": {"completion_tokens": 7}}).to_string());
        stream.push("[DONE]".into());
        let assembled = assembled(Dialect::OpenAiChat, &sse(&stream), cut).unwrap();
        prop_assert_eq!(serde_json::from_str::<Value>(&assembled).unwrap(), whole);
    }

    /// Whatever an engine sends, cut anywhere: no panic, and the same result.
    #[test]
    fn any_stream_gives_the_same_however_it_is_cut(bytes in prop::collection::vec(any::<u8>(), 0..400), cut in 1..50_usize) {
        for dialect in [Dialect::OpenAiChat, Dialect::AnthropicMessages, Dialect::OllamaChat] {
            prop_assert_eq!(assembled(dialect, &bytes, cut), assembled(dialect, &bytes, 1000));
            let _ = streamed(&bytes, dialect);
        }
    }
}
