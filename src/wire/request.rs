//! What a request asks for: a few fields of its body, read as it arrives.
//!
//! It never fails: a body that is not JSON is the engine's to refuse. With a key twice the last one wins, as it does in
//! the engines (docs/decisions/0002).

use super::dialect::{Dialect, Endpoint};
use super::json::{Grammar, Node, ROOT, SKIP, Scalar, Walker, unescape};

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
    pub prompt: PromptLength,
    pub include_usage: bool,
    pub continuous_usage: bool,
}

/// How long the prompt is, without tokenising it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptLength {
    /// Text, in bytes.
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
    walker: Walker,
    found: Found,
}

impl RequestScanner {
    /// A scanner for a body sent to `endpoint`.
    pub fn new(endpoint: Endpoint) -> Self {
        let found = Found { mark: b"\xef\xbb\xbf", ..Found::default() };
        Self { endpoint, walker: Walker::default(), found }
    }

    /// The next piece.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        // A byte order mark, whole or cut. Its bytes cannot begin a JSON document, so none of them is missed.
        while let Some(rest) = self.found.mark.first().and_then(|expected| bytes.strip_prefix(&[*expected])) {
            self.found.mark = &self.found.mark[1..];
            bytes = rest;
        }
        if !bytes.is_empty() {
            self.found.mark = &[];
        }
        self.walker.feed(bytes, &mut self.found);
    }

    /// What was seen, of however much arrived.
    pub fn finish(self) -> RequestShape {
        let found = self.found;
        let dialect = match self.endpoint {
            Endpoint::Known(dialect) => dialect,
            Endpoint::TgiStream => Dialect::Tgi,
            Endpoint::Generate if found.sglang && !found.tgi => Dialect::SglangNative,
            Endpoint::Generate => Dialect::Tgi,
        };
        let default = matches!(dialect, Dialect::OllamaChat | Dialect::OllamaGenerate);
        let prompt = match (found.media, found.tokens, found.bytes) {
            (true, ..) => PromptLength::Unknown,
            (false, tokens, 0) if tokens > 0 => PromptLength::Tokens(tokens),
            (false, _, bytes) => PromptLength::Text { bytes },
        };
        RequestShape {
            dialect,
            model: found.model,
            stream: self.endpoint == Endpoint::TgiStream || found.stream.unwrap_or(default),
            max_output: found.preferred_cap.or(found.cap),
            choices: found.n.unwrap_or(1).max(1).saturating_mul(found.prompts.max(1)),
            prompt,
            include_usage: found.include_usage,
            continuous_usage: found.continuous_usage,
        }
    }
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

#[derive(Debug, Default)]
struct Found {
    /// What of a byte order mark may still come.
    mark: &'static [u8],
    model: Option<Box<str>>,
    stream: Option<bool>,
    preferred_cap: Option<u64>,
    cap: Option<u64>,
    n: Option<u32>,
    prompts: u32,
    bytes: u64,
    tokens: u64,
    media: bool,
    tgi: bool,
    sglang: bool,
    include_usage: bool,
    continuous_usage: bool,
}

const MODEL: Node = 2;
const STREAM: Node = 3;
const CAP: Node = 4;
const PREFERRED_CAP: Node = 5;
const N: Node = 6;
const STREAM_OPTIONS: Node = 7;
const INCLUDE_USAGE: Node = 8;
const CONTINUOUS_USAGE: Node = 9;
/// Text of the prompt, or a container of such text.
const PROMPT: Node = 10;
/// `prompt` and its kind: one string, one array of tokens, or an array of several of either.
const PROMPTS: Node = 11;
const PROMPT_ELEMENT: Node = 12;
const TOKEN: Node = 13;
const MESSAGES: Node = 14;
const MESSAGE: Node = 15;
const PART: Node = 16;
const MEDIA: Node = 17;
const OPTIONS: Node = 18;
const TGI_INPUTS: Node = 19;
const SGLANG_TEXT: Node = 20;
const CONTENT: Node = 21;

impl Grammar for Found {
    fn member(&self, parent: Node, key: &[u8]) -> Node {
        match (parent, key) {
            (ROOT, b"model") => MODEL,
            (ROOT, b"stream") => STREAM,
            (ROOT, b"max_completion_tokens") => PREFERRED_CAP,
            (ROOT, b"max_tokens" | b"max_output_tokens" | b"n_predict") => CAP,
            (ROOT, b"n" | b"best_of") => N,
            (ROOT, b"stream_options") => STREAM_OPTIONS,
            (ROOT, b"prompt" | b"input") => PROMPTS,
            (ROOT, b"inputs") => TGI_INPUTS,
            (ROOT, b"text" | b"input_ids") => SGLANG_TEXT,
            (ROOT, b"system" | b"suffix" | b"instructions") => CONTENT,
            (ROOT, b"messages") => MESSAGES,
            (ROOT, b"images" | b"image_data" | b"audio") => MEDIA,
            (ROOT, b"options" | b"parameters" | b"sampling_params") => OPTIONS,
            (OPTIONS, b"num_predict" | b"max_new_tokens") => CAP,
            (STREAM_OPTIONS, b"include_usage") => INCLUDE_USAGE,
            (STREAM_OPTIONS, b"continuous_usage_stats") => CONTINUOUS_USAGE,
            (MESSAGE, b"content") => CONTENT,
            (MESSAGE, b"images") => MEDIA,
            (PART | PROMPT_ELEMENT, b"text" | b"thinking") => PROMPT,
            (PART | PROMPT_ELEMENT, b"content") => CONTENT,
            (PART, b"image_url" | b"input_audio" | b"source" | b"file" | b"image") => MEDIA,
            _ => SKIP,
        }
    }

    fn element(&self, parent: Node) -> Node {
        match parent {
            PROMPTS | TGI_INPUTS | SGLANG_TEXT => PROMPT_ELEMENT,
            PROMPT_ELEMENT => TOKEN,
            MESSAGES => MESSAGE,
            CONTENT => PART,
            _ => SKIP,
        }
    }

    fn open(&mut self, node: Node, array: bool) {
        match node {
            MEDIA => self.media = true,
            TGI_INPUTS => self.tgi = true,
            SGLANG_TEXT => self.sglang = true,
            PROMPT_ELEMENT if array => self.prompts += 1,
            _ => {}
        }
    }

    fn close(&mut self, _: Node) {}

    fn scalar(&mut self, node: Node, value: Scalar<'_>) {
        match (node, value) {
            (MODEL, Scalar::Text { raw: Some(raw), .. }) => self.model = Some(text(raw)),
            (STREAM, Scalar::Bool(stream)) => self.stream = Some(stream),
            (STREAM, Scalar::Null) => self.stream = None,
            (CAP, Scalar::Number(cap)) => self.cap = usable(cap),
            (PREFERRED_CAP, Scalar::Number(cap)) => self.preferred_cap = usable(cap),
            (N, Scalar::Number(Some(n))) => {
                self.n = self.n.max(Some(u32::try_from(n).unwrap_or(u32::MAX).min(N_LIMIT)))
            }
            (INCLUDE_USAGE, Scalar::Bool(on)) => self.include_usage = on,
            (CONTINUOUS_USAGE, Scalar::Bool(on)) => self.continuous_usage = on,
            (PROMPT | PROMPTS | CONTENT | PART, Scalar::Text { length, .. }) => self.bytes += length as u64,
            (TGI_INPUTS, Scalar::Text { length, .. }) => {
                self.tgi = true;
                self.bytes += length as u64;
            }
            (SGLANG_TEXT, Scalar::Text { length, .. }) => {
                self.sglang = true;
                self.bytes += length as u64;
            }
            (PROMPT_ELEMENT, Scalar::Text { length, .. }) => {
                self.prompts += 1;
                self.bytes += length as u64;
            }
            (PROMPT_ELEMENT | TOKEN, Scalar::Number(_)) => self.tokens += 1,
            (MEDIA, Scalar::Text { .. }) => self.media = true,
            _ => {}
        }
    }

    fn wants(&self, node: Node) -> usize {
        if node == MODEL { MODEL_LIMIT * 6 } else { 0 }
    }
}

fn text(raw: &[u8]) -> Box<str> {
    let mut bytes = Vec::new();
    unescape(raw, &mut bytes, MODEL_LIMIT);
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    let mut end = text.len().min(MODEL_LIMIT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text.into()
}

/// Zero and what is not a whole number is no cap; nor is a number beyond every context.
fn usable(cap: Option<u64>) -> Option<u64> {
    cap.filter(|cap| (1..=CAP_LIMIT).contains(cap))
}

const MODEL_LIMIT: usize = 256;
const CAP_LIMIT: u64 = 1 << 32;
const N_LIMIT: u32 = 1024;

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
    fn a_generate_request_is_told_by_its_body() {
        let tgi = scan(Endpoint::Generate, r#"{"inputs":"abcd","parameters":{"max_new_tokens":7}}"#);
        assert_eq!((tgi.dialect, tgi.max_output, tgi.stream), (Dialect::Tgi, Some(7), false));
        let sglang =
            scan(Endpoint::Generate, r#"{"input_ids":[1,2],"sampling_params":{"max_new_tokens":8},"stream":true}"#);
        assert_eq!((sglang.dialect, sglang.max_output, sglang.stream), (Dialect::SglangNative, Some(8), true));
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
        assert!(scan(CHAT, &long).model.unwrap().len() <= 256);
        assert_eq!(
            scan(CHAT, r#"{"messages":[{"content":[{"type":"image_url","image_url":{"url":"x"}}]}]}"#).prompt,
            PromptLength::Unknown
        );
    }
}
