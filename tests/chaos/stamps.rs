//! weir's stamps against the engine's own, at the engine's own pace.
//!
//! Times on a busy machine are upper limits: the load average stands beside them.

use crate::support::stamps::{Pair, Plan, compare};
use crate::support::time::quantile;
use crate::{Verdict, timed, verdict};

/// Milliseconds.
const MEAN: f64 = 0.3;
const P99: f64 = 2.0;
const ROUNDS: usize = 5;

pub fn run() -> Vec<Verdict> {
    let (mut short, mut alone, mut beside) = (Vec::new(), Vec::new(), Vec::new());
    // Rounds of each kind in turn, so that what the machine does beside them falls on all.
    for _ in 0..ROUNDS {
        short.extend(compare(Plan { readers: 4, streams: 50, stalled: 0, tokens: 4, speed: 10.0 }));
        alone.extend(compare(Plan { readers: 16, streams: 1, stalled: 0, tokens: 1_200, speed: 4.0 }));
        beside.extend(compare(Plan { readers: 14, streams: 1, stalled: 2, tokens: 1_200, speed: 4.0 }));
    }
    let (stalled, readers): (Vec<Pair>, Vec<Pair>) = beside.into_iter().partition(|pair| pair.stalled);
    let mut verdicts = vec![ttft("streams one after the other", &short)];
    for (who, pairs) in
        [("readers alone", &alone), ("readers beside 2 stalled", &readers), ("the stalled ones", &stalled)]
    {
        verdicts.push(gaps(who, pairs));
    }
    let all = || short.iter().chain(&alone).chain(&readers).chain(&stalled);
    let early = all().flat_map(|pair| &pair.lags).filter(|lag| **lag < 0.0).count();
    verdicts.push(verdict(format!("{early} stamps before the engine's own"), early == 0));
    let limited: usize = all().map(|pair| pair.limited).sum();
    let why = "the engine is read all the time, whatever its client takes";
    verdicts.push(verdict(format!("{limited} gaps ascribed to a client ({why})"), limited == 0));
    verdicts
}

fn ttft(who: &str, pairs: &[Pair]) -> Verdict {
    figure(&format!("TTFT, {who}"), pairs.iter().map(|pair| pair.ttft).collect())
}

fn gaps(who: &str, pairs: &[Pair]) -> Verdict {
    figure(&format!("gaps, {who}"), pairs.iter().flat_map(|pair| pair.gaps.iter().copied()).collect())
}

/// Mean and 99th percentile of the absolute error in milliseconds.
fn figure(what: &str, errors: Vec<f64>) -> Verdict {
    let mut errors: Vec<f64> = errors.into_iter().map(|error| error.abs() * 1e3).collect();
    errors.sort_by(f64::total_cmp);
    let (n, mean, p99) = (errors.len(), errors.iter().sum::<f64>() / errors.len() as f64, quantile(&errors, 0.99));
    let (p50, most) = (quantile(&errors, 0.5), quantile(&errors, 1.0));
    timed(
        format!(
            "{what}, {n}: error mean {mean:.3} ms, p50 {p50:.3}, p99 {p99:.3}, most {most:.3} (bound: mean {MEAN}, p99 {P99})"
        ),
        mean <= MEAN && p99 <= P99,
    )
}
