//! The words that every layer uses, each closed list in one place.
//!
//! Values only: no clock, no socket, no decision.

pub mod average;
pub mod backend_id;
pub mod class;
pub(crate) mod closed;
pub mod mode;
pub mod outcome;
pub mod shed_reason;
pub mod signals;
pub mod slo;
pub mod time;
pub mod units;
pub mod usage;
pub mod would_shed;
