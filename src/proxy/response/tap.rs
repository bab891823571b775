//! Observes an answer on its way: payload bytes become emissions, and emissions become stamps in the statistics.
//!
//! The tap owns the request's ledger entry and its permit, so that dropping an exchange on any path closes both. It never
//! delays, changes or keeps a byte.

use crate::admission::pool::Permit;
use crate::measure::{CodeClass, Entry, EntryEnd, Outcome};
use crate::proxy::end::End;
use crate::vocabulary::time::Timestamp;
use crate::wire::{BodyFormat, Dialect, StreamScanner};

/// The observer of one answer.
pub struct Tap {
    entry: Option<Entry>,
    permit: Option<Permit>,
    scanner: Option<StreamScanner>,
    dialect: Option<Dialect>,
    /// Prompts of the request.
    prompts: u32,
    format: BodyFormat,
    lag: Lag,
    /// What was asked for has begun: a stream's first token, or the first byte of another body.
    begun: bool,
    /// The last time something whole came from the engine: an event, a comment, or bytes where there are no events.
    last_event_at: Timestamp,
}

/// Whether gaps between stamps are the engine's, or were stretched by a client that would not take bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lag {
    /// Stamps are the engine's.
    None,
    /// We have caught up; the next gap still begins at a late stamp.
    Recovering,
    /// Reading from the engine was suspended.
    Behind,
}

impl Tap {
    /// A tap for a measured request in `dialect`.
    pub fn measured(entry: Entry, permit: Permit, dialect: Dialect, now: Timestamp) -> Self {
        Self { entry: Some(entry), permit: Some(permit), dialect: Some(dialect), ..Self::passing(now) }
    }

    /// A tap of a request that is not measured.
    pub fn passing(now: Timestamp) -> Self {
        Self {
            entry: None,
            permit: None,
            scanner: None,
            dialect: None,
            prompts: 1,
            format: BodyFormat::Opaque,
            lag: Lag::None,
            begun: false,
            last_event_at: now,
        }
    }

    /// The request has `prompts` prompts.
    pub fn with_prompts(self, prompts: u32) -> Self {
        Self { prompts, ..self }
    }

    /// The first byte of the answer came.
    pub fn on_first_byte(&mut self, at: Timestamp) {
        self.last_event_at = at;
        if let Some(entry) = &mut self.entry {
            entry.on_first_byte(at);
        }
    }

    /// The final head came. Only what was served (2xx) is read for tokens.
    pub fn on_head(&mut self, at: Timestamp, status: u16, format: BodyFormat) {
        self.last_event_at = at;
        let Some(entry) = &mut self.entry else { return };
        entry.on_head(at, status);
        if let (Some(permit), 429 | 503) = (&mut self.permit, status) {
            permit.on_refused(at);
        }
        if let (Some(dialect), 200..=299) = (self.dialect, status) {
            self.format = format;
            self.scanner = Some(StreamScanner::new(dialect, format).with_prompts(self.prompts));
            if !matches!(format, BodyFormat::Sse | BodyFormat::Ndjson) {
                entry.on_unstreamed(format == BodyFormat::Opaque);
                if let Some(permit) = &mut self.permit {
                    permit.on_unstreamed(at);
                }
            }
        }
    }

    /// A piece of payload that arrived at `at`.
    pub fn scan(&mut self, at: Timestamp, payload: &[u8]) {
        if payload.is_empty() {
            return;
        }
        let (Some(scanner), Some(entry)) = (&mut self.scanner, &mut self.entry) else {
            (self.last_event_at, self.begun) = (at, true);
            return;
        };
        let limited = self.lag != Lag::None;
        let events = matches!(self.format, BodyFormat::Sse | BodyFormat::Ndjson);
        let (mut emissions, mut tokens) = (0_u32, 0_u32);
        scanner.feed(payload, |emission| {
            entry.on_emission(at, emission.tokens, limited);
            emissions += 1;
            tokens = tokens.saturating_add(emission.tokens);
        });
        if emissions > 0 {
            self.last_event_at = at;
            if self.lag == Lag::Recovering {
                self.lag = Lag::None;
            }
            let first = !std::mem::replace(&mut self.begun, true);
            if let Some(permit) = &mut self.permit {
                if first {
                    permit.on_first_token(at);
                }
                permit.on_tokens(tokens);
            }
        } else if !events || scanner.at_event_boundary() {
            self.last_event_at = at;
            self.begun |= !events;
        }
    }

    /// Reading from the engine is suspended because the client takes nothing.
    pub fn on_suspended(&mut self) {
        self.lag = Lag::Behind;
        if let Some(permit) = &mut self.permit {
            permit.on_suspended();
        }
    }

    /// Everything the engine had sent was read.
    pub fn on_caught_up(&mut self) {
        if self.lag == Lag::Behind {
            self.lag = Lag::Recovering;
            if let Some(permit) = &mut self.permit {
                permit.on_resumed();
            }
        }
    }

    /// The last time something whole came from the engine.
    pub fn last_event_at(&self) -> Timestamp {
        self.last_event_at
    }

    /// What was asked for has begun. Until then an engine may be silent for as long as it may be without a first byte: several
    /// send the head at once, and then wait or generate.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// The answer is a stream of events, so that silence can be distinguished from slowness.
    pub fn has_events(&self) -> bool {
        self.scanner.is_some() && matches!(self.format, BodyFormat::Sse | BodyFormat::Ndjson)
    }

    /// The stream's own end was seen: what follows cannot change the outcome.
    pub fn has_terminated(&self) -> bool {
        self.scanner.as_ref().is_some_and(StreamScanner::has_terminated)
    }

    /// An event of ours may follow: the engine's last event is whole. `None` where the answer is not a stream.
    pub fn event_boundary(&self) -> Option<Dialect> {
        let scanner = self.scanner.as_ref()?;
        (self.has_events() && scanner.at_event_boundary()).then_some(self.dialect).flatten()
    }

    /// The entry of a measured request.
    pub fn entry_mut(&mut self) -> Option<&mut Entry> {
        self.entry.as_mut()
    }

    /// Closes the request's entry with what the answer itself says, unless `end` already decides.
    pub fn close(mut self, end: End, status: Option<u16>, at: Timestamp) -> Option<Outcome> {
        let limited = self.lag != Lag::None;
        let events = self.has_events();
        let mut entry = self.entry.take()?;
        if let Some(status) = status {
            entry.set_client_status(status);
        }
        if let Some(cause) = end.bad_answer() {
            entry.on_bad_answer(cause);
        }
        let reading = self.scanner.as_mut().map(|scanner| {
            scanner.finish(|emission| entry.on_emission(at, emission.tokens, limited));
            scanner.reading()
        });
        let outcome = end.outcome(status, reading.as_ref(), events);
        let usage = reading.and_then(|reading| reading.usage);
        entry.finish(EntryEnd { outcome, code: code(status), at, usage });
        if let Some(permit) = self.permit.take() {
            permit.end(at);
        }
        Some(outcome)
    }
}

fn code(status: Option<u16>) -> CodeClass {
    match status {
        None => CodeClass::None,
        Some(..400) => CodeClass::Ok2xx,
        Some(400..500) => CodeClass::Client4xx,
        Some(_) => CodeClass::Server5xx,
    }
}
