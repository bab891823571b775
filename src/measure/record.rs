//! The record of one request, and what each of its transitions adds to the statistics; its end is in `closing`.
//!
//! Every method runs under the lock of the request's shard. The guard in front of it (`entry`) calls each one once and in order;
//! nothing here drops or locks.

mod closing;

use std::time::Duration;

use super::account::Account;
use super::arrival::Arrival;
use super::gaps::TokenGaps;
use super::journal::EmissionRecord;
use super::report::ReportContext;
use super::sample::{RequestKey, Sample, What};
use super::sample_buffer::SampleBuffer;
use super::shard::{Shard, ShardState};
use super::timeline::Timeline;
use super::window::{LatencyKind, WindowEvent};
use crate::vocabulary::class::Class;
use crate::vocabulary::outcome::{Direction, OverheadStage, Phase, QueueExit, RetryReason};
use crate::vocabulary::time::Timestamp;

/// One request. `repr(C)` keeps the fields in this order, because streams are many and their records are seldom in a cache: an
/// emission touches the first 64 bytes and its slot of the batch, and a flush touches the 64 bytes after them.
#[repr(C)]
pub(super) struct RequestRecord {
    /// The last emission; copied to the timeline at the end.
    pub last: Option<Timestamp>,
    pub flushed: Timestamp,
    counted: u64,
    events: u64,
    pub journal: Option<Box<Journalled>>,
    pub key: RequestKey,
    pub row: u32,
    pub status: u16,
    pub state: RecordStage,
    pub batched: u8,
    gaps: TokenGaps,
    /// Tokens that the backend had delivered when this stream was last flushed.
    delivered: u64,
    pub account: Account,
    priority: Class,
    /// The request asks for a stream, and the answer so far is one.
    pub stream: bool,
    pub opaque: bool,
    batch: [PendingStamps; BATCH],
    pub timeline: Timeline,
    /// Nanoseconds of weir's own work; 0: not measured.
    pub overhead: [u64; OverheadStage::COUNT],
    slo_ttft: Option<Duration>,
    prompt: Option<u32>,
    dialect: &'static str,
    assembled: bool,
    /// Where the end is reported; `None`: nowhere.
    pub context: Option<Box<ReportContext>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordStage {
    Queued,
    Prefill,
    Decode,
    Closed,
}

#[derive(Clone, Copy, Debug, Default)]
struct PendingStamps {
    /// Nanoseconds since the event before; for the first event 0.
    gap: u64,
    tokens: u32,
    limited: bool,
}

pub(super) struct Journalled {
    arrival: Arrival,
    pub retries: [u64; RetryReason::COUNT],
    emissions: Vec<EmissionRecord>,
    truncated: bool,
}

impl RequestRecord {
    /// A request that is offered, and neither queued nor in flight yet.
    pub fn open(
        shard: &Shard,
        state: &mut ShardState,
        account: Account,
        priority: Class,
        arrival: Arrival,
    ) -> Box<Self> {
        let row = state.row(account, &shard.bounds);
        state.rows[row as usize].1.offered[priority.index()] += 1;
        count(state, account, WindowEvent::Offered, arrival.at, 1);
        let key = shard.make_key(state);
        let prompt = arrival.prompt_tokens.map(short);
        record_sample(state, account, key, arrival.at, What::Offered { prompt, stream: arrival.stream, priority });
        let journal = shard.keeps_journal().then(|| Journalled {
            arrival,
            retries: Default::default(),
            emissions: Vec::new(),
            truncated: false,
        });
        Box::new(Self {
            last: None,
            flushed: arrival.at,
            counted: 0,
            events: 0,
            journal: journal.map(Box::new),
            key,
            row,
            status: 0,
            state: RecordStage::Queued,
            batched: 0,
            gaps: TokenGaps::default(),
            delivered: 0,
            account,
            priority,
            stream: arrival.stream,
            opaque: false,
            batch: [PendingStamps::default(); BATCH],
            timeline: Timeline::new(arrival.at),
            overhead: Default::default(),
            slo_ttft: arrival.slo_ttft,
            assembled: arrival.assembled,
            prompt,
            dialect: arrival.dialect,
            context: None,
        })
    }

    pub fn enter_queue(&self, state: &mut ShardState) {
        let stats = &mut state.rows[self.row as usize].1;
        stats.queued[self.priority.index()] += 1;
        *stats.waiting.entry(self.timeline.arrived).or_default() += 1;
        stats.oldest_queued = stats.waiting.keys().next().copied();
    }

    pub fn leave_queue(&self, state: &mut ShardState) {
        let arrived = self.timeline.arrived;
        let stats = &mut state.rows[self.row as usize].1;
        stats.queued[self.priority.index()] -= 1;
        if let Some(count) = stats.waiting.get_mut(&arrived) {
            *count -= 1;
            if *count == 0 {
                stats.waiting.remove(&arrived);
            }
        }
        stats.oldest_queued = stats.waiting.keys().next().copied();
    }

    /// Queued => Queued, in another account.
    pub fn move_to(&mut self, shard: &Shard, state: &mut ShardState, account: Account, at: Timestamp) {
        self.leave_queue(state);
        state.rows[self.row as usize].1.moved[Direction::Out.index()] += 1;
        record_sample(state, self.account, self.key, at, What::Left { shed: false });
        (self.row, self.account) = (state.row(account, &shard.bounds), account);
        state.rows[self.row as usize].1.moved[Direction::In.index()] += 1;
        record_sample(
            state,
            self.account,
            self.key,
            at,
            What::Offered { prompt: self.prompt, stream: self.stream, priority: self.priority },
        );
        self.enter_queue(state);
    }

    /// (nothing | Queued) => InFlight.
    pub fn admit(&mut self, state: &mut ShardState, at: Timestamp) {
        self.state = RecordStage::Prefill;
        self.timeline.admitted = Some(at);
        let stats = &mut state.rows[self.row as usize].1;
        stats.queue_wait[QueueExit::Admitted.index()].record(nanos(Some(at.since(self.timeline.arrived))));
        stats.admitted[self.priority.index()] += 1;
        stats.in_flight[Phase::Prefill.index()] += 1;
        stats.pending += u64::from(self.stream);
        count(state, self.account, WindowEvent::Admitted, at, 1);
        record_sample(state, self.account, self.key, at, What::Admitted);
    }

    /// Adds an emission to the batch.
    pub fn push(&mut self, at: Timestamp, tokens: u32, limited: bool) {
        self.events += 1;
        self.counted += u64::from(tokens);
        let gap = match self.last.replace(at) {
            Some(last) => u64::try_from(at.since(last).as_nanos()).unwrap_or(u64::MAX),
            None => 0,
        };
        if let Some(journal) = &mut self.journal {
            journal.push(EmissionRecord { gap, tokens, limited });
        }
        self.batch[usize::from(self.batched)] = PendingStamps { gap, tokens, limited };
        self.batched += 1;
    }

    /// Prefill => Decode.
    pub fn on_first_token(&mut self, shard: &Shard, state: &mut ShardState, at: Timestamp) {
        self.state = RecordStage::Decode;
        self.timeline.first_token = Some(at);
        let stats = &mut state.rows[self.row as usize].1;
        stats.in_flight[Phase::Prefill.index()] -= 1;
        stats.in_flight[Phase::Decode.index()] += 1;
        stats.pending -= u64::from(self.stream);
        let ttft = nanos(self.timeline.ttft());
        let upstream = nanos(self.timeline.upstream_ttft());
        stats.ttft[usize::from(self.stream && !self.assembled)].record(ttft);
        stats.upstream_ttft.record(upstream);
        observe(state, self.account, LatencyKind::Ttft, at, ttft, 1);
        observe(state, self.account, LatencyKind::UpstreamTtft, at, upstream, 1);
        if let Some(backend) = state.backends.get_mut(self.account.backend.index()) {
            backend.decoding += 1;
            self.delivered = backend.delivered;
        }
        self.flush(shard, state, at);
    }

    /// Adds the batch to the statistics.
    pub fn flush(&mut self, shard: &Shard, state: &mut ShardState, at: Timestamp) {
        let batch = &self.batch[..usize::from(std::mem::take(&mut self.batched))];
        self.flushed = at;
        let tokens = batch.iter().fold(0_u32, |sum, pending| sum.saturating_add(pending.tokens));
        let first_is_first = self.events == batch.len() as u64;
        let stats = &mut state.rows[self.row as usize].1;
        stats.chunks += batch.len() as u64;
        for pending in batch.iter().skip(usize::from(first_is_first)) {
            if pending.limited {
                stats.limited_gaps += 1;
                continue;
            }
            stats.gap.record(pending.gap);
            self.gaps.add(&shard.bounds.itl, pending.gap, pending.tokens);
        }
        count(state, self.account, WindowEvent::Tokens, at, tokens);
        for pending in batch.iter().skip(usize::from(first_is_first)).filter(|pending| !pending.limited) {
            let share = pending.gap / u64::from(pending.tokens.max(1));
            observe(state, self.account, LatencyKind::Itl, at, share, pending.tokens.max(1));
        }
        let Some(backend) = state.backends.get_mut(self.account.backend.index()) else { return };
        record_emissions(&mut backend.buffer, self.key, self.last, batch);
        let overtaken = backend.delivered - self.delivered;
        backend.delivered = backend.delivered.saturating_add(u64::from(tokens));
        self.delivered = backend.delivered;
        let decoding = backend.decoding;
        // An event after a silence ends its batch, which is too old by then. Events before the silence may share the batch, so the
        // tokens of the other streams in up to BATCH_AGE before it count too: few against eight for each stream.
        let after_silence =
            batch.last().is_some_and(|last| !last.limited && u128::from(last.gap) >= BATCH_AGE.as_nanos());
        if after_silence && overtaken > (OVERTAKEN_PER_STREAM * decoding).max(OVERTAKEN) {
            state.rows[self.row as usize].1.stalls += 1;
            if let Some(context) = &mut self.context {
                context.stalls += 1;
            }
        }
    }
}

impl Journalled {
    fn push(&mut self, emission: EmissionRecord) {
        if !self.arrival.trace {
            return;
        }
        if self.emissions.len() < TRACE_LIMIT {
            self.emissions.push(emission);
        } else {
            self.truncated = true;
        }
    }
}

fn count(state: &mut ShardState, account: Account, event: WindowEvent, at: Timestamp, n: u32) {
    if let Some(backend) = state.backends.get_mut(account.backend.index()).filter(|_| n > 0) {
        backend.window.count(event, at, n);
    }
}

/// A batch as samples: its gaps counted back from the last emission.
fn record_emissions(buffer: &mut SampleBuffer, request: RequestKey, last: Option<Timestamp>, batch: &[PendingStamps]) {
    if !buffer.is_open() {
        return;
    }
    let since_first = batch.iter().skip(1).fold(0_u64, |sum, pending| sum.saturating_add(pending.gap));
    let mut at = last.unwrap_or_default() - Duration::from_nanos(since_first);
    buffer.push_emissions(batch.iter().enumerate().map(|(i, pending)| {
        at = at + Duration::from_nanos(if i == 0 { 0 } else { pending.gap });
        let what = What::Emission { tokens: pending.tokens, limited: pending.limited };
        Sample { at, request, what }
    }));
}

fn record_sample(state: &mut ShardState, account: Account, request: RequestKey, at: Timestamp, what: What) {
    if let Some(backend) = state.backends.get_mut(account.backend.index()) {
        backend.buffer.push(Sample { at, request, what });
    }
}

fn short(tokens: u64) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

fn observe(state: &mut ShardState, account: Account, latency: LatencyKind, at: Timestamp, nanos: u64, n: u32) {
    if let Some(backend) = state.backends.get_mut(account.backend.index()) {
        backend.window.observe(latency, at, nanos, n);
    }
}

fn nanos(span: Option<Duration>) -> u64 {
    span.map_or(0, |span| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
}

/// Emissions collected before one lock is taken for all of them.
pub(super) const BATCH: usize = 16;
/// A stream is flushed at its first event after this long, so a reading lags by at most this or one event.
pub(super) const BATCH_AGE: Duration = Duration::from_millis(50);
/// A stream stalls when its backend delivers more than this many tokens between two of its events, and more than the next number
/// for each decoding stream (weir_stream_stalls_total).
const OVERTAKEN: u64 = 24;
const OVERTAKEN_PER_STREAM: u64 = 8;
/// Emissions kept for the journal.
const TRACE_LIMIT: usize = 100_000;
