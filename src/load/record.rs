//! What one synthetic request did, and its line in `requests.jsonl`.
//!
//! All stamps count from the start of the level. It holds no content, only stamps and counts, and no judgement beyond the
//! outcome: what a level amounts to is `summary`'s.

use std::io::{self, BufRead, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::workload::Draw;
use crate::vocabulary::time::Timestamp;

/// One request from its intended start to its end. Stamps are nanoseconds from the start of the level.
///
/// It is filled in as the answer arrives, so that a request which is cut short still shows how far it got.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadRecord {
    /// Number within the level, from 0.
    pub id: u64,
    /// When the schedule wanted it to start.
    pub intended: Timestamp,
    /// When its task began, before any connection was made.
    pub sent: Option<Timestamp>,
    /// When the head of the answer was there.
    pub first_byte: Option<Timestamp>,
    /// When the first content token was read.
    pub first_token: Option<Timestamp>,
    /// When the last content token was read.
    pub last_token: Option<Timestamp>,
    /// When it ended, whatever the outcome; for an unfinished one, when it was given up.
    pub end: Timestamp,
    /// How it ended.
    pub outcome: LoadOutcome,
    /// Status of the answer.
    pub status: Option<u16>,
    /// Prompt length as it was sent, tokens (4 bytes each).
    pub prompt_tokens: u32,
    /// Prompt length by the engine's own usage.
    pub input_usage: Option<u64>,
    /// Output tokens by the engine's own usage.
    pub output_usage: Option<u64>,
    /// Output tokens counted in the stream; a lower bound where an event holds several and no running count is sent.
    pub counted_tokens: u64,
    /// Content events read.
    pub content_events: u64,
    /// Bytes of the answer's body.
    pub bytes: u64,
    /// How often a kept-alive connection was dead and the request was sent again on a fresh one; 0 or 1.
    pub resent: u32,
    /// Gaps between content events, when the level keeps them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
}

/// The time from one content event to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u32, u32)", into = "(u32, u32)")]
pub struct Gap {
    /// Length, microseconds (four bytes hold 71 minutes; a level keeps millions of these).
    pub micros: u32,
    /// Tokens in the event that ended it, at least 1.
    pub tokens: u32,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadOutcome {
    /// The answer's own end was seen.
    Completed,
    /// Refused for want of capacity: 429, 503, 529, or a stream with such an error before its first token. Offered, not served.
    Shed {
        /// Status of the refusal.
        status: u16,
        /// Its `Retry-After`, where given in seconds.
        retry_after: Option<Duration>,
    },
    /// Failed otherwise.
    Error(FailureKind),
    /// The stream began and broke off, or ended without its terminator.
    Truncated,
    /// Still running when the grace was over or the level was stopped.
    Unfinished,
    /// The client hung up on purpose (`GiveUp`).
    Cancelled,
}

/// What went wrong, and whose fault it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Ours: no file descriptor or no local port was left. The level is client-limited.
    ClientLimit,
    /// The server's: no connection could be made.
    Connect,
    /// The server's: the connection ended before the head of an answer.
    NoAnswer,
    /// The server's: the answer was not HTTP.
    Protocol,
    /// The server's: a status that is neither success nor refusal.
    Status,
    /// The server's: an error event in the stream, after a 200.
    Stream,
}

impl LoadRecord {
    /// A request that has been scheduled and not yet sent.
    pub fn offered(draw: &Draw, intended: Timestamp) -> Self {
        Self {
            id: draw.id,
            intended,
            sent: None,
            first_byte: None,
            first_token: None,
            last_token: None,
            end: intended,
            outcome: LoadOutcome::Unfinished,
            status: None,
            prompt_tokens: draw.prompt_tokens,
            input_usage: None,
            output_usage: None,
            counted_tokens: 0,
            content_events: 0,
            bytes: 0,
            resent: 0,
            gaps: Vec::new(),
        }
    }

    /// How late the client itself was: intended start to send.
    pub fn schedule_delay(&self) -> Option<Duration> {
        self.sent.map(|sent| sent.since(self.intended))
    }

    /// Intended start to first content token.
    pub fn ttft(&self) -> Option<Duration> {
        self.first_token.map(|first| first.since(self.intended))
    }

    /// Send to first content token; it misses the wait of a request that was sent late.
    pub fn ttft_from_send(&self) -> Option<Duration> {
        Some(self.first_token?.since(self.sent?))
    }

    /// Intended start to the end.
    pub fn e2e(&self) -> Duration {
        self.end.since(self.intended)
    }

    /// Output tokens: the engine's usage, else what was counted.
    pub fn output_tokens(&self) -> u64 {
        self.output_usage.unwrap_or(self.counted_tokens)
    }

    /// Prompt tokens: the engine's usage, else what was sent.
    pub fn input_tokens(&self) -> u64 {
        self.input_usage.unwrap_or(u64::from(self.prompt_tokens))
    }

    /// (last − first) / (tokens − 1); none below two tokens.
    pub fn tpot(&self) -> Option<Duration> {
        let steps = self.output_tokens().checked_sub(1).filter(|steps| *steps > 0)?;
        Some(self.last_token?.since(self.first_token?).div_f64(steps as f64))
    }

    /// Tokens per counted token: usage / counted, known only after the usage has arrived. 1 without usage.
    pub fn tokens_per_counted(&self) -> f64 {
        match self.output_usage {
            Some(usage) if self.counted_tokens > 0 => usage as f64 / self.counted_tokens as f64,
            _ => 1.0,
        }
    }

    /// Adds one content event of `tokens` tokens, read at `now`.
    pub fn on_emission(&mut self, now: Timestamp, tokens: u32, keep_gap: bool) {
        if let Some(last) = self.last_token.filter(|_| keep_gap) {
            let micros = u32::try_from(now.since(last).as_micros()).unwrap_or(u32::MAX);
            self.gaps.push(Gap { micros, tokens: tokens.max(1) });
        }
        self.first_token.get_or_insert(now);
        self.last_token = Some(now);
        self.content_events += 1;
        self.counted_tokens += u64::from(tokens);
    }
}

impl From<(u32, u32)> for Gap {
    fn from((micros, tokens): (u32, u32)) -> Self {
        Self { micros, tokens }
    }
}

impl From<Gap> for (u32, u32) {
    fn from(gap: Gap) -> Self {
        (gap.micros, gap.tokens)
    }
}

/// Writes one line a request, in the order given.
///
/// # Errors
/// What `out` returns.
pub fn write_jsonl(records: &[LoadRecord], mut out: impl Write) -> io::Result<()> {
    for record in records {
        serde_json::to_writer(&mut out, record)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// Reads what [`write_jsonl`] wrote; blank lines are skipped.
///
/// # Errors
/// What `input` returns, or a line that is not a record.
pub fn read_jsonl(input: impl BufRead) -> io::Result<Vec<LoadRecord>> {
    let mut records = Vec::new();
    for line in input.lines() {
        let line = line?;
        if !line.trim().is_empty() {
            records.push(serde_json::from_str(&line)?);
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::workload::Workload;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(millis * 1_000_000)
    }

    fn record() -> LoadRecord {
        LoadRecord::offered(&Workload::default().draw(4), at(10))
    }

    #[test]
    fn latency_counts_from_the_intended_start_and_from_the_send() {
        let mut record = record();
        record.sent = Some(at(15));
        record.on_emission(at(40), 1, true);
        assert_eq!(record.schedule_delay(), Some(Duration::from_millis(5)));
        assert_eq!(record.ttft(), Some(Duration::from_millis(30)));
        assert_eq!(record.ttft_from_send(), Some(Duration::from_millis(25)));
    }

    #[test]
    fn gaps_lie_between_events_and_not_before_the_first() {
        let mut record = record();
        record.on_emission(at(40), 1, true);
        record.on_emission(at(52), 3, true);
        assert_eq!(record.gaps, [Gap { micros: 12_000, tokens: 3 }]);
        assert_eq!((record.content_events, record.counted_tokens), (2, 4));
        assert_eq!(record.tpot(), Some(Duration::from_millis(4)));
    }

    #[test]
    fn usage_outranks_the_count() {
        let mut record = record();
        record.on_emission(at(40), 1, false);
        record.on_emission(at(60), 1, false);
        record.output_usage = Some(5);
        assert_eq!(record.output_tokens(), 5);
        assert_eq!(record.tpot(), Some(Duration::from_millis(5)));
        assert!((record.tokens_per_counted() - 2.5).abs() < 1e-9);
    }

    #[test]
    fn one_token_has_no_tpot() {
        let mut record = record();
        record.on_emission(at(40), 1, true);
        assert_eq!(record.tpot(), None);
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let mut shed = record();
        shed.outcome = LoadOutcome::Shed { status: 429, retry_after: Some(Duration::from_secs(2)) };
        let mut failed = record();
        failed.outcome = LoadOutcome::Error(FailureKind::Connect);
        failed.on_emission(at(1), 1, true);
        failed.on_emission(at(2), 1, true);
        let records = [shed, failed];
        let mut lines = Vec::new();
        write_jsonl(&records, &mut lines).unwrap();
        assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), 2);
        assert_eq!(read_jsonl(&lines[..]).unwrap(), records);
    }
}
