//! A journal's records, replayed through `Entry` into the statistics that they came from.

use std::collections::BinaryHeap;
use std::time::Duration;

use super::account::Account;
use super::arrival::{Arrival, EntryEnd};
use super::entry::Entry;
use super::journal::{JournalRecord, JournalVerdict};
use super::ledger::Ledger;
use super::names::BackendNames;
use crate::vocabulary::outcome::{OverheadStage, RetryReason};
use crate::vocabulary::time::Timestamp;

/// The backends that `records` name, in the order of their first request, for a ledger to replay them into.
pub fn backends(records: &[JournalRecord]) -> Vec<BackendNames> {
    let mut backends: Vec<BackendNames> = Vec::new();
    for record in records {
        if !backends.iter().any(|known| *known.name == *record.backend) {
            backends.push(BackendNames { name: (*record.backend).into(), model_name: None });
        }
    }
    backends
}

/// Replays `records` into `ledger`, event by event in the order of time. A record of a backend that `ledger` does not know is left
/// out.
pub fn replay(records: &[JournalRecord], ledger: &Ledger) {
    let shard = ledger.shard(0);
    let accounts: Vec<Option<Account>> =
        records.iter().map(|record| ledger.account(&record.backend, &record.model)).collect();
    let mut entries: Vec<Option<Entry>> = records.iter().map(|_| None).collect();
    let mut due: BinaryHeap<QueuedEvent> =
        records.iter().enumerate().map(|(i, r)| QueuedEvent::new(r.timeline.arrived, i, 0)).collect();
    while let Some(JournalEvent { at, record: i, step }) = due.pop().map(|due| due.0.0) {
        let record = &records[i];
        let entry = &mut entries[i];
        match step {
            0 => {
                let Some(account) = accounts[i] else { continue };
                *entry = Some(Entry::offer(&shard, account, record.priority, arrival(record, ledger)));
            }
            1 => {
                if let Some(entry) = entry {
                    entry.admit(at);
                    record.open(entry);
                }
            }
            _ if step - 2 < record.emissions.len() => {
                let emission = record.emissions[step - 2];
                if let Some(entry) = entry {
                    entry.on_emission(at, emission.tokens, emission.limited);
                }
            }
            _ => {
                if let Some(entry) = entry.take() {
                    record.close(entry, at);
                }
                continue;
            }
        }
        let next = record.next(step, at);
        due.push(QueuedEvent::new(next.0, i, next.1));
    }
}

impl JournalRecord {
    /// The event behind `step`: 0 arrival, 1 admission, 2… emissions, then the end.
    fn next(&self, step: usize, at: Timestamp) -> (Timestamp, usize) {
        let end = (self.timeline.ended.unwrap_or(at).max(at), usize::MAX);
        match (step, self.timeline.admitted, self.timeline.first_token) {
            (0, Some(admitted), _) => (admitted, 1),
            (0, None, _) => end,
            (1, _, Some(first)) if !self.emissions.is_empty() => (first, 2),
            (2.., ..) if step - 1 < self.emissions.len() => {
                (at + Duration::from_nanos(self.emissions[step - 1].gap), step + 1)
            }
            _ => end,
        }
    }

    fn open(&self, entry: &mut Entry) {
        for reason in RetryReason::ALL {
            (0..self.retries[reason.index()]).for_each(|_| entry.retry(reason));
        }
        for stage in OverheadStage::ALL {
            if let Some(spent) = self.overhead[stage.index()] {
                entry.on_overhead(stage, Duration::from_nanos(spent));
            }
        }
        if let Some(at) = self.timeline.first_byte {
            entry.on_first_byte(at);
        }
        if let Some(at) = self.timeline.head {
            entry.on_head(at, self.status);
        }
        if self.opaque {
            entry.on_unstreamed(true);
        }
    }

    fn close(&self, entry: Entry, at: Timestamp) {
        match self.verdict {
            JournalVerdict::Shed { reason } => entry.shed(reason, at),
            JournalVerdict::Abandoned => entry.abandon(at),
            JournalVerdict::Finished { outcome, code, usage } => entry.finish(EntryEnd { outcome, code, at, usage }),
        }
    }
}

fn arrival(record: &JournalRecord, ledger: &Ledger) -> Arrival {
    Arrival {
        at: record.timeline.arrived,
        stream: record.stream,
        assembled: false,
        trace: true,
        dialect: "replayed",
        prompt_tokens: record.prompt_tokens,
        max_output: record.max_output,
        choices: record.choices,
        slo_ttft: Some(ledger.slo().ttft),
    }
}

/// An event of a record, earliest first in a `BinaryHeap`.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct QueuedEvent(std::cmp::Reverse<JournalEvent>);

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct JournalEvent {
    at: Timestamp,
    record: usize,
    step: usize,
}

impl QueuedEvent {
    fn new(at: Timestamp, record: usize, step: usize) -> Self {
        Self(std::cmp::Reverse(JournalEvent { at, record, step }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::BucketSettings;
    use super::super::journal::JournalLine;
    use super::*;
    use crate::vocabulary::backend_id::BackendId;
    use crate::vocabulary::class::Class;
    use crate::vocabulary::outcome::{CodeClass, Outcome};
    use crate::vocabulary::shed_reason::ShedReason;
    use crate::vocabulary::slo::Slo;
    use crate::vocabulary::usage::Usage;
    use proptest::prelude::*;
    use std::sync::Arc;
    use std::sync::mpsc::sync_channel;

    fn ledger(journal: Option<std::sync::mpsc::SyncSender<JournalLine>>) -> Arc<Ledger> {
        let names = [BackendNames { name: "gpu-0".into(), model_name: Some("m".into()) }];
        Ledger::new(1, &names, Slo::default(), BucketSettings::default(), journal)
    }

    fn one(ledger: &Ledger, start: u64, gaps: &[(u64, u32, bool)], ending: u8) {
        let account = Account { backend: BackendId(0), model: ledger.model(BackendId(0), None) };
        let at = |ns: u64| Timestamp::from_nanos(ns);
        let arrival = Arrival {
            at: at(start),
            stream: true,
            assembled: false,
            trace: true,
            dialect: "openai.chat",
            prompt_tokens: Some(3),
            max_output: Some(9),
            choices: 1,
            slo_ttft: Some(Slo::default().ttft),
        };
        let mut entry = Entry::offer(&ledger.shard(0), account, Class::Default, arrival);
        let mut now = start + 10;
        match ending {
            0 => return entry.shed(ShedReason::NoBackend, at(now)),
            1 => return entry.abandon(at(now)),
            _ => entry.admit(at(now)),
        }
        entry.on_first_byte(at(now + 1));
        entry.on_head(at(now + 2), 200);
        for (gap, tokens, limited) in gaps {
            now += gap;
            entry.on_emission(at(now), *tokens, *limited);
        }
        let outcome = Outcome::ALL[usize::from(ending) % Outcome::COUNT];
        let tokens: u64 = gaps.iter().map(|(_, tokens, _)| u64::from(*tokens)).sum();
        let usage =
            ending.is_multiple_of(2).then_some(Usage { input: Some(5), output: Some(tokens * 2), cached: None });
        entry.finish(EntryEnd { outcome, code: CodeClass::Ok2xx, at: at(now + 7), usage });
    }

    fn requests_of(lines: Vec<JournalLine>) -> Vec<JournalRecord> {
        let request = |line| if let JournalLine::Request(record) = line { Some(*record) } else { None };
        lines.into_iter().filter_map(request).collect()
    }

    proptest! {
        #[test]
        fn a_replayed_journal_gives_the_same_statistics(requests in prop::collection::vec(
            (0_u64..5_000_000_000, prop::collection::vec((1_u64..300_000_000, 1_u32..4, any::<bool>()), 0..40), 0_u8..9), 1..20)) {
            let (sink, records) = sync_channel(100);
            let first = ledger(Some(sink));
            for (start, gaps, ending) in &requests {
                one(&first, *start, gaps, *ending);
            }
            let now = Timestamp::from_nanos(30_000_000_000);
            let lines: Vec<JournalLine> = records.try_iter().collect();
            let read: Vec<JournalLine> =
                lines.iter().map(|line| serde_json::from_str(&serde_json::to_string(line).unwrap()).unwrap()).collect();
            let (records, read) = (requests_of(lines), requests_of(read));
            prop_assert_eq!(records.len(), requests.len());
            prop_assert_eq!(&read, &records);
            let second = Ledger::new(1, &backends(&read), Slo::default(), BucketSettings::default(), None);
            replay(&read, &second);
            let (mut want, mut got) = (first.snapshot(now), second.snapshot(now));
            // Stalls depend on the order of events among requests, which this test does not keep.
            want.accounts.iter_mut().chain(&mut got.accounts).for_each(|account| account.stats.stalls = 0);
            prop_assert_eq!(want.accounts, got.accounts);
        }
    }

    #[test]
    fn a_state_transition_is_a_line_of_its_own() {
        let text = r#"{"transition":{"backend":"gpu-0","at":5,"from":"healthy","to":"saturated","reason":"x"}}"#;
        let line: JournalLine = serde_json::from_str(text).unwrap();
        assert!(matches!(&line, JournalLine::Transition { transition } if transition.to == "saturated"));
        assert_eq!(serde_json::to_string(&line).unwrap(), text);
        assert!(serde_json::from_str::<JournalRecord>(text).is_err());
    }

    #[test]
    fn a_record_of_an_unknown_backend_is_left_out() {
        let (sink, records) = sync_channel(1);
        one(&ledger(Some(sink)), 0, &[], 2);
        let mut records: Vec<JournalRecord> = requests_of(records.try_iter().collect());
        let line = serde_json::to_value(&records[0]).unwrap();
        assert_eq!((line["backend"].as_str(), line["model"].as_str()), (Some("gpu-0"), Some("m")));
        records[0].backend = "gpu-9".into();
        let ledger = ledger(None);
        replay(&records, &ledger);
        assert_eq!(ledger.snapshot(Timestamp::ZERO).accounts.iter().map(|account| account.offered()).sum::<u64>(), 0);
    }

    #[test]
    fn a_full_journal_never_blocks_and_counts_its_losses() {
        let (sink, _records) = sync_channel(1);
        let ledger = ledger(Some(sink));
        (0..5).for_each(|i| one(&ledger, i, &[], 2));
        assert_eq!(ledger.snapshot(Timestamp::ZERO).unjournalled, 4);
    }
}
