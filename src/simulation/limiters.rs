//! The same scenarios under weir's own policy and the published concurrency limiters: one table.
//!
//! Each limiter is run as published and with weir's queue and late abort. As published means that a request which is not dispatched
//! at once is refused, and that a dispatched one is never aborted. A static limit is the engine's true best concurrency; the others
//! begin at their defaults. What is compared is goodput over what the engine could have served, in the segments whose goodput the
//! scenario expects something of.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::num::NonZeroUsize;

use super::enforcement::{Enforcement, ModeChoice, PolicyChoice};
use super::expectation::{Measure, Of};
use super::runner::{Selection, rehearse};
use super::scenario::Scenario;
use super::truth::Truths;

/// Goodput by policy, scenario and engine.
#[derive(Debug, Default)]
pub struct LimiterComparison {
    /// Policy, scenario, engine: mean over seeds and segments.
    cells: BTreeMap<(usize, String, String), f64>,
}

/// One policy of the comparison.
#[derive(Clone, Copy, Debug)]
struct ComparedPolicy {
    name: &'static str,
    policy: PolicyChoice,
    /// Whether it has the queue and the late abort.
    with_queue: bool,
    mode: ModeChoice,
    limit: f64,
}

const fn compared(name: &'static str, policy: PolicyChoice, with_queue: bool) -> ComparedPolicy {
    ComparedPolicy { name, policy, with_queue, mode: ModeChoice::Enforce, limit: 1.0 }
}

const LIMITERS: &[ComparedPolicy] = &[
    compared("first_token_window", PolicyChoice::FirstTokenWindow, true),
    ComparedPolicy { mode: ModeChoice::Observe, ..compared("no gate", PolicyChoice::None, false) },
    compared("static", PolicyChoice::Static, false),
    ComparedPolicy { limit: 2.0, ..compared("static x2", PolicyChoice::Static, false) },
    compared("aimd", PolicyChoice::Aimd, false),
    compared("gradient2", PolicyChoice::Gradient2, false),
    compared("vegas", PolicyChoice::Vegas, false),
    compared("envoy", PolicyChoice::EnvoyGradient, false),
    compared("queue alone +", PolicyChoice::None, true),
    compared("static +", PolicyChoice::Static, true),
    ComparedPolicy { limit: 2.0, ..compared("static x2 +", PolicyChoice::Static, true) },
    ComparedPolicy { limit: 0.5, ..compared("static x0.5 +", PolicyChoice::Static, true) },
    compared("aimd +", PolicyChoice::Aimd, true),
    compared("gradient2 +", PolicyChoice::Gradient2, true),
    compared("vegas +", PolicyChoice::Vegas, true),
    compared("envoy +", PolicyChoice::EnvoyGradient, true),
];

impl LimiterComparison {
    /// Plays them all.
    pub fn compare(scenarios: &[Scenario], choice: &Selection, truths: &mut Truths, threads: NonZeroUsize) -> Self {
        let mut comparison = Self::default();
        for (number, limiter) in LIMITERS.iter().enumerate() {
            let played: Vec<Scenario> = scenarios.iter().map(|scenario| limiter.applied(scenario)).collect();
            let mut sums: BTreeMap<(String, String), (f64, u32)> = BTreeMap::new();
            for finding in rehearse(&played, choice, truths, threads) {
                let cell = (finding.scenario.name.clone(), finding.engine.to_owned());
                let (sum, count) = sums.entry(cell).or_default();
                (*sum, *count) = (*sum + finding.value.unwrap_or(0.0), *count + 1);
            }
            for ((scenario, engine), (sum, count)) in sums {
                comparison.cells.insert((number, scenario, engine), sum / f64::from(count));
            }
        }
        comparison
    }

    /// As tables: by engine, and by scenario with the worst engine in brackets.
    pub fn page(&self) -> String {
        let mut out =
            String::from("Goodput over what could have been served. `+` is with weir's queue and late abort.\n");
        self.table(&mut out, "engine", |(_, _, engine)| engine, false);
        self.table(&mut out, "scenario (worst engine)", |(_, scenario, _)| scenario, true);
        out
    }

    fn table(&self, out: &mut String, what: &str, row: impl Fn(&(usize, String, String)) -> &String, worst: bool) {
        let mut rows: Vec<&String> = self.cells.keys().map(&row).collect();
        rows.sort();
        rows.dedup();
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(
            out,
            "\n| policy | {} | mean |\n|---|{}---|",
            rows.iter().map(|row| row.as_str()).collect::<Vec<_>>().join(" | "),
            "---|".repeat(rows.len())
        );
        for (number, limiter) in LIMITERS.iter().enumerate() {
            let of_limiter = |(key, _): &(&(usize, String, String), &f64)| key.0 == number;
            let cells = rows.iter().map(|name| {
                let values = self.cells.iter().filter(of_limiter).filter(|(key, _)| row(key) == *name);
                cell(&values.map(|(_, value)| *value).collect::<Vec<f64>>(), worst)
            });
            let all: Vec<f64> = self.cells.iter().filter(of_limiter).map(|(_, value)| *value).collect();
            let _ = writeln!(
                out,
                "| {} | {} | {} |",
                limiter.name,
                cells.collect::<Vec<_>>().join(" | "),
                cell(&all, true)
            );
        }
        let _ = writeln!(out, "\nRows: policy; columns: {what}.");
    }
}

impl ComparedPolicy {
    fn applied(&self, scenario: &Scenario) -> Scenario {
        let Self { policy, with_queue, mode, limit, .. } = *self;
        let usual = Enforcement::default();
        let control = Enforcement { mode, policy, limit, queue: with_queue, late_abort: with_queue, ..usual };
        let mut scenario = Scenario { control, ..scenario.clone() };
        scenario.expectations.retain(|expectation| expectation.measure == Measure::Goodput);
        for expectation in &mut scenario.expectations {
            expectation.of = Of::Mean;
            expectation.engines.clear();
        }
        let mut seen = Vec::new();
        scenario.expectations.retain(|expectation| {
            let is_new = !seen.contains(&expectation.segment);
            seen.push(expectation.segment);
            is_new
        });
        scenario
    }
}

fn cell(values: &[f64], worst: bool) -> String {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    if worst { format!("{mean:.2} ({least:.2})") } else { format!("{mean:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_has_a_row_and_weirs_own_beats_no_gate() {
        let text = "about = \"x\"\nengines = [\"slots16\"]\nseeds = [1]\n[[segment]]\nseconds = 60\nload = 2.0\n\
            [[expect]]\nmeasure = \"goodput\"\nat_least = 0\n";
        let scenarios = [Scenario::parse("overload", text).unwrap()];
        let comparison =
            LimiterComparison::compare(&scenarios, &Selection::default(), &mut Truths::kept(), NonZeroUsize::MIN);
        let of = |number| comparison.cells[&(number, "overload".to_owned(), "slots16".to_owned())];
        assert!(of(0) > 0.9 && of(1) < 0.3, "{} {}", of(0), of(1));
        let page = comparison.page();
        assert!(LIMITERS.iter().all(|limiter| page.contains(&format!("| {} |", limiter.name))), "{page}");
    }
}
