//! Values that every layer uses: identities, time, units, and each closed list in one place.
//!
//! No clock, no socket, no decision.

pub mod average;
pub mod backend_id;
pub mod bad_answer;
pub mod class;
pub(crate) mod closed;
pub mod mode;
pub mod outcome;
pub mod quantities;
pub mod shed_reason;
pub mod signals;
pub mod slo;
pub mod time;
pub mod units;
pub mod usage;
pub mod would_shed;
