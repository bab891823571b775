//! The statistics of requests: what arrived, how it ended, and how long each step took.
//!
//! A request owns one `Entry`, a guard: each of its methods is one transition under one lock, and dropping it closes the entry on
//! every path. Entries write into their worker's `Shard`; a `Snapshot` is the sum of all shards. Because a request stays in one
//! shard from arrival to end, the identities hold in each shard at every moment, and so in every sum.
//! Absent: a clock, and the names of metrics.

mod account;
mod account_stats;
mod arrival;
mod entry;
mod fnv;
mod gaps;
pub mod histogram;
pub mod journal;
mod ledger;
mod names;
mod record;
pub mod replay;
mod report;
pub mod sample;
mod sample_buffer;
mod shard;
pub mod snapshot;
mod timeline;
mod window;

pub use crate::vocabulary::class::Class;
pub use crate::vocabulary::outcome::*;
pub use crate::vocabulary::shed_reason::ShedReason;
pub use crate::vocabulary::usage::Usage;
pub use account::Account;
pub use account_stats::{AccountStats, BucketSettings};
pub use arrival::{Arrival, EntryEnd};
pub use entry::Entry;
pub use histogram::{BoundUnit, Bounds, Buckets, LogHistogram};
pub use ledger::Ledger;
pub use names::BackendNames;
pub use report::{Closed, ReportContext, ReportSink, RequestReport, SpanIds, UnmeasuredRequest};
pub use sample::{RequestKey, Sample, What};
pub use sample_buffer::SampleBuffer;
pub use shard::Shard;
pub use snapshot::Snapshot;
pub use timeline::Timeline;
pub use window::{Quantiles, Rates, WindowView};
