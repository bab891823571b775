//! The names of the APIs weir understands. A dialect belongs to a path, not to an engine: llama.cpp alone speaks four.

/// Whose API a request speaks, and so what its answer looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `/v1/chat/completions`
    OpenAiChat,
    /// `/v1/completions`
    OpenAiCompletions,
    /// `/v1/responses`
    OpenAiResponses,
    /// `/v1/embeddings` and its relatives that only read: rerank, score, pooling, classify.
    OpenAiEmbeddings,
    /// `/v1/messages`
    AnthropicMessages,
    /// `/api/chat`
    OllamaChat,
    /// `/api/generate`
    OllamaGenerate,
    /// `/api/embed`, `/api/embeddings`
    OllamaEmbed,
    /// `/generate_stream`, and `/generate` with `inputs`
    Tgi,
    /// `/generate` with `text` or `input_ids`
    SglangNative,
    /// `/completion`, `/completions`, `/infill`
    LlamacppNative,
}

/// Dialects that report an error in the same form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// `{"error":{"message",…}}`; also the form for a path we do not know.
    OpenAi,
    /// `{"type":"error","error":{…}}`, in a stream under `event: error`.
    Anthropic,
    /// `{"error":"…"}`
    Ollama,
    /// `{"error":"…","error_type":"…"}`
    Tgi,
}

impl Dialect {
    /// Every dialect, in the order of the declaration.
    pub const ALL: [Self; 11] = [
        Self::OpenAiChat,
        Self::OpenAiCompletions,
        Self::OpenAiResponses,
        Self::OpenAiEmbeddings,
        Self::AnthropicMessages,
        Self::OllamaChat,
        Self::OllamaGenerate,
        Self::OllamaEmbed,
        Self::Tgi,
        Self::SglangNative,
        Self::LlamacppNative,
    ];

    /// The form of its errors.
    pub const fn family(self) -> Family {
        match self {
            Self::OpenAiChat
            | Self::OpenAiCompletions
            | Self::OpenAiResponses
            | Self::OpenAiEmbeddings
            | Self::SglangNative
            | Self::LlamacppNative => Family::OpenAi,
            Self::AnthropicMessages => Family::Anthropic,
            Self::OllamaChat | Self::OllamaGenerate | Self::OllamaEmbed => Family::Ollama,
            Self::Tgi => Family::Tgi,
        }
    }

    /// Its name in logs and journals.
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

    /// Whether it answers with output tokens at all.
    pub const fn generates(self) -> bool {
        !matches!(self, Self::OpenAiEmbeddings | Self::OllamaEmbed)
    }

    /// What a missing `stream` field means.
    pub(super) const fn streams_by_default(self) -> bool {
        matches!(self, Self::OllamaChat | Self::OllamaGenerate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct() {
        for (i, one) in Dialect::ALL.iter().enumerate() {
            assert!(Dialect::ALL[i + 1..].iter().all(|other| other.as_str() != one.as_str()));
        }
    }
}
