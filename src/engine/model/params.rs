//! What a step of an engine costs, and the engine's hard limits.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a step costs and where the engine's hard limits are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// `a`: seconds every step takes, however empty. Must be above zero, or an engine could step without time passing.
    pub base: f64,
    /// `b`: seconds per sequence that decodes in the step.
    pub per_decode: f64,
    /// `c`: seconds per prompt token processed in the step, recomputed ones included.
    pub per_prefill_token: f64,
    /// `d`: seconds per KV token in use when the step starts.
    #[serde(default)]
    pub per_kv_token: f64,
    /// Most sequences in the running batch (vLLM's `max_num_seqs`).
    pub max_num_seqs: NonZeroU32,
    /// Most tokens processed in one step, decodes counting one each (vLLM's `max_num_batched_tokens`).
    pub max_num_batched_tokens: NonZeroU32,
    /// KV memory, in tokens. Also the longest prompt plus output the engine accepts.
    pub kv_tokens: NonZeroU32,
}

impl Params {
    /// How long a step takes that does this much work.
    pub fn step_time(&self, decodes: u32, prefill_tokens: u32, kv_tokens_in_use: u32) -> Duration {
        Duration::from_secs_f64(
            self.base
                + self.per_decode * f64::from(decodes)
                + self.per_prefill_token * f64::from(prefill_tokens)
                + self.per_kv_token * f64::from(kv_tokens_in_use),
        )
    }

    /// The most output tokens a prompt of this length leaves KV memory for; 0 when the prompt itself does not fit.
    pub fn kv_left_after(&self, prompt_tokens: u32) -> u32 {
        self.kv_tokens.get().saturating_sub(prompt_tokens)
    }
}

/// A sequence whose prompt and output together would never fit into KV memory, or with nothing to generate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a prompt of {prompt_tokens} and an output of {output_tokens} tokens do not fit into {kv_tokens} KV tokens")]
pub struct NeverFits {
    /// Length of the prompt.
    pub prompt_tokens: u32,
    /// Length of the output.
    pub output_tokens: u32,
    /// [`Params::kv_tokens`].
    pub kv_tokens: u32,
}
