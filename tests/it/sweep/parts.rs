//! Parts of a sweep put together: however the requests of a run are dealt out, the sum is the run.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use weir::load::record::{FailureKind, LoadOutcome, LoadRecord};
use weir::load::summary::LevelSummary;
use weir::load::times::LevelTimes;
use weir::load::workload::Workload;
use weir::offline::sweep::{Environment, Objectives};
use weir::sweep::parts::{LevelNotes, PartFile, PartFolder, PartLevel, SweepPart, merge};
use weir::vocabulary::slo::Slo;
use weir::vocabulary::time::Timestamp;

use super::{said, sweep};

const RATE: f64 = 12.0;
const SLO: f64 = 0.2;

/// What a request did: gap to the one before, lateness, wait, gaps of its tokens (all in microseconds) and how it ended.
type Lived = (u64, u64, u64, Vec<(u64, u32)>, u8);

fn lived() -> impl Strategy<Value = Lived> {
    (1u64..200_000, 0u64..2_000, 1u64..3_000_000, prop::collection::vec((1u64..90_000, 1u32..4), 0..12), 0u8..7)
}

fn records(lives: Vec<Lived>) -> Vec<LoadRecord> {
    let mut at = 10_000_000;
    let of = |(id, (gap, late, wait, tokens, end)): (u64, Lived)| {
        at += gap;
        let micros = |micros: u64| Timestamp::from_nanos(1_000 * micros);
        let mut record = LoadRecord::offered(&Workload::default().draw(id), micros(at));
        record.sent = Some(micros(at + late));
        let mut now = at + late + wait;
        if end > 1 {
            record.on_emission(micros(now), 1, true);
            for (gap, n) in tokens {
                now += gap;
                record.on_emission(micros(now), n, true);
            }
        }
        record.end = micros(now + 7);
        record.outcome = match end {
            0 => LoadOutcome::Shed { status: 429, retry_after: Some(Duration::from_secs(2)) },
            1 => LoadOutcome::Error(FailureKind::Connect),
            2 => LoadOutcome::Unfinished,
            _ => LoadOutcome::Completed,
        };
        record.output_usage = (end > 4).then_some(record.counted_tokens);
        record
    };
    (0..).zip(lives).map(of).collect()
}

/// A part whose clock was started so many microseconds after the first one's; its folder keeps no gaps.
fn part(index: u32, of: u32, late: u64, own: Vec<LoadRecord>) -> PartFolder {
    let histograms = LevelTimes::of(&own);
    let earlier = |at: Timestamp| at - Duration::from_micros(late);
    let on_own_clock = |(id, mut record): (u64, LoadRecord)| {
        record.id = id;
        record.gaps.clear();
        record.intended = earlier(record.intended);
        record.end = earlier(record.end);
        for at in [&mut record.sent, &mut record.first_byte, &mut record.first_token, &mut record.last_token] {
            *at = at.map(earlier);
        }
        record
    };
    let kept = LevelNotes { number: 1, began_unix_us: 1_700_000_000_000_000 + late, histograms };
    // Over a file and back, as it is outside of tests.
    let kept = serde_json::from_str(&serde_json::to_string(&kept).unwrap()).unwrap();
    let file = PartFile {
        environment: Environment { command: Some("weir sweep".to_owned()), ..Environment::default() },
        slo: Some(Objectives { ttft: SLO, itl: None }),
        part: SweepPart { index, of, loads: vec![RATE], closed: false },
        levels: vec![PartLevel { kept, client_limited: false }],
    };
    let own = (0..).zip(own).map(on_own_clock).collect();
    PartFolder { name: format!("part-{index}"), file, requests: BTreeMap::from([(1, own)]) }
}

/// Deals the records out, the clock of part i being i x `late` behind.
fn dealt(records: &[LoadRecord], to: &[u32], of: u32, late: u64) -> Vec<PartFolder> {
    let own = |index: u32| {
        let mine = records.iter().zip(to.iter().cycle()).filter(|(_, to)| **to % of == index);
        mine.map(|(record, _)| record.clone()).collect()
    };
    (0..of).map(|index| part(index, of, u64::from(index) * late, own(index))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn merged_parts_are_the_single_run(
        lives in prop::collection::vec(lived(), 1..120),
        to in prop::collection::vec(0u32..64, 1..120),
        of in 1u32..7,
        late in 0u64..150_000,
        backwards in any::<bool>(),
    ) {
        let records = records(lives);
        let mut folders = dealt(&records, &to, of, late);
        if backwards {
            folders.reverse();
        }
        let (merged, problems) = merge(folders);
        prop_assert_eq!(&problems, &vec![]);
        let level = &merged[0].levels[0];
        let single = LevelTimes::of(&records);
        prop_assert_eq!(&level.kept.histograms, &single);
        prop_assert_eq!(level.kept.histograms.itl.buckets(), single.itl.buckets());
        let slo = Slo { ttft: Duration::from_secs_f64(SLO), itl: Duration::MAX };
        let summary = LevelSummary::new(&records, Some(RATE), Some(slo));
        // Counts, rates, steady window and every quantile but those of the gaps, which are the histogram's.
        prop_assert_eq!(&level.summary, &LevelSummary { itl: level.summary.itl, ..summary.clone() });
        let (ours, exact) = (level.summary.itl, summary.itl);
        prop_assert_eq!(ours.count, exact.count);
        prop_assert!((ours.p50 - exact.p50).abs() <= exact.p50 / 60.0 + 1e-6, "{} {}", ours.p50, exact.p50);
    }
}

fn run() -> Vec<LoadRecord> {
    records((0..90).map(|n| (50_000, 3, 40_000 + n, vec![(20_000, 1); 5], 5)).collect())
}

fn complaint(folders: Vec<PartFolder>) -> String {
    let (_, problems) = merge(folders);
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_missing_or_doubled_part_is_named_and_nothing_is_merged() {
    let folders = dealt(&run(), &[0, 1, 2], 3, 0);
    let without = |index: usize| {
        let mut some = folders.clone();
        some.remove(index);
        some
    };
    for index in 0..3 {
        assert!(
            complaint(without(index)).contains(&format!("part {index} of 3 is missing")),
            "{}",
            complaint(without(index))
        );
        assert!(merge(without(index)).0.is_empty());
    }
    let doubled = [folders.clone(), vec![folders[1].clone()]].concat();
    assert!(complaint(doubled).contains("part 1 of 3 is there twice"));
    assert_eq!(complaint(folders), "");
}

#[test]
fn parts_that_did_not_run_together_prove_nothing() {
    let apart = |late| merge(dealt(&run(), &[0, 1], 2, late));
    let (merged, problems) = apart(3_000_000);
    assert!(problems[0].to_string().contains("began 3.0 s apart"), "{problems:?}");
    assert!(merged[0].sweep.levels[0].client_limited);
    let (merged, problems) = apart(900_000);
    assert!(problems.is_empty() && !merged[0].sweep.levels[0].client_limited);
}

#[test]
fn requests_that_are_not_those_of_the_histograms_are_refused() {
    let mut folders = dealt(&run(), &[0, 1], 2, 0);
    folders[1].requests.get_mut(&1).unwrap().pop();
    assert!(complaint(folders).contains("is not what sweep.json was made of"));
}

#[test]
fn a_part_without_its_number_is_a_usage_error() {
    let flags = ["--rates", "10", "--duration", "1s", "--parts", "2"];
    let output = sweep("http://127.0.0.1:1", &flags).env_remove("JOB_COMPLETION_INDEX").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let output = sweep("http://127.0.0.1:1", &[&flags[..], &["--part", "2"]].concat()).output().unwrap();
    assert!(said(&output).contains("parts count from 0"), "{}", said(&output));
}
