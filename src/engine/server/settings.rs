//! What the server simulates.

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use super::recorder::Recorder;
use crate::clock::Clock;
use crate::engine::profile::{Profile, Setup, UnknownProfile};

/// What to simulate, and how to answer.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the engine, for the sentence printed at start.
    pub name: String,
    /// Step costs, limits, and the law of output lengths.
    pub setup: Setup,
    /// The dialect named first; all of them are served whatever it is.
    pub dialect: ServedFamily,
    /// The model in its list; any other name is answered too.
    pub model_name: String,
    /// Seed of the output lengths. Request number i draws the same lengths in every run with the same seed.
    pub seed: u64,
    /// How many times faster than the profile the engine runs; above zero. Metrics and stamps stay in real seconds.
    pub speed: f64,
    /// Every streamed event carries `t_ns`, as if each request had sent `x-engine-stamps: 1`.
    pub stamps: bool,
    /// Obey `x-engine-fault`: `hang`, `status=503`, `slow-head` (with the first token), `slow-head=MS`, and for
    /// streams, after N tokens, `reset-after=N` (RST), `cut-after=N` (FIN in mid-body), `truncate-after=N` (the body
    /// ends, the stream does not), `error-event-after=N`, `stall-after=N` (silence).
    pub faults: bool,
    /// The clock of all stamps. Give it the clock of whatever they are to be compared with.
    pub clock: Clock,
    /// Where to keep what was done when, for tests in the same process.
    pub recorder: Option<Arc<Recorder>>,
}

impl Settings {
    /// The named profile at its own speed, with seed 1.
    ///
    /// # Errors
    /// [`UnknownProfile`], whose sentence lists the names.
    pub fn profile(name: &str, clock: Clock) -> Result<Self, UnknownProfile> {
        Profile::named(name).map(|profile| Self::setup(profile.name, profile.setup, clock))
    }

    /// An engine described by its figures.
    pub fn setup(name: &str, setup: Setup, clock: Clock) -> Self {
        Self {
            name: name.to_owned(),
            setup,
            dialect: ServedFamily::OpenAi,
            model_name: "weir-sim".to_owned(),
            seed: 1,
            speed: 1.0,
            stamps: false,
            faults: false,
            clock,
            recorder: None,
        }
    }

    /// What to print once the server listens at `address`.
    pub fn sentence(&self, address: SocketAddr) -> String {
        let params = &self.setup.params;
        format!(
            "simulated engine '{}' ({} slots, {} KV tokens, speed {}) at http://{address}{}; its metrics: http://{address}/metrics",
            self.name,
            params.max_num_seqs,
            params.kv_tokens,
            self.speed,
            self.dialect.path(),
        )
    }
}

/// A family of dialects, for [`Settings::dialect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServedFamily {
    /// `/v1/chat/completions` and `/v1/completions`.
    OpenAi,
    /// `/v1/messages`.
    Anthropic,
    /// `/api/chat` and `/api/generate`.
    Ollama,
}

impl ServedFamily {
    fn path(self) -> &'static str {
        match self {
            Self::OpenAi => "/v1/chat/completions",
            Self::Anthropic => "/v1/messages",
            Self::Ollama => "/api/chat",
        }
    }
}

impl FromStr for ServedFamily {
    type Err = UnknownFamily;

    fn from_str(text: &str) -> Result<Self, UnknownFamily> {
        match text {
            "openai" => Ok(Self::OpenAi),
            "anthropic" => Ok(Self::Anthropic),
            "ollama" => Ok(Self::Ollama),
            _ => Err(UnknownFamily(text.to_owned())),
        }
    }
}

/// Not a family of dialects.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown dialect '{0}': choose one of openai, anthropic, ollama")]
pub struct UnknownFamily(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_names_engine_and_address() {
        let settings = Settings::profile("seed", Clock::start()).unwrap();
        let sentence = settings.sentence("127.0.0.1:8200".parse().unwrap());
        assert!(sentence.starts_with(
            "simulated engine 'seed' (91 slots, 400000 KV tokens, speed 1) at http://127.0.0.1:8200/v1/chat"
        ));
    }

    #[test]
    fn an_unknown_dialect_lists_the_known_ones() {
        assert_eq!("ollama".parse(), Ok(ServedFamily::Ollama));
        let sentence = "tgi".parse::<ServedFamily>().unwrap_err().to_string();
        assert_eq!(sentence, "unknown dialect 'tgi': choose one of openai, anthropic, ollama");
    }
}
