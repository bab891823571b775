//! What is wrong with a scenario file.

/// Why a scenario file is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadScenario {
    /// Not TOML, or not of this shape; the parser's own words, with the line.
    #[error("{name}: {why}")]
    Shape {
        /// Of the scenario.
        name: String,
        /// The parser's message.
        why: String,
    },
    /// A value that makes no sense.
    #[error("{name}: {place}: {why}")]
    Value {
        /// Of the scenario.
        name: String,
        /// Which key.
        place: String,
        /// What is wrong with it.
        why: String,
    },
}

/// A value that makes no sense: where, and what is wrong with it.
pub(super) struct ScenarioFault {
    pub place: String,
    pub why: String,
}

impl ScenarioFault {
    pub(super) fn new(place: impl Into<String>, why: impl Into<String>) -> Self {
        Self { place: place.into(), why: why.into() }
    }
}
