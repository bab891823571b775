//! Which policy makes the limits: weir's own, a fixed number, or a published limiter for comparison.

use serde::{Deserialize, Serialize};

/// `control.policy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlPolicy {
    /// A window of requests without a first token, and a cap of tokens in flight.
    #[default]
    FirstTokenWindow,
    /// A fixed number of requests in flight.
    Static(u32),
    /// Additive increase, multiplicative decrease of the requests in flight, by the time to first token.
    Aimd,
    /// Netflix's Gradient2, by the time to first token.
    Gradient2,
    /// Netflix's Vegas, by the time to first token.
    Vegas,
    /// Envoy's adaptive concurrency, by the time to first token.
    EnvoyGradient,
    /// No limit.
    None,
}

impl ControlPolicy {
    /// Its word in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FirstTokenWindow => "first_token_window",
            Self::Static(_) => "static",
            Self::Aimd => "aimd",
            Self::Gradient2 => "gradient2",
            Self::Vegas => "vegas",
            Self::EnvoyGradient => "envoy_gradient",
            Self::None => "none",
        }
    }
}
