//! The whole loop in virtual time: traffic, engine, weir's own estimate, and what came out beside what was expected.
//!
//! A [`scenario::Scenario`] (tests/data/scenarios/*.toml) names engines, segments of traffic and expectations. [`play()`] runs one of
//! them for one engine and one seed: the engine model steps, its emissions become samples, and the estimator that serves
//! live traffic is told them and ticked every 100 ms. The [`truth`] it is held against comes from the same model in a closed
//! loop. Equal seeds give equal outcomes to the last bit.
//!
//! It reads no clock and no file, opens no socket and throws no dice that a seed does not rule. In mode enforce
//! the line of `admission` and the limits of `control` stand before the engine, as they do live.

pub mod chart;
pub mod enforcement;
pub mod expectation;
mod experience;
pub mod journal;
pub mod machine;
pub mod outcome;
pub mod play;
pub mod report;
pub mod rivals;
pub mod runner;
pub mod scenario;
pub mod traffic;
pub mod truth;
mod verdict;
mod watch;

pub use chart::SimulationChart;
pub use machine::{Cache, Machine};
pub use outcome::{Observation, Served, SimulationOutcome};
pub use play::{ReplicaStage, play};
pub use rivals::Rivals;
pub use runner::{Finding, Selection, machines_of, perform, rehearse};
pub use scenario::Scenario;
pub use truth::{Truth, Truths};
