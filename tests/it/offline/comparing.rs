//! Comparisons whose answer is known.

use weir::offline::compare::{Fact, compare};
use weir::offline::sweep::{Environment, LatencySummary, Level, LevelLoad, OutcomeCounts, Sweep, Throughput};
use weir::offline::{Analysis, JudgedSweep};

/// A system that serves up to `capacity`, with TTFT `base` below it and a queue above.
fn system(gpus: f64, capacity: f64, base: f64, loads: &[f64]) -> JudgedSweep {
    let level = |load: &f64| {
        let requests = 3000.0;
        let served = requests / (requests / load.min(capacity) + 4.0);
        let wait = (load / capacity - 1.0).max(0.0) * requests / load / 2.0;
        let ttft = base * (1.0 + 0.2 * (load / capacity).min(1.0)) + wait;
        Level {
            load: LevelLoad::Rate(*load),
            counts: OutcomeCounts { completed: Some(requests), ..OutcomeCounts::default() },
            whole: Throughput {
                requests: Some(served),
                output_tokens: Some(150.0 * served),
                total_tokens: Some(300.0 * served),
            },
            ttft: LatencySummary { mean: Some(ttft), p50: Some(ttft), p90: Some(1.5 * ttft), p99: Some(2.0 * ttft) },
            e2e: LatencySummary { mean: Some(3.0 + wait), ..LatencySummary::default() },
            ..Level::default()
        }
    };
    let environment = Environment { gpus: Some(gpus), ..Environment::default() };
    let sweep =
        Sweep { id: format!("{gpus}"), environment, levels: loads.iter().map(level).collect(), ..Sweep::default() };
    Analysis::of(vec![sweep]).sweeps.remove(0)
}

const ONE: [f64; 6] = [2.0, 5.0, 8.0, 12.0, 20.0, 40.0];
const FOUR: [f64; 6] = [8.0, 20.0, 32.0, 48.0, 80.0, 120.0];

#[test]
fn efficiency_has_an_interval_around_the_truth() {
    let (one, four) = (system(1.0, 10.0, 0.08, &ONE), system(4.0, 34.0, 0.08, &FOUR));
    let found = compare(("one", &one), &[("four", &four)]).unwrap();
    assert_eq!((found.refused.clone(), found.fit, found.change), (None, None, None));
    let (low, high) = (found.efficiency.low, found.efficiency.high.unwrap());
    // As many requests against four times the system: its drain is a larger share, so the value reads low and the end does not.
    assert!(low < 0.85 && 0.85 < high && high - low < 0.25, "{:?}", found.efficiency);
    assert!((found.efficiency.value - 0.85).abs() < 0.04, "{:?}", found.efficiency);
    assert!(
        found.latency.len() >= 3 && found.latency[0].candidate / found.latency[0].base < 1.1,
        "{:?}",
        found.latency
    );
}

#[test]
fn several_sizes_give_a_law() {
    let law = |n: f64| 10.0 * n / (1.0 + 0.04 * (n - 1.0) + 0.001 * n * (n - 1.0));
    let sized = |n: f64| system(n, law(n), 0.08, &[0.2, 0.5, 0.8, 1.2, 2.0, 4.0].map(|share| share * law(n)));
    let (one, two, four, eight) = (sized(1.0), sized(2.0), sized(4.0), sized(8.0));
    let found = compare(("1", &one), &[("8", &eight), ("2", &two), ("4", &four)]).unwrap();
    let fit = found.fit.unwrap();
    assert!(
        (fit.sigma - 0.04).abs() < 0.015 && (fit.kappa.unwrap() - 0.001).abs() < 0.001 && fit.points == 4,
        "{fit:?}"
    );
    assert_eq!(found.candidates.last().unwrap().gpus, 8.0);
}

#[test]
fn a_regression_is_found_and_the_same_again_is_none() {
    let before = system(1.0, 10.0, 0.080, &ONE);
    let slower = system(1.0, 8.5, 0.100, &ONE);
    let change = compare(("before", &before), &[("after", &slower)]).unwrap().change.unwrap();
    assert!(change.throughput.significant && change.throughput.ratio.value < 0.88, "{change:?}");
    let ttft = change.ttft.unwrap();
    assert!(ttft.significant && (ttft.ratio.value - 1.26).abs() < 0.05, "{ttft:?}");
    let again = compare(("before", &before), &[("after", &before)]).unwrap().change.unwrap();
    assert!(!again.throughput.significant && !again.ttft.unwrap().significant, "{again:?}");
    let within_noise = system(1.0, 10.1, 0.081, &ONE);
    let change = compare(("before", &before), &[("after", &within_noise)]).unwrap().change.unwrap();
    assert!(!change.throughput.significant && !change.ttft.unwrap().significant, "{change:?}");
}

#[test]
fn what_bounds_nothing_is_refused_and_one_side_is_named() {
    let low = system(1.0, 10.0, 0.08, &[2.0, 4.0, 6.0]);
    let four = system(4.0, 34.0, 0.08, &FOUR);
    assert!(matches!(compare(("one", &low), &[("four", &four)]).unwrap().refused, Some(Fact::BaseNeverSaturated(_))));
    let one = system(1.0, 10.0, 0.08, &ONE);
    let unsaturated = system(4.0, 34.0, 0.08, &[8.0, 16.0, 24.0]);
    let found = compare(("one", &one), &[("four", &unsaturated)]).unwrap();
    assert!(found.refused.is_none() && found.speedup.high.is_none() && found.speedup.low > 2.0, "{:?}", found.speedup);
    let mut longer = four.clone();
    longer
        .sweep
        .levels
        .iter_mut()
        .for_each(|level| level.whole.total_tokens = level.whole.total_tokens.map(|tokens| 2.0 * tokens));
    assert!(matches!(compare(("one", &one), &[("four", &longer)]).unwrap().refused, Some(Fact::Lengths(_))));
}
