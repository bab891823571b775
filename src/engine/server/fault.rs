//! The ways to misbehave that a test can ask for with `x-engine-fault`.

use std::time::Duration;

/// One request's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InjectedFault {
    /// No answer at all; the request takes no slot.
    Hang,
    /// An error of this status at once.
    Status(u16),
    /// The head is sent with the first token (`None`), or this much late.
    SlowHead(Option<Duration>),
    /// A stream breaks in this way once it has this many tokens.
    Break {
        /// Tokens of all choices together.
        after: u64,
        /// How.
        how: Breakage,
    },
}

/// How a stream breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breakage {
    /// The connection is reset (RST).
    Reset,
    /// The connection is closed (FIN) before the body's end.
    Cut,
    /// The body ends as framing wants it, without finish or terminator.
    Truncate,
    /// The dialect's own error event, then the body ends.
    ErrorEvent,
    /// Nothing more is sent; the connection stays open.
    Stall,
}

impl InjectedFault {
    /// Reads the header's value; `None` when it names no fault.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let breakage = |how| value.parse().ok().map(|after| Self::Break { after, how });
        match name.trim() {
            "hang" => Some(Self::Hang),
            "status" => value.parse().ok().filter(|status| (400..600).contains(status)).map(Self::Status),
            "slow-head" if value.is_empty() => Some(Self::SlowHead(None)),
            "slow-head" => value.parse().ok().map(|millis| Self::SlowHead(Some(Duration::from_millis(millis)))),
            "reset-after" => breakage(Breakage::Reset),
            "cut-after" => breakage(Breakage::Cut),
            "truncate-after" => breakage(Breakage::Truncate),
            "error-event-after" => breakage(Breakage::ErrorEvent),
            "stall-after" => breakage(Breakage::Stall),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_read() {
        assert_eq!(InjectedFault::parse("hang"), Some(InjectedFault::Hang));
        assert_eq!(InjectedFault::parse("status=503"), Some(InjectedFault::Status(503)));
        assert_eq!(InjectedFault::parse("slow-head"), Some(InjectedFault::SlowHead(None)));
        assert_eq!(
            InjectedFault::parse("slow-head=20"),
            Some(InjectedFault::SlowHead(Some(Duration::from_millis(20))))
        );
        for (text, how) in [
            ("reset-after=3", Breakage::Reset),
            ("cut-after=3", Breakage::Cut),
            ("truncate-after=3", Breakage::Truncate),
            ("error-event-after=3", Breakage::ErrorEvent),
            ("stall-after=3", Breakage::Stall),
        ] {
            assert_eq!(InjectedFault::parse(text), Some(InjectedFault::Break { after: 3, how }), "{text}");
        }
    }

    #[test]
    fn what_is_no_fault_is_not_read() {
        for text in ["", "hung", "status=200", "status", "reset-after", "reset-after=x"] {
            assert_eq!(InjectedFault::parse(text), None, "{text}");
        }
    }
}
