//! Backends as the data port sees them: where they listen, idle connections, health.

pub mod bad_answers;
pub mod health;
pub mod target;
