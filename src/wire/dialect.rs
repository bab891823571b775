//! Which wire format a path speaks, and how its answers are framed.

/// A wire format. It belongs to a path, not to an engine: one engine speaks several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    OpenAiChat,
    OpenAiCompletions,
    OpenAiResponses,
    OpenAiEmbeddings,
    AnthropicMessages,
    OllamaChat,
    OllamaGenerate,
    OllamaEmbed,
    Tgi,
    SglangNative,
    LlamacppNative,
}

/// Whose form an error takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    OpenAi,
    Anthropic,
    Ollama,
    Tgi,
}

/// What a request line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Measured.
    Inference(Endpoint),
    /// Relayed and not counted.
    PassThrough,
}

/// An inference path. Most name their dialect; `/generate` is shared by two engines, and its body decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Known(Dialect),
    /// `/generate_stream`: TGI, always a stream.
    TgiStream,
    /// `/generate`: TGI with `inputs`, SGLang with `text` or `input_ids`.
    Generate,
}

/// How an answer's body is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Sse,
    Ndjson,
    Json,
    /// Compressed: relayed unread.
    Opaque,
}

/// Recognises a request by method and target; `prefix` may stand before every path.
///
/// Engines read `%63` as `c`, so a path counts however it is spelled: else a request could be served and never be counted.
pub fn route(method: &[u8], target: &[u8], prefix: &[u8]) -> Route {
    let mut spelled = [0; LONGEST_PATH];
    let path = path(target, &mut spelled);
    let Some(path) = path.strip_prefix(prefix).filter(|_| method == b"POST") else { return Route::PassThrough };
    let known = match path {
        b"/v1/chat/completions" | b"/chat/completions" => Dialect::OpenAiChat,
        b"/v1/completions" => Dialect::OpenAiCompletions,
        b"/v1/responses" => Dialect::OpenAiResponses,
        b"/v1/embeddings" | b"/v1/rerank" | b"/score" | b"/pooling" | b"/classify" => Dialect::OpenAiEmbeddings,
        b"/v1/messages" => Dialect::AnthropicMessages,
        b"/api/chat" => Dialect::OllamaChat,
        b"/api/generate" => Dialect::OllamaGenerate,
        b"/api/embed" | b"/api/embeddings" => Dialect::OllamaEmbed,
        b"/completion" | b"/completions" | b"/infill" => Dialect::LlamacppNative,
        b"/generate_stream" => return Route::Inference(Endpoint::TgiStream),
        b"/generate" => return Route::Inference(Endpoint::Generate),
        _ => return Route::PassThrough,
    };
    Route::Inference(Endpoint::Known(known))
}

/// Whether `target` names `known`, however its path is spelled.
pub fn is_path(target: &[u8], known: &[u8]) -> bool {
    path(target, &mut [0; LONGEST_PATH]) == known
}

/// The path without its query, percent-escapes resolved. One with a broken escape, or too long for any path we know, stays
/// as it is.
fn path<'a>(target: &'a [u8], spelled: &'a mut [u8; LONGEST_PATH]) -> &'a [u8] {
    let path = target.split(|b| *b == b'?').next().unwrap_or(target);
    if !path.contains(&b'%') {
        return path;
    }
    let (mut rest, mut n) = (path, 0);
    while let Some((b, after)) = rest.split_first() {
        let (b, after) = match (*b, after) {
            (b'%', [high, low, after @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, after),
                _ => return path,
            },
            (b'%', _) => return path,
            (b, after) => (b, after),
        };
        let Some(slot) = spelled.get_mut(n) else { return path };
        (*slot, rest, n) = (b, after, n + 1);
    }
    &spelled[..n]
}

fn digit(b: u8) -> Option<u8> {
    char::from(b).to_digit(16).and_then(|n| u8::try_from(n).ok())
}

/// Room for a prefix before the longest path that we know.
const LONGEST_PATH: usize = 256;

impl Endpoint {
    /// Whose form an error takes before the body is known.
    pub fn family(self) -> Family {
        match self {
            Self::Known(dialect) => dialect.family(),
            Self::TgiStream | Self::Generate => Family::Tgi,
        }
    }
}

impl Dialect {
    /// Whose form an error takes.
    pub const fn family(self) -> Family {
        match self {
            Self::AnthropicMessages => Family::Anthropic,
            Self::OllamaChat | Self::OllamaGenerate | Self::OllamaEmbed => Family::Ollama,
            Self::Tgi => Family::Tgi,
            _ => Family::OpenAi,
        }
    }

    /// Our word for it, in logs and journals.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OpenAiChat => "openai.chat",
            Self::OpenAiCompletions => "openai.completions",
            Self::OpenAiResponses => "openai.responses",
            Self::OpenAiEmbeddings => "openai.embeddings",
            Self::AnthropicMessages => "anthropic.messages",
            Self::OllamaChat => "ollama.chat",
            Self::OllamaGenerate => "ollama.generate",
            Self::OllamaEmbed => "ollama.embed",
            Self::Tgi => "tgi",
            Self::SglangNative => "sglang.native",
            Self::LlamacppNative => "llamacpp.native",
        }
    }
}

impl Format {
    /// By the answer's `Content-Type` and `Content-Encoding`. The answer decides what was sent, not the request.
    pub fn of(content_type: &[u8], content_encoding: Option<&[u8]>) -> Self {
        if content_encoding.is_some_and(|coding| !coding.eq_ignore_ascii_case(b"identity") && !coding.is_empty()) {
            return Self::Opaque;
        }
        let media = content_type.split(|b| *b == b';').next().unwrap_or(content_type).trim_ascii();
        let is = |name: &str| media.eq_ignore_ascii_case(name.as_bytes());
        match () {
            () if is("text/event-stream") => Self::Sse,
            () if is("application/x-ndjson") || is("application/ndjson") => Self::Ndjson,
            () => Self::Json,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_known_without_its_query_and_only_when_posted() {
        let chat = Route::Inference(Endpoint::Known(Dialect::OpenAiChat));
        assert_eq!(route(b"POST", b"/v1/chat/completions?x=1", b""), chat);
        assert_eq!(route(b"POST", b"/llm/v1/chat/completions", b"/llm"), chat);
        for (method, target) in
            [("GET", "/v1/chat/completions"), ("POST", "/v1/messages/count_tokens"), ("POST", "/tokenize")]
        {
            assert_eq!(route(method.as_bytes(), target.as_bytes(), b""), Route::PassThrough, "{target}");
        }
    }

    #[test]
    fn a_path_is_known_in_every_spelling_and_escapes_are_resolved_once() {
        let chat = Route::Inference(Endpoint::Known(Dialect::OpenAiChat));
        for target in ["/v1/chat/%63ompletions", "/%761/chat%2fcompletions", "/v1%2Fchat/completions?x=%zz"] {
            assert_eq!(route(b"POST", target.as_bytes(), b""), chat, "{target}");
        }
        for target in
            ["/v1/chat/%2563ompletions", "/v1/chat/completions%", "/v1/chat/completions%4", "/v1/chat/%zzompletions"]
        {
            assert_eq!(route(b"POST", target.as_bytes(), b""), Route::PassThrough, "{target}");
        }
        assert_eq!(route(b"POST", &b"%61".repeat(300), b""), Route::PassThrough);
        assert!(is_path(b"/%6detrics?x", b"/metrics") && !is_path(b"/metrics/", b"/metrics"));
    }

    #[test]
    fn the_answers_type_decides_how_it_is_read() {
        assert_eq!(Format::of(b"Text/Event-Stream; charset=utf-8", None), Format::Sse);
        assert_eq!(Format::of(b"application/x-ndjson", None), Format::Ndjson);
        assert_eq!(Format::of(b"application/json", None), Format::Json);
        assert_eq!(Format::of(b"text/event-stream", Some(b"gzip")), Format::Opaque);
    }
}
