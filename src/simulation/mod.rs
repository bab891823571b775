//! Simulation in virtual time: traffic, engine, estimator and admission, and their outcome beside what was expected.
//!
//! A [`scenario::Scenario`] (tests/data/scenarios/*.toml) names engines, segments of traffic and expectations. [`play()`] runs one of
//! them for one engine and one seed: the engine model steps, its emissions become samples, and the same estimator that serves
//! live traffic receives them and is ticked every 100 ms. The [`truth`] that it is compared with comes from the same model in a closed
//! loop. Equal seeds give equal outcomes to the last bit. In mode enforce the queue and the policy of `admission` are in front of
//! the engine, as they are live. `weir rehearse` is its command.
//!
//! Absent: a clock, a file, a socket, randomness without a seed.

pub mod chart;
pub mod enforcement;
pub mod expectation;
mod expectation_file;
mod experience;
pub mod journal;
pub mod limiters;
pub mod machine;
mod observed_estimator;
pub mod outcome;
pub mod play;
mod profile_groups;
mod replicas;
pub mod report;
pub mod runner;
pub mod scenario;
pub mod scenario_fault;
mod scenario_file;
pub mod traffic;
pub mod truth;
mod verdict;

pub use chart::SimulationChart;
pub use limiters::LimiterComparison;
pub use machine::{Cache, Machine};
pub use outcome::{Observation, Served, SimulationOutcome};
pub use play::{ReplicaStage, play};
pub use runner::{Finding, Selection, machines_of, perform, rehearse};
pub use scenario::Scenario;
pub use truth::{Truth, Truths};
