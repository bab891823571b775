//! The books: what arrived, what became of it, and how long everything took.
//!
//! A request owns one `Entry`, a guard: each of its methods is one transition under one lock, and dropping it closes the
//! books on every path. Entries write into their worker's `Shard`; a `Snapshot` is all shards added up. Because a request
//! lives in one shard from arrival to end, the identities hold in each shard at every moment, and so in every sum.
//! Nothing here reads a clock, and nothing knows a metric's name.

mod books;
mod entry;
mod fnv;
mod gaps;
pub mod histogram;
pub mod journal;
mod ledger;
mod line;
mod outcome;
mod report;
pub mod sample;
mod shard;
pub mod snapshot;
mod timeline;
mod tray;
mod window;

pub use books::{AccountStats, BucketSettings};
pub use entry::{Arrival, Entry, EntryEnd};
pub use histogram::{BoundUnit, Bounds, Buckets, LogHistogram};
pub use ledger::{Account, BackendNames, Ledger};
pub use outcome::*;
pub use report::{Closed, ReportContext, ReportSink, RequestReport, SpanIds, UnmeasuredRequest};
pub use sample::{RequestKey, Sample, What};
pub use shard::Shard;
pub use snapshot::Snapshot;
pub use timeline::{Timeline, Usage};
pub use tray::SampleBuffer;
pub use window::{Quantiles, Rates, WindowView};
