//! The sentences of a report as values; a report puts them into a language.
//!
//! Loads are requests a second in an open loop and requests in flight in a closed one; times are seconds. It holds no
//! text; the words are in `report/english.rs` and `report/korean.rs`.

use crate::estimate::Advice;

/// One sentence of a report.
#[derive(Clone, Debug, PartialEq)]
pub enum Say {
    // Why a level is saturated or not.
    /// A level that keeps up.
    KeepsUp { load: f64, served: f64, ttft: Option<f64> },
    /// Served below offered, and the drain of a finite run explains all of it. `requests` is assumed when `assumed`.
    Drain { load: f64, served: f64, best: f64, requests: f64, assumed: bool, tail: f64 },
    /// More load, no more throughput.
    Flat { from: f64, to: f64, low: f64, high: f64 },
    /// Served less than any finite run of a server that keeps up could show.
    Short { load: f64, served: f64, best: f64 },
    /// Offered more than the server completed at any level, corrected for the drain.
    Over { load: f64, most: f64 },
    /// The first token is later by a factor.
    Jump { from: f64, to: f64, good: f64, bad: f64, ratio: f64 },
    /// The wait grew during the run as a queue does when load is `excess` above capacity.
    Queue { load: f64, excess: f64 },
    /// TTFT has risen, and everything is served: at capacity, not past it.
    AtCapacity { load: f64, ratio: f64, share: f64 },
    /// In-flight grew faster than the load.
    Held { from: f64, to: f64, less: f64, more: f64 },
    /// Tokens a second at the plateau.
    Tokens { total: Option<f64>, output: Option<f64> },
    /// Closed loop: where throughput stops growing.
    ClosedFlat { from: f64, to: f64, gain: f64 },
    /// Closed loop: throughput still grows at the last step.
    StillRising { from: f64, to: f64, gain: f64 },
    /// Latency grows in proportion to the load, as it must once throughput does not.
    LatencyPays { from: f64, to: f64, less: f64, more: f64 },
    /// Throughput knee and latency knee lie apart.
    TwoKnees { throughput: f64, before: f64, latency: f64 },
    /// Past the knee throughput falls.
    Retrograde { peak: f64, most: f64, last: f64, least: f64 },
    /// No level is saturated.
    NeverSaturated { highest: f64 },
    /// Every level is saturated.
    AlwaysSaturated { lowest: f64 },

    // What the measurement cannot show.
    /// The client fell behind its own schedule because the server was slow and it had a cap, or no worker left.
    Omission { load: f64, sent: Option<f64>, delay: f64, ttft: f64 },
    /// The client could not offer the load: the level shows nothing of the server.
    ClientLimited { load: f64, sent: Option<f64> },
    /// The first level was cold.
    Cold { load: f64, first: f64, second: f64 },
    /// A share of the requests failed.
    Failures { load: f64, share: f64 },
    /// Few requests: the noise is this share.
    Few { load: f64, requests: f64, noise: f64 },
    /// Only medians are there.
    MediansOnly,
    /// End-to-end times stand in for TTFT.
    NoTtft,
    /// Neither counts nor durations are in the file.
    NoCounts,
    /// Every level was run once.
    OneRun,
    /// The finite run under-reads the plateau by up to this share.
    UnderRead { share: f64 },
    /// Lengths differ between levels by this factor.
    Lengths { factor: f64 },
    /// A burst is no load level.
    Burst { requests: Option<f64>, served: Option<f64> },
    /// A level without a throughput.
    NoThroughput { load: f64 },
    /// A level was measured several times, with these ends.
    Repeats { load: f64, times: usize, low: f64, high: f64 },
    /// Levels measured while the request mix is not known to be equal.
    ClosedLoop,

    // Why an answer is refused.
    /// A level keeps up above one that does not.
    Contradiction { good: f64, bad: f64 },
    /// Throughput stood still and then grew again.
    DipThenRise { from: f64, to: f64, last: f64, gain: f64 },
    /// Throughput fell from its peak, and one run a level cannot show whether that is noise.
    PeakThenFall { peak: f64, next: f64, fall: f64 },
    /// One level is no sweep.
    OneLevel { saturated: bool },
    /// No level can be used.
    NothingUsable,
    /// The lengths of requests differ between levels.
    MixedLengths { factor: f64 },

    // What to run next.
    /// Levels inside the interval.
    Bisect { loads: Vec<f64> },
    /// Higher levels.
    Higher { loads: Vec<f64> },
    /// Lower levels.
    Lower { loads: Vec<f64> },
    /// The same levels again.
    Repeat { loads: Vec<f64>, times: u32 },
    /// Requests of a level that keep the drain below a share.
    MoreRequests { requests: f64, load: f64, share: f64 },
    /// Without a client's cap.
    LiftCap,
    /// A warm-up before the first level.
    WarmUp,
    /// The same on more GPUs.
    Scale { gpus: f64, loads: Vec<f64> },

    /// A value for one of an engine's own limits.
    Advice(Advice),

    // Goodput.
    /// The most goodput and where.
    Goodput { load: f64, goodput: f64, slo: f64, estimated: bool },
    /// It is unknown.
    NoGoodput { slo: f64 },
}
