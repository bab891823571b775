//! What the stats hold of one request, and how each of its transitions is booked.
//!
//! Every method is called under the lock of the request's shard. The guard before it (`entry`) sees to it that each is called once
//! and in order; nothing here drops or locks.

use std::time::Duration;

use super::entry::{Arrival, EntryEnd};
use super::gaps::TokenGaps;
use super::journal::{EmissionRecord, JournalRecord, JournalVerdict as Written};
use super::ledger::Account;
use super::report::{CLIENT_LEFT, Closed, ReportContext, RequestReport};
use super::sample::{RequestKey, Sample, What};
use super::sample_buffer::SampleBuffer;
use super::shard::{Shard, ShardState};
use super::timeline::Timeline;
use super::window::{LatencyKind, WindowEvent};
use crate::vocabulary::class::Class;
use crate::vocabulary::outcome::{
    AbandonPhase, CodeClass, Direction, NoTokenReason, Objective, ObjectiveResult, Outcome, OverheadStage, Phase,
    QueueExit, RetryReason, TokenSource,
};
use crate::vocabulary::shed_reason::ShedReason;
use crate::vocabulary::slo::Slo;
use crate::vocabulary::time::Timestamp;
use crate::vocabulary::usage::Usage;

/// All that is known of one request. In the order written, because streams are many and their lines are seldom in a cache:
/// an emission touches the first 64 bytes and its place in the batch, and a batch is booked with the 64 behind them.
#[repr(C)]
pub(super) struct RequestRecord {
    /// The last emission; the timeline learns of it at the end.
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
    /// A stream was asked for, and so far none was denied.
    pub stream: bool,
    pub opaque: bool,
    batch: [PendingStamps; BATCH],
    pub timeline: Timeline,
    /// Nanoseconds of weir's own work; 0: not taken.
    pub overhead: [u64; OverheadStage::COUNT],
    slo_ttft: Option<Duration>,
    prompt: Option<u32>,
    dialect: &'static str,
    assembled: bool,
    /// Who is told of the end; nobody, where no one asked.
    pub caption: Option<Box<ReportContext>>,
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
    /// A line that is offered, and neither queued nor in flight yet.
    pub fn open(
        shard: &Shard,
        state: &mut ShardState,
        account: Account,
        priority: Class,
        arrival: Arrival,
    ) -> Box<Self> {
        let row = state.place(account, &shard.bounds);
        state.rows[row as usize].1.offered[priority.index()] += 1;
        count(state, account, WindowEvent::Offered, arrival.at, 1);
        let key = shard.make_key(state);
        let prompt = arrival.prompt_tokens.map(short);
        tell(state, account, key, arrival.at, What::Offered { prompt, stream: arrival.stream, priority });
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
            caption: None,
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

    /// Queued => Queued, elsewhere.
    pub fn move_to(&mut self, shard: &Shard, state: &mut ShardState, account: Account, at: Timestamp) {
        self.leave_queue(state);
        state.rows[self.row as usize].1.moved[Direction::Out.index()] += 1;
        tell(state, self.account, self.key, at, What::Left { shed: false });
        (self.row, self.account) = (state.place(account, &shard.bounds), account);
        state.rows[self.row as usize].1.moved[Direction::In.index()] += 1;
        tell(
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
        tell(state, self.account, self.key, at, What::Admitted);
    }

    /// Puts an emission into the batch.
    pub fn keep(&mut self, at: Timestamp, tokens: u32, limited: bool) {
        self.events += 1;
        self.counted += u64::from(tokens);
        let gap = match self.last.replace(at) {
            Some(last) => u64::try_from(at.since(last).as_nanos()).unwrap_or(u64::MAX),
            None => 0,
        };
        if let Some(journal) = &mut self.journal {
            journal.keep(EmissionRecord { gap, tokens, limited });
        }
        self.batch[usize::from(self.batched)] = PendingStamps { gap, tokens, limited };
        self.batched += 1;
    }

    pub fn shed(&mut self, shard: &Shard, state: &mut ShardState, reason: ShedReason, at: Timestamp) {
        if self.leave_unserved(state, QueueExit::Shed, at) {
            let stats = &mut state.rows[self.row as usize].1;
            stats.shed[self.priority.index()][reason.index()] += 1;
            stats.slo[Objective::Availability.index()][ObjectiveResult::Missed.index()] += 1;
            count(state, self.account, WindowEvent::Shed, at, 1);
            tell(state, self.account, self.key, at, What::Left { shed: reason.is_congestion() });
            self.write(shard, state, Written::Shed { reason });
        } else {
            let code = if self.status == 0 { CodeClass::Server5xx } else { CodeClass::of_status(self.status) };
            self.close(shard, state, EntryEnd { outcome: Outcome::Deadline, code, at, usage: None });
        }
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
        if let Some(backend) = state.backends.get_mut(usize::from(self.account.backend.0)) {
            backend.decoding += 1;
            self.delivered = backend.delivered;
        }
        self.flush(shard, state, at);
    }

    /// What is collected goes into the stats.
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
        let Some(backend) = state.backends.get_mut(usize::from(self.account.backend.0)) else { return };
        tell_emissions(&mut backend.buffer, self.key, self.last, batch);
        let overtaken = backend.delivered - self.delivered;
        backend.delivered = backend.delivered.saturating_add(u64::from(tokens));
        self.delivered = backend.delivered;
        let decoding = backend.decoding;
        // An event after a silence ends its batch, as the batch is over age then. Events before the silence may share the
        // batch, so what the others delivered in up to BATCH_AGE before it counts too: little against eight each.
        let after_silence =
            batch.last().is_some_and(|last| !last.limited && u128::from(last.gap) >= BATCH_AGE.as_nanos());
        if after_silence && overtaken > (OVERTAKEN_PER_STREAM * decoding).max(OVERTAKEN) {
            state.rows[self.row as usize].1.stalls += 1;
            if let Some(caption) = &mut self.caption {
                caption.stalls += 1;
            }
        }
    }

    pub fn close(&mut self, shard: &Shard, state: &mut ShardState, end: EntryEnd) {
        if !matches!(self.state, RecordStage::Prefill | RecordStage::Decode) {
            return self.abandon_in_queue(shard, state, end.at);
        }
        self.flush(shard, state, end.at);
        let decoding = std::mem::replace(&mut self.state, RecordStage::Closed) == RecordStage::Decode;
        (self.timeline.last_token, self.timeline.ended) = (self.last, Some(end.at));
        let phase = if decoding { Phase::Decode } else { Phase::Prefill };
        let stats = &mut state.rows[self.row as usize].1;
        stats.in_flight[phase.index()] -= 1;
        stats.pending -= u64::from(self.stream && !decoding);
        stats.finished[end.outcome.index()][end.code.index()] += 1;
        if end.outcome == Outcome::ClientCancelled {
            let phase = if decoding { AbandonPhase::Decode } else { AbandonPhase::Prefill };
            stats.abandoned[phase.index()] += 1;
        }
        let took = nanos(Some(end.at.since(self.timeline.arrived)));
        stats.duration[end.outcome.index()].record(took);
        if self.stream && !decoding {
            stats.without[NoTokenReason::of(end.outcome, end.code).index()] += 1;
        }
        for (histogram, spent) in stats.overhead.iter_mut().zip(self.overhead).filter(|(_, spent)| *spent > 0) {
            histogram.record(spent);
        }
        self.book_tokens(state, end);
        self.judge(shard.slo.now(), state, end);
        observe(state, self.account, LatencyKind::E2e, end.at, took, 1);
        if end.outcome == Outcome::Completed {
            count(state, self.account, WindowEvent::Completed, end.at, 1);
        }
        if let Some(backend) = state.backends.get_mut(usize::from(self.account.backend.0)).filter(|_| decoding) {
            backend.decoding -= 1;
        }
        let usage = end.usage.unwrap_or_default();
        let served = end.outcome == Outcome::Completed && end.code == CodeClass::Ok2xx;
        let what = What::Finished {
            completed: served,
            input: usage.input.map(short),
            output: usage.output.map(short),
            cached: usage.cached.map(short),
        };
        tell(state, self.account, self.key, end.at, what);
        self.write(shard, state, Written::Finished { outcome: end.outcome, code: end.code, usage: end.usage });
    }

    /// Totals by usage where it is believable, else by what was counted on the stream.
    fn book_tokens(&mut self, state: &mut ShardState, end: EntryEnd) {
        let usage = end.usage.unwrap_or_default();
        let reported = usage.output.filter(|output| *output >= self.events);
        let output = reported.unwrap_or(self.counted);
        let source = if reported.is_some() { TokenSource::Usage } else { TokenSource::Chunks };
        let stats = &mut state.rows[self.row as usize].1;
        std::mem::take(&mut self.gaps).observe(&mut stats.itl, self.counted, reported);
        let total = &mut stats.output_tokens[source.index()];
        *total = total.saturating_add(output);
        if output > 0 {
            stats.request_output.record(output);
        }
        if let Some(input) = usage.input {
            stats.input_tokens = stats.input_tokens.saturating_add(input);
            stats.request_input.record(input);
        }
        if let Some(tpot) = self.timeline.tpot(output) {
            stats.tpot.record(nanos(Some(tpot)));
        }
        // What was counted live is in the window already; the rest of what is reported comes with the end.
        let rest = u32::try_from(output.saturating_sub(self.counted)).unwrap_or(u32::MAX);
        count(state, self.account, WindowEvent::Tokens, end.at, rest);
    }

    /// The table "SLO judgement" of metrics.md section 4.
    fn judge(&self, slo: Slo, state: &mut ShardState, end: EntryEnd) {
        let served = end.outcome == Outcome::Completed && end.code == CodeClass::Ok2xx;
        let stats = &mut state.rows[self.row as usize].1;
        let mut verdict = |objective: Objective, met: bool| {
            let verdict = if met { ObjectiveResult::Met } else { ObjectiveResult::Missed };
            stats.slo[objective.index()][verdict.index()] += 1;
        };
        match (self.timeline.ttft(), end.outcome) {
            (_, Outcome::Deadline) => verdict(Objective::Ttft, false),
            (Some(ttft), _) => {
                if let Some(objective) = self.slo_ttft {
                    verdict(Objective::Ttft, ttft <= objective);
                }
            }
            (None, _) => {}
        }
        let tokens = end.usage.and_then(|usage| usage.output).unwrap_or(0).max(self.counted);
        if let Some(tpot) = self.timeline.tpot(tokens).filter(|_| served) {
            verdict(Objective::Itl, tpot <= slo.itl);
        }
        if served && tokens > 0 {
            let steps = u32::try_from(tokens - 1).unwrap_or(u32::MAX);
            let allowed = self.slo_ttft.unwrap_or(slo.ttft).saturating_add(slo.itl.saturating_mul(steps));
            verdict(Objective::E2e, end.at.since(self.timeline.arrived) <= allowed);
        }
        match end.outcome {
            Outcome::Completed if served => verdict(Objective::Availability, true),
            Outcome::Completed | Outcome::ClientCancelled => {}
            _ => verdict(Objective::Availability, false),
        }
    }

    fn abandon_in_queue(&mut self, shard: &Shard, state: &mut ShardState, at: Timestamp) {
        if self.leave_unserved(state, QueueExit::Abandoned, at) {
            state.rows[self.row as usize].1.abandoned[AbandonPhase::Queue.index()] += 1;
            tell(state, self.account, self.key, at, What::Left { shed: false });
            self.write(shard, state, Written::Abandoned);
        }
    }

    /// Queued => Closed. `false`: it was not queued, and nothing changed.
    fn leave_unserved(&mut self, state: &mut ShardState, exit: QueueExit, at: Timestamp) -> bool {
        if self.state != RecordStage::Queued {
            return false;
        }
        self.state = RecordStage::Closed;
        self.timeline.ended = Some(at);
        self.leave_queue(state);
        let waited = nanos(Some(at.since(self.timeline.arrived)));
        state.rows[self.row as usize].1.queue_wait[exit.index()].record(waited);
        true
    }

    fn write(&mut self, shard: &Shard, state: &mut ShardState, verdict: Written) {
        if let Some(caption) = self.caption.take() {
            caption.close(|caption| self.report(shard, caption, verdict));
        }
        let Some(journal) = self.journal.take() else { return };
        shard.journal(state, || JournalRecord {
            backend: (*shard.names.backend(self.account.backend)).into(),
            model: (*shard.names.model(self.account.model)).into(),
            priority: self.priority,
            timeline: self.timeline,
            status: self.status,
            dialect: journal.arrival.dialect.into(),
            stream: self.stream,
            opaque: self.opaque,
            prompt_tokens: journal.arrival.prompt_tokens,
            max_output: journal.arrival.max_output,
            choices: journal.arrival.choices,
            retries: journal.retries,
            overhead: self.overhead.map(|spent| (spent > 0).then_some(spent)),
            emissions: journal.emissions,
            truncated: journal.truncated,
            verdict,
        });
    }
}

impl RequestRecord {
    /// What is told of it, in words instead of indices.
    fn report(&self, shard: &Shard, caption: ReportContext, verdict: Written) -> RequestReport {
        let (closed, usage) = match verdict {
            Written::Shed { reason } => (Closed::Shed(reason), None),
            Written::Abandoned => (Closed::Abandoned, None),
            Written::Finished { outcome, usage, .. } => (Closed::Finished(outcome), usage),
        };
        let left = matches!(closed, Closed::Abandoned | Closed::Finished(Outcome::ClientCancelled));
        let status = match caption.told {
            _ if left => CLIENT_LEFT,
            0 => self.status,
            told => told,
        };
        let (stalls, retries) = (caption.stalls, caption.retries);
        let (request_id, span) = caption.into_names();
        RequestReport {
            request_id,
            span,
            backend_id: self.account.backend,
            backend: shard.names.backend(self.account.backend),
            model: shard.names.model(self.account.model),
            priority: self.priority,
            dialect: self.dialect,
            stream: self.stream && !self.assembled,
            status,
            closed,
            timeline: self.timeline,
            input_tokens: usage.and_then(|usage| usage.input),
            output_tokens: self.output(usage.unwrap_or_default()),
            stalls,
            retries,
        }
    }

    /// Tokens by usage where it is believable, else as counted.
    fn output(&self, usage: Usage) -> u64 {
        usage.output.filter(|output| *output >= self.events).unwrap_or(self.counted)
    }
}

impl Journalled {
    fn keep(&mut self, emission: EmissionRecord) {
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
    if let Some(backend) = state.backends.get_mut(usize::from(account.backend.0)).filter(|_| n > 0) {
        backend.window.count(event, at, n);
    }
}

/// A batch as samples: its gaps counted back from the last emission.
fn tell_emissions(buffer: &mut SampleBuffer, request: RequestKey, last: Option<Timestamp>, batch: &[PendingStamps]) {
    if !buffer.is_open() {
        return;
    }
    let since_first = batch.iter().skip(1).fold(0_u64, |sum, pending| sum.saturating_add(pending.gap));
    let mut at = last.unwrap_or_default() - Duration::from_nanos(since_first);
    buffer.put_emissions(batch.iter().enumerate().map(|(i, pending)| {
        at = at + Duration::from_nanos(if i == 0 { 0 } else { pending.gap });
        let what = What::Emission { tokens: pending.tokens, limited: pending.limited };
        Sample { at, request, what }
    }));
}

fn tell(state: &mut ShardState, account: Account, request: RequestKey, at: Timestamp, what: What) {
    if let Some(backend) = state.backends.get_mut(usize::from(account.backend.0)) {
        backend.buffer.put(Sample { at, request, what });
    }
}

fn short(tokens: u64) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

fn observe(state: &mut ShardState, account: Account, latency: LatencyKind, at: Timestamp, nanos: u64, n: u32) {
    if let Some(backend) = state.backends.get_mut(usize::from(account.backend.0)) {
        backend.window.observe(latency, at, nanos, n);
    }
}

fn nanos(span: Option<Duration>) -> u64 {
    span.map_or(0, |span| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
}

/// Emissions collected before one lock is taken for all of them.
pub(super) const BATCH: usize = 16;
/// A stream is flushed at its first event after this long, so what is read is never older than this or one event.
pub(super) const BATCH_AGE: Duration = Duration::from_millis(50);
/// A stream is overtaken when the backend delivered more than this between two of its events, and more than this many
/// tokens for each decoding stream (metrics.md, weir_stream_stalls_total).
const OVERTAKEN: u64 = 24;
const OVERTAKEN_PER_STREAM: u64 = 8;
/// Emissions kept for the journal.
const TRACE_LIMIT: usize = 100_000;
