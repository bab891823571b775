//! A sweep: a series of load levels against one target, and what was served at each.
//!
//! `parts` adds up what several processes sent at once. `search` says which level comes next (pure; it rehearses in virtual time), `run` runs them, `fill` makes of each what
//! `offline` judges and reports. What one level is and how it is sent is `load`'s; what the levels together mean is
//! `offline`'s. It holds no terminal and no files.

pub mod fill;
pub mod parts;
pub mod run;
pub mod search;
