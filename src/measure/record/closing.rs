//! The end of a request's record: the last transition, its verdicts and token totals, its journal record and its report.

use super::{RecordStage, RequestRecord, count, nanos, observe, record_sample, short};
use crate::measure::arrival::EntryEnd;
use crate::measure::journal::{JournalRecord, JournalVerdict};
use crate::measure::report::{CLIENT_LEFT, Closed, ReportContext, RequestReport};
use crate::measure::sample::What;
use crate::measure::shard::{Shard, ShardState};
use crate::measure::window::{LatencyKind, WindowEvent};
use crate::vocabulary::outcome::{
    AbandonPhase, CodeClass, NoTokenReason, Objective, ObjectiveResult, Outcome, Phase, QueueExit, TokenSource,
};
use crate::vocabulary::shed_reason::ShedReason;
use crate::vocabulary::slo::Slo;
use crate::vocabulary::time::Timestamp;
use crate::vocabulary::usage::Usage;

impl RequestRecord {
    pub fn shed(&mut self, shard: &Shard, state: &mut ShardState, reason: ShedReason, at: Timestamp) {
        if self.leave_unserved(state, QueueExit::Shed, at) {
            let stats = &mut state.rows[self.row as usize].1;
            stats.shed[self.priority.index()][reason.index()] += 1;
            stats.slo[Objective::Availability.index()][ObjectiveResult::Missed.index()] += 1;
            count(state, self.account, WindowEvent::Shed, at, 1);
            record_sample(state, self.account, self.key, at, What::Left { shed: reason.is_congestion() });
            self.write(shard, state, JournalVerdict::Shed { reason });
        } else {
            let code = if self.status == 0 { CodeClass::Server5xx } else { CodeClass::of_status(self.status) };
            self.close(shard, state, EntryEnd { outcome: Outcome::Deadline, code, at, usage: None });
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
        self.count_tokens(state, end);
        self.judge(shard.slo.now(), state, end);
        observe(state, self.account, LatencyKind::E2e, end.at, took, 1);
        if end.outcome == Outcome::Completed {
            count(state, self.account, WindowEvent::Completed, end.at, 1);
        }
        if let Some(backend) = state.backends.get_mut(self.account.backend.index()).filter(|_| decoding) {
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
        record_sample(state, self.account, self.key, end.at, what);
        self.write(shard, state, JournalVerdict::Finished { outcome: end.outcome, code: end.code, usage: end.usage });
    }

    /// Totals by usage where it is plausible, else by the tokens counted on the stream.
    fn count_tokens(&mut self, state: &mut ShardState, end: EntryEnd) {
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
        // Tokens counted on the stream are in the window already; the rest of the reported ones follow with the end.
        let rest = u32::try_from(output.saturating_sub(self.counted)).unwrap_or(u32::MAX);
        count(state, self.account, WindowEvent::Tokens, end.at, rest);
    }

    /// The SLO verdicts of docs/operate/metrics.md.
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
            record_sample(state, self.account, self.key, at, What::Left { shed: false });
            self.write(shard, state, JournalVerdict::Abandoned);
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

    fn write(&mut self, shard: &Shard, state: &mut ShardState, verdict: JournalVerdict) {
        if let Some(context) = self.context.take() {
            context.close(|context| self.report(shard, context, verdict));
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

    fn report(&self, shard: &Shard, context: ReportContext, verdict: JournalVerdict) -> RequestReport {
        let (closed, usage) = match verdict {
            JournalVerdict::Shed { reason } => (Closed::Shed(reason), None),
            JournalVerdict::Abandoned => (Closed::Abandoned, None),
            JournalVerdict::Finished { outcome, usage, .. } => (Closed::Finished(outcome), usage),
        };
        let left = matches!(closed, Closed::Abandoned | Closed::Finished(Outcome::ClientCancelled));
        let status = match context.client_status {
            _ if left => CLIENT_LEFT,
            0 => self.status,
            sent => sent,
        };
        let (stalls, retries, bad_answer) = (context.stalls, context.retries, context.bad_answer);
        let (request_id, span) = context.into_names();
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
            bad_answer,
        }
    }

    /// Tokens by usage where it is plausible, else as counted.
    fn output(&self, usage: Usage) -> u64 {
        usage.output.filter(|output| *output >= self.events).unwrap_or(self.counted)
    }
}
