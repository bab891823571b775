//! Published sweeps with one careful person's verdict. They are not ours to copy, so they are read where they are at hand.

use std::collections::BTreeMap;

use weir::offline::{Analysis, import, verdict::VerdictKind};

use super::shared;

struct Label {
    kind: String,
    ends: (Option<f64>, Option<f64>),
}

fn labels(text: &str) -> BTreeMap<String, Label> {
    let number = |field: &str| field.parse().ok();
    let label = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        (fields[0].to_owned(), Label { kind: fields[1].to_owned(), ends: (number(fields[2]), number(fields[3])) })
    };
    text.lines().skip(1).filter(|line| !line.trim().is_empty()).map(label).collect()
}

#[test]
fn published_sweeps_are_judged_as_they_are_labelled() {
    let (Some(sweeps), Some(marks)) = (shared("sweeps/sweeps.csv"), shared("sweeps/labels.csv")) else { return };
    let labels = labels(&std::fs::read_to_string(marks).unwrap());
    let found = import::read(&[sweeps]);
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    let analysis = Analysis::of(found.sweeps);
    assert_eq!(analysis.sweeps.len(), labels.len());
    let (mut kinds, mut ends) = (0, 0);
    for judged in &analysis.sweeps {
        let (verdict, label) = (&judged.verdict, &labels[&judged.sweep.id]);
        let same_kind = verdict.kind.word() == label.kind;
        let near = |one: Option<f64>, other: Option<f64>| match (one, other) {
            (Some(one), Some(other)) => (one - other).abs() < 0.01,
            (one, other) => one.is_none() && other.is_none(),
        };
        let same_ends = near(verdict.sat_lo, label.ends.0) && near(verdict.sat_hi, label.ends.1);
        kinds += usize::from(same_kind);
        ends += usize::from(same_kind && same_ends);
        if !(same_kind && same_ends) {
            println!(
                "{}: {} {:?}, labelled {} {:?}",
                judged.sweep.id,
                verdict.kind.word(),
                (verdict.sat_lo, verdict.sat_hi),
                label.kind,
                label.ends
            );
        }
        if label.kind == "right_censored" {
            assert!(
                matches!(verdict.kind, VerdictKind::RightCensored | VerdictKind::Noisy),
                "{} is called saturated",
                judged.sweep.id
            );
        }
    }
    println!("{kinds} kinds and {ends} intervals of {} as labelled", labels.len());
    assert!(kinds * 10 >= labels.len() * 9 && ends * 10 >= labels.len() * 9);
}

#[test]
fn original_files_say_the_same_as_the_table_made_of_them() {
    let Some(raw) = shared("sweeps/raw") else { return };
    let analysis = Analysis::of(import::read(&[raw]).sweeps);
    for (name, lo, hi) in [
        ("infperf-kubecon25-base", 92.19, 122.59),
        ("infperf-kubecon25-chunking_and_prefix_caching", 169.99, 212.24),
        ("infperf-kubecon25-v0_engine", 40.19, 79.37),
        ("llama_3_3_70b_online_output (random/1024/1024, open loop)", 8.0, 16.0),
        ("mistralai_Mistral-7B-Instruct-v0.2_tp_1_summary", 32.0, 64.0),
        ("mistralai_Mistral-7B-Instruct-v0.2_tp_1_results", 32.0, 64.0),
    ] {
        let judged = analysis.sweeps.iter().find(|judged| judged.sweep.id == name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!((judged.verdict.sat_lo, judged.verdict.sat_hi), (Some(lo), Some(hi)), "{name}");
    }
    let capped = analysis.sweeps.iter().find(|judged| judged.sweep.id == "infperf-kubecon25-base").unwrap();
    let omitted = capped.verdict.limits.iter().filter(|said| matches!(said, weir::offline::say::Say::Omission { .. }));
    assert_eq!(omitted.count(), 3, "the client's cap closed the loop at three levels");
}
