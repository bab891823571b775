//! `weir rehearse --journal FILE`: a recorded journal goes through the estimator again, and its verdicts are printed.
//!
//! It holds the file and the words; what is replayed, and in which order, lies in `simulation::journal`. The whole file
//! is in memory while it is replayed, because a journal is in the order of its requests' ends.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::Context as _;

use crate::estimate::{Estimate, Reading, Settings};
use crate::measure::journal::{JournalLine, JournalRecord};
use crate::simulation::{SimulationOutcome, journal};
use crate::vocabulary::time::Timestamp;

/// Replays `file` and says, for every process that wrote into it and every backend, when the state changed and why, and
/// the knee at the end.
///
/// # Errors
/// A file that cannot be read, a line that is none of a journal's, with its number, or a file without a request.
pub fn run(file: &Path, settings: &Settings) -> anyhow::Result<String> {
    let records = read(file)?;
    anyhow::ensure!(!records.is_empty(), "{} holds no request: expected lines that `weir serve` wrote", file.display());
    let lives: Vec<_> = journal::lives(&records).collect();
    let mut out = String::new();
    for (number, life) in lives.iter().enumerate() {
        if lives.len() > 1 {
            // Writing into a String cannot fail.
            let _ = writeln!(out, "process {} of {}", number + 1, lives.len());
        }
        for (backend, outcome) in journal::replay(life, settings) {
            let _ = write_outcome(&mut out, backend, &outcome);
        }
    }
    Ok(out)
}

fn read(file: &Path) -> anyhow::Result<Vec<JournalRecord>> {
    let lines = BufReader::new(File::open(file).with_context(|| file.display().to_string())?).lines();
    let mut records = Vec::new();
    for (number, line) in lines.enumerate() {
        let place = || format!("{}, line {}", file.display(), number + 1);
        let line = line.with_context(place)?;
        if line.trim().is_empty() {
            continue;
        }
        let parsed = serde_json::from_str(&line).ok();
        match parsed.with_context(|| format!("{}: not a line of a journal", place()))? {
            JournalLine::Request(record) => records.push(*record),
            JournalLine::Transition { .. } => {}
        }
    }
    Ok(records)
}

fn write_outcome(out: &mut String, backend: &str, outcome: &SimulationOutcome) -> std::fmt::Result {
    writeln!(out, "{backend}")?;
    for change in &outcome.transitions {
        let at = change.at.since(Timestamp::ZERO).as_secs_f64();
        writeln!(out, "  {at:>8.1} s  {:<12} {}", change.to.word(), change.reason)?;
    }
    match outcome.moments.last() {
        Some(moment) => conclude(out, &moment.reading),
        None => writeln!(out, "  knee        less than a second of traffic"),
    }
}

fn conclude(out: &mut String, reading: &Reading) -> std::fmt::Result {
    match &reading.knee {
        Ok(knee) => writeln!(
            out,
            "  knee        {} req/s, {} in flight, {} tok/s, from {} saturated blocks, bound by {}",
            spread(knee.requests_per_second),
            spread(knee.in_flight),
            spread(knee.tokens_per_second),
            knee.blocks,
            knee.regime.word(),
        )?,
        Err(missing) => writeln!(out, "  knee        {missing}")?,
    }
    match &reading.prediction {
        Ok(prediction) => writeln!(out, "  prediction  {} req/s", spread(prediction.requests_per_second)),
        Err(_) if reading.knee.is_ok() => Ok(()),
        Err(missing) => writeln!(out, "  prediction  {missing}"),
    }
}

fn spread(estimate: Estimate) -> String {
    format!("{:.2} ({:.2} to {:.2})", estimate.value, estimate.low, estimate.high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimate::EngineLimits;
    use std::time::Duration;

    fn replayed(text: &str) -> Result<String, String> {
        let file = std::env::temp_dir().join(format!("weir-replay-{}-{}.jsonl", std::process::id(), text.len()));
        std::fs::write(&file, text).unwrap();
        let settings = Settings { slo_ttft: Duration::from_secs(1), engine: EngineLimits::default() };
        let said = run(&file, &settings).map_err(|error| format!("{error:#}"));
        std::fs::remove_file(&file).unwrap();
        said
    }

    const TURN: &str = r#"{"transition":{"backend":"a","at":1,"from":"unknown","to":"healthy","reason":"x"}}"#;

    #[test]
    fn a_line_that_is_none_of_a_journals_is_named_by_its_number() {
        let error = replayed(&format!("{TURN}\n\nnot json\n")).unwrap_err();
        assert!(error.ends_with("line 3: not a line of a journal"), "{error}");
    }

    #[test]
    fn a_journal_without_a_request_says_so() {
        let error = replayed(&format!("{TURN}\n")).unwrap_err();
        assert!(error.contains("holds no request"), "{error}");
    }
}
