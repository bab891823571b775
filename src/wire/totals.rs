//! Adds up what an answer says: content events, tokens, usage, its end and its errors, by the rules of each dialect
//! (dialects.md, 2.2 to 2.5).
//! How reports of usage add up: `usage`.

use super::count::TokenReport;
use super::dialect::{Dialect, has_sequences};
use super::event::{ChoiceEvent, Event, EventKind, InBandError};
use super::sequences::{Cumulative, Sequences};
use super::stream::StreamReading;
use super::usage::{TokenReports, believed};

/// The totals of one answer.
#[derive(Debug, Default)]
pub(super) struct AnswerTotals {
    pub content_events: u64,
    pub counted: u64,
    running_seen: bool,
    pub terminated: bool,
    /// A whole answer that is not a stream was read.
    answered: bool,
    pub error: Option<InBandError>,
    sequences: Sequences,
    pub reports: TokenReports,
}

impl AnswerTotals {
    /// An error event, whatever else it says. Behind the terminator nothing matters any more.
    pub fn on_error(&mut self, kind: InBandError) {
        if !self.terminated && self.error != Some(InBandError::Overloaded) {
            self.error = Some(kind);
        }
    }

    /// Takes in one event of a stream; its tokens, if it had content.
    pub fn on_event(&mut self, dialect: Dialect, event: &Event) -> Option<u32> {
        self.hear_error(dialect, event);
        let tokens = match dialect {
            Dialect::OpenAiChat | Dialect::OpenAiCompletions | Dialect::OpenAiEmbeddings => self.hear_choices(event),
            _ => self.hear_own(dialect, event),
        };
        tokens.map(|tokens| tokens.clamp(1, EMISSION_LIMIT))
    }

    /// Takes in a whole answer that is not a stream.
    pub fn on_answer(&mut self, dialect: Dialect, event: &Event) {
        self.hear_error(dialect, event);
        self.answered = true;
        self.reports.on_answer(dialect, event);
    }

    /// A content event counts.
    pub fn count(&mut self, tokens: u32) {
        self.content_events += 1;
        self.counted = self.counted.saturating_add(u64::from(tokens));
    }

    pub fn reading(&self, dialect: Dialect) -> StreamReading {
        StreamReading {
            content_events: self.content_events,
            counted_tokens: self.counted,
            running: self.running_seen,
            usage: self.reports.usage(dialect, &self.sequences, self.content_events),
            terminated: self.terminated,
            finished: self.answered || self.sequences.have_finished(),
            error: self.error,
            ..StreamReading::default()
        }
    }

    fn hear_error(&mut self, dialect: Dialect, event: &Event) {
        let failed =
            event.kind == EventKind::Error || dialect == Dialect::OpenAiResponses && event.kind == EventKind::Failed;
        if let Some(kind) = event.error.or(failed.then_some(InBandError::Error)) {
            self.on_error(kind);
        }
    }

    /// OpenAI's chat and completions.
    fn hear_choices(&mut self, event: &Event) -> Option<u32> {
        let mut running = None;
        match event.choices.count() {
            0 => self.reports.on_report_apart(event.report),
            1 => running = event.report.output.and_then(believed),
            _ => self.reports.on_shared_report(event.report),
        }
        let mut emitted = None;
        for choice in event.choices.iter() {
            let Some(sequence) = self.sequences.of(choice.index) else {
                emitted = if choice.content { Some(emitted.unwrap_or(0) + 1) } else { emitted };
                continue;
            };
            if event.choices.count() == 1 {
                sequence.report.raise(event.report);
            }
            if let Some(tokens) = sequence.hear(choice, running) {
                emitted = Some(emitted.unwrap_or(0_u32).saturating_add(tokens));
                self.running_seen |= running.is_some() || choice.ids > 0;
            }
        }
        emitted
    }

    /// The other dialects, in which an object speaks for one sequence.
    fn hear_own(&mut self, dialect: Dialect, event: &Event) -> Option<u32> {
        let report = self.own_report(dialect, event);
        let running = event.running.and_then(believed).filter(|_| has_sequences(dialect));
        // Elsewhere these members mean something else, or nothing.
        let named = if has_sequences(dialect) { event.own } else { ChoiceEvent { index: 0, ids: 0, ..event.own } };
        let says = ChoiceEvent { finished: has_finished(dialect, event), ..named };
        let sequence = self.sequences.of(says.index);
        let mut tokens = None;
        if let Some(sequence) = sequence {
            sequence.report.raise(report);
            let content = match dialect {
                Dialect::SglangNative => {
                    sequence.has_grown(Cumulative { text: event.text, ids: says.ids, running: event.running })
                }
                _ => has_content(dialect, event),
            };
            // SGLang repeats its identifiers: their number is a running count.
            let repeated = (dialect == Dialect::SglangNative && says.ids > 0).then_some(says.ids);
            let running = running.or(repeated);
            tokens = sequence.hear(&ChoiceEvent { content, ..says }, running);
            self.running_seen |= tokens.is_some() && (running.is_some() || says.ids > 0);
        } else if has_content(dialect, event) {
            tokens = Some(1);
        }
        self.terminated |= self.ends(dialect, event);
        tokens
    }

    fn own_report(&mut self, dialect: Dialect, event: &Event) -> TokenReport {
        let report = event.report;
        match dialect {
            Dialect::AnthropicMessages => {
                self.reports.hear_cache(event);
                TokenReport { output: report.output.filter(|_| event.kind == EventKind::MessageDelta), ..report }
            }
            Dialect::OpenAiResponses | Dialect::Tgi => report,
            _ => TokenReport { output: event.running, ..report },
        }
    }

    /// The dialect's terminator, where it is an event of JSON.
    fn ends(&self, dialect: Dialect, event: &Event) -> bool {
        match dialect {
            Dialect::OpenAiResponses => matches!(event.kind, EventKind::Completed | EventKind::Failed),
            Dialect::AnthropicMessages => event.kind == EventKind::MessageStop,
            Dialect::Tgi => event.own.finished,
            Dialect::OllamaChat | Dialect::OllamaGenerate => event.done,
            // Several prompts end one by one, and the last of them may not have begun when the first ends.
            Dialect::LlamacppNative => {
                event.done
                    && self.sequences.have_finished()
                    && self.sequences.count() >= self.reports.prompts.unwrap_or(1)
            }
            _ => false,
        }
    }
}

fn has_content(dialect: Dialect, event: &Event) -> bool {
    match dialect {
        Dialect::OpenAiResponses => event.kind == EventKind::Delta && event.text > 0,
        Dialect::AnthropicMessages => event.kind == EventKind::BlockDelta && event.own.content,
        Dialect::Tgi => event.token && !event.special,
        Dialect::SglangNative | Dialect::LlamacppNative => event.text > 0,
        _ => event.own.content || event.text > 0,
    }
}

fn has_finished(dialect: Dialect, event: &Event) -> bool {
    match dialect {
        Dialect::OpenAiResponses => matches!(event.kind, EventKind::Completed | EventKind::Failed),
        Dialect::AnthropicMessages => match event.kind {
            EventKind::MessageDelta => event.own.finished,
            kind => kind == EventKind::MessageStop,
        },
        _ => event.own.finished || event.done,
    }
}

/// No engine generates more tokens in one event.
const EMISSION_LIMIT: u32 = 1 << 16;
