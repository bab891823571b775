//! One request's entry in the statistics: a guard whose every method is one transition.
//!
//! Queued => InFlight(prefill => decode) => closed. Dropping an entry that was not closed closes it: as abandoned in the
//! queue before dispatch, as the backend's error after it, and it is counted, because only a panic or a cancelled task
//! does that. Emissions are collected in the entry's record and reach the shard in batches, the first token at once.

use std::sync::Arc;
use std::time::Duration;

use super::account::Account;
use super::arrival::{Arrival, EntryEnd};
use super::record::{BATCH, BATCH_AGE, RecordStage, RequestRecord};
use super::report::ReportContext;
use super::shard::Shard;
use crate::vocabulary::bad_answer::BadAnswer;
use crate::vocabulary::class::Class;
use crate::vocabulary::outcome::{CodeClass, Outcome, OverheadStage, RetryReason};
use crate::vocabulary::shed_reason::ShedReason;
use crate::vocabulary::time::Timestamp;

/// A request in the statistics, until one of its ends consumes it.
///
/// The shard is a field apart from the record, so that a transition holds the shard's lock while it changes the record; and the
/// record is boxed, because an entry moves several times before the first byte of a request leaves.
pub struct Entry {
    shard: Arc<Shard>,
    record: Box<RequestRecord>,
}

impl Entry {
    /// A request has arrived.
    pub fn offer(shard: &Arc<Shard>, account: Account, priority: Class, arrival: Arrival) -> Self {
        let mut state = shard.lock();
        let record = RequestRecord::open(shard, &mut state, account, priority, arrival);
        record.enter_queue(&mut state);
        drop(state);
        Self { shard: shard.clone(), record }
    }

    /// A request has arrived and is dispatched at `at` without waiting: `offer` and `admit` in one step.
    pub fn admitted(shard: &Arc<Shard>, account: Account, priority: Class, arrival: Arrival, at: Timestamp) -> Self {
        let mut state = shard.lock();
        let mut record = RequestRecord::open(shard, &mut state, account, priority, arrival);
        record.admit(&mut state, at);
        drop(state);
        Self { shard: shard.clone(), record }
    }

    /// Queued => InFlight: dispatched at `at`.
    pub fn admit(&mut self, at: Timestamp) {
        if self.record.state != RecordStage::Queued {
            return;
        }
        let mut state = self.shard.lock();
        self.record.leave_queue(&mut state);
        self.record.admit(&mut state, at);
    }

    /// Another backend takes it over from the queue. The sum over all backends stays the same.
    pub fn move_to(&mut self, account: Account, at: Timestamp) {
        if self.record.state == RecordStage::Queued && account != self.record.account {
            self.record.move_to(&self.shard, &mut self.shard.lock(), account, at);
        }
    }

    /// The account that counts it.
    pub fn account(&self) -> Account {
        self.record.account
    }

    /// The first byte of the answer has arrived.
    pub fn on_first_byte(&mut self, at: Timestamp) {
        self.record.timeline.first_byte.get_or_insert(at);
    }

    /// The final head has arrived.
    pub fn on_head(&mut self, at: Timestamp, status: u16) {
        self.record.timeline.head.get_or_insert(at);
        self.record.status = status;
    }

    /// The engine does not stream this answer, or (`opaque`) streams it in a coding that is not read: no first token will be seen.
    pub fn on_unstreamed(&mut self, opaque: bool) {
        let record = &mut *self.record;
        let was_pending = std::mem::take(&mut record.stream) && record.state == RecordStage::Prefill;
        record.opaque |= opaque;
        if was_pending || opaque {
            let stats = &mut self.shard.lock().rows[record.row as usize].1;
            stats.pending -= u64::from(was_pending);
            stats.opaque += u64::from(opaque);
        }
    }

    /// A content event of `tokens` tokens. `limited`: its gap was stretched by a client that took nothing.
    ///
    /// Nothing is counted of an answer that is not 2xx, nor before dispatch: such events are no tokens.
    pub fn on_emission(&mut self, at: Timestamp, tokens: u32, limited: bool) {
        let record = &mut *self.record;
        if !matches!(record.state, RecordStage::Prefill | RecordStage::Decode)
            || !matches!(record.status, 0 | 200..=299)
        {
            return;
        }
        record.push(at, tokens, limited);
        if record.state == RecordStage::Prefill {
            record.on_first_token(&self.shard, &mut self.shard.lock(), at);
        } else if usize::from(record.batched) == BATCH || at.since(record.flushed) >= BATCH_AGE {
            record.flush(&self.shard, &mut self.shard.lock(), at);
        }
    }

    /// The request's end is to be reported.
    pub fn set_report(&mut self, context: Option<Box<ReportContext>>) {
        if context.is_some() {
            self.record.context = context;
        }
    }

    /// The client gets `status`, which the report says.
    pub fn set_client_status(&mut self, status: u16) {
        if let Some(context) = &mut self.record.context {
            context.client_status = status;
        }
    }

    /// The backend's answer broke a rule, for the report.
    pub fn on_bad_answer(&mut self, cause: BadAnswer) {
        if let Some(context) = &mut self.record.context {
            context.bad_answer = Some(cause);
        }
    }

    /// The request went out once more.
    pub fn retry(&mut self, reason: RetryReason) {
        if let Some(context) = &mut self.record.context {
            context.retries += 1;
        }
        if let Some(journal) = &mut self.record.journal {
            journal.retries[reason.index()] += 1;
        }
        self.shard.lock().rows[self.record.row as usize].1.retries[reason.index()] += 1;
    }

    /// weir's own work took `spent`; counted at the end.
    pub fn on_overhead(&mut self, stage: OverheadStage, spent: Duration) {
        self.record.overhead[stage.index()] = u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX).max(1);
    }

    /// Queued => closed: refused. After dispatch it is a late abort, because nothing is refused then.
    pub fn shed(mut self, reason: ShedReason, at: Timestamp) {
        self.record.shed(&self.shard, &mut self.shard.lock(), reason, at);
    }

    /// Queued or InFlight => closed: the client left. After dispatch that is a cancellation.
    pub fn abandon(mut self, at: Timestamp) {
        let code = CodeClass::of_status(self.record.status);
        let end = EntryEnd { outcome: Outcome::ClientCancelled, code, at, usage: None };
        self.record.close(&self.shard, &mut self.shard.lock(), end);
    }

    /// InFlight => closed.
    pub fn finish(mut self, end: EntryEnd) {
        self.record.close(&self.shard, &mut self.shard.lock(), end);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let record = &mut *self.record;
        if record.state == RecordStage::Closed {
            return;
        }
        let mut state = self.shard.lock();
        state.dropped += 1;
        // The last stamp there is: a dropped guard has no clock.
        let at = record.last.or(record.timeline.admitted).unwrap_or(record.timeline.arrived);
        let code = CodeClass::of_status(record.status);
        record.close(&self.shard, &mut state, EntryEnd { outcome: Outcome::UpstreamError, code, at, usage: None });
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::What;
    use super::super::{BackendNames, BucketSettings, Ledger, Snapshot};
    use super::*;
    use crate::measure::sample_buffer::SampleBuffer;
    use crate::vocabulary::backend_id::BackendId;
    use crate::vocabulary::outcome::{AbandonPhase, Objective};
    use crate::vocabulary::slo::Slo;
    use crate::vocabulary::usage::Usage;
    use proptest::prelude::*;

    fn ledger() -> Arc<Ledger> {
        let names = [BackendNames { name: "gpu-0".into(), model_name: None }];
        Ledger::new(2, &names, Slo::default(), BucketSettings::default(), None)
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_millis(ms)
    }

    fn arrival(now: Timestamp) -> Arrival {
        Arrival {
            at: now,
            stream: true,
            assembled: false,
            trace: false,
            dialect: "openai.chat",
            prompt_tokens: Some(10),
            max_output: None,
            choices: 1,
            slo_ttft: Some(Slo::default().ttft),
        }
    }

    fn account(ledger: &Ledger) -> Account {
        Account { backend: BackendId(0), model: ledger.model(BackendId(0), Some("m")) }
    }

    fn offer(ledger: &Ledger, now: Timestamp) -> Entry {
        Entry::offer(&ledger.shard(0), account(ledger), Class::Default, arrival(now))
    }

    fn end(outcome: Outcome, at: Timestamp, output: Option<u64>) -> EntryEnd {
        let usage = output.map(|output| Usage { input: Some(7), output: Some(output), cached: None });
        EntryEnd { outcome, code: CodeClass::Ok2xx, at, usage }
    }

    fn only(snapshot: &Snapshot) -> &super::super::AccountStats {
        snapshot.check().unwrap();
        &snapshot.accounts[0].stats
    }

    #[test]
    fn admitted_at_once_equals_offered_and_then_admitted() {
        let (stepwise, at_once) = (ledger(), ledger());
        samples(&stepwise);
        samples(&at_once);
        let mut one = offer(&stepwise, at(1000));
        one.admit(at(1007));
        let other = Entry::admitted(&at_once.shard(0), account(&at_once), Class::Default, arrival(at(1000)), at(1007));
        for entry in [one, other] {
            let mut entry = entry;
            entry.on_overhead(OverheadStage::Request, Duration::from_micros(30));
            entry.on_emission(at(1100), 1, false);
            entry.finish(end(Outcome::Completed, at(1200), None));
        }
        let (stepwise_stats, at_once_stats) = (stepwise.snapshot(at(2000)), at_once.snapshot(at(2000)));
        assert_eq!(only(&stepwise_stats), only(&at_once_stats));
        assert_eq!(only(&at_once_stats).overhead[OverheadStage::Request.index()].sum(), 30_000);
        assert_eq!(samples(&stepwise), samples(&at_once));
    }

    #[test]
    fn a_streamed_request_counts_as_computed_by_hand() {
        let ledger = ledger();
        let mut entry = offer(&ledger, at(1000));
        entry.admit(at(1000));
        entry.on_first_byte(at(1080));
        entry.on_head(at(1080), 200);
        entry.on_emission(at(1090), 1, false);
        let snapshot = ledger.snapshot(at(1090));
        let stats = only(&snapshot);
        assert_eq!((stats.in_flight, stats.pending), ([0, 1], 0), "the first token is seen at once");
        entry.on_emission(at(1100), 1, false);
        entry.on_emission(at(1130), 2, false);
        entry.finish(end(Outcome::Completed, at(1140), Some(4)));
        let snapshot = ledger.snapshot(at(1140));
        let stats = only(&snapshot);
        assert_eq!(stats.finished(Outcome::Completed), 1);
        assert_eq!((stats.ttft[1].sum(), stats.upstream_ttft.sum()), (90_000_000, 90_000_000));
        assert_eq!((stats.itl.count(), stats.itl.sum()), (3, 40_000_000), "10 ms once, 15 ms twice");
        assert_eq!((stats.gap.count(), stats.gap.sum()), (2, 40_000_000));
        assert_eq!(stats.tpot.sum(), 13_333_333, "(1130 - 1090) / 3");
        assert_eq!((stats.output_tokens, stats.input_tokens, stats.chunks), ([4, 0], 7, 3));
        assert_eq!(stats.slo[Objective::Ttft.index()], [1, 0]);
    }

    #[test]
    fn gaps_stretched_by_a_client_are_counted_apart() {
        let ledger = ledger();
        let mut entry = offer(&ledger, at(0));
        entry.admit(at(0));
        entry.on_emission(at(10), 1, false);
        entry.on_emission(at(5000), 1, true);
        entry.on_emission(at(5010), 1, false);
        entry.finish(end(Outcome::Completed, at(5020), None));
        let snapshot = ledger.snapshot(at(5020));
        let stats = only(&snapshot);
        assert_eq!((stats.itl.count(), stats.itl.sum(), stats.limited_gaps), (1, 10_000_000, 1));
        assert_eq!(stats.output_tokens, [0, 3]);
    }

    #[test]
    fn a_drop_closes_the_entry_in_every_state() {
        let ledger = ledger();
        drop(offer(&ledger, at(0)));
        let mut entry = offer(&ledger, at(1));
        entry.admit(at(1));
        drop(entry);
        let mut entry = offer(&ledger, at(2));
        entry.admit(at(2));
        entry.on_emission(at(3), 1, false);
        drop(entry);
        let snapshot = ledger.snapshot(at(4));
        let stats = only(&snapshot);
        assert_eq!(stats.abandoned[AbandonPhase::Queue.index()], 1);
        assert_eq!(stats.finished(Outcome::UpstreamError), 2);
        assert_eq!(snapshot.dropped, 3);
        let mut ended = offer(&ledger, at(5));
        ended.admit(at(5));
        ended.finish(end(Outcome::Completed, at(6), None));
        assert_eq!(ledger.snapshot(at(6)).dropped, 3, "an explicit end is no drop");
    }

    #[test]
    fn a_shed_after_dispatch_is_a_late_abort_and_no_drop() {
        let ledger = ledger();
        let mut entry = offer(&ledger, at(0));
        entry.admit(at(1));
        entry.shed(ShedReason::Saturated, at(5));
        offer(&ledger, at(6)).shed(ShedReason::Saturated, at(7));
        let snapshot = ledger.snapshot(at(8));
        let stats = only(&snapshot);
        assert_eq!((stats.finished(Outcome::Deadline), snapshot.dropped), (1, 0));
        assert_eq!(stats.shed.iter().flatten().sum::<u64>(), 1, "the other one was queued and is shed");
    }

    #[test]
    fn an_opaque_answer_is_neither_pending_nor_without_token() {
        let ledger = ledger();
        for opaque in [true, false] {
            let mut entry = offer(&ledger, at(0));
            entry.admit(at(0));
            assert_eq!(only(&ledger.snapshot(at(1))).pending, 1);
            entry.on_unstreamed(opaque);
            entry.on_unstreamed(false);
            assert_eq!(only(&ledger.snapshot(at(1))).pending, 0);
            entry.finish(end(Outcome::Completed, at(2), None));
        }
        let snapshot = ledger.snapshot(at(3));
        let stats = only(&snapshot);
        assert_eq!((stats.opaque, stats.without.iter().sum::<u64>(), stats.pending), (1, 0, 0));
    }

    #[test]
    fn an_overtaken_stream_stalls_and_a_slow_engine_does_not() {
        let ledger = ledger();
        let mut silent = offer(&ledger, at(0));
        silent.admit(at(0));
        silent.on_emission(at(10), 1, false);
        silent.on_emission(at(1000), 1, false);
        assert_eq!(only(&ledger.snapshot(at(1000))).stalls, 0, "no other stream was served meanwhile");
        let mut busy = offer(&ledger, at(0));
        busy.admit(at(0));
        for i in 0..100 {
            busy.on_emission(at(1000 + i * 10), 1, false);
        }
        silent.on_emission(at(2000), 1, false);
        assert_eq!(only(&ledger.snapshot(at(2000))).stalls, 1);
    }

    /// Samples in the first shard's buffer: stamp in milliseconds, key, event.
    fn samples(ledger: &Ledger) -> Vec<(u64, u64, What)> {
        let mut buffers = [SampleBuffer::default()];
        ledger.shard(0).drain_samples(&mut buffers);
        assert_eq!(buffers[0].lost, 0);
        buffers[0].samples.iter().map(|s| (s.at.as_nanos() / 1_000_000, s.request.0, s.what)).collect()
    }

    #[test]
    fn every_sample_has_the_stamp_of_its_transition() {
        let ledger = ledger();
        samples(&ledger);
        let mut entry = offer(&ledger, at(1000));
        entry.admit(at(1010));
        entry.on_emission(at(1100), 1, false);
        entry.on_emission(at(1110), 1, false);
        entry.on_emission(at(1125), 3, true);
        let offered = What::Offered { prompt: Some(10), stream: true, priority: Class::Default };
        let token = |tokens, limited| What::Emission { tokens, limited };
        assert_eq!(
            samples(&ledger),
            [(1000, 1, offered), (1010, 1, What::Admitted), (1100, 1, token(1, false))],
            "two emissions are still with the entry"
        );
        entry.on_emission(at(1150), 1, false);
        assert_eq!(
            samples(&ledger),
            [(1110, 1, token(1, false)), (1125, 1, token(3, true)), (1150, 1, token(1, false))]
        );
        entry.on_emission(at(1160), 1, false);
        entry.finish(end(Outcome::Completed, at(1170), Some(7)));
        let finished = What::Finished { completed: true, input: Some(7), output: Some(7), cached: None };
        assert_eq!(samples(&ledger), [(1160, 1, token(1, false)), (1170, 1, finished)]);
    }

    #[test]
    fn only_congestion_is_sampled_as_shed() {
        let ledger = ledger();
        samples(&ledger);
        offer(&ledger, at(0)).shed(ShedReason::QueueFull, at(1));
        offer(&ledger, at(0)).shed(ShedReason::NoBackend, at(1));
        offer(&ledger, at(0)).abandon(at(1));
        let mut broken = offer(&ledger, at(0));
        broken.admit(at(0));
        drop(broken);
        let ends =
            samples(&ledger).into_iter().filter(|(_, _, what)| !matches!(what, What::Offered { .. } | What::Admitted));
        let unserved = What::Finished { completed: false, input: None, output: None, cached: None };
        assert_eq!(
            ends.map(|(_, key, what)| (key, what)).collect::<Vec<_>>(),
            [
                (1, What::Left { shed: true }),
                (2, What::Left { shed: false }),
                (3, What::Left { shed: false }),
                (4, unserved)
            ]
        );
    }

    #[test]
    fn keys_differ_between_shards() {
        let ledger = ledger();
        let account = account(&ledger);
        let entries = [0, 1].map(|i| Entry::offer(&ledger.shard(i), account, Class::Default, arrival(at(0))));
        assert_ne!(entries[0].record.key, entries[1].record.key);
    }

    #[test]
    fn an_unstreamed_answer_counts_usage_and_no_first_token() {
        let ledger = ledger();
        let mut entry = offer(&ledger, at(0));
        entry.record.stream = false;
        entry.admit(at(0));
        entry.finish(end(Outcome::Completed, at(50), Some(9)));
        let snapshot = ledger.snapshot(at(50));
        let stats = only(&snapshot);
        assert_eq!((stats.output_tokens, stats.ttft[0].count(), stats.tpot.count()), ([9, 0], 0, 0));
        assert_eq!(stats.without.iter().sum::<u64>(), 0);
    }

    proptest! {
        #[test]
        fn the_identities_hold_after_every_transition(ops in prop::collection::vec((0_u8..9, any::<prop::sample::Index>()), 1..200)) {
            let ledger = ledger();
            let mut open: Vec<Entry> = Vec::new();
            for (i, (op, which)) in ops.into_iter().enumerate() {
                let now = at(i as u64 * 7);
                if op <= 2 || open.is_empty() {
                    open.push(offer(&ledger, now));
                } else {
                    let i = which.index(open.len());
                    match op {
                        3 => open[i].admit(now),
                        4 => if open[i].record.state != RecordStage::Queued { open[i].on_emission(now, 2, false) },
                        5 => drop(open.swap_remove(i)),
                        6 => open.swap_remove(i).shed(ShedReason::QueueFull, now),
                        7 => open.swap_remove(i).abandon(now),
                        _ => open.swap_remove(i).finish(end(Outcome::ClientCancelled, now, None)),
                    }
                }
                let checked = ledger.snapshot(now).check();
                prop_assert!(checked.is_ok(), "{:?}", checked);
            }
            drop(open);
            let snapshot = ledger.snapshot(at(10_000));
            prop_assert!(snapshot.check().is_ok());
            prop_assert_eq!(snapshot.accounts[0].in_flight(), 0);
            prop_assert_eq!(snapshot.accounts[0].oldest_queued, None);
        }
    }

    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<Entry>() <= 640, "{}", size_of::<Entry>());
    }
}
