//! One request's way to a backend and its answer's way back: one task, one poll.
//!
//! Every source is polled again before the task sleeps, so a wake-up taken by one side never hides the other. The engine
//! is read whether or not the client takes bytes, up to a bound, so that a stamp says when the engine spoke. What http1
//! has not checked never leaves. This file holds no rule of HTTP and no word of any dialect: the first live in `http1/`,
//! the second in the tap.

use std::task::{Context, Poll};
use std::time::Duration;

use super::end::{Break, End};
use super::io::Io;
use super::read_ahead::ReadAhead;
use super::request::received::Request;
use super::response::relay::{ClientSide, Forward, ResponseRelay};
use super::response::tap::Tap;
use super::response::write_buffer::WriteBuffer;
use super::scratch::{SCRATCH, ScratchBuffers};
use super::settings::ProxyLimits;
use super::state::Worker;
use super::timer::Timer;
use super::upstream::passive_health::PassiveHealth;
use super::upstream::target::Target;
use crate::http1::Unfinished;
use crate::measure::OverheadStage;
use crate::vocabulary::time::Timestamp;

/// What an exchange works with and does not own. Made for each poll, so that it is no part of a waiting task.
pub struct ExchangeCx<'a, 't> {
    pub worker: &'a Worker,
    /// Where the request is sent.
    pub target: &'a Target,
    /// As they were when the exchange began.
    pub limits: &'a ProxyLimits,
    pub passive_health: &'a PassiveHealth,
    /// Bytes of the client's next request.
    pub read_ahead: &'a mut ReadAhead,
    pub timer: &'a mut Timer<'t>,
    pub request: &'a mut Request,
}

/// One request and its answer, between `d`, the client, and `u`, the backend.
pub struct Exchange {
    answer: ResponseRelay,
    /// All of the request is written, or no more of it will be.
    asked: bool,
    write_buffer: WriteBuffer,
    /// Something was written that the layer below may still hold.
    unflushed: bool,
    /// The last time the client took a byte while something waited to be written.
    last_taken: Timestamp,
    dispatched: Timestamp,
    /// When our own work on the request began, as if it had not been interrupted.
    begun: Timestamp,
    /// When it is given up if no first token has come by then.
    give_up_at: Option<Timestamp>,
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
            write_buffer: WriteBuffer::default(),
            unflushed: false,
            last_taken: now,
            dispatched: now,
            begun,
            give_up_at: None,
            broken: None,
            received: 0,
        }
    }

    /// It is given up at `give_up_at` when no first token has come by then.
    pub fn with_give_up_at(self, give_up_at: Option<Timestamp>) -> Self {
        Self { give_up_at, ..self }
    }

    /// Drives both sides until the exchange has ended.
    pub fn poll<D: Io, U: Io>(
        &mut self,
        cx: &mut Context<'_>,
        d: &mut D,
        u: &mut U,
        tap: &mut Tap,
        exchange_cx: &mut ExchangeCx<'_, '_>,
    ) -> Poll<End> {
        SCRATCH.with_borrow_mut(|scratch| match self.poll_once(cx, d, u, tap, exchange_cx, scratch) {
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
        self.write_buffer.is_empty() && self.answer.takes_event()
    }

    /// `Ok`: every source is pending and has our waker. `Err`: the exchange has ended.
    fn poll_once<D: Io, U: Io>(
        &mut self,
        cx: &mut Context<'_>,
        d: &mut D,
        u: &mut U,
        tap: &mut Tap,
        exchange_cx: &mut ExchangeCx<'_, '_>,
        scratch: &mut ScratchBuffers,
    ) -> Result<(), End> {
        scratch.now = None;
        loop {
            self.push_request(cx, u, tap, exchange_cx);
            let mut moved = self.pull_answer(cx, d, u, tap, exchange_cx, scratch)?;
            moved |= self.drain_write_buffer(cx, d, exchange_cx)?;
            if !self.is_receiving() && self.is_flushed() {
                return Err(self.broken.map_or(End::Whole, End::Broken));
            }
            if moved {
                continue;
            }
            self.watch_client(cx, d, tap, exchange_cx, scratch)?;
            return self.keep_time(cx, tap, exchange_cx, scratch.now);
        }
    }

    /// Writes what is left of the request. An error is not the end: an early answer may be waiting to be read. Whatever moves
    /// here, the answer is polled after it, so that no further round is needed.
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
        scratch: &mut ScratchBuffers,
    ) -> Result<bool, End> {
        if !self.is_receiving() {
            tap.on_suspended();
            return Ok(false);
        }
        if self.write_buffer.len() >= WRITE_BUFFER_LIMIT {
            tap.on_suspended();
            return Ok(false);
        }
        match u.poll_read(cx, &mut scratch.read) {
            Poll::Ready(Ok(0)) => {
                let tail = self.answer.on_eof(&mut scratch.out, || exchange_cx.client_side());
                match tail {
                    Ok(tail) => self.send(cx, d, tail, exchange_cx)?,
                    Err(Unfinished) if self.answer.status().is_some() => self.broken = Some(Break::Truncated),
                    Err(Unfinished) => self.broken = Some(Break::ClosedEarly),
                }
                Ok(true)
            }
            Poll::Ready(Ok(n)) => {
                let at = exchange_cx.now();
                scratch.now = Some(at);
                self.on_read(cx, d, at, &scratch.read[..n], &mut scratch.out, tap, exchange_cx)?;
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
    #[expect(clippy::too_many_arguments, reason = "the parts of the scratch buffers are borrowed apart")]
    fn on_read<D: Io>(
        &mut self,
        cx: &mut Context<'_>,
        d: &mut D,
        at: Timestamp,
        read: &[u8],
        out: &mut Vec<u8>,
        tap: &mut Tap,
        exchange_cx: &mut ExchangeCx<'_, '_>,
    ) -> Result<(), End> {
        if self.received == 0 {
            tracing::debug!(
                request_id = %exchange_cx.request.id,
                backend = &*exchange_cx.target.name,
                "first byte of the answer"
            );
            tap.on_first_byte(at);
            exchange_cx.request.upstream_request.release();
        }
        self.received += read.len() as u64;
        exchange_cx.passive_health.on_byte(at);
        let had_begun = tap.has_begun();
        let fed = self.answer.feed(at, read, out, tap, || exchange_cx.client_side());
        if !had_begun && tap.has_begun() {
            tracing::debug!(
                request_id = %exchange_cx.request.id,
                backend = &*exchange_cx.target.name,
                "first token of the answer"
            );
        }
        match fed {
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

    /// Straight to the socket when nothing waits to be written; only the unwritten rest is copied.
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
        if self.write_buffer.is_empty() {
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
            self.last_taken = exchange_cx.now();
        }
        if self.write_buffer.push(&exchange_cx.worker.proxy.memory, rest) {
            Ok(())
        } else {
            self.broken = Some(Break::Memory);
            Ok(())
        }
    }

    fn drain_write_buffer<D: Io>(
        &mut self,
        cx: &mut Context<'_>,
        d: &mut D,
        exchange_cx: &mut ExchangeCx<'_, '_>,
    ) -> Result<bool, End> {
        let mut moved = false;
        if !self.write_buffer.is_empty() {
            moved = self.write_buffer.drain(cx, d).map_err(|_| End::ClientGone)? > 0;
            if moved {
                self.last_taken = exchange_cx.now();
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
        scratch: &mut ScratchBuffers,
    ) -> Result<(), End> {
        if exchange_cx.read_ahead.half_closed {
            return Ok(());
        }
        loop {
            match d.poll_read(cx, &mut scratch.read) {
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
                    if !exchange_cx.read_ahead.keep(&scratch.read[..n]) {
                        return Err(End::ClientGone);
                    }
                }
            }
        }
    }

    /// Ends what is overdue; otherwise sets the timer to the next deadline.
    /// `now` is the time of the last read of this poll, if there was one.
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
        if let (Some(give_up_at), false) = (self.give_up_at, tap.has_begun()) {
            due = due.min(give_up_at);
        }
        if !self.write_buffer.is_empty() {
            return due.min(self.last_taken + limits.write_stall);
        }
        if !tap.has_begun() {
            return due.min(self.dispatched + limits.first_byte_timeout);
        }
        due.min(tap.last_event_at() + limits.stream_stall)
    }

    fn overdue(&self, due: Timestamp, limits: &ProxyLimits) -> End {
        if !self.write_buffer.is_empty() && due == self.last_taken + limits.write_stall {
            return End::ClientStalled;
        }
        if self.give_up_at == Some(due) {
            return End::Late;
        }
        End::Broken(Break::Timeout)
    }

    fn is_receiving(&self) -> bool {
        self.broken.is_none() && !self.answer.has_ended()
    }

    fn is_flushed(&self) -> bool {
        self.write_buffer.is_empty() && !self.unflushed
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
    fn client_side(&self) -> ClientSide<'_> {
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

/// What is held for a client that takes nothing; then the engine is no longer read.
const WRITE_BUFFER_LIMIT: usize = 256 * 1024;
/// No answer lasts longer.
const STREAM_AGE: Duration = Duration::from_secs(60 * 60);
