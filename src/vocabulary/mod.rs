//! The words that every layer uses, each closed list in one place.
//!
//! Values only: no clock, no socket, no counter, no decision.

pub mod average;
pub mod backend_id;
pub mod bad_answer;
pub mod outcome;
pub mod signals;
pub mod slo;
pub mod time;
pub mod units;
