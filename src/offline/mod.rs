//! Offline analysis: what measurements in files show of a system, and what to measure next.
//!
//! `import` reads results of load generators into a [`Sweep`](sweep::Sweep); [`verdict()`] judges one; [`plan`] makes the next
//! experiment of it; [`compare`] compares two; [`report`] writes the result, in two languages. The
//! rules and where they come from: docs/use/reports.md.
//!
//! How `weir sweep` ends: it fills a [`sweep::Sweep`] from its levels and calls
//!
//! ```
//! use weir::offline::{Analysis, file, report, report::{Lang, ReportFormat}, sweep::{Level, LevelLoad, Sweep}};
//! # let level = |rate: f64| Level { load: LevelLoad::Rate(rate), ..Level::default() };
//! let sweep = Sweep { id: "sweep".into(), levels: vec![level(10.0), level(20.0)], ..Sweep::default() };
//! let analysis = Analysis::of(vec![sweep]);
//! let _html = report::render(&analysis, ReportFormat::Html, Lang::En);
//! let judged = &analysis.sweeps[0];
//! let _sweep_json = file::json(&judged.sweep, &judged.verdict, Lang::En);
//! let _sweep_csv = file::csv(&judged.sweep);
//! assert!(analysis.refused());
//! ```
//!
//! Only `import` reads files. Absent: a clock, a socket, the proxy.

pub mod compare;
pub mod file;
pub mod fit;
pub mod import;
pub mod plan;
pub mod report;
pub mod say;
pub mod sweep;
pub mod verdict;

mod analysis;
mod closed;
mod drain;
mod goodput;
mod judge;
mod next;
mod open;
mod points;
mod rates;
mod round;

pub use analysis::{Analysis, JudgedSweep};
pub use judge::verdict;
pub use report::{Lang, ReportFormat};
