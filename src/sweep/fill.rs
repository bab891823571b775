//! Converts a level's summary into what the search and the reports of `offline` use.
//!
//! Every figure is the summary's; what a summary does not have is absent.

use super::search::{self, LevelObservation, Worth};
use crate::load::summary::{LevelSummary, Punctuality, Spread};
use crate::offline::sweep::{LatencySummary, Level, LevelLoad, OutcomeCounts, Start, SteadyWindow, Throughput};

/// The level for the search.
pub fn observation(load: search::SearchLoad, level: &LevelSummary, streamed: bool) -> LevelObservation {
    let steady = level.steady;
    LevelObservation {
        load,
        served: steady.map_or(level.request_throughput, |steady| steady.request_throughput),
        completed: steady.map_or(level.counts.completed, |steady| steady.completed),
        in_flight: steady.map_or(level.mean_in_flight, |steady| steady.in_flight),
        decoding: steady.filter(|_| streamed).map(|steady| steady.decoding),
        ttft: level.ttft.p50,
        drift: (level.drift.early, level.drift.late),
        offered: level.counts.offered,
        worth: worth(level),
    }
}

/// Whether the level shows anything of the server.
pub fn worth(level: &LevelSummary) -> Worth {
    let counts = level.counts;
    let lost = counts.errors + counts.truncated + counts.shed;
    if level.pace == Punctuality::ClientLimited {
        Worth::ClientLimited
    } else if lost as f64 > MOST_LOST * counts.offered as f64 || counts.completed == 0 {
        Worth::Failed
    } else {
        Worth::Usable
    }
}

/// The level for the reports.
pub fn level(load: LevelLoad, level: &LevelSummary) -> Level {
    let counts = level.counts;
    let mean =
        |tokens_a_second: f64| (level.request_throughput > 0.0).then(|| tokens_a_second / level.request_throughput);
    Level {
        load,
        achieved_rate: level.achieved_rate,
        duration: Some(level.duration),
        send_duration: level.achieved_rate.map(|rate| counts.offered.saturating_sub(1) as f64 / rate),
        counts: OutcomeCounts {
            offered: Some(counts.offered as f64),
            completed: Some(counts.completed as f64),
            failed: Some((counts.errors + counts.truncated + counts.client_limited) as f64),
            shed: Some(counts.shed as f64),
            unfinished: Some(counts.unfinished as f64),
        },
        whole: throughput(level.request_throughput, level.output_token_throughput, level.total_token_throughput),
        steady: level.steady.map(|steady| SteadyWindow {
            length: steady.length,
            throughput: throughput(
                steady.request_throughput,
                steady.output_token_throughput,
                steady.total_token_throughput,
            ),
        }),
        ttft: latency(&level.ttft),
        ttft_from: Start::Schedule,
        itl: latency(&level.itl),
        tpot: latency(&level.tpot),
        e2e: latency(&level.e2e),
        schedule_delay: latency(&level.schedule_delay),
        goodput: level.goodput,
        in_flight: Some(level.mean_in_flight),
        prompt_tokens: mean(level.total_token_throughput - level.output_token_throughput),
        output_tokens: mean(level.output_token_throughput),
        client_limited: level.pace == Punctuality::ClientLimited,
        ..Level::default()
    }
}

fn throughput(requests: f64, output: f64, total: f64) -> Throughput {
    Throughput { requests: Some(requests), output_tokens: Some(output), total_tokens: Some(total) }
}

fn latency(spread: &Spread) -> LatencySummary {
    let known = |value: f64| (spread.count > 0).then_some(value);
    LatencySummary { mean: known(spread.mean), p50: known(spread.p50), p90: known(spread.p90), p99: known(spread.p99) }
}

/// Share of requests that may fail before a level shows the failures rather than the load.
const MOST_LOST: f64 = 0.1;
