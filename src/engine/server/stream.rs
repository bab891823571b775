//! One request's answer while it streams: tokens in, events out, a stamp on each.
//!
//! hyper polls for the next piece when its writer has space, so a stamp is taken immediately before the bytes are handed
//! over, and a client that does not read makes tokens wait in the channel, unstamped. Dropped before its end, for
//! whatever reason, it cancels the request in the engine.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc::UnboundedReceiver;

use super::dialect::{AnswerContext, ServerDialect, Stamp};
use super::fault::Breakage;
use super::pacer::PacerTicket;
use super::recorder::{EngineEnd, EngineRecord, Recorder};
use super::token::Token;
use crate::clock::Clock;
use crate::vocabulary::time::Timestamp;

/// A streamed answer.
pub struct StreamedAnswer {
    /// How it is written.
    pub dialect: &'static dyn ServerDialect,
    /// What has been written.
    pub answer: AnswerContext,
    /// Its sequences in the engine.
    pub ticket: PacerTicket,
    /// The token that was waited for before the head was sent, if one was.
    pub early: Option<Token>,
    /// The tokens to come.
    pub tokens: UnboundedReceiver<Token>,
    /// Whether events carry their stamps.
    pub stamped: bool,
    /// How and after how many tokens it is to break.
    pub breakage: Option<(u64, Breakage)>,
    /// Makes the connection end in a reset.
    pub reset: Arc<AtomicBool>,
    /// Its record.
    pub record: StreamRecord,
    /// Where it stands.
    pub phase: StreamPhase,
    /// Buffer of the next event.
    pub out: BytesMut,
}

/// Where a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamPhase {
    /// Nothing has been written.
    Unopened,
    /// Tokens are being written.
    Open,
    /// The connection breaks at the next poll; until then hyper writes out what it has.
    Broken,
    /// Nothing more will be written.
    Over,
}

impl StreamedAnswer {
    /// The next piece of the body.
    pub fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        match self.phase {
            StreamPhase::Over => return Poll::Ready(None),
            StreamPhase::Broken => return Poll::Ready(Some(Err(io::ErrorKind::BrokenPipe.into()))),
            StreamPhase::Unopened | StreamPhase::Open => {}
        }
        if let Some((after, how)) = self.breakage
            && self.answer.output_tokens() >= after
        {
            return self.break_off(how, cx);
        }
        let next = match self.early.take() {
            Some(token) => Some(token),
            None => std::task::ready!(self.tokens.poll_recv(cx)),
        };
        let Some(token) = next else {
            // The engine dropped the request: the client must not take this for the end.
            self.phase = StreamPhase::Over;
            return Poll::Ready(Some(Err(io::ErrorKind::BrokenPipe.into())));
        };
        Poll::Ready(Some(Ok(self.write(&token))))
    }

    /// Whether the last piece has been handed over.
    pub fn is_over(&self) -> bool {
        self.phase == StreamPhase::Over
    }

    fn write(&mut self, token: &Token) -> Bytes {
        let now = self.record.clock.now();
        let stamp = Stamp(self.stamped.then_some(now.as_nanos()));
        if self.phase == StreamPhase::Unopened {
            self.dialect.put_opening(&mut self.out, &self.answer, stamp);
            self.phase = StreamPhase::Open;
        }
        self.answer.on_token(token, self.record.age(now));
        self.dialect.put_token(&mut self.out, &self.answer, token, stamp);
        if self.answer.finished() {
            self.dialect.put_closing(&mut self.out, &self.answer, stamp);
            self.ticket.on_finish();
            self.phase = StreamPhase::Over;
        }
        self.record.on_token(now);
        let piece = self.take_piece();
        if self.is_over() {
            self.record.close(EngineEnd::Finished, now);
        }
        piece
    }

    fn break_off(&mut self, how: Breakage, cx: &Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        self.record.end = EngineEnd::Broken;
        match how {
            Breakage::Stall => Poll::Pending,
            Breakage::Truncate => {
                self.phase = StreamPhase::Over;
                Poll::Ready(None)
            }
            Breakage::ErrorEvent => {
                self.phase = StreamPhase::Over;
                self.dialect.put_error_event(&mut self.out);
                Poll::Ready(Some(Ok(self.take_piece())))
            }
            // hyper flushes whenever a body has nothing to add, so the tokens before the break do get out.
            Breakage::Reset | Breakage::Cut => {
                self.reset.store(how == Breakage::Reset, Ordering::Relaxed);
                self.phase = StreamPhase::Broken;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn take_piece(&mut self) -> Bytes {
        let piece = self.out.split().freeze();
        self.record.on_piece(&piece);
        piece
    }
}

/// What a request leaves in the recorder, if there is one. Dropped before it is closed, it records a cancelled request.
pub struct StreamRecord {
    clock: Clock,
    recorder: Option<Arc<Recorder>>,
    draft: Option<EngineRecord>,
    arrival: Timestamp,
    /// The end that dropping it records.
    pub end: EngineEnd,
}

impl StreamRecord {
    /// For a request that has just arrived.
    pub fn open(recorder: Option<Arc<Recorder>>, clock: Clock, request_id: &str, body: &Bytes) -> Self {
        let arrival = clock.now();
        let draft = recorder.as_ref().map(|recorder| {
            recorder.on_arrival();
            let request_body = if recorder.keeps_bodies() { body.clone() } else { Bytes::new() };
            EngineRecord {
                request_id: request_id.to_owned(),
                arrival,
                emissions: Vec::new(),
                end: EngineEnd::Cancelled,
                ended: arrival,
                request_body,
                response_body: Vec::new(),
            }
        });
        Self { clock, recorder, draft, arrival, end: EngineEnd::Cancelled }
    }

    /// When the request arrived.
    pub fn arrival(&self) -> Timestamp {
        self.arrival
    }

    /// Nanoseconds since its arrival.
    pub fn age(&self, now: Timestamp) -> u64 {
        now.as_nanos().saturating_sub(self.arrival.as_nanos())
    }

    /// A token was handed over.
    pub fn on_token(&mut self, now: Timestamp) {
        if let Some(draft) = &mut self.draft {
            draft.emissions.push(now);
        }
    }

    /// A piece of the body was handed over.
    pub fn on_piece(&mut self, piece: &[u8]) {
        if let (Some(draft), Some(recorder)) = (&mut self.draft, &self.recorder)
            && recorder.keeps_bodies()
        {
            draft.response_body.extend_from_slice(piece);
        }
    }

    /// Gives the record to the recorder; what follows is not recorded.
    pub fn close(&mut self, end: EngineEnd, now: Timestamp) {
        if let (Some(draft), Some(recorder)) = (self.draft.take(), &self.recorder) {
            recorder.on_end(EngineRecord { end, ended: now, ..draft });
        }
    }
}

impl Drop for StreamRecord {
    fn drop(&mut self) {
        self.close(self.end, self.clock.now());
    }
}
