//! The queue of one backend: the order in which requests wait, which are refused, and when those should come back.
//!
//! - `backend_queue`: the gate with its queue, one method per event
//! - `class_queue`, `tenant_queue`, `ticket`: what waits, by class, tenant and arrival
//! - `scheduler`: which request is next · `reserve`: what stays free for earlier classes
//! - `deadline`: which request cannot meet its deadline · `retry_after`: when a refused one should come back
//!
//! Absent: several backends, wakers and timers (`pool`).

pub(super) mod backend_queue;
mod class_queue;
mod deadline;
mod reserve;
mod retry_after;
mod scheduler;
mod tenant_queue;
pub(super) mod ticket;
