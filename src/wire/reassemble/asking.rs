//! The request that asks for a stream where its client asked for a whole answer.

use super::raw::Fields;
use crate::wire::Dialect;

/// The body that asks for a stream, or `None` where the answer could not be put together again: another dialect, a field whose
/// effect on a stream is not known, a body that is not one object with each key once.
pub fn streamed(body: &[u8], dialect: Dialect) -> Option<Vec<u8>> {
    let known = known(dialect)?;
    let text = std::str::from_utf8(body).ok()?;
    let fields = Fields::parse(text)?;
    let mut asked = None;
    for (i, (name, value)) in fields.0.iter().enumerate() {
        let repeated = fields.0[..i].iter().any(|(earlier, _)| earlier == name);
        if repeated || !known.contains(&name.as_ref()) {
            return None;
        }
        if name == "stream" {
            asked = Some(*value);
        }
    }
    let mut out = String::with_capacity(text.len() + ASK_USAGE.len() + ASK.len());
    let open = text.find('{')? + 1;
    out.push_str(&text[..open]);
    if matches!(dialect, Dialect::OpenAiChat | Dialect::OpenAiCompletions) {
        out.push_str(ASK_USAGE);
    }
    match asked {
        Some("false") => {
            // It is a slice of the text.
            let from = asked.map_or(0, |value| value.as_ptr() as usize - text.as_ptr() as usize);
            out.push_str(&text[open..from]);
            out.push_str("true");
            out.push_str(&text[from + "false".len()..]);
        }
        // Where a stream is the default, a whole answer was asked for by `false`.
        None | Some("null") if is_ollama(dialect) => return None,
        None => {
            out.push_str(ASK);
            out.push_str(&text[open..]);
            if fields.0.is_empty() {
                return None;
            }
        }
        Some(_) => return None,
    }
    Some(out.into_bytes())
}

fn is_ollama(dialect: Dialect) -> bool {
    matches!(dialect, Dialect::OllamaChat | Dialect::OllamaGenerate)
}

/// Fields that do the same to a stream as to a whole answer.
fn known(dialect: Dialect) -> Option<&'static [&'static str]> {
    Some(match dialect {
        Dialect::OpenAiChat => &CHAT,
        Dialect::OpenAiCompletions => &COMPLETIONS,
        Dialect::AnthropicMessages => &MESSAGES,
        Dialect::OllamaChat | Dialect::OllamaGenerate => &OLLAMA,
        _ => return None,
    })
}

const ASK: &str = "\"stream\":true,";
const ASK_USAGE: &str = "\"stream_options\":{\"include_usage\":true},";

const CHAT: [&str; 41] = [
    "model",
    "messages",
    "stream",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "typical_p",
    "n",
    "stop",
    "stop_token_ids",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "repeat_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "functions",
    "function_call",
    "response_format",
    "user",
    "metadata",
    "service_tier",
    "priority",
    "ignore_eos",
    "min_tokens",
    "skip_special_tokens",
    "include_stop_str_in_output",
    "reasoning_effort",
    "chat_template_kwargs",
    "add_generation_prompt",
    "cache_prompt",
    "guided_json",
    "guided_regex",
];
const COMPLETIONS: [&str; 25] = [
    "model",
    "prompt",
    "stream",
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "n",
    "stop",
    "stop_token_ids",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "repeat_penalty",
    "logit_bias",
    "logprobs",
    "user",
    "priority",
    "ignore_eos",
    "min_tokens",
    "skip_special_tokens",
    "cache_prompt",
    "metadata",
];
const MESSAGES: [&str; 14] = [
    "model",
    "messages",
    "stream",
    "max_tokens",
    "system",
    "stop_sequences",
    "temperature",
    "top_p",
    "top_k",
    "tools",
    "tool_choice",
    "metadata",
    "thinking",
    "service_tier",
];
const OLLAMA: [&str; 13] = [
    "model",
    "messages",
    "prompt",
    "stream",
    "options",
    "format",
    "tools",
    "think",
    "system",
    "template",
    "keep_alive",
    "raw",
    "images",
];
