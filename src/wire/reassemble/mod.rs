//! An answer that the client wants whole, from an engine that streams it: the request asks for a stream instead, and the events
//! become the answer that the engine would have given.
//!
//! Which requests can be turned is decided from the request alone, and in doubt against it. Values are never interpreted: what
//! comes in pieces is joined as it is written, escapes and numbers included, and keys keep the order in which the engine writes
//! them. It reads no socket, and holds no more than it was given.

mod anthropic;
mod asking;
mod events;
mod ollama;
mod openai;
mod raw;

pub use asking::streamed;

use self::anthropic::AnthropicMessage;
use self::events::Events;
use self::ollama::OllamaAnswer;
use self::openai::Completion;
use super::dialect::Dialect;

/// An answer that is being put together.
#[derive(Debug)]
pub struct Assembler {
    events: Events,
    whole: Whole,
}

#[derive(Debug)]
enum Whole {
    OpenAi(Completion),
    Anthropic(AnthropicMessage),
    Ollama(OllamaAnswer),
}

/// Why there is no whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReassemblyFault {
    /// The engine said so in the middle of its stream: its own words, as JSON, and their status.
    Said { status: u16, body: Vec<u8> },
    /// The stream ended before its end, or holds what cannot be put together.
    Broken,
}

impl Assembler {
    /// For a stream in `dialect`; `None`: that one cannot be put together.
    pub fn new(dialect: Dialect) -> Option<Self> {
        let (events, whole) = match dialect {
            Dialect::OpenAiChat | Dialect::OpenAiCompletions => (Events::sse(), Whole::OpenAi(Completion::default())),
            Dialect::AnthropicMessages => (Events::sse(), Whole::Anthropic(AnthropicMessage::default())),
            Dialect::OllamaChat | Dialect::OllamaGenerate => (Events::ndjson(), Whole::Ollama(OllamaAnswer::default())),
            _ => return None,
        };
        Some(Self { events, whole })
    }

    /// The next piece of the stream, cut anywhere.
    pub fn feed(&mut self, bytes: &[u8]) {
        let whole = &mut self.whole;
        self.events.feed(bytes, |data| whole.take(data));
    }

    /// The whole answer. The body of the stream has ended as its framing says.
    ///
    /// # Errors
    /// There is none.
    pub fn finish(mut self) -> Result<Vec<u8>, ReassemblyFault> {
        let whole = &mut self.whole;
        self.events.finish(|data| whole.take(data));
        match self.whole {
            Whole::OpenAi(completion) => completion.finish(),
            Whole::Anthropic(message) => message.finish(),
            Whole::Ollama(line) => line.finish(),
        }
    }
}

impl Whole {
    fn take(&mut self, data: &[u8]) {
        // What is not UTF-8 or no object is no event; a finish that is missing then says so.
        let Ok(text) = std::str::from_utf8(data) else { return };
        match self {
            Self::OpenAi(completion) => completion.take(text),
            Self::Anthropic(message) => message.take(text),
            Self::Ollama(line) => line.take(text),
        }
    }
}

#[cfg(test)]
mod tests;
