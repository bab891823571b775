//! What the estimator is told: one thing that happened to one request of one backend.
//!
//! Live traffic, a replayed journal and a rehearsal all speak in samples, and what reads them cannot tell the three
//! apart. A sample holds stamps, lengths and counts: no text, no client, no key. It is not a record of the stats: the
//! entry counts for itself and says besides what a sample needs.

use crate::vocabulary::class::Class;
use crate::vocabulary::time::Timestamp;

/// A request's name in samples; unique in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestKey(pub u64);

/// One thing that happened to one request. A backend's samples are told in the order of `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When.
    pub at: Timestamp,
    /// To whom.
    pub request: RequestKey,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It arrived for this backend, before any decision.
    Offered {
        /// Prompt length in tokens, as far as the request tells (counted, or its bytes over four); `None` is unknown.
        prompt: Option<u32>,
        /// Whether the engine streams the answer, so that a first token will be seen.
        stream: bool,
        /// Its class.
        priority: Class,
    },
    /// It was dispatched to the backend.
    Admitted,
    /// A content event arrived from the engine. The first one of a request is its first token.
    Emission {
        /// Tokens in the event; 0 counts as 1.
        tokens: u32,
        /// The gap before it was the client's doing (a full outbox), not the engine's.
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
