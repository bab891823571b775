//! The wire formats by name, whose form their errors take, and how an answer is framed. Not which path speaks which: `path`.

use crate::vocabulary::closed::closed;

closed! {
    /// A wire format. It belongs to a path, not to an engine: one engine speaks several.
    Dialect {
        OpenAiChat = "openai.chat",
        OpenAiCompletions = "openai.completions",
        OpenAiResponses = "openai.responses",
        OpenAiEmbeddings = "openai.embeddings",
        AnthropicMessages = "anthropic.messages",
        OllamaChat = "ollama.chat",
        OllamaGenerate = "ollama.generate",
        OllamaEmbed = "ollama.embed",
        Tgi = "tgi",
        SglangNative = "sglang.native",
        LlamacppNative = "llamacpp.native",
    }
}

/// Whose form an error takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiFamily {
    OpenAi,
    Anthropic,
    Ollama,
    Tgi,
}

/// How an answer's body is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFormat {
    Sse,
    Ndjson,
    Json,
    /// Compressed: relayed unread.
    Opaque,
}

impl Dialect {
    /// Whose form an error takes.
    pub const fn family(self) -> ApiFamily {
        match self {
            Self::AnthropicMessages => ApiFamily::Anthropic,
            Self::OllamaChat | Self::OllamaGenerate | Self::OllamaEmbed => ApiFamily::Ollama,
            Self::Tgi => ApiFamily::Tgi,
            _ => ApiFamily::OpenAi,
        }
    }
}

/// Its objects name the sequence they speak for, and carry running counts.
pub(super) fn has_sequences(dialect: Dialect) -> bool {
    matches!(dialect, Dialect::SglangNative | Dialect::LlamacppNative)
}

impl BodyFormat {
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
    fn the_answers_type_decides_how_it_is_read() {
        assert_eq!(BodyFormat::of(b"Text/Event-Stream; charset=utf-8", None), BodyFormat::Sse);
        assert_eq!(BodyFormat::of(b"application/x-ndjson", None), BodyFormat::Ndjson);
        assert_eq!(BodyFormat::of(b"application/json", None), BodyFormat::Json);
        assert_eq!(BodyFormat::of(b"text/event-stream", Some(b"gzip")), BodyFormat::Opaque);
    }
}
