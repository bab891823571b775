//! The outcome beside what was expected: as text for a terminal, as tables for a page.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::RangeInclusive;

use super::expectation::{Expectation, Measure};
use super::runner::Finding;
use super::scenario::Scenario;

/// One line a finding, then a count.
pub fn text(findings: &[Finding<'_>]) -> String {
    let rows: Vec<[String; 6]> = findings.iter().map(row).collect();
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(out, "{}", cells.join("  ").trim_end());
    }
    let met = findings.iter().filter(|finding| finding.is_met()).count();
    let _ = writeln!(out, "{met} of {} expectations met", findings.len());
    out
}

/// A page: for every line of the acceptance table its range and the value of each engine, then everything else.
pub fn page(findings: &[Finding<'_>]) -> String {
    let mut lines: BTreeMap<(u32, String), Vec<&Finding<'_>>> = BTreeMap::new();
    for finding in findings {
        let line = finding.expectation.line.clone().unwrap_or_else(|| "other".into());
        lines.entry((order(&line), line)).or_default().push(finding);
    }
    let mut out = String::new();
    for ((_, line), findings) in &lines {
        let met = findings.iter().filter(|finding| finding.is_met()).count();
        let _ = writeln!(out, "\n## {line}: {met} of {} met\n", findings.len());
        out.push_str("| scenario | what | bar | engine: measured |\n|---|---|---|---|\n");
        for (scenario, expectation, cells) in grouped(findings) {
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} |",
                scenario.name,
                what(expectation),
                range(expectation.measure, &expectation.range),
                cells.join(" · ")
            );
        }
    }
    out
}

/// Findings of one expectation together, an entry for each engine; what is not met is in bold.
fn grouped<'a>(findings: &[&Finding<'a>]) -> Vec<(&'a Scenario, &'a Expectation, Vec<String>)> {
    let mut groups: Vec<(&Scenario, &Expectation, Vec<String>)> = Vec::new();
    for finding in findings {
        let value = value(finding.expectation.measure, finding.value);
        let cell = if finding.is_met() {
            format!("{} {value}", finding.engine)
        } else {
            format!("**{} {value}**", finding.engine)
        };
        match groups.iter_mut().find(|group| std::ptr::eq(group.1, finding.expectation)) {
            Some(group) => group.2.push(cell),
            None => groups.push((finding.scenario, finding.expectation, vec![cell])),
        }
    }
    groups
}

fn row(finding: &Finding<'_>) -> [String; 6] {
    let expectation = finding.expectation;
    [
        if finding.is_met() { "met" } else { "NOT MET" }.to_owned(),
        finding.scenario.name.clone(),
        finding.engine.to_owned(),
        what(expectation),
        format!("expected {}", range(expectation.measure, &expectation.range)),
        format!("came out {}{}", value(expectation.measure, finding.value), seeds(finding)),
    ]
}

/// The seeds' own values, where there are several.
fn seeds(finding: &Finding<'_>) -> String {
    if finding.seeds.len() < 2 {
        return String::new();
    }
    let values: Vec<String> = finding.seeds.iter().map(|seed| value(finding.expectation.measure, *seed)).collect();
    format!(" ({})", values.join(" "))
}

fn what(expectation: &Expectation) -> String {
    let mut what = format!("{} {}", expectation.of.word(), expectation.measure.word());
    if !expectation.is.is_empty() {
        let _ = write!(what, " = {}", expectation.is.join("|"));
    }
    let _ = write!(what, ", segment {}", expectation.segment);
    if let Some(at) = expectation.at {
        let _ = write!(what, " at {} s", at.as_secs_f64());
    }
    what
}

fn range(measure: Measure, range: &RangeInclusive<f64>) -> String {
    match (*range.start(), *range.end()) {
        (low, high) if low == high => number(measure, low),
        (f64::NEG_INFINITY, high) => format!("<= {}", number(measure, high)),
        (low, f64::INFINITY) => format!(">= {}", number(measure, low)),
        (low, high) => format!("{} .. {}", number(measure, low), number(measure, high)),
    }
}

fn value(measure: Measure, value: Option<f64>) -> String {
    match value {
        Some(value) if value.is_finite() => number(measure, value),
        _ => "nothing".into(),
    }
}

fn number(measure: Measure, value: f64) -> String {
    if measure.is_share() {
        return format!("{:.1} %", value * 100.0);
    }
    let digits = match value.abs() {
        size if size >= 100.0 || value == value.trunc() => 0,
        size if size >= 10.0 => 1,
        size if size >= 0.995 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// A7 before A7b before A8 before A10: the number in the line's name.
fn order(line: &str) -> u32 {
    let digits: String = line.chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario() -> Scenario {
        let text = "about = \"x\"\nengines = [\"seed\"]\nseeds = [1, 2]\n[[segment]]\nseconds = 60\nload = 2.0\n\
            [[expect]]\nline = \"A10\"\nmeasure = \"knee_error\"\nof = \"mean_size\"\nat = 30\nat_most = 0.05\n\
            [[expect]]\nline = \"A7b\"\nmeasure = \"state\"\nis = [\"saturated\"]\n";
        Scenario::parse("step", text).unwrap()
    }

    fn findings(scenario: &Scenario) -> Vec<Finding<'_>> {
        let finding = |number: usize, seeds: [Option<f64>; 2], value| Finding {
            scenario,
            engine: "seed",
            expectation: &scenario.expectations[number],
            seeds: seeds.to_vec(),
            value,
        };
        vec![finding(0, [Some(0.02), Some(-0.08)], Some(0.05)), finding(1, [Some(1.0), None], None)]
    }

    #[test]
    fn a_line_says_what_was_expected_and_what_came_out() {
        let scenario = scenario();
        let text = text(&findings(&scenario));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "met      step  seed  mean_size knee_error, segment 0 at 30 s  expected <= 5.0 %  came out 5.0 % (2.0 % -8.0 %)"
        );
        assert_eq!(
            lines[1],
            "NOT MET  step  seed  each state = saturated, segment 0        expected 1         came out nothing (1 nothing)"
        );
        assert_eq!(lines[2], "1 of 2 expectations met");
    }

    #[test]
    fn the_page_has_a_table_for_each_line_in_their_order() {
        let scenario = scenario();
        let page = page(&findings(&scenario));
        let (a7b, a10) = (page.find("## A7b: 0 of 1 met").unwrap(), page.find("## A10: 1 of 1 met").unwrap());
        assert!(a7b < a10);
        assert!(page.contains("| step | mean_size knee_error, segment 0 at 30 s | <= 5.0 % | seed 5.0 % |"), "{page}");
        assert!(page.contains("**seed nothing**"), "what is not met is in bold");
    }
}
