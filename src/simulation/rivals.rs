//! The same scenarios under every policy, as it is published and with weir's queue and late abort: one table.
//!
//! As published means that who is not dispatched at once is refused, and that who was dispatched stays. A static limit is told the
//! engine's true best concurrency; the others begin at their defaults. What is compared is goodput over what the engine could have
//! served, in the segments whose goodput the scenario expects something of.

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
pub struct Rivals {
    /// Policy, scenario, engine: mean over seeds and segments.
    cells: BTreeMap<(usize, String, String), f64>,
}

/// One way to drive the gate.
#[derive(Clone, Copy, Debug)]
struct Way {
    name: &'static str,
    rule: PolicyChoice,
    /// Whether it has the queue and the late abort.
    borrows: bool,
    mode: ModeChoice,
    limit: f64,
}

const fn way(name: &'static str, rule: PolicyChoice, borrows: bool) -> Way {
    Way { name, rule, borrows, mode: ModeChoice::Enforce, limit: 1.0 }
}

const WAYS: &[Way] = &[
    way("first_token_window", PolicyChoice::FirstTokenWindow, true),
    Way { mode: ModeChoice::Observe, ..way("no gate", PolicyChoice::None, false) },
    way("static", PolicyChoice::Static, false),
    Way { limit: 2.0, ..way("static x2", PolicyChoice::Static, false) },
    way("aimd", PolicyChoice::Aimd, false),
    way("gradient2", PolicyChoice::Gradient2, false),
    way("vegas", PolicyChoice::Vegas, false),
    way("envoy", PolicyChoice::EnvoyGradient, false),
    way("queue alone +", PolicyChoice::None, true),
    way("static +", PolicyChoice::Static, true),
    Way { limit: 2.0, ..way("static x2 +", PolicyChoice::Static, true) },
    Way { limit: 0.5, ..way("static x0.5 +", PolicyChoice::Static, true) },
    way("aimd +", PolicyChoice::Aimd, true),
    way("gradient2 +", PolicyChoice::Gradient2, true),
    way("vegas +", PolicyChoice::Vegas, true),
    way("envoy +", PolicyChoice::EnvoyGradient, true),
];

impl Rivals {
    /// Plays them all.
    pub fn compare(scenarios: &[Scenario], choice: &Selection, truths: &mut Truths, threads: NonZeroUsize) -> Self {
        let mut rivals = Self::default();
        for (number, way) in WAYS.iter().enumerate() {
            let played: Vec<Scenario> = scenarios.iter().map(|scenario| way.applied(scenario)).collect();
            let mut sums: BTreeMap<(String, String), (f64, u32)> = BTreeMap::new();
            for finding in rehearse(&played, choice, truths, threads) {
                let place = (finding.scenario.name.clone(), finding.engine.to_owned());
                let (sum, count) = sums.entry(place).or_default();
                (*sum, *count) = (*sum + finding.value.unwrap_or(0.0), *count + 1);
            }
            for ((scenario, engine), (sum, count)) in sums {
                rivals.cells.insert((number, scenario, engine), sum / f64::from(count));
            }
        }
        rivals
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
        for (number, way) in WAYS.iter().enumerate() {
            let of_way = |(place, _): &(&(usize, String, String), &f64)| place.0 == number;
            let cells = rows.iter().map(|name| {
                let values = self.cells.iter().filter(of_way).filter(|(place, _)| row(place) == *name);
                cell(&values.map(|(_, value)| *value).collect::<Vec<f64>>(), worst)
            });
            let all: Vec<f64> = self.cells.iter().filter(of_way).map(|(_, value)| *value).collect();
            let _ =
                writeln!(out, "| {} | {} | {} |", way.name, cells.collect::<Vec<_>>().join(" | "), cell(&all, true));
        }
        let _ = writeln!(out, "\nRows: policy; columns: {what}.");
    }
}

impl Way {
    fn applied(&self, scenario: &Scenario) -> Scenario {
        let Self { rule, borrows, mode, limit, .. } = *self;
        let usual = Enforcement::default();
        let control = Enforcement { mode, policy: rule, limit, queue: borrows, late_abort: borrows, ..usual };
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
    fn every_policy_has_a_row_and_the_own_one_beats_no_gate() {
        let text = "about = \"x\"\nengines = [\"slots16\"]\nseeds = [1]\n[[segment]]\nseconds = 60\nload = 2.0\n\
            [[expect]]\nmeasure = \"goodput\"\nat_least = 0\n";
        let scenarios = [Scenario::parse("overload", text).unwrap()];
        let rivals = Rivals::compare(&scenarios, &Selection::default(), &mut Truths::kept(), NonZeroUsize::MIN);
        let of = |number| rivals.cells[&(number, "overload".to_owned(), "slots16".to_owned())];
        assert!(of(0) > 0.9 && of(1) < 0.3, "{} {}", of(0), of(1));
        let page = rivals.page();
        assert!(WAYS.iter().all(|way| page.contains(&format!("| {} |", way.name))), "{page}");
    }
}
