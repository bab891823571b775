//! Which backend serves the next request, and when.
//!
//! The pick and the permit are one short critical section over all backends, so two requests cannot take the last slot. The permit
//! stays with the exchange until its last byte, and dropping it releases the slot on every path. A request that finds no room waits
//! in the queue of the backend with the shortest expected wait. A backend that has room and an empty queue takes from the other
//! queues, and the queue of a backend that goes down moves to the others.
//!
//! - `acquire`: a request arrives · `queue_wait`: it waits · `permit`: it is dispatched and ends
//! - `backends`: [`Pool`], the lock and the events · `pool_state`: picks a backend, dispatches and moves waiting requests
//! - `backend_state`: one backend · `candidates`: which may be picked · `slow_start`: its own limit after a return or a refusal
//! - `waiter`: how a verdict reaches the task that waits
//!
//! Absent: the order inside a queue (`queue`), how much is allowed (`policy`), and the health check, which reports its verdict here.

mod acquire;
mod backend_state;
mod backends;
mod candidates;
mod permit;
mod pool_state;
mod queue_wait;
mod refused;
mod slow_start;
mod waiter;

#[cfg(test)]
mod tests;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use acquire::Acquire;
pub use backends::{Gauges, Pool};
pub use permit::Permit;
pub use queue_wait::QueueWait;
pub use refused::Refused;

/// What the files of this folder import. `tests/it/wakeups.rs` compiles the same files with a model checker's locks in this module.
mod parts {
    pub use std::sync::{Arc, Mutex};

    pub use super::BalancePolicy;
    pub use crate::admission::{
        AdmissionRequest, BackendQueue, Dequeued, GateStats, Limits, Mode, Offered, Settings, Shed, Slot, Ticket,
    };
    pub use crate::vocabulary::backend_id::BackendId;
    pub use crate::vocabulary::time::Timestamp;
}

/// How a backend is chosen among those that are up and have room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BalancePolicy {
    /// The backend with the most room for a first token, then with the fewest requests in flight.
    #[default]
    MostRoom,
    /// Each in turn.
    RoundRobin,
    /// Fewest in flight.
    LeastInFlight,
}
