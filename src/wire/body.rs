//! The members of a request's body that matter, and nothing else (dialects.md, 1.2).

use super::json::{Grammar, Node, ROOT, SKIP, Scalar};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct BodyFields {
    pub model: Option<Box<str>>,
    pub stream: Option<bool>,
    /// `max_completion_tokens`, which the engines obey before the older names.
    pub preferred_cap: Option<u64>,
    pub cap: Option<u64>,
    /// The engine's own name for it.
    pub native_cap: Option<u64>,
    pub n: u32,
    pub best_of: u32,
    /// Prompts that came as elements of an array.
    pub prompts: u32,
    /// Text of the prompt, in bytes, by the member that holds it.
    bytes: [u64; SECTIONS],
    section: usize,
    /// Prompt that came tokenised.
    pub tokens: u64,
    /// There are images or audio.
    pub media: bool,
    /// TGI's or SGLang's name for the prompt is there.
    pub tgi: bool,
    pub sglang: bool,
    pub include_usage: bool,
    pub continuous_usage: bool,
}

const MODEL: Node = 2;
const STREAM: Node = 3;
const CAP: Node = 4;
const PREFERRED_CAP: Node = 5;
const N: Node = 6;
const BEST_OF: Node = 7;
const STREAM_OPTIONS: Node = 8;
const INCLUDE_USAGE: Node = 9;
const CONTINUOUS_USAGE: Node = 10;
/// `prompt` and its kind: one string, one array of tokens, or an array of several of either.
const PROMPTS: Node = 11;
const PROMPT_ELEMENT: Node = 12;
const TOKEN: Node = 13;
/// Text of the prompt and nothing else.
const TEXT: Node = 14;
/// Text, or an array of parts that hold some.
const CONTENT: Node = 15;
const PART: Node = 16;
const MESSAGES: Node = 17;
const MESSAGE: Node = 18;
const MEDIA: Node = 19;
/// A folder of further settings, under the name that each engine has for it.
const OPTIONS: Node = 20;
const NATIVE_CAP: Node = 21;

impl Grammar for BodyFields {
    /// A key that comes again takes back what it said before.
    fn member(&mut self, parent: Node, key: &[u8]) -> Node {
        let node = node(parent, key);
        match node {
            MODEL => self.model = None,
            STREAM => self.stream = None,
            CAP => self.cap = None,
            PREFERRED_CAP => self.preferred_cap = None,
            NATIVE_CAP => self.native_cap = None,
            N => self.n = 0,
            BEST_OF => self.best_of = 0,
            INCLUDE_USAGE => self.include_usage = false,
            CONTINUOUS_USAGE => self.continuous_usage = false,
            STREAM_OPTIONS => (self.include_usage, self.continuous_usage) = (false, false),
            OPTIONS => self.native_cap = None,
            MESSAGES => self.begin_section(1),
            CONTENT if parent == ROOT => self.begin_section(if key == b"suffix" { 2 } else { 3 }),
            PROMPTS => {
                self.begin_section(0);
                (self.prompts, self.tokens) = (0, 0);
                self.tgi |= key == b"inputs";
                self.sglang |= matches!(key, b"text" | b"input_ids");
            }
            _ => {}
        }
        node
    }

    fn element(&self, parent: Node) -> Node {
        match parent {
            PROMPTS => PROMPT_ELEMENT,
            PROMPT_ELEMENT => TOKEN,
            MESSAGES => MESSAGE,
            CONTENT => PART,
            _ => SKIP,
        }
    }

    fn open(&mut self, node: Node, array: bool) {
        match node {
            MEDIA => self.media = true,
            PROMPT_ELEMENT if array => self.prompts = self.prompts.saturating_add(1),
            _ => {}
        }
    }

    fn close(&mut self, _: Node) {}

    fn scalar(&mut self, node: Node, value: Scalar<'_>) {
        match (node, value) {
            (MODEL, Scalar::Text { start, .. }) => self.model = Some(text(start)),
            (STREAM, Scalar::Bool(stream)) => self.stream = Some(stream),
            (CAP, Scalar::Number(cap)) => self.cap = usable(cap),
            (PREFERRED_CAP, Scalar::Number(cap)) => self.preferred_cap = usable(cap),
            (NATIVE_CAP, Scalar::Number(cap)) => self.native_cap = usable(cap),
            (N, Scalar::Number(Some(n))) => self.n = choices(n),
            (BEST_OF, Scalar::Number(Some(n))) => self.best_of = choices(n),
            (INCLUDE_USAGE, Scalar::Bool(on)) => self.include_usage = on,
            (CONTINUOUS_USAGE, Scalar::Bool(on)) => self.continuous_usage = on,
            (TEXT | PROMPTS | CONTENT | PART, Scalar::Text { length, .. }) => self.add_text(length),
            (PROMPT_ELEMENT, Scalar::Text { length, .. }) => {
                self.prompts = self.prompts.saturating_add(1);
                self.add_text(length);
            }
            (PROMPT_ELEMENT | TOKEN, Scalar::Number(_)) => self.tokens = self.tokens.saturating_add(1),
            (MEDIA, Scalar::Text { .. }) => self.media = true,
            _ => {}
        }
    }

    fn wants(&self, node: Node) -> usize {
        if node == MODEL { MODEL_LIMIT } else { 0 }
    }
}

impl BodyFields {
    /// Text of the prompt, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.iter().fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    fn begin_section(&mut self, section: usize) {
        self.section = section;
        self.bytes[section] = 0;
    }

    fn add_text(&mut self, length: u64) {
        let bytes = &mut self.bytes[self.section];
        *bytes = bytes.saturating_add(length);
    }
}

fn node(parent: Node, key: &[u8]) -> Node {
    match parent {
        ROOT => root(key),
        OPTIONS => match key {
            b"num_predict" | b"max_new_tokens" => NATIVE_CAP,
            _ => SKIP,
        },
        STREAM_OPTIONS => match key {
            b"include_usage" => INCLUDE_USAGE,
            b"continuous_usage_stats" => CONTINUOUS_USAGE,
            _ => SKIP,
        },
        MESSAGE => match key {
            b"content" => CONTENT,
            b"images" => MEDIA,
            _ => SKIP,
        },
        PART | PROMPT_ELEMENT => match key {
            b"text" | b"thinking" => TEXT,
            b"content" => CONTENT,
            b"image_url" | b"input_audio" | b"source" | b"file" | b"image" if parent == PART => MEDIA,
            _ => SKIP,
        },
        _ => SKIP,
    }
}

fn root(key: &[u8]) -> Node {
    match key {
        b"model" => MODEL,
        b"stream" => STREAM,
        b"max_completion_tokens" => PREFERRED_CAP,
        b"max_tokens" | b"max_output_tokens" => CAP,
        b"n_predict" => NATIVE_CAP,
        b"n" => N,
        b"best_of" => BEST_OF,
        b"stream_options" => STREAM_OPTIONS,
        b"prompt" | b"input" | b"inputs" | b"text" | b"input_ids" => PROMPTS,
        b"system" | b"suffix" | b"instructions" => CONTENT,
        b"messages" => MESSAGES,
        b"images" | b"image_data" | b"audio" => MEDIA,
        b"options" | b"parameters" | b"sampling_params" => OPTIONS,
        _ => SKIP,
    }
}

fn text(start: &[u8]) -> Box<str> {
    // A character that the limit cuts is left out.
    let start = match std::str::from_utf8(start) {
        Err(cut) if cut.error_len().is_none() => &start[..cut.valid_up_to()],
        _ => start,
    };
    let mut text = String::from_utf8_lossy(start).into_owned();
    let end = (0..=MODEL_LIMIT.min(text.len())).rfind(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
    text.into()
}

/// Zero and what is not a whole number is no cap; nor is a number beyond every context.
fn usable(cap: Option<u64>) -> Option<u64> {
    cap.filter(|cap| (1..=CAP_LIMIT).contains(cap))
}

fn choices(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(CHOICES_LIMIT).min(CHOICES_LIMIT)
}

/// The prompt under its various names; the messages; what follows the text to be filled in; what stands before all.
const SECTIONS: usize = 4;
pub(super) const MODEL_LIMIT: usize = 256;
/// No context holds four thousand million tokens.
const CAP_LIMIT: u64 = 1 << 32;
/// More sequences than any engine gives to one request.
const CHOICES_LIMIT: u32 = 1024;
