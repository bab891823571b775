//! The journal's lines: one record for each request, with stamps and lengths and never content, and one for each state transition.
//!
//! A record holds every input of the statistics, with names in place of indices, so that it can be read without the process that
//! wrote it and replayed into the same statistics (`replay`). Absent: the file (`export::journal`).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::timeline::Timeline;
use crate::vocabulary::class::Class;
use crate::vocabulary::outcome::{CodeClass, Outcome, OverheadStage, RetryReason};
use crate::vocabulary::shed_reason::ShedReason;
use crate::vocabulary::time::Timestamp;
use crate::vocabulary::usage::Usage;

/// One line of a journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum JournalLine {
    /// A request that was closed.
    Request(Box<JournalRecord>),
    /// A backend's state changed: `{"transition":{…}}`.
    Transition {
        /// The change.
        transition: StateTransition,
    },
}

/// A change of a backend's state, in the words of the estimate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StateTransition {
    /// As in the labels of the metrics.
    pub backend: Cow<'static, str>,
    /// Nanoseconds of the process's clock.
    pub at: Timestamp,
    /// The state before.
    pub from: Cow<'static, str>,
    /// The state after.
    pub to: Cow<'static, str>,
    /// One sentence that names the findings.
    pub reason: String,
}

/// One closed request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JournalRecord {
    /// As in the labels of the metrics.
    pub backend: Box<str>,
    pub model: Box<str>,
    pub priority: Class,
    /// Nanoseconds of the process's clock.
    pub timeline: Timeline,
    /// Status of the final head, 0 when none came.
    pub status: u16,
    pub dialect: Cow<'static, str>,
    /// The request asked for a stream, and the engine did not answer with a whole document instead.
    pub stream: bool,
    /// The answer was in a content coding, so that nothing is known of its tokens.
    #[serde(default)]
    pub opaque: bool,
    pub prompt_tokens: Option<u64>,
    pub max_output: Option<u64>,
    pub choices: u32,
    pub retries: [u64; RetryReason::COUNT],
    pub overhead: [Option<u64>; OverheadStage::COUNT],
    /// Content events in order.
    pub emissions: Vec<EmissionRecord>,
    /// The request had more emissions than a record holds.
    pub truncated: bool,
    pub verdict: JournalVerdict,
}

/// One content event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u32, u8)", into = "(u64, u32, u8)")]
pub struct EmissionRecord {
    /// Nanoseconds since the event before; 0 for the first, whose time is `timeline.first_token`.
    pub gap: u64,
    pub tokens: u32,
    /// Stretched by a client that did not read.
    pub limited: bool,
}

/// How the request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "end")]
pub enum JournalVerdict {
    Shed { reason: ShedReason },
    Abandoned,
    Finished { outcome: Outcome, code: CodeClass, usage: Option<Usage> },
}

impl From<(u64, u32, u8)> for EmissionRecord {
    fn from((gap, tokens, limited): (u64, u32, u8)) -> Self {
        Self { gap, tokens, limited: limited != 0 }
    }
}

impl From<EmissionRecord> for (u64, u32, u8) {
    fn from(emission: EmissionRecord) -> Self {
        (emission.gap, emission.tokens, u8::from(emission.limited))
    }
}
