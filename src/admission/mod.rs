//! Decides which request is dispatched to which backend, which waits, and which is refused.
//!
//! - `limits`: what is allowed at a backend · `gate_stats`: what its gate reports back
//! - `gate`: whether one more request may be dispatched
//! - [`policy`]: makes the limits from the estimate and the gate's report
//! - `queue`: the order in which requests wait, which are refused, and when those should come back
//! - [`pool`]: which backend receives a request, and how the task that waits learns of it
//! - `shadow`: what enforcement would have refused, in mode observe
//! - `request`, `shed`, `settings`: what arrives, what a refusal says, what the operator decides
//!
//! `policy` publishes [`Limits`]; everything else obeys them and does not know their reasons. docs/internals/admission.md has the life
//! of a request through these files, and the types that a change of the policy touches.
//!
//! Absent: sockets, clocks and timers. `now` is an argument.

mod gate;
mod gate_stats;
mod limits;
pub mod policy;
pub mod pool;
mod queue;
mod request;
mod settings;
mod shadow;
mod shed;

#[cfg(test)]
mod tests;

pub use crate::vocabulary::class::Class;
pub use crate::vocabulary::mode::Mode;
pub use crate::vocabulary::shed_reason::ShedReason;
pub use crate::vocabulary::signals::Signals;
pub use gate::Slot;
pub use gate_stats::GateStats;
pub use limits::Limits;
pub use queue::backend_queue::{BackendQueue, Dequeued, Offered, QueueCounts};
pub use queue::ticket::Ticket;
pub use request::{AdmissionRequest, Tenant};
pub use settings::{ClassSettings, Classes, Settings};
pub use shadow::Shadow;
pub use shed::Shed;
