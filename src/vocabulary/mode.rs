//! Whether weir only measures, or enforces what it measures.

use schemars::JsonSchema;
use serde::Serialize;

/// What weir does with what it finds out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Measure, say what would be done, and forward everything.
    #[default]
    Observe,
    /// Let in as many as can be served in time; the others wait or are refused.
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
