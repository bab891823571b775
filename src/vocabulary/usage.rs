//! Token counts as an engine reports them.

use serde::{Deserialize, Serialize};

/// Token counts of one answer, as its engine reports them; absent where the engine does not report them or its report is
/// not credible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt or of all prompts, each prompt once, cached ones included.
    pub input: Option<u64>,
    /// Tokens generated, in all choices together.
    pub output: Option<u64>,
    /// How many of `input` came from a prefix cache.
    pub cached: Option<u64>,
}
