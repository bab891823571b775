//! What a request asks for: a few fields of its body, read as it arrives.
//!
//! It never fails: a body that is not JSON is the engine's to refuse. With a key twice the last one wins, as it does in
//! the engines (docs/internals/decisions/0002-duplicate-keys.md). The prompt is measured, never kept. Which fields those are: `body`.

use super::body::BodyFields;
use super::bom::Mark;
use super::dialect::Dialect;
use super::json::Walker;
use super::path::Endpoint;

/// What was found in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestShape {
    pub dialect: Dialect,
    /// The model asked for, at most 256 bytes of it. Untrusted text: never a label as it is.
    pub model: Option<Box<str>>,
    /// A stream is asked for.
    pub stream: bool,
    /// Cap on output tokens, when there is a usable one.
    pub max_output: Option<u64>,
    /// Sequences asked for: `n` times the number of prompts.
    pub choices: u32,
    /// Prompts in the request, one at least.
    pub prompts: u32,
    pub prompt: PromptLength,
    pub include_usage: bool,
    pub continuous_usage: bool,
}

/// How long the prompt is, without tokenising it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptLength {
    /// Text, in bytes of UTF-8, whatever escapes it was written with.
    Text { bytes: u64 },
    /// Already tokenised.
    Tokens(u64),
    /// There are images or audio in it.
    Unknown,
}

/// Reads one body, in pieces cut anywhere.
#[derive(Debug)]
pub struct RequestScanner {
    endpoint: Endpoint,
    mark: Mark,
    walker: Walker<HELD>,
    body: BodyFields,
}

impl RequestScanner {
    /// A scanner for a body sent to `endpoint`.
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, mark: Mark::default(), walker: Walker::default(), body: BodyFields::default() }
    }

    /// The next piece.
    pub fn feed(&mut self, bytes: &[u8]) {
        let (before, bytes) = self.mark.strip(bytes);
        self.walker.feed(before, &mut self.body);
        self.walker.feed(bytes, &mut self.body);
    }

    /// What was seen, of however much arrived.
    pub fn finish(self) -> RequestShape {
        let body = self.body;
        let dialect = match self.endpoint {
            Endpoint::Known(dialect) => dialect,
            Endpoint::TgiStream => Dialect::Tgi,
            Endpoint::Generate if body.sglang && !body.tgi => Dialect::SglangNative,
            Endpoint::Generate => Dialect::Tgi,
        };
        let prompts = body.prompts.max(1);
        RequestShape {
            dialect,
            stream: self.endpoint == Endpoint::TgiStream || body.stream.unwrap_or(streams_unasked(dialect)),
            max_output: body.preferred_cap.or(body.cap).or(body.native_cap),
            choices: body.n.max(body.best_of).max(1).saturating_mul(prompts),
            prompts,
            prompt: match (body.media, body.tokens, body.bytes()) {
                (true, ..) => PromptLength::Unknown,
                (false, tokens, 0) if tokens > 0 => PromptLength::Tokens(tokens),
                (false, _, bytes) => PromptLength::Text { bytes },
            },
            include_usage: body.include_usage,
            continuous_usage: body.continuous_usage,
            model: body.model,
        }
    }
}

fn streams_unasked(dialect: Dialect) -> bool {
    matches!(dialect, Dialect::OllamaChat | Dialect::OllamaGenerate)
}

impl RequestShape {
    /// Estimated prompt tokens: a quarter of the bytes, until the engine's usage corrects it; a token array is exact.
    pub fn prompt_tokens_estimate(&self) -> Option<u64> {
        match self.prompt {
            PromptLength::Text { bytes } => Some(bytes.div_ceil(4).max(1)),
            PromptLength::Tokens(tokens) => Some(tokens),
            PromptLength::Unknown => None,
        }
    }
}

/// What the walker can hold of a token that a read cuts: the model's name is the longest that is wanted.
const HELD: usize = super::body::MODEL_LIMIT;

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(endpoint: Endpoint, body: &str) -> RequestShape {
        let whole = pieces(endpoint, &[body.as_bytes()]);
        for cut in 0..body.len() {
            assert_eq!(pieces(endpoint, &[&body.as_bytes()[..cut], &body.as_bytes()[cut..]]), whole, "cut at {cut}");
        }
        whole
    }

    fn pieces(endpoint: Endpoint, pieces: &[&[u8]]) -> RequestShape {
        let mut scanner = RequestScanner::new(endpoint);
        pieces.iter().for_each(|piece| scanner.feed(piece));
        scanner.finish()
    }

    const CHAT: Endpoint = Endpoint::Known(Dialect::OpenAiChat);

    #[test]
    fn a_chat_request_is_read() {
        let shape = scan(
            CHAT,
            r#"{"model":"m\u0041","messages":[{"role":"user","content":"12345678"},{"role":"user","content":[{"type":"text","text":"abcd"}]}],
               "stream":true,"max_tokens":5,"max_completion_tokens":9,"n":2,"stream_options":{"include_usage":true},"tools":[{"content":"no"}]}"#,
        );
        assert_eq!(shape.model.as_deref(), Some("mA"));
        assert!(shape.stream && shape.include_usage && !shape.continuous_usage);
        assert_eq!((shape.max_output, shape.choices), (Some(9), 2));
        assert_eq!(shape.prompt, PromptLength::Text { bytes: 12 });
        assert_eq!(shape.prompt_tokens_estimate(), Some(3));
    }

    #[test]
    fn prompts_come_alone_in_several_and_as_tokens() {
        let completions = Endpoint::Known(Dialect::OpenAiCompletions);
        let shape = |body| scan(completions, body);
        assert_eq!(shape(r#"{"prompt":"abcd"}"#).choices, 1);
        assert_eq!(shape(r#"{"prompt":["a","b","c"],"n":2}"#).choices, 6);
        let tokens = shape(r#"{"prompt":[1,2,3]}"#);
        assert_eq!((tokens.choices, tokens.prompt), (1, PromptLength::Tokens(3)));
        let several = shape(r#"{"prompt":[[1,2],[3]]}"#);
        assert_eq!((several.choices, several.prompt), (2, PromptLength::Tokens(3)));
    }

    #[test]
    fn a_generate_request_is_recognised_by_its_body() {
        let tgi = scan(Endpoint::Generate, r#"{"inputs":"abcd","parameters":{"max_new_tokens":7}}"#);
        assert_eq!((tgi.dialect, tgi.max_output, tgi.stream), (Dialect::Tgi, Some(7), false));
        let sglang =
            scan(Endpoint::Generate, r#"{"input_ids":[1,2],"sampling_params":{"max_new_tokens":8},"stream":true}"#);
        assert_eq!((sglang.dialect, sglang.max_output, sglang.stream), (Dialect::SglangNative, Some(8), true));
        // The member decides, whatever it holds and however the body ends.
        for body in [
            r#"{"text":null}"#,
            r#"{"text":["a","b"]}"#,
            r#"{"input_ids":{}}"#,
            r#"{"text":"cut"#,
            r#"{"te\u0078t":"a"}"#,
        ] {
            assert_eq!(scan(Endpoint::Generate, body).dialect, Dialect::SglangNative, "{body}");
        }
        for body in [r#"{"inputs":5,"text":"a"}"#, r#"{"parameters":{"text":"a"}}"#, "{}", "nonsense"] {
            assert_eq!(scan(Endpoint::Generate, body).dialect, Dialect::Tgi, "{body}");
        }
        assert!(scan(Endpoint::TgiStream, r#"{"inputs":"a"}"#).stream);
        let ollama = Endpoint::Known(Dialect::OllamaChat);
        assert!(scan(ollama, "{}").stream && !scan(ollama, r#"{"stream":false}"#).stream);
    }

    #[test]
    fn nonsense_is_read_as_far_as_it_goes_and_never_fails() {
        for cap in ["-5", "1.5", "\"7\"", "null", "99999999999999999999", "0"] {
            assert_eq!(scan(CHAT, &format!(r#"{{"max_tokens":{cap}}}"#)).max_output, None, "{cap}");
        }
        assert_eq!(scan(CHAT, r#"{"model":"a","model":"b"}"#).model.as_deref(), Some("b"));
        assert_eq!(scan(CHAT, r#"{"stream":true,"model":"a" oops"#).model.as_deref(), Some("a"));
        assert_eq!(scan(CHAT, "\u{feff}{\"model\":\"a\"}").model.as_deref(), Some("a"));
        let long = format!(r#"{{"model":"{}"}}"#, "x".repeat(300));
        assert_eq!(scan(CHAT, &long).model.unwrap().len(), 256);
        assert_eq!(
            scan(CHAT, r#"{"messages":[{"content":[{"type":"image_url","image_url":{"url":"x"}}]}]}"#).prompt,
            PromptLength::Unknown
        );
    }

    #[test]
    fn with_a_key_twice_the_last_one_counts_whatever_it_holds() {
        let shape = scan(
            CHAT,
            r#"{"model":"a","n":7,"stream":true,"max_tokens":5,"model":5,"n":2,"stream":null,"max_tokens":"x"}"#,
        );
        assert_eq!((shape.model, shape.choices, shape.stream, shape.max_output), (None, 2, false, None));
        assert_eq!(scan(CHAT, r#"{"max_tokens":5,"max_completion_tokens":null}"#).max_output, Some(5));
        assert!(!scan(CHAT, r#"{"stream_options":{"include_usage":true},"stream_options":{}}"#).include_usage);
        let completions = Endpoint::Known(Dialect::OpenAiCompletions);
        let twice = scan(completions, r#"{"prompt":["ab","cd"],"suffix":"xyz","prompt":"c","suffix":"x"}"#);
        assert_eq!((twice.choices, twice.prompt), (1, PromptLength::Text { bytes: 2 }));
        let messages = scan(CHAT, r#"{"messages":[{"content":"abcd"}],"system":"s","messages":[{"content":"ab"}]}"#);
        assert_eq!(messages.prompt, PromptLength::Text { bytes: 3 });
    }

    #[test]
    fn a_prompt_measures_what_it_says_and_not_how_it_is_written() {
        let bytes = |prompt: &str| scan(CHAT, &format!(r#"{{"messages":[{{"content":"{prompt}"}}]}}"#)).prompt;
        for (written, length) in
            [("\\u20ac", 3), ("\u{20ac}", 3), ("\\ud83d\\ude00", 4), ("\\n\\\"x", 3), ("\\u0041\\u00e9", 3)]
        {
            assert_eq!(bytes(written), PromptLength::Text { bytes: length }, "{written}");
        }
    }
}
