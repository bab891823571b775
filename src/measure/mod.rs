//! The stats: what arrived, what became of it, and how long everything took.
//!
//! A request owns one `Entry`, a guard: each of its methods is one transition under one lock, and dropping it closes the
//! stats on every path. Entries write into their worker's `Shard`; a `Snapshot` is all shards added up. Because a request
//! lives in one shard from arrival to end, the identities hold in each shard at every moment, and so in every sum.
//! Nothing here reads a clock, and nothing knows a metric's name.

mod account_stats;
mod entry;
mod fnv;
mod gaps;
pub mod histogram;
pub mod journal;
mod ledger;
mod record;
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
pub use account_stats::{AccountStats, BucketSettings};
pub use entry::{Arrival, Entry, EntryEnd};
pub use histogram::{BoundUnit, Bounds, Buckets, LogHistogram};
pub use ledger::{Account, BackendNames, Ledger};
pub use report::{Closed, ReportContext, ReportSink, RequestReport, SpanIds, UnmeasuredRequest};
pub use sample::{RequestKey, Sample, What};
pub use sample_buffer::SampleBuffer;
pub use shard::Shard;
pub use snapshot::Snapshot;
pub use timeline::Timeline;
pub use window::{Quantiles, Rates, WindowView};
