//! The counters and histograms of one account: one backend and one model.

use std::collections::BTreeMap;

use super::histogram::{Bounds, Buckets};
use crate::vocabulary::class::Class;
use crate::vocabulary::outcome::{
    AbandonPhase, CodeClass, Direction, NoTokenReason, Objective, ObjectiveResult, Outcome, OverheadStage, Phase,
    QueueExit, RetryReason, TokenSource,
};
use crate::vocabulary::shed_reason::ShedReason;
use crate::vocabulary::slo::Slo;
use crate::vocabulary::time::Timestamp;

/// Upper bounds of every family of histograms.
#[derive(Clone, Debug)]
pub struct BucketSettings {
    pub ttft: Bounds,
    pub itl: Bounds,
    pub gap: Bounds,
    pub duration: Bounds,
    pub wait: Bounds,
    pub tokens: Bounds,
    pub overhead: Bounds,
}

impl Default for BucketSettings {
    fn default() -> Self {
        let doubling: Vec<f64> = (0..18).map(|k| 0.01 * f64::from(1 << k)).collect();
        let fourfold: Vec<u64> = (0..11).map(|k| 4_u64.pow(k)).collect();
        Self {
            ttft: Bounds::seconds(&TTFT),
            itl: Bounds::seconds(&ITL),
            gap: Bounds::seconds(&[&ITL[..], &[10.0, 30.0, 60.0]].concat()),
            duration: Bounds::seconds(&doubling),
            wait: Bounds::seconds(&WAIT),
            tokens: Bounds::tokens(&fourfold),
            overhead: Bounds::seconds(&OVERHEAD),
        }
    }
}

impl BucketSettings {
    /// The same with each objective as a bound of its own, so that "met" can be read off the histogram exactly.
    pub fn with_objectives(mut self, slo: &Slo) -> Self {
        let nanos = |span: std::time::Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        self.ttft = self.ttft.with(nanos(slo.ttft));
        self.itl = self.itl.with(nanos(slo.itl));
        self
    }
}

/// One account's statistics. Arrays are indexed by the enumerations' `index()`.
#[derive(Clone, Debug, PartialEq)]
pub struct AccountStats {
    pub offered: [u64; Class::COUNT],
    pub admitted: [u64; Class::COUNT],
    pub shed: [[u64; ShedReason::COUNT]; Class::COUNT],
    pub abandoned: [u64; AbandonPhase::COUNT],
    pub finished: [[u64; CodeClass::COUNT]; Outcome::COUNT],
    pub slo: [[u64; ObjectiveResult::COUNT]; Objective::COUNT],
    pub retries: [u64; RetryReason::COUNT],
    /// Queued requests that moved here from another backend's queue, or from here to one.
    pub moved: [u64; Direction::COUNT],
    pub without: [u64; NoTokenReason::COUNT],
    /// Times an open stream stood still while the others of its backend went on.
    pub stalls: u64,
    /// Answers in a content coding, which are relayed and not read.
    pub opaque: u64,
    /// In flight now, by phase.
    pub in_flight: [u64; Phase::COUNT],
    /// In flight, streamed, without a first token now.
    pub pending: u64,
    /// Arrived and neither dispatched nor refused now.
    pub queued: [u64; Class::COUNT],
    /// Arrivals of the queued requests, with how many share the instant.
    pub(super) waiting: BTreeMap<Timestamp, u32>,
    pub oldest_queued: Option<Timestamp>,
    /// Not asked to stream, asked to stream.
    pub ttft: [Buckets; 2],
    pub upstream_ttft: Buckets,
    pub itl: Buckets,
    pub tpot: Buckets,
    pub gap: Buckets,
    pub duration: [Buckets; Outcome::COUNT],
    pub queue_wait: [Buckets; QueueExit::COUNT],
    pub overhead: [Buckets; OverheadStage::COUNT],
    pub input_tokens: u64,
    pub output_tokens: [u64; TokenSource::COUNT],
    pub request_input: Buckets,
    pub request_output: Buckets,
    /// Content events.
    pub chunks: u64,
    /// Gaps between content events that a client stretched by not reading; they are in no histogram.
    pub limited_gaps: u64,
}

impl AccountStats {
    /// All zero.
    pub fn new(bounds: &BucketSettings) -> Self {
        let buckets = |bounds: &Bounds| Buckets::new(bounds);
        Self {
            offered: Default::default(),
            admitted: Default::default(),
            shed: Default::default(),
            abandoned: Default::default(),
            finished: Default::default(),
            slo: Default::default(),
            retries: Default::default(),
            moved: Default::default(),
            without: Default::default(),
            stalls: 0,
            opaque: 0,
            in_flight: Default::default(),
            pending: 0,
            queued: Default::default(),
            waiting: BTreeMap::new(),
            oldest_queued: None,
            ttft: std::array::from_fn(|_| buckets(&bounds.ttft)),
            upstream_ttft: buckets(&bounds.ttft),
            itl: buckets(&bounds.itl),
            tpot: buckets(&bounds.itl),
            gap: buckets(&bounds.gap),
            duration: std::array::from_fn(|_| buckets(&bounds.duration)),
            queue_wait: std::array::from_fn(|_| buckets(&bounds.wait)),
            overhead: std::array::from_fn(|_| buckets(&bounds.overhead)),
            input_tokens: 0,
            output_tokens: Default::default(),
            request_input: buckets(&bounds.tokens),
            request_output: buckets(&bounds.tokens),
            chunks: 0,
            limited_gaps: 0,
        }
    }

    /// Adds the statistics of the same account from another shard.
    pub fn add(&mut self, other: &Self) {
        add(&mut self.offered, &other.offered);
        add(&mut self.admitted, &other.admitted);
        self.shed.iter_mut().zip(&other.shed).for_each(|(mine, theirs)| add(mine, theirs));
        add(&mut self.abandoned, &other.abandoned);
        self.finished.iter_mut().zip(&other.finished).for_each(|(mine, theirs)| add(mine, theirs));
        self.slo.iter_mut().zip(&other.slo).for_each(|(mine, theirs)| add(mine, theirs));
        add(&mut self.retries, &other.retries);
        add(&mut self.moved, &other.moved);
        add(&mut self.without, &other.without);
        add(&mut self.in_flight, &other.in_flight);
        add(&mut self.queued, &other.queued);
        add(&mut self.output_tokens, &other.output_tokens);
        self.stalls += other.stalls;
        self.opaque += other.opaque;
        self.pending += other.pending;
        self.input_tokens += other.input_tokens;
        self.chunks += other.chunks;
        self.limited_gaps += other.limited_gaps;
        self.oldest_queued = [self.oldest_queued, other.oldest_queued].into_iter().flatten().min();
        for (mine, theirs) in self.histograms_mut().into_iter().zip(other.histograms()) {
            mine.add(theirs);
        }
    }

    /// Requests arrived.
    pub fn offered(&self) -> u64 {
        self.offered.iter().sum()
    }

    /// Requests dispatched.
    pub fn admitted(&self) -> u64 {
        self.admitted.iter().sum()
    }

    /// Requests in flight now.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.iter().sum()
    }

    /// Requests that ended with `outcome`.
    pub fn finished(&self, outcome: Outcome) -> u64 {
        self.finished[outcome.index()].iter().sum()
    }

    /// The three identities of docs/operate/metrics.md.
    ///
    /// # Errors
    /// The first one that does not hold, with its numbers.
    pub fn check(&self) -> Result<(), String> {
        let shed: u64 = self.shed.iter().flatten().sum();
        let queued: u64 = self.queued.iter().sum();
        let left = self.abandoned[AbandonPhase::Queue.index()];
        let finished: u64 = self.finished.iter().flatten().sum();
        let cancelled = self.finished(Outcome::ClientCancelled);
        let hung_up = self.abandoned[AbandonPhase::Prefill.index()] + self.abandoned[AbandonPhase::Decode.index()];
        let [moved_in, moved_out] = self.moved;
        equal(
            "offered + moved in = admitted + shed + abandoned + queued + moved out",
            self.offered() + moved_in,
            self.admitted() + shed + left + queued + moved_out,
        )?;
        equal("admitted = finished + in flight", self.admitted(), finished + self.in_flight())?;
        equal("client_cancelled = abandoned in prefill and decode", cancelled, hung_up)
    }

    fn histograms(&self) -> Vec<&Buckets> {
        let single = [&self.upstream_ttft, &self.itl, &self.tpot, &self.gap, &self.request_input, &self.request_output];
        let many = self.ttft.iter().chain(&self.duration).chain(&self.queue_wait).chain(&self.overhead);
        single.into_iter().chain(many).collect()
    }

    fn histograms_mut(&mut self) -> Vec<&mut Buckets> {
        let single = [
            &mut self.upstream_ttft,
            &mut self.itl,
            &mut self.tpot,
            &mut self.gap,
            &mut self.request_input,
            &mut self.request_output,
        ];
        let many = self.ttft.iter_mut().chain(&mut self.duration).chain(&mut self.queue_wait).chain(&mut self.overhead);
        single.into_iter().chain(many).collect()
    }
}

fn add<const N: usize>(mine: &mut [u64; N], theirs: &[u64; N]) {
    mine.iter_mut().zip(theirs).for_each(|(a, b)| *a += b);
}

fn equal(what: &str, left: u64, right: u64) -> Result<(), String> {
    if left == right { Ok(()) } else { Err(format!("{what}: {left} is not {right}")) }
}

/// Supersets of OpenTelemetry's GenAI boundaries, finer where modern GPUs are.
const TTFT: [f64; 20] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0,
];
const ITL: [f64; 23] = [
    0.001, 0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4,
    0.5, 0.75, 1.0, 2.5, 5.0,
];
const WAIT: [f64; 15] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];
const OVERHEAD: [f64; 10] = [0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1];
