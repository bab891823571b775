//! The backend's answer on its way to the client: heads are rewritten, bodies are checked, the tap sees every payload byte.
//!
//! `http1` decides what is valid and what leaves; this file only puts its pieces in order: up to eight informational
//! heads, one final head, one body. It writes nothing to a socket.

use std::time::Duration;

use super::assembling::Assembling;
use super::tap::Tap;
use crate::http1::{
    BadAnswer, HeadEnd, OutFraming, Relay, Response, ResponseContext, ResponseHead, Unfinished, Version,
    finish_response_head, response_head,
};
use crate::proxy::end::Break;
use crate::proxy::state::Worker;
use crate::vocabulary::time::Timestamp;
use crate::wire::{BodyFormat, Dialect};

/// One answer in transit.
pub struct ResponseRelay {
    state: State,
    status: Option<u16>,
    poolable: bool,
    surplus: bool,
    keeps_client: bool,
}

/// The client's side of the answer.
#[derive(Clone, Copy)]
pub struct ClientSide<'a> {
    /// The client's version decides framing.
    pub version: Version,
    /// A HEAD request: no body follows.
    pub head_request: bool,
    /// The connection ends with this answer: the client asked for it, or the process is leaving.
    pub close: bool,
    /// Returned as `x-request-id`.
    pub request_id: &'a [u8],
    /// The backend, named in measured answers.
    pub served_by: Option<&'a str>,
    /// How long.
    pub queued: Duration,
    /// It wants the answer whole, and the engine was asked for a stream in this dialect.
    pub assembling: Option<Dialect>,
    /// Has the `Date` value for engines that send none.
    pub worker: &'a Worker,
}

enum State {
    Head {
        held: Vec<u8>,
        end: HeadEnd,
        informational: u8,
    },
    Body(Relay),
    /// Nothing leaves before all of it is here.
    Assembling(Box<Assembling>),
    Ended,
}

/// What one read from the backend amounts to.
pub struct Forward<'a> {
    /// Bytes for the client, in its framing.
    pub out: &'a [u8],
    /// The final head is in `out`: what is left of the request is not wanted any more.
    pub is_final_head: bool,
}

impl ResponseRelay {
    /// An answer that has not begun.
    pub fn new() -> Self {
        let state = State::Head { held: Vec::new(), end: HeadEnd::new(), informational: 0 };
        Self { state, status: None, poolable: false, surplus: false, keeps_client: false }
    }

    /// Takes one read. `Err`: the answer breaks a rule, or there is no memory for it; nothing of this read may leave.
    pub fn feed<'a, 'r>(
        &mut self,
        at: Timestamp,
        read: &'a [u8],
        scratch: &'a mut Vec<u8>,
        tap: &mut Tap,
        to: impl FnOnce() -> ClientSide<'r>,
    ) -> Result<Forward<'a>, Break> {
        match &mut self.state {
            State::Body(relay) => {
                let fed = relay.feed(read, scratch, |payload| tap.scan(at, payload))?;
                self.surplus |= fed.used < read.len();
                if relay.ended() {
                    self.state = State::Ended;
                }
                Ok(Forward { out: fed.out, is_final_head: false })
            }
            State::Assembling(_) => {
                let whole = self.assemble(at, read, scratch, tap, &to())?;
                Ok(Forward { out: if whole { scratch } else { &[] }, is_final_head: whole })
            }
            State::Ended => {
                self.surplus = true;
                Ok(Forward { out: &[], is_final_head: false })
            }
            State::Head { held, .. } if held.is_empty() => self.feed_head(at, read, scratch, tap, &to()),
            State::Head { held, .. } => {
                let mut whole = std::mem::take(held);
                whole.extend_from_slice(read);
                self.feed_head(at, &whole, scratch, tap, &to())
            }
        }
    }

    /// The backend closed its side. `Ok`: that was the body's proper end, and these bytes complete it for the client.
    pub fn on_eof<'a, 'r>(
        &mut self,
        scratch: &'a mut Vec<u8>,
        to: impl FnOnce() -> ClientSide<'r>,
    ) -> Result<&'a [u8], Unfinished> {
        if let State::Assembling(assembling) = &mut self.state {
            assembling.on_eof()?;
            self.complete(scratch, &to()).map_err(|_| Unfinished)?;
            return Ok(scratch);
        }
        let State::Body(relay) = &mut self.state else { return Err(Unfinished) };
        let tail = relay.closed(scratch)?;
        self.state = State::Ended;
        Ok(tail)
    }

    /// The final status, once its head was sent on.
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// The framed end was reached.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// The backend's connection may carry another request.
    pub fn is_reusable(&self) -> bool {
        self.has_ended() && self.poolable && !self.surplus
    }

    /// The client's connection may carry another request.
    pub fn keeps_client(&self) -> bool {
        self.has_ended() && self.keeps_client
    }

    /// A chunk of weir's own may follow what was sent.
    pub fn takes_event(&self) -> bool {
        matches!(&self.state, State::Body(relay) if relay.at_chunk_boundary())
    }

    /// Takes one read of a stream that is put together. `true`: it is whole, and in `out`.
    fn assemble(
        &mut self,
        at: Timestamp,
        read: &[u8],
        out: &mut Vec<u8>,
        tap: &mut Tap,
        to: &ClientSide<'_>,
    ) -> Result<bool, Break> {
        let State::Assembling(assembling) = &mut self.state else { return Ok(false) };
        self.surplus |= assembling.feed(at, read, tap)? < read.len();
        if !assembling.has_ended() {
            return Ok(false);
        }
        self.complete(out, to)?;
        Ok(true)
    }

    /// The stream has ended: head and body of the whole answer into `out`.
    fn complete(&mut self, out: &mut Vec<u8>, to: &ClientSide<'_>) -> Result<(), BadAnswer> {
        let State::Assembling(mut assembling) = std::mem::replace(&mut self.state, State::Ended) else {
            return Ok(());
        };
        let close = to.close;
        let (status, has) = (assembling.complete(out)?, assembling.has());
        let body = std::mem::take(out);
        assembling.head(out, status);
        finish(out, OutFraming::Length(body.len() as u64), close, has, to);
        out.extend_from_slice(&body);
        self.status = Some(status);
        self.keeps_client = !close;
        Ok(())
    }

    /// All heads in `whole`, then the first piece of the body.
    // Long: each arm ends the loop over the heads of one read.
    fn feed_head<'a>(
        &mut self,
        at: Timestamp,
        whole: &[u8],
        scratch: &'a mut Vec<u8>,
        tap: &mut Tap,
        to: &ClientSide<'_>,
    ) -> Result<Forward<'a>, Break> {
        scratch.clear();
        let mut rest = whole;
        let head = loop {
            let State::Head { held, end, informational } = &mut self.state else {
                return Ok(Forward { out: &[], is_final_head: false });
            };
            let Some(length) = end.find(rest).map_err(BadAnswer::from)? else {
                *held = rest.to_vec();
                return Ok(Forward { out: scratch, is_final_head: false });
            };
            let (bytes, after) = rest.split_at(length);
            let before = scratch.len();
            let context = ResponseContext { head_request: to.head_request, client: to.version };
            match response_head(bytes, &context, scratch)? {
                Response::Final(head) => {
                    rest = after;
                    break (head, bytes);
                }
                Response::Informational(status) => {
                    *informational += 1;
                    if *informational > INFORMATIONAL_LIMIT {
                        return Err(BadAnswer::TooManyInformational.into());
                    }
                    if status == EARLY_HINTS && to.version == Version::V11 {
                        scratch.extend_from_slice(b"\r\n");
                    } else {
                        scratch.truncate(before);
                    }
                    *end = HeadEnd::new();
                    rest = after;
                }
            }
        };
        self.on_final_head(at, &head, scratch, tap, to);
        if matches!(self.state, State::Assembling(_)) {
            let whole = self.assemble(at, rest, scratch, tap, to)?;
            return Ok(Forward { out: if whole { scratch } else { &[] }, is_final_head: whole });
        }
        let mut tail = Vec::new();
        if let State::Body(relay) = &mut self.state {
            let fed = match relay.feed(rest, &mut tail, |payload| tap.scan(at, payload)) {
                Ok(fed) => fed,
                Err(cause) => {
                    // The head came in the same read, so it was not sent on either.
                    self.status = None;
                    return Err(cause.into());
                }
            };
            self.surplus |= fed.used < rest.len();
            scratch.extend_from_slice(fed.out);
            if relay.ended() {
                self.state = State::Ended;
            }
        } else {
            self.surplus |= !rest.is_empty();
        }
        Ok(Forward { out: scratch, is_final_head: true })
    }

    fn on_final_head(
        &mut self,
        at: Timestamp,
        (head, bytes): &(ResponseHead, &[u8]),
        out: &mut Vec<u8>,
        tap: &mut Tap,
        to: &ClientSide<'_>,
    ) {
        let relay = Relay::new(head.body, to.version);
        let content_type = head.content_type.clone().map_or(&[][..], |range| &bytes[range]);
        let coding = head.content_encoding.clone().map(|range| &bytes[range]);
        let format = BodyFormat::of(content_type, coding);
        tap.on_head(at, head.status, format);
        self.poolable = head.keep_alive;
        let has = (head.has_date, head.has_request_id);
        if let (Some(dialect), 200..=299, BodyFormat::Sse | BodyFormat::Ndjson) = (to.assembling, head.status, format) {
            let memory = &to.worker.proxy.memory;
            if let Some(assembling) = Assembling::new(dialect, relay.clone(), std::mem::take(out), has, memory) {
                self.state = State::Assembling(Box::new(assembling));
                return;
            }
        }
        let framing = relay.out_framing();
        let close = to.close || framing == OutFraming::Close;
        finish(out, framing, close, has, to);
        self.status = Some(head.status);
        self.keeps_client = !close;
        self.state = if relay.ended() { State::Ended } else { State::Body(relay) };
    }
}

/// weir's own fields and the framing; `has_date`, `has_request_id`: the engine sent its own.
fn finish(
    out: &mut Vec<u8>,
    framing: OutFraming,
    close: bool,
    (has_date, has_request_id): (bool, bool),
    to: &ClientSide<'_>,
) {
    let id = [("x-request-id", to.request_id)];
    let (served, waited);
    let extra: &[(&str, &[u8])] = match to.served_by {
        None if has_request_id => &[],
        None => &id,
        Some(name) => {
            waited = if to.queued.is_zero() { String::new() } else { to.queued.as_millis().to_string() };
            let waited = if waited.is_empty() { &b"0"[..] } else { waited.as_bytes() };
            served = [("x-weir-backend", name.as_bytes()), ("x-weir-queue-ms", waited), id[0]];
            if has_request_id { &served[..2] } else { &served }
        }
    };
    let date = if has_date { None } else { Some(to.worker.date()) };
    finish_response_head(out, framing, close, date.as_ref().map_or(&[], |date| &date[..]), extra);
}

/// More heads than this before the final one are a defect of the engine.
const INFORMATIONAL_LIMIT: u8 = 8;
/// 103: the one informational status that a client can use.
const EARLY_HINTS: u16 = 103;
