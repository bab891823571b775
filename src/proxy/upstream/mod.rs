//! Backends as the data port sees them: where they listen, idle connections, health, retries.

pub mod bad_answers;
pub mod health;
pub mod passive_health;
pub mod pool;
pub mod retry_budget;
pub mod target;
