//! The estimator's input: one event of one request at one backend.
//!
//! Live traffic, a replayed journal and a simulation all produce samples, and the estimator cannot distinguish the three. A sample
//! holds stamps, lengths and counts: no text, no client, no key. Statistics are not derived from samples: the entry counts on its
//! own.

use crate::vocabulary::class::Class;
use crate::vocabulary::time::Timestamp;

/// A request's identity in samples; unique in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestKey(pub u64);

/// One event of one request. The estimator gets a backend's samples in the order of `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    pub at: Timestamp,
    pub request: RequestKey,
    pub what: What,
}

/// The event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It arrived for this backend, before any decision.
    Offered {
        /// Prompt length in tokens, where the request shows it (counted, or its bytes over four); `None` is unknown.
        prompt: Option<u32>,
        /// Whether the engine streams the answer, so that a first token will be seen.
        stream: bool,
        /// Its priority class.
        priority: Class,
    },
    /// It was dispatched to the backend.
    Admitted,
    /// A content event arrived from the engine. The first one of a request is its first token.
    Emission {
        /// Tokens in the event; 0 counts as 1.
        tokens: u32,
        /// The client caused the gap before it (its write buffer was full), not the engine.
        limited: bool,
    },
    /// It ended after dispatch.
    Finished {
        /// Whether the stream's own end was seen.
        completed: bool,
        /// Prompt tokens as the engine reports them.
        input: Option<u32>,
        /// Output tokens as the engine reports them.
        output: Option<u32>,
        /// Prompt tokens the engine had cached, as it reports them.
        cached: Option<u32>,
    },
    /// It left before dispatch.
    Left {
        /// Refused by us; otherwise its client went away.
        shed: bool,
    },
}
