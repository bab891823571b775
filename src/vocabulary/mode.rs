//! Whether weir only measures, or enforces what it measures.

use schemars::JsonSchema;
use serde::Serialize;

/// Whether weir limits the load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Forward every request, measure, and count what enforcement would refuse.
    #[default]
    Observe,
    /// Dispatch what a backend can start in time; other requests wait or are refused.
    Enforce,
}

impl Mode {
    /// Both modes.
    pub const ALL: [Self; 2] = [Self::Observe, Self::Enforce];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Enforce => "enforce",
        }
    }
}
