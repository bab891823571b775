//! A sweep: a series of load levels and what was served at each, as all of `offline` uses it.
//!
//! Every importer fills it, `weir sweep` too, and every judgement and report reads it. Times are seconds, rates are per
//! second, and a figure that the source does not give is absent: nothing is filled in from something else. It holds no
//! judgement; that is [`verdict`](super::verdict())'s.

use serde::{Deserialize, Serialize};

/// What `sweep.json` says it is.
pub const SCHEMA: &str = "weir.sweep/1";

/// A series of load levels of one system under one kind of load.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Sweep {
    /// Its name in reports: a column of the file, or the name of the file or folder.
    pub id: String,
    /// What was measured, as far as the source has it.
    pub environment: Environment,
    /// What a good request is, where the source or the caller defines it.
    pub slo: Option<Objectives>,
    /// The levels, in any order. Open and closed loops are never mixed in one sweep.
    pub levels: Vec<Level>,
}

/// What was measured and with what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// The load generator, such as `vllm bench serve`.
    pub tool: Option<String>,
    /// The inference engine.
    pub engine: Option<String>,
    /// The model.
    pub model: Option<String>,
    /// The kind of GPU.
    pub gpu: Option<String>,
    /// How many GPUs.
    pub gpus: Option<f64>,
    /// Address of the server.
    pub target: Option<String>,
    /// When it began, as the source writes it.
    pub began: Option<String>,
    /// The law of the gaps between arrivals, such as `poisson`.
    pub arrivals: Option<String>,
    /// The command that was run.
    pub command: Option<String>,
}

/// Upper limits of a good request, seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Objectives {
    /// For the time to the first token.
    pub ttft: f64,
    /// For the time between tokens.
    pub itl: Option<f64>,
}

/// One load level.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Level {
    /// What was asked for.
    pub load: LevelLoad,
    /// The most requests that the client would have in flight, where it had a cap.
    pub cap: Option<f64>,
    /// Requests a second that were sent.
    pub achieved_rate: Option<f64>,
    /// First send to last completion, seconds; the drain is part of it.
    pub duration: Option<f64>,
    /// First send to last send, seconds.
    pub send_duration: Option<f64>,
    /// How many requests, and how they ended.
    pub counts: OutcomeCounts,
    /// Over the whole run.
    pub whole: Throughput,
    /// Over the steady window, where there was one.
    pub steady: Option<SteadyWindow>,
    /// Time to first token, from `ttft_from`.
    pub ttft: LatencySummary,
    /// What TTFT counts from.
    pub ttft_from: Start,
    /// Gaps between tokens, pooled.
    pub itl: LatencySummary,
    /// (last token − first token) / (tokens − 1), one value a request.
    pub tpot: LatencySummary,
    /// End to end.
    pub e2e: LatencySummary,
    /// Intended start to the send.
    pub schedule_delay: LatencySummary,
    /// Requests within the objectives, per second.
    pub goodput: Option<f64>,
    /// Mean requests in flight.
    pub in_flight: Option<f64>,
    /// Prompt tokens of a request, mean.
    pub prompt_tokens: Option<f64>,
    /// Output tokens of a request, mean.
    pub output_tokens: Option<f64>,
    /// The client reports that it could not offer this load: the level proves nothing about the server.
    pub client_limited: bool,
    /// Where it was read.
    pub origin: LevelOrigin,
}

/// What a level asks of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "value")]
pub enum LevelLoad {
    /// Open loop: requests a second, whatever the server does.
    Rate(f64),
    /// Closed loop: requests in flight; the next is sent when one ends.
    Concurrency(f64),
    /// Everything at once: it bounds the throughput and is no load level.
    #[default]
    Burst,
}

/// What a latency counts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// When it was sent: hides a client's own lateness.
    #[default]
    Send,
    /// When it was meant to be sent.
    Schedule,
}

/// Requests by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct OutcomeCounts {
    /// All of them.
    pub offered: Option<f64>,
    /// Ended as they should.
    pub completed: Option<f64>,
    /// Failed, whatever the fault.
    pub failed: Option<f64>,
    /// Refused for want of capacity.
    pub shed: Option<f64>,
    /// Still running when the run was over.
    pub unfinished: Option<f64>,
}

/// Amounts per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Throughput {
    /// Completed requests.
    pub requests: Option<f64>,
    /// Output tokens.
    pub output_tokens: Option<f64>,
    /// Prompt and output tokens.
    pub total_tokens: Option<f64>,
}

/// The window from the end of the ramp to the last send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct SteadyWindow {
    /// Its length, seconds.
    pub length: f64,
    /// What was completed in it.
    pub throughput: Throughput,
}

/// A distribution of times, seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LatencySummary {
    /// Arithmetic mean.
    pub mean: Option<f64>,
    /// Median.
    pub p50: Option<f64>,
    /// 90th percentile.
    pub p90: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
}

/// Where a level was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct LevelOrigin {
    /// The file, as it was named.
    pub file: String,
    /// The line on which the level begins.
    pub line: Option<u32>,
}

impl Sweep {
    /// Whether its load is requests in flight.
    pub fn is_closed(&self) -> bool {
        self.levels.iter().any(|level| matches!(level.load, LevelLoad::Concurrency(_)))
    }

    /// Mean output tokens of a request at the level that completed most.
    pub fn output_tokens(&self) -> Option<f64> {
        self.largest(Level::tokens_out)
    }

    /// Mean prompt and output tokens of a request at the level that completed most.
    pub fn total_tokens(&self) -> Option<f64> {
        self.largest(Level::tokens_all)
    }

    fn largest(&self, of: fn(&Level) -> Option<f64>) -> Option<f64> {
        let known = self.levels.iter().filter_map(|level| Some((level.whole.requests?, of(level)?)));
        known.max_by(|left, right| left.0.total_cmp(&right.0)).map(|(_, tokens)| tokens)
    }
}

impl Level {
    /// Output tokens of a request: as given, or the ratio of the two throughputs.
    pub fn tokens_out(&self) -> Option<f64> {
        self.output_tokens.or_else(|| ratio(self.whole.output_tokens, self.whole.requests))
    }

    /// Prompt and output tokens of a request.
    pub fn tokens_all(&self) -> Option<f64> {
        let sum = self.prompt_tokens.zip(self.output_tokens).map(|(prompt, output)| prompt + output);
        sum.or_else(|| ratio(self.whole.total_tokens, self.whole.requests))
    }

    /// Mean requests in flight: as given, or by Little's law.
    pub fn held(&self) -> Option<f64> {
        self.in_flight.or_else(|| Some(self.whole.requests? * self.e2e.mean.or(self.e2e.p50)?))
    }
}

impl LevelLoad {
    /// The number by which levels are ordered; none for a burst.
    pub const fn value(self) -> Option<f64> {
        match self {
            Self::Rate(value) | Self::Concurrency(value) => Some(value),
            Self::Burst => None,
        }
    }
}

impl LatencySummary {
    /// Nothing is known of it.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The same times in another unit: `factor` seconds each.
    pub fn scaled(self, factor: f64) -> Self {
        let seconds = |value: Option<f64>| value.map(|value| value * factor);
        Self { mean: seconds(self.mean), p50: seconds(self.p50), p90: seconds(self.p90), p99: seconds(self.p99) }
    }
}

fn ratio(above: Option<f64>, below: Option<f64>) -> Option<f64> {
    Some(above? / below.filter(|below| *below > 0.0)?)
}
