//! What a request asks for, whatever its dialect, and how long its answer will be.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use super::token::Finish;
use crate::engine::profile::Setup;

/// A request, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineRequest {
    /// Whether the answer streams.
    pub stream: bool,
    /// Length of each prompt, in tokens; only `/v1/completions` can have several.
    pub prompts: Vec<u32>,
    /// Choices for each prompt.
    pub n: u32,
    /// Most tokens of each choice.
    pub max_tokens: Option<u32>,
    /// Each choice has exactly `max_tokens` tokens.
    pub ignore_eos: bool,
    /// A usage event ends the stream.
    pub include_usage: bool,
    /// Every event carries usage.
    pub continuous_usage: bool,
}

impl EngineRequest {
    /// Sequences this request makes.
    pub fn choices(&self) -> u32 {
        self.n * self.prompts.len() as u32
    }

    /// Length of the prompt that a choice belongs to.
    pub fn prompt_of(&self, choice: u32) -> u32 {
        self.prompts[(choice / self.n) as usize]
    }

    /// How long each choice gets, and why it ends there.
    ///
    /// Without `ignore_eos` a choice stops at a length drawn from the profile's law, or at `max_tokens` if that is
    /// less. The generator is seeded by `seed` and the request's number, so a length does not depend on other requests. KV
    /// memory ends every choice.
    pub fn outputs(&self, setup: &Setup, seed: u64, number: u64) -> Vec<(u32, Finish)> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(number);
        let output = |choice| {
            let drawn = setup.workload.draw_output(&setup.params, &mut rng);
            let natural = if self.ignore_eos { self.max_tokens.unwrap_or(drawn) } else { drawn };
            let left = setup.params.kv_left_after(self.prompt_of(choice));
            let most = self.max_tokens.unwrap_or(u32::MAX).min(left);
            let stops = natural < most && !self.ignore_eos;
            (natural.min(most), if stops { Finish::Stop } else { Finish::Length })
        };
        (0..self.choices()).map(output).collect()
    }
}

/// Why a request is refused with status 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadRequest(pub String);

/// A whole number of at least 1 under `key`; absent or null is `None`. What does not fit 32 bits is the largest that does.
pub fn count(body: &Value, key: &str) -> Result<Option<u32>, BadRequest> {
    match body.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(number) if number > 0 => Ok(Some(u32::try_from(number).unwrap_or(u32::MAX))),
            _ => Err(BadRequest(format!("{key} must be a whole number of at least 1"))),
        },
    }
}

/// The boolean under `key`; absent, null and other types are `default`.
pub fn flag(body: &Value, key: &str, default: bool) -> bool {
    body.get(key).and_then(Value::as_bool).unwrap_or(default)
}

/// Prompt tokens of a text, of a list of messages or of content parts: a quarter of the bytes of text, at
/// least 1.
pub fn prompt_tokens(texts: &[Option<&Value>]) -> u32 {
    let bytes: usize = texts.iter().flatten().map(|value| text_bytes(value)).sum();
    u32::try_from(bytes / 4).unwrap_or(u32::MAX).max(1)
}

/// Bytes of text: a string, or what stands under `content` or `text` in an object, summed over lists.
fn text_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(parts) => parts.iter().map(text_bytes).sum(),
        Value::Object(part) => ["content", "text"].iter().filter_map(|key| part.get(*key)).map(text_bytes).sum(),
        _ => 0,
    }
}

/// The list under `messages`, which must be there and hold one at least.
pub fn messages(body: &Value) -> Result<&Value, BadRequest> {
    match body.get("messages") {
        Some(list) if list.as_array().is_some_and(|messages| !messages.is_empty()) => Ok(list),
        _ => Err(BadRequest("messages must be a list of at least one message".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::engine::profile::PROFILES;

    fn ask(max_tokens: Option<u32>, ignore_eos: bool) -> EngineRequest {
        EngineRequest { prompts: vec![10], n: 1, max_tokens, ignore_eos, ..EngineRequest::default() }
    }

    fn output(request: &EngineRequest, number: u64) -> (u32, Finish) {
        request.outputs(&PROFILES[0].setup, 7, number)[0]
    }

    #[test]
    fn ignore_eos_gives_exactly_max_tokens() {
        assert_eq!(output(&ask(Some(5), true), 0), (5, Finish::Length));
        assert_eq!(output(&ask(Some(5000), true), 0), (5000, Finish::Length));
    }

    #[test]
    fn without_it_the_drawn_length_or_max_tokens_ends_it() {
        let (drawn, finish) = output(&ask(None, false), 0);
        assert_eq!(finish, Finish::Stop);
        assert!((50..500).contains(&drawn), "{drawn}");
        assert_eq!(output(&ask(Some(5), false), 0), (5, Finish::Length));
        assert_eq!(output(&ask(Some(5000), false), 0), (drawn, Finish::Stop));
    }

    #[test]
    fn lengths_depend_on_seed_and_number_alone() {
        let request = ask(None, false);
        assert_eq!(output(&request, 4), output(&request, 4));
        assert_ne!(output(&request, 4), output(&request, 5));
    }

    #[test]
    fn kv_memory_ends_every_choice() {
        let request = EngineRequest { prompts: vec![399_990], ..ask(Some(50), true) };
        assert_eq!(output(&request, 0), (10, Finish::Length));
    }

    #[test]
    fn text_is_counted_wherever_a_message_holds_it() {
        let parts = json!([{"type": "text", "text": "1234"}, {"type": "image_url", "image_url": {"url": "x"}}]);
        let said = json!([{"role": "user", "content": "12345678"}, {"role": "user", "content": parts}]);
        assert_eq!(prompt_tokens(&[Some(&said)]), 3);
        assert_eq!(prompt_tokens(&[Some(&json!("")), None]), 1);
    }

    #[test]
    fn a_count_is_at_least_one_or_absent() {
        assert_eq!(count(&json!({"n": 3}), "n"), Ok(Some(3)));
        assert_eq!(count(&json!({"n": null}), "n"), Ok(None));
        for bad in [json!({"n": 0}), json!({"n": -1}), json!({"n": "3"}), json!({"n": 1.5})] {
            assert!(count(&bad, "n").is_err(), "{bad}");
        }
    }
}
