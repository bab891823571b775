//! Which wire format a request line asks for.
//!
//! A path is compared as an engine compares it: without its query, and percent-decoded once. Nothing is rewritten; what is
//! forwarded is what came. Other normalisations (dot segments, doubled or trailing slashes, case) are not made: the engines
//! answer those with 404 or a redirect.

use super::dialect::{ApiFamily, Dialect};

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

/// Recognises a request by method and target; `prefix` may stand before every path.
///
/// Engines read `%63` as `c`, so a path counts however it is spelled: else a request could be served and never be counted.
pub fn route(method: &[u8], target: &[u8], prefix: &[u8]) -> Route {
    if method != b"POST" {
        return Route::PassThrough;
    }
    let mut spelled = [0; LONGEST_PATH];
    let endpoint = path(target, &mut spelled).strip_prefix(prefix).and_then(endpoint);
    endpoint.map_or(Route::PassThrough, Route::Inference)
}

/// Whether `target` names `known`, however its path is spelled.
pub fn is_path(target: &[u8], known: &[u8]) -> bool {
    path(target, &mut [0; LONGEST_PATH]) == known
}

impl Endpoint {
    /// Whose form an error takes before the body is known.
    pub fn family(self) -> ApiFamily {
        match self {
            Self::Known(dialect) => dialect.family(),
            Self::TgiStream | Self::Generate => ApiFamily::Tgi,
        }
    }
}

fn endpoint(path: &[u8]) -> Option<Endpoint> {
    Some(Endpoint::Known(match path {
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
    }))
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

#[cfg(test)]
mod tests {
    use super::*;

    const CHAT: Route = Route::Inference(Endpoint::Known(Dialect::OpenAiChat));

    #[test]
    fn a_path_is_known_without_its_query_and_only_when_posted() {
        assert_eq!(route(b"POST", b"/v1/chat/completions?x=1", b""), CHAT);
        assert_eq!(route(b"POST", b"/llm/v1/chat/completions", b"/llm"), CHAT);
        for (method, target) in
            [("GET", "/v1/chat/completions"), ("POST", "/v1/messages/count_tokens"), ("POST", "/tokenize")]
        {
            assert_eq!(route(method.as_bytes(), target.as_bytes(), b""), Route::PassThrough, "{target}");
        }
    }

    #[test]
    fn a_path_matches_in_every_spelling_with_one_decoding() {
        for target in [
            "/v1/chat/%63ompletions",
            "/%761/chat%2fcompletions",
            "/v1%2Fchat/completions?x=%zz",
            "%2F%76%31%2F%63%68%61%74%2F%63%6F%6D%70%6C%65%74%69%6F%6E%73",
        ] {
            assert_eq!(route(b"POST", target.as_bytes(), b""), CHAT, "{target}");
        }
        assert_eq!(route(b"POST", b"/l%6Cm/v1/chat/completions", b"/llm"), CHAT);
        for target in [
            "/v1/chat/%2563ompletions",
            "/v1/chat/completions%",
            "/v1/chat/completions%4",
            "/v1/chat/%zzompletions",
            "/v1/chat/completions%00",
            "/v1/chat/completions%3Fx",
        ] {
            assert_eq!(route(b"POST", target.as_bytes(), b""), Route::PassThrough, "{target}");
        }
        assert_eq!(route(b"POST", &b"%61".repeat(300), b""), Route::PassThrough);
        assert!(is_path(b"/%6detrics?x", b"/metrics") && !is_path(b"/metrics/", b"/metrics"));
    }
}
