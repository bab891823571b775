//! What a backend's gate reports to the policy at every tick.

/// The gate and the queue of one backend, since the last report and now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GateStats {
    /// The window or the concurrency limit held a request back since the last report.
    pub window_bound: bool,
    /// The KV cap did.
    pub memory_bound: bool,
    /// Requests that wait.
    pub queued: usize,
    /// Seconds since the dispatch of the request that has waited longest for its first token; 0 without one.
    pub oldest_pending: f64,
    /// Streams without a first token.
    pub pending: u32,
    /// Requests dispatched and not ended.
    pub in_flight: u32,
    /// Prompt and answer tokens of those in flight.
    pub context: f64,
}
