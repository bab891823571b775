//! Which backend takes the next request, and when.
//!
//! The pick and the permit are taken in one short critical section over all backends, so that two requests cannot take the last
//! place; the permit rides with the exchange until its last byte, and dropping it gives the place back on every path. Whoever
//! finds no room waits in the queue of the backend that will take it soonest; a backend with room and nobody in its own queue
//! takes from the others' lines, and a backend that dies hands its queue over. What a queue does is `admission`'s; how much is
//! allowed is `control`'s. It holds no health check: `up` and `ejected` are told to it.

mod backend_state;
mod backends;
mod permit;
mod slow_start;
mod waiter;

#[cfg(test)]
mod tests;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use backends::{Acquire, Gauges, Pool, Refused};
pub use permit::Permit;
pub use waiter::QueueWait;

/// What the files below are made of. A model checker puts its own locks in the place of these.
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
