//! The composition root: makes the parts from a configuration, connects them, and ends them in order.
//!
//! - [`mod@serve`]: `weir serve` from its first line in the log to its exit status; signals
//! - [`mod@start`]: the order in which the parts are made
//! - `from_config`: what each part is made with, translated from the configuration
//! - `backend_table`: every backend once, shared by its readers; `backends`: the one writer, at the start and at a reload
//! - `admin_backend`: what the admin port reads and changes
//! - `engine_monitor`: the thread of the control loop and of the engines' metrics; `gpus`: whose GPUs are whose
//! - `reload`: a new configuration in a running process; `config_watcher`: when the file has changed
//! - `telemetry`: access log and spans; `systemd`: its notifications
//!
//! Absent: decisions. A part that decides lies in a folder of its own and is only constructed here.

mod admin_backend;
mod backend_table;
mod backends;
mod config_watcher;
mod engine_monitor;
mod from_config;
mod gpus;
mod reload;
pub mod serve;
pub mod start;
mod systemd;
mod telemetry;

pub use serve::serve;
pub use start::{RunningServer, start};
