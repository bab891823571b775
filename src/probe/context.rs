//! What synthetic load needs of the process it runs in.

use std::sync::Arc;

use crate::admission::pool::Pool;
use crate::clock::Clock;
use crate::measure::Ledger;
use crate::vocabulary::backend_id::BackendId;

/// Handles of the process.
#[derive(Clone)]
pub struct ProbeContext {
    /// The process's clock.
    pub clock: Clock,
    /// The backends and their queues.
    pub pool: Arc<Pool>,
    /// What is counted of the requests of clients.
    pub ledger: Arc<Ledger>,
    /// The backends and their addresses.
    pub backends: Arc<dyn Fn() -> Vec<(BackendId, String)> + Send + Sync>,
    /// Whether the estimate calls any backend saturated.
    pub saturated: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Whether the process drains.
    pub draining: Arc<dyn Fn() -> bool + Send + Sync>,
}
