//! How a synthetic request is written in each dialect.
//!
//! Lengths and text come from `workload`; here they become a path and a JSON body. Absent: reading answers, which `wire` does.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::workload::Draw;

/// Everything about a request but its lengths and its prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BodyTemplate {
    /// The interface that is called.
    pub api: Api,
    /// Model name, as the server knows it.
    pub model: String,
    /// Ask for a stream. Without one there is no TTFT and no ITL.
    pub stream: bool,
    /// Ask the engine to generate up to the output cap (vLLM, SGLang, llama.cpp): exact lengths. Left out where the dialect
    /// has no such key, and to be turned off for a server that refuses unknown keys.
    pub ignore_eos: bool,
    /// Ask for the usage event at the end of an OpenAI stream: the engine's own token count.
    pub include_usage: bool,
}

/// The interfaces a synthetic request can call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// `POST /v1/chat/completions`
    #[default]
    OpenaiChat,
    /// `POST /v1/completions`
    OpenaiCompletions,
    /// `POST /v1/messages`
    AnthropicMessages,
    /// `POST /api/chat`
    OllamaChat,
    /// `POST /api/generate`
    OllamaGenerate,
}

/// The name of an interface that synthetic load does not speak.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of openai_chat, openai_completions, anthropic_messages, ollama_chat, ollama_generate")]
pub struct UnknownApi(pub String);

impl BodyTemplate {
    /// The JSON body of one request, its prompt made up.
    pub fn body(&self, draw: &Draw) -> Vec<u8> {
        self.body_with(&draw.prompt(), draw.output_tokens)
    }

    /// The JSON body of one request with this prompt.
    pub fn body_with(&self, prompt: &str, most_tokens: u32) -> Vec<u8> {
        let messages = || json!([{ "role": "user", "content": prompt }]);
        let mut body = match self.api {
            Api::OpenaiChat | Api::AnthropicMessages => json!({ "messages": messages(), "max_tokens": most_tokens }),
            Api::OpenaiCompletions => json!({ "prompt": prompt, "max_tokens": most_tokens }),
            Api::OllamaChat => json!({ "messages": messages(), "options": { "num_predict": most_tokens } }),
            Api::OllamaGenerate => json!({ "prompt": prompt, "options": { "num_predict": most_tokens } }),
        };
        body["model"] = Value::from(self.model.as_str());
        body["stream"] = Value::from(self.stream);
        if self.api.is_openai() {
            self.add_openai_keys(&mut body);
        }
        body.to_string().into_bytes()
    }

    fn add_openai_keys(&self, body: &mut Value) {
        if self.ignore_eos {
            body["ignore_eos"] = Value::from(true);
        }
        if self.stream && self.include_usage {
            body["stream_options"] = json!({ "include_usage": true });
        }
    }
}

impl Api {
    /// Every interface.
    pub const ALL: [Self; 5] =
        [Self::OpenaiChat, Self::OpenaiCompletions, Self::AnthropicMessages, Self::OllamaChat, Self::OllamaGenerate];

    /// The path below the server's root.
    pub const fn path(self) -> &'static str {
        match self {
            Self::OpenaiChat => "/v1/chat/completions",
            Self::OpenaiCompletions => "/v1/completions",
            Self::AnthropicMessages => "/v1/messages",
            Self::OllamaChat => "/api/chat",
            Self::OllamaGenerate => "/api/generate",
        }
    }

    /// The name, as it is written on the command line and in files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OpenaiChat => "openai_chat",
            Self::OpenaiCompletions => "openai_completions",
            Self::AnthropicMessages => "anthropic_messages",
            Self::OllamaChat => "ollama_chat",
            Self::OllamaGenerate => "ollama_generate",
        }
    }

    const fn is_openai(self) -> bool {
        matches!(self, Self::OpenaiChat | Self::OpenaiCompletions)
    }
}

impl Default for BodyTemplate {
    fn default() -> Self {
        Self { api: Api::OpenaiChat, model: "default".to_owned(), stream: true, ignore_eos: true, include_usage: true }
    }
}

impl FromStr for Api {
    type Err = UnknownApi;

    fn from_str(name: &str) -> Result<Self, UnknownApi> {
        Self::ALL.into_iter().find(|api| api.as_str() == name).ok_or_else(|| UnknownApi(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::workload::{TokenLength, Workload};

    fn draw() -> Draw {
        Workload { prompt: TokenLength::Fixed(12), output: TokenLength::Fixed(34), seed: 5 }.draw(0)
    }

    fn body(template: &BodyTemplate) -> Value {
        serde_json::from_slice(&template.body(&draw())).unwrap()
    }

    #[test]
    fn each_interface_has_prompt_and_cap_in_its_own_keys() {
        let prompt = draw().prompt();
        for (api, text, cap) in [
            (Api::OpenaiChat, "/messages/0/content", "/max_tokens"),
            (Api::OpenaiCompletions, "/prompt", "/max_tokens"),
            (Api::AnthropicMessages, "/messages/0/content", "/max_tokens"),
            (Api::OllamaChat, "/messages/0/content", "/options/num_predict"),
            (Api::OllamaGenerate, "/prompt", "/options/num_predict"),
        ] {
            let body = body(&BodyTemplate { api, model: "m".into(), ..BodyTemplate::default() });
            assert_eq!(body.pointer(text), Some(&Value::from(prompt.as_str())), "{api:?}");
            assert_eq!(body.pointer(cap), Some(&Value::from(34)), "{api:?}");
            assert_eq!((&body["model"], &body["stream"]), (&Value::from("m"), &Value::from(true)), "{api:?}");
        }
    }

    #[test]
    fn asks_openai_for_usage_and_exact_length() {
        let asked = body(&BodyTemplate::default());
        assert_eq!(asked["ignore_eos"], true);
        assert_eq!(asked["stream_options"]["include_usage"], true);
    }

    #[test]
    fn asks_for_neither_where_it_is_off_or_unknown() {
        let plain = body(&BodyTemplate { ignore_eos: false, include_usage: false, ..BodyTemplate::default() });
        let anthropic = body(&BodyTemplate { api: Api::AnthropicMessages, ..BodyTemplate::default() });
        let unary = body(&BodyTemplate { stream: false, ..BodyTemplate::default() });
        for (body, key) in
            [(&plain, "ignore_eos"), (&plain, "stream_options"), (&anthropic, "ignore_eos"), (&unary, "stream_options")]
        {
            assert!(body.get(key).is_none(), "{key} in {body}");
        }
    }

    #[test]
    fn a_name_is_read_as_it_is_written() {
        for api in Api::ALL {
            assert_eq!(api.as_str().parse(), Ok(api));
            assert_eq!(serde_json::to_value(api).unwrap(), Value::from(api.as_str()));
        }
        assert!("openai".parse::<Api>().is_err());
    }
}
