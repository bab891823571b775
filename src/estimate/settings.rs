//! What the estimator has to know before it sees any traffic.

use std::time::Duration;

/// The objective, and what is known of the engine.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The objective for arrival to first token; waits are judged against it.
    pub slo_ttft: Duration,
    /// The engine's own limits, as far as they are known.
    pub engine: EngineLimits,
}

/// An engine's hard limits, from its configuration or its own metrics; `None` is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineLimits {
    /// Most sequences in the running batch.
    pub max_num_seqs: Option<u32>,
    /// KV memory, in tokens.
    pub kv_tokens: Option<u32>,
    /// Most tokens in one step.
    pub max_num_batched_tokens: Option<u32>,
}
