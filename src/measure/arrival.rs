//! The input of an entry: a request as it arrives, and its end.

use std::time::Duration;

use crate::vocabulary::outcome::{CodeClass, Outcome};
use crate::vocabulary::time::Timestamp;
use crate::vocabulary::usage::Usage;

/// A request as it arrives.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The last byte of the body was read.
    pub at: Timestamp,
    /// The engine streams the answer, as far as the request decides that.
    pub stream: bool,
    /// The client did not ask for a stream: weir assembles the answer.
    pub assembled: bool,
    /// Stamps of every emission are kept for the journal.
    pub trace: bool,
    /// The wire format's name.
    pub dialect: &'static str,
    /// Estimated prompt length in tokens.
    pub prompt_tokens: Option<u64>,
    /// The client's cap on the output, in tokens.
    pub max_output: Option<u64>,
    /// Sequences that the request asks for.
    pub choices: u32,
    /// Its own objective for arrival to first token; `None`: it is not judged by one.
    pub slo_ttft: Option<Duration>,
}

/// How an admitted request ended.
#[derive(Clone, Copy, Debug)]
pub struct EntryEnd {
    pub outcome: Outcome,
    /// Class of what was sent to the client.
    pub code: CodeClass,
    pub at: Timestamp,
    /// Token counts that the engine reported.
    pub usage: Option<Usage>,
}
