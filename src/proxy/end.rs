//! How an exchange with a backend ended, with its cause.
//!
//! One value from the socket to the statistics: what it counts as and what the client is sent are methods of it.

use super::local_reply::LocalReply;
use crate::measure::Outcome;
use crate::vocabulary::bad_answer::BadAnswer;
use crate::wire::StreamReading;

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The answer was relayed to its framed end, and every byte of it is written.
    Whole,
    /// The client went away.
    ClientGone,
    /// The client took nothing for `limits.write_stall`.
    ClientStalled,
    /// No first token came within the request's objective: the backend is left.
    Late,
    /// The backend's side broke; what had arrived before is written.
    Broken(Break),
}

/// How the backend's side broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// A clean close before the answer's head was sent on.
    ClosedEarly,
    /// A clean close after that, before the framed end.
    Truncated,
    /// A reset, a refused connection, or any other error of it.
    Reset,
    /// The answer breaks a rule.
    BadAnswer(BadAnswer),
    /// A time limit passed.
    Timeout,
    /// The process's budget for unsent answers is spent.
    Memory,
}

impl End {
    /// The outcome, from the framing's end and from what the stream itself says. `status` is what the client was sent, `events`:
    /// the answer is a stream of events.
    pub fn outcome(self, status: Option<u16>, reading: Option<&StreamReading>, events: bool) -> Outcome {
        let failed = status.is_some_and(|status| status >= 500 || status == 429);
        let said_error = reading.is_some_and(|reading| reading.error.is_some());
        let terminated = reading.is_some_and(|reading| reading.terminated);
        if failed && self == Self::Whole || said_error {
            return Outcome::UpstreamError;
        }
        if terminated {
            return Outcome::Completed;
        }
        match self {
            Self::Whole => {
                let finished = reading.is_none_or(|reading| reading.finished || reading.opaque);
                if events && !finished { Outcome::UpstreamTruncated } else { Outcome::Completed }
            }
            // Memory is spent on what this client has not taken: not the backend's doing.
            Self::ClientGone | Self::ClientStalled | Self::Broken(Break::Memory) => Outcome::ClientCancelled,
            Self::Late => Outcome::Deadline,
            Self::Broken(Break::Truncated) => Outcome::UpstreamTruncated,
            Self::Broken(Break::Timeout) => Outcome::UpstreamTimeout,
            // Before a head there is no body that could be truncated.
            Self::Broken(Break::ClosedEarly | Break::Reset | Break::BadAnswer(_)) => Outcome::UpstreamReset,
        }
    }

    /// What the client is sent if nothing of the answer was; `None`: there is nothing to say, or no one to say it to.
    pub fn local_reply(self) -> Option<LocalReply> {
        match self {
            Self::Whole | Self::ClientGone | Self::ClientStalled => None,
            Self::Late => Some(LocalReply::Late),
            Self::Broken(Break::Timeout) => Some(LocalReply::BackendTimeout),
            Self::Broken(Break::BadAnswer(cause)) => Some(LocalReply::BadAnswer(cause)),
            Self::Broken(Break::Memory) => Some(LocalReply::BodyMemory),
            Self::Broken(Break::ClosedEarly | Break::Truncated | Break::Reset) => Some(LocalReply::BackendFailed),
        }
    }

    /// The rule that the answer broke.
    pub fn bad_answer(self) -> Option<BadAnswer> {
        if let Self::Broken(Break::BadAnswer(cause)) = self { Some(cause) } else { None }
    }

    /// The backend's connection ended without an error of weir's or of the client's.
    pub fn is_connection_lost(self) -> bool {
        matches!(self, Self::Broken(Break::ClosedEarly | Break::Truncated | Break::Reset))
    }
}

impl From<BadAnswer> for Break {
    fn from(cause: BadAnswer) -> Self {
        Self::BadAnswer(cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUNCATED: End = End::Broken(Break::Truncated);
    const RESET: End = End::Broken(Break::Reset);
    const TIMEOUT: End = End::Broken(Break::Timeout);

    fn reading(terminated: bool, finished: bool) -> StreamReading {
        StreamReading { terminated, finished, ..StreamReading::default() }
    }

    #[test]
    fn a_stream_with_its_terminator_is_completed_however_it_ends() {
        for end in [End::Whole, End::ClientGone, TRUNCATED, RESET, TIMEOUT] {
            assert_eq!(end.outcome(Some(200), Some(&reading(true, true)), true), Outcome::Completed);
        }
    }

    #[test]
    fn a_clean_end_is_truncated_while_a_choice_is_unfinished() {
        assert_eq!(End::Whole.outcome(Some(200), Some(&reading(false, false)), true), Outcome::UpstreamTruncated);
        assert_eq!(End::Whole.outcome(Some(200), Some(&reading(false, true)), true), Outcome::Completed);
        assert_eq!(End::Whole.outcome(Some(200), Some(&reading(false, false)), false), Outcome::Completed);
    }

    #[test]
    fn what_breaks_in_the_middle_is_named_by_what_broke_it() {
        let open = reading(false, false);
        assert_eq!(End::ClientGone.outcome(Some(200), Some(&open), true), Outcome::ClientCancelled);
        assert_eq!(End::Broken(Break::Memory).outcome(Some(200), Some(&open), true), Outcome::ClientCancelled);
        assert_eq!(TRUNCATED.outcome(Some(200), Some(&open), true), Outcome::UpstreamTruncated);
        assert_eq!(RESET.outcome(Some(200), Some(&open), true), Outcome::UpstreamReset);
        assert_eq!(End::Broken(Break::ClosedEarly).outcome(Some(502), None, false), Outcome::UpstreamReset);
        assert_eq!(TIMEOUT.outcome(None, None, false), Outcome::UpstreamTimeout);
    }

    #[test]
    fn an_engines_429_and_5xx_are_errors_and_its_other_4xx_answers() {
        assert_eq!(End::Whole.outcome(Some(429), None, false), Outcome::UpstreamError);
        assert_eq!(End::Whole.outcome(Some(503), None, false), Outcome::UpstreamError);
        assert_eq!(End::Whole.outcome(Some(400), None, false), Outcome::Completed);
    }

    #[test]
    fn a_bad_answer_keeps_its_cause_up_to_the_reply() {
        let end = End::Broken(BadAnswer::ChunkSyntax.into());
        assert_eq!(end.bad_answer(), Some(BadAnswer::ChunkSyntax));
        assert_eq!(end.local_reply(), Some(LocalReply::BadAnswer(BadAnswer::ChunkSyntax)));
        assert_eq!((RESET.bad_answer(), End::Whole.local_reply()), (None, None));
    }
}
