//! The queue before one backend: in which order requests wait, who is refused, and when to come back.

pub mod backend_queue;
pub mod class_queue;
pub mod deadline;
pub mod reserve;
pub mod retry_after;
pub mod scheduler;
pub mod tenant_queue;
