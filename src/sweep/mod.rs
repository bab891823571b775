//! A sweep: a series of load levels against one target, and what was served at each.
//!
//! `search` chooses the next level (pure), `run` runs the levels, `fill` turns each into what `offline` judges and reports, and
//! `parts` adds up what several processes sent at once. What one level is and how it is sent is `load`'s; what the levels together
//! mean is `offline`'s. It holds no terminal and no files.

pub mod fill;
pub mod parts;
pub mod run;
pub mod search;
