//! Who is dispatched to a backend, who waits, who is refused: mechanism, without opinions.
//!
//! A [`Line`] is one backend's gate and the queue before it. It is told [`Limits`] and obeys them; who makes them, and from
//! what, is not known here. `now` comes in, nothing is spawned, woken or sent: what a caller wants back of a request (a waker,
//! a number) rides along as `T` and comes back with the verdict.
//!
//! Absent: several backends (`balance`), bytes and sockets, and the timers of those who wait.

mod gate;
mod limits;
pub mod policy;
pub mod pool;
mod queue;
mod request;
mod settings;
mod shadow;
mod shed;

pub use crate::vocabulary::class::Class;
pub use crate::vocabulary::mode::Mode;
pub use crate::vocabulary::shed_reason::ShedReason;
pub use crate::vocabulary::signals::Signals;
pub use gate::Slot;
pub use limits::{FIRST_WINDOW, Limits};
pub use queue::backend_queue::{BackendQueue, Dequeued, GateStats, Offered, QueueCounts};
pub use queue::class_queue::Ticket;
pub use request::{AdmissionRequest, Tenant};
pub use settings::{ClassSettings, Classes, Settings};
pub use shadow::Shadow;
pub use shed::Shed;
