//! One request's way to a backend and its answer's way back: one task, one poll.
//!
//! Every source is polled again before the task sleeps, so a wake-up taken by one side never hides the other. The engine
//! is read whether or not the client takes bytes, up to a bound, so that a stamp says when the engine spoke. What http1
//! has not checked never leaves. This file holds no rule of HTTP and no word of any dialect: the first live in `http1/`,
//! the second in the tap.

use std::cell::RefCell;
use std::task::{Context, Poll};
use std::time::Duration;

use super::end::{Break, End};
use super::io::Io;
use super::request::reader::Request;
use super::response::relay::{ClientSide, Forward, ResponseRelay};
use super::response::tap::Tap;
use super::response::write_buffer::Outbox;
use super::settings::ProxyLimits;
use super::state::Worker;
use super::timer::Timer;
use super::upstream::health::PassiveHealth;
use super::upstream::target::Target;
use crate::http1::Unfinished;
use crate::measure::OverheadStage;
use crate::vocabulary::time::Timestamp;

/// What an exchange works with and does not own. Made anew for each turn, so that it is no part of a waiting task.
pub struct ExchangeCx<'a, 't> {
    pub worker: &'a Worker,
    /// Where the request goes, and what is known of that backend's health.
    pub target: &'a Target,
    /// As they were when the exchange began.
    pub limits: &'a ProxyLimits,
    pub passive_health: &'a PassiveHealth,
    /// Bytes of the client's that belong to its next request.
    pub read_ahead: &'a mut ReadAhead,
    pub timer: &'a mut Timer<'t>,
    pub request: &'a mut Request,
}

/// One request and its answer, between `d`, the client, and `u`, the backend.
pub struct Exchange {
    answer: ResponseRelay,
    /// All of the request is written, or no more of it will be.
    asked: bool,
    outbox: Outbox,
    /// Something was written that the layer below may still hold.
    unflushed: bool,
    /// The last time the client took a byte while something was owed to it.
    taken: Timestamp,
    dispatched: Timestamp,
    /// When our own work on the request began, as if it had not been interrupted.
    begun: Timestamp,
    /// When it is given up if nothing of the answer has begun by then.
    patience: Option<Timestamp>,
    broken: Option<Break>,
    /// Bytes received from the backend.
    received: u64,
}

impl Exchange {
    /// An exchange that is about to be dispatched at `now`. Our own work on it, waiting left out, has lasted since `begun`.
    pub fn new(now: Timestamp, begun: Timestamp) -> Self {
        Self {
            answer: ResponseRelay::new(),
            asked: false,
            outbox: Outbox::default(),
            unflushed: false,
            taken: now,
            dispatched: now,
            begun,
            patience: None,
            broken: None,
            received: 0,
        }
    }

    /// It is given up at `patience` when no first token has come by then.
    pub fn with_patience(self, patience: Option<Timestamp>) -> Self {
        Self { patience, ..self }
    }

    /// Drives both sides until the exchange has ended.
    pub fn step<D: Io, U: Io>(
        &mut self,
        cx: &mut Context<'_>,
        d: &mut D,
        u: &mut U,
        tap: &mut Tap,
        exchange_cx: &mut ExchangeCx<'_, '_>,
    ) -> Poll<End> {
        SCRATCH.with_borrow_mut(|work| match self.turn(cx, d, u, tap, exchange_cx, work) {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        })
    }

    /// Bytes received from the backend: with none, a retry can be considered.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The status of the final head, once it was sent on.
    pub fn status(&self) -> Option<u16> {
        self.answer.status()
    }

    /// The backend's connection may carry another request, if all of this one was written: the answer was read to its framed
    /// end, and nothing came beyond it.
    pub fn is_reusable(&self) -> bool {
        self.broken.is_none() && self.answer.is_reusable()
    }

    /// The client's connection may carry another request.
    pub fn keeps_client(&self) -> bool {
        self.broken.is_none() && self.answer.keeps_client()
    }

    /// An event of weir's own may be put where the answer broke off.
    pub fn takes_event(&self) -> bool {
        self.outbox.is_empty() && self.answer.takes_event()
    }

    /// `Ok`: every source is pending and has our waker. `Err`: the exchange has ended.
    fn turn<D: Io, U: Io>(
        &mut self,
        cx: &mut Context<'_>,
        d: &mut D,
        u: &mut U,
        tap: &mut Tap,
        exchange_cx: &mut ExchangeCx<'_, '_>,
        work: &mut ScratchBuffers,
    ) -> Result<(), End> {
        work.now = None;
        loop {
            self.push_request(cx, u, tap, exchange_cx);
            let mut moved = self.pull_answer(cx, d, u, tap, exchange_cx, work)?;
            moved |= self.drain_outbox(cx, d, exchange_cx)?;
            if !self.is_receiving() && self.is_flushed() {
                return Err(self.broken.map_or(End::Whole, End::Broken));
            }
            if moved {
                continue;
            }
            self.watch_client(cx, d, tap, exchange_cx, work)?;
            return self.keep_time(cx, tap, exchange_cx, work.now);
        }
    }

    /// Writes what is left of the request. An error is not the end: an read_ahead answer may be waiting to be read. Whatever moves
    /// here, the answer is polled after it, so that no other round is needed for it.
    fn push_request<U: Io>(
        &mut self,
        cx: &mut Context<'_>,
        u: &mut U,
        tap: &mut Tap,
        exchange_cx: &mut ExchangeCx<'_, '_>,
    ) {
        if self.asked {
            return;
        }
        let upstream_request = &mut exchange_cx.request.upstream_request;
        if !upstream_request.is_settled() {
            upstream_request.push(cx, u);
        }
        self.asked = upstream_request.is_settled();
        if upstream_request.is_written()
            && let Some(entry) = tap.entry_mut()
        {
            entry.on_overhead(OverheadStage::Request, exchange_cx.now().since(self.begun));
        }
    }

    fn pull_answer<D: Io, U: Io>(
        &mut self,
        cx: &mut Context<'_>,
        d: &mut D,
        u: &mut U,
        tap: &mut Tap,
        exchange_cx: &mut ExchangeCx<'_, '_>,
        work: &mut ScratchBuffers,
    ) -> Result<bool, End> {
        if !self.is_receiving() {
            tap.on_suspended();
            return Ok(false);
        }
        if self.outbox.len() >= OUTBOX_LIMIT {
            tap.on_suspended();
            return Ok(false);
        }
        match u.poll_read(cx, &mut work.read) {
            Poll::Ready(Ok(0)) => {
                let tail = self.answer.on_eof(&mut work.scratch, || exchange_cx.recipient());
                match tail {
                    Ok(tail) => self.send(cx, d, tail, exchange_cx)?,
                    Err(Unfinished) if self.answer.status().is_some() => self.broken = Some(Break::Truncated),
                    Err(Unfinished) => self.broken = Some(Break::ClosedEarly),
                }
                Ok(true)
            }
            Poll::Ready(Ok(n)) => {
                let at = exchange_cx.now();
                work.now = Some(at);
                self.on_read(cx, d, at, &work.read[..n], &mut work.scratch, tap, exchange_cx)?;
                Ok(true)
            }
            Poll::Ready(Err(_)) => {
                self.broken = Some(Break::Reset);
                Ok(true)
            }
            Poll::Pending => {
                tap.on_caught_up();
                Ok(false)
            }
        }
    }

    /// A read from the engine, stamped before any of it is written.
    #[expect(clippy::too_many_arguments, reason = "the parts of the worker's exchange_cx are borrowed apart")]
    fn on_read<D: Io>(
        &mut self,
        cx: &mut Context<'_>,
        d: &mut D,
        at: Timestamp,
        read: &[u8],
        scratch: &mut Vec<u8>,
        tap: &mut Tap,
        exchange_cx: &mut ExchangeCx<'_, '_>,
    ) -> Result<(), End> {
        if self.received == 0 {
            tap.on_first_byte(at);
            exchange_cx.request.upstream_request.release();
        }
        self.received += read.len() as u64;
        exchange_cx.passive_health.on_heard(at);
        match self.answer.feed(at, read, scratch, tap, || exchange_cx.recipient()) {
            Ok(Forward { out, is_final_head: false }) => self.send(cx, d, out, exchange_cx),
            Ok(Forward { out, is_final_head: true }) => {
                exchange_cx.request.upstream_request.stop();
                exchange_cx.request.upstream_request.release();
                self.send(cx, d, out, exchange_cx)?;
                if let Some(entry) = tap.entry_mut() {
                    entry.on_overhead(OverheadStage::FirstByte, exchange_cx.now().since(at));
                }
                Ok(())
            }
            Err(broken) => {
                self.broken = Some(broken);
                Ok(())
            }
        }
    }

    /// Straight to the socket when nothing is owed; only the unwritten rest is copied.
    fn send<D: Io>(
        &mut self,
        cx: &mut Context<'_>,
        d: &mut D,
        out: &[u8],
        exchange_cx: &mut ExchangeCx<'_, '_>,
    ) -> Result<(), End> {
        if out.is_empty() {
            return Ok(());
        }
        let mut rest = out;
        if self.outbox.is_empty() {
            match d.poll_write(cx, out) {
                Poll::Ready(Ok(n)) => {
                    self.unflushed = true;
                    rest = &out[n..];
                }
                Poll::Ready(Err(_)) => return Err(End::ClientGone),
                Poll::Pending => {}
            }
            if rest.is_empty() {
                return Ok(());
            }
            self.taken = exchange_cx.now();
        }
        if self.outbox.push(&exchange_cx.worker.proxy.memory, rest) {
            Ok(())
        } else {
            self.broken = Some(Break::Memory);
            Ok(())
        }
    }

    fn drain_outbox<D: Io>(
        &mut self,
        cx: &mut Context<'_>,
        d: &mut D,
        exchange_cx: &mut ExchangeCx<'_, '_>,
    ) -> Result<bool, End> {
        let mut moved = false;
        if !self.outbox.is_empty() {
            moved = self.outbox.drain(cx, d).map_err(|_| End::ClientGone)? > 0;
            if moved {
                self.taken = exchange_cx.now();
                self.unflushed = true;
            }
        }
        if self.unflushed {
            match d.poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(_)) => return Err(End::ClientGone),
                Poll::Pending => {}
            }
        }
        Ok(moved)
    }

    /// A FIN means that the client has gone. Once the stream's own end was relayed it may leave without harm.
    fn watch_client<D: Io>(
        &mut self,
        cx: &mut Context<'_>,
        d: &mut D,
        tap: &Tap,
        exchange_cx: &mut ExchangeCx<'_, '_>,
        work: &mut ScratchBuffers,
    ) -> Result<(), End> {
        if exchange_cx.read_ahead.half_closed {
            return Ok(());
        }
        loop {
            match d.poll_read(cx, &mut work.read) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) if !exchange_cx.limits().half_close => {
                    exchange_cx.read_ahead.half_closed = true;
                    return Ok(());
                }
                Poll::Ready(Ok(0) | Err(_)) => {
                    let served = tap.has_terminated() && self.is_flushed() && self.answer.status().is_some();
                    return Err(if served { End::Broken(Break::Truncated) } else { End::ClientGone });
                }
                Poll::Ready(Ok(n)) => {
                    if !exchange_cx.read_ahead.keep(&work.read[..n]) {
                        return Err(End::ClientGone);
                    }
                }
            }
        }
    }

    /// Ends what is overdue; else sees to it that the timer fires at the next deadline.
    /// `now` is what the clock said in this turn, if it was asked.
    fn keep_time(
        &self,
        cx: &mut Context<'_>,
        tap: &Tap,
        exchange_cx: &mut ExchangeCx<'_, '_>,
        now: Option<Timestamp>,
    ) -> Result<(), End> {
        let due = self.due(tap, exchange_cx.limits());
        exchange_cx.timer.set(due);
        let overdue = match now {
            Some(now) => exchange_cx.timer.is_overdue_at(now, cx),
            None => exchange_cx.timer.is_overdue(cx),
        };
        if overdue { Err(self.overdue(due, exchange_cx.limits())) } else { Ok(()) }
    }

    /// The first moment at which something will have taken too long.
    fn due(&self, tap: &Tap, limits: &ProxyLimits) -> Timestamp {
        let mut due = self.dispatched + STREAM_AGE;
        if let (Some(patience), false) = (self.patience, tap.has_begun()) {
            due = due.min(patience);
        }
        if !self.outbox.is_empty() {
            return due.min(self.taken + limits.write_stall);
        }
        if !tap.has_begun() {
            return due.min(self.dispatched + limits.first_byte_timeout);
        }
        due.min(tap.heard() + limits.stream_stall)
    }

    fn overdue(&self, due: Timestamp, limits: &ProxyLimits) -> End {
        if !self.outbox.is_empty() && due == self.taken + limits.write_stall {
            return End::ClientStalled;
        }
        if self.patience == Some(due) {
            return End::Late;
        }
        End::Broken(Break::Timeout)
    }

    fn is_receiving(&self) -> bool {
        self.broken.is_none() && !self.answer.has_ended()
    }

    fn is_flushed(&self) -> bool {
        self.outbox.is_empty() && !self.unflushed
    }
}

impl ExchangeCx<'_, '_> {
    fn now(&self) -> Timestamp {
        self.worker.proxy.clock.now()
    }

    fn limits(&self) -> &ProxyLimits {
        self.limits
    }

    /// The client's side, for the answer's head.
    fn recipient(&self) -> ClientSide<'_> {
        ClientSide {
            version: self.request.version,
            head_request: self.request.is_head,
            close: !self.request.keep_alive,
            request_id: self.request.id.as_bytes(),
            served_by: self.request.shape.is_some().then_some(&*self.target.name),
            queued: self.request.queued,
            assembling: self.request.assembling,
            worker: self.worker,
        }
    }
}

/// What a client sent ahead of its turn.
#[derive(Default)]
pub struct ReadAhead {
    /// The beginning of its next request.
    pub bytes: Vec<u8>,
    /// More came than is kept: the connection cannot carry another request.
    pub overflowed: bool,
    /// Its FIN was seen and tolerated.
    pub half_closed: bool,
    dropped: usize,
}

impl ReadAhead {
    /// Keeps a bounded beginning; past it bytes are dropped unparsed, so that a hang-up behind them stays visible.
    /// `false`: so much came that the client cannot mean well.
    pub fn keep(&mut self, bytes: &[u8]) -> bool {
        if self.overflowed || self.bytes.len() + bytes.len() > EARLY_LIMIT {
            self.overflowed = true;
            self.dropped += bytes.len();
        } else {
            self.bytes.extend_from_slice(bytes);
        }
        self.dropped <= EARLY_ABUSE
    }
}

/// One worker's buffers, shared by all its exchanges. Only the part that was just read is ever looked at: the rest holds
/// bytes of others.
pub(super) struct ScratchBuffers {
    pub read: Box<[u8]>,
    pub scratch: Vec<u8>,
    /// When the turn under way last read from an engine.
    now: Option<Timestamp>,
}

thread_local! {
    pub(super) static SCRATCH: RefCell<ScratchBuffers> =
        RefCell::new(ScratchBuffers { read: vec![0; READ].into_boxed_slice(), scratch: Vec::new(), now: None });
}

/// One read from a socket. 4, 16 and 64 KiB measured alike.
const READ: usize = 16 * 1024;
/// What is held for a client that takes nothing; then the engine is no longer read.
const OUTBOX_LIMIT: usize = 256 * 1024;
/// Bytes of a next request that are kept.
const EARLY_LIMIT: usize = 8 * 1024;
/// Unasked bytes after which the exchange is aborted.
const EARLY_ABUSE: usize = 1024 * 1024;
/// No answer lasts longer.
const STREAM_AGE: Duration = Duration::from_secs(60 * 60);
