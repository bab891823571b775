//! What a path alone says about a request.

use super::Dialect;

/// Whether a request is inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Admitted, measured and counted.
    Inference(Endpoint),
    /// Forwarded, not admitted and not counted.
    PassThrough,
}

/// What a path says of an inference request; the rest is in its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A path that belongs to one dialect.
    Speaks(Dialect),
    /// TGI's `/generate_stream`, which streams whatever the body says.
    TgiStream,
    /// `/generate`: TGI if the body has `inputs`, SGLang if it has `text` or `input_ids`.
    Generate,
}

impl Endpoint {
    /// The dialect to answer in before the body is known.
    pub const fn dialect(self) -> Dialect {
        match self {
            Self::Speaks(dialect) => dialect,
            Self::TgiStream => Dialect::Tgi,
            Self::Generate => Dialect::SglangNative,
        }
    }
}

/// What `method` on `target` is: the path is compared without its query, percent-decoded, and without `prefix`, which may
/// be empty and need not be there.
///
/// An engine decodes `/v1/%63ompletions` before it looks at it, so this does too: otherwise an escape would be a way
/// around admission.
pub fn route(method: &[u8], target: &[u8], prefix: &[u8]) -> Route {
    if method != b"POST" {
        return Route::PassThrough;
    }
    let path = target.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
    let mut room = [0; LONGEST_ESCAPED];
    let Some(path) = decoded(path, &mut room) else { return Route::PassThrough };
    endpoint(without_prefix(path, prefix)).map_or(Route::PassThrough, Route::Inference)
}

/// dialects.md 1.1.
fn endpoint(path: &[u8]) -> Option<Endpoint> {
    let dialect = match path {
        b"/v1/chat/completions" | b"/chat/completions" => Dialect::OpenAiChat,
        b"/v1/completions" => Dialect::OpenAiCompletions,
        b"/v1/responses" => Dialect::OpenAiResponses,
        b"/v1/embeddings" | b"/v1/rerank" | b"/score" | b"/pooling" | b"/classify" => Dialect::OpenAiEmbeddings,
        b"/v1/messages" => Dialect::AnthropicMessages,
        b"/api/chat" => Dialect::OllamaChat,
        b"/api/generate" => Dialect::OllamaGenerate,
        b"/api/embed" | b"/api/embeddings" => Dialect::OllamaEmbed,
        b"/completion" | b"/completions" | b"/infill" => Dialect::LlamacppNative,
        b"/generate_stream" => return Some(Endpoint::TgiStream),
        b"/generate" => return Some(Endpoint::Generate),
        _ => return None,
    };
    Some(Endpoint::Speaks(dialect))
}

fn without_prefix<'a>(path: &'a [u8], prefix: &[u8]) -> &'a [u8] {
    let prefix = prefix.strip_suffix(b"/").unwrap_or(prefix);
    path.strip_prefix(prefix).filter(|rest| rest.starts_with(b"/")).unwrap_or(path)
}

/// `path` with its escapes decoded into `room`, or as it is when it has none; `None` if it does not fit or an escape is
/// broken, which no path of ours does.
fn decoded<'a>(path: &'a [u8], room: &'a mut [u8; LONGEST_ESCAPED]) -> Option<&'a [u8]> {
    if !path.contains(&b'%') {
        return Some(path);
    }
    let (mut length, mut rest) = (0, path);
    while let [first, tail @ ..] = rest {
        let (byte, tail) = match (first, tail) {
            (b'%', [high, low, tail @ ..]) => (hex(*high)? << 4 | hex(*low)?, tail),
            (b'%', _) => return None,
            _ => (*first, tail),
        };
        *room.get_mut(length)? = byte;
        length += 1;
        rest = tail;
    }
    room.get(..length)
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// A prefix and the longest path of ours, with room to spare; a longer path with escapes is none of ours.
const LONGEST_ESCAPED: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn post(target: &str) -> Route {
        route(b"POST", target.as_bytes(), b"/llm")
    }

    const CHAT: Route = Route::Inference(Endpoint::Speaks(Dialect::OpenAiChat));

    #[test]
    fn inference_paths_are_known_with_query_prefix_and_escapes() {
        for target in ["/v1/chat/completions", "/chat/completions?a=/b", "/llm/v1/chat/completions", "/v1/%63hat/%63ompletions"] {
            assert_eq!(post(target), CHAT, "{target}");
        }
        assert_eq!(post("/generate"), Route::Inference(Endpoint::Generate));
        assert_eq!(post("/generate_stream"), Route::Inference(Endpoint::TgiStream));
        assert_eq!(post("/infill"), Route::Inference(Endpoint::Speaks(Dialect::LlamacppNative)));
    }

    #[test]
    fn everything_else_passes_through() {
        for target in [
            "/v1/models", "/health", "/metrics", "/tokenize", "/v1/messages/count_tokens", "/slots", "/", "", "*",
            "/v1/chat/completions/", "/llmv1/chat/completions", "/V1/chat/completions", "/v1/chat%2", "/v1/chat%zz",
            "/llm/llm/v1/chat/completions",
        ] {
            assert_eq!(post(target), Route::PassThrough, "{target}");
        }
        assert_eq!(post(&"%41".repeat(1000)), Route::PassThrough);
    }

    #[test]
    fn only_post_is_inference() {
        assert_eq!(route(b"GET", b"/v1/completions", b""), Route::PassThrough);
        assert_eq!(route(b"post", b"/v1/completions", b""), Route::PassThrough);
    }

    #[test]
    fn an_empty_prefix_is_no_prefix() {
        for prefix in ["", "/"] {
            assert_eq!(route(b"POST", b"/v1/chat/completions", prefix.as_bytes()), CHAT);
        }
    }
}
