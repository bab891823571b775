//! Offline: what measurements in files say about a system, and what to measure next.
//!
//! `import` reads results of load generators into a [`Sweep`]; [`verdict()`] judges one; [`plan`] makes the next
//! experiment of it; [`compare`] holds two against each other; [`report`] writes what was found, in two languages. The
//! rules and where they come from: docs/use/reports.md.
//!
//! How `weir sweep` ends: it fills a [`sweep::Sweep`] from its levels and calls
//!
//! ```
//! use weir::offline::{Analysis, file, report, report::{Format, Lang}, sweep::{Level, Load, Sweep}};
//! # let level = |rate: f64| Level { load: Load::Rate(rate), ..Level::default() };
//! let sweep = Sweep { id: "sweep".into(), levels: vec![level(10.0), level(20.0)], ..Sweep::default() };
//! let analysis = Analysis::of(vec![sweep]);
//! let _html = report::render(&analysis, Format::Html, Lang::En);
//! let judged = &analysis.sweeps[0];
//! let _sweep_json = file::json(&judged.sweep, &judged.verdict, Lang::En);
//! let _sweep_csv = file::csv(&judged.sweep);
//! assert!(analysis.refused());
//! ```
//!
//! Only `import` touches files. Nothing here reads a clock, sends anything, or knows a proxy.

pub mod compare;
pub mod file;
pub mod fit;
pub mod import;
pub mod plan;
pub mod report;
pub mod say;
pub mod sweep;
pub mod verdict;

mod closed;
mod drain;
mod goodput;
mod next;
mod open;
mod points;
mod round;

pub use report::{Lang, ReportFormat};
pub use verdict::verdict;

use import::Problem;
use sweep::{Objectives, Sweep};
use verdict::{Verdict, VerdictKind};

/// Sweeps with their verdicts, and what could not be read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Analysis {
    /// In the order in which they were found.
    pub sweeps: Vec<JudgedSweep>,
    /// One sentence each.
    pub problems: Vec<Problem>,
}

/// A sweep and what is said of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JudgedSweep {
    /// What was measured.
    pub sweep: Sweep,
    /// What it means.
    pub verdict: Verdict,
}

impl Analysis {
    /// Judges every sweep.
    pub fn of(sweeps: Vec<Sweep>) -> Self {
        let judge = |sweep: Sweep| JudgedSweep { verdict: verdict(&sweep), sweep };
        Self { sweeps: sweeps.into_iter().map(judge).collect(), problems: Vec::new() }
    }

    /// The same with an SLO for every sweep that has none of its own.
    pub fn under(sweeps: Vec<Sweep>, slo: Option<Objectives>) -> Self {
        let with = |sweep: Sweep| Sweep { slo: slo.or(sweep.slo), ..sweep };
        Self::of(sweeps.into_iter().map(with).collect())
    }

    /// No sweep supports an answer: exit status 3.
    pub fn refused(&self) -> bool {
        self.sweeps.iter().all(|judged| judged.verdict.kind == VerdictKind::Noisy)
    }
}
