//! Sweeps with their verdicts.

use super::import::Problem;
use super::judge::verdict;
use super::sweep::{Objectives, Sweep};
use super::verdict::{Verdict, VerdictKind};

/// Sweeps with their verdicts, and what could not be read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Analysis {
    /// In the order in which they were found.
    pub sweeps: Vec<JudgedSweep>,
    /// One sentence each.
    pub problems: Vec<Problem>,
}

/// A sweep and its verdict.
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
