//! `weir analyze`: reads results of load generators, has them judged, writes the report.
//!
//! It holds the files and the terminal; what is read and how it is judged lies in `offline`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use super::value_enums::{FormatArg, LangArg, MeasurementRefused};
use crate::offline::import::{self, Problem};
use crate::offline::sweep::{Objectives, Sweep};
use crate::offline::{Analysis, report};
use crate::sweep::parts::{self, Merged};

/// Flags of `weir analyze`.
#[derive(Debug, Args)]
pub struct AnalyzeArgs {
    /// Results of vLLM, SGLang, AIPerf, GenAI-Perf, GuideLLM, inference-perf, llmperf or weir, or CSV; folders are searched
    #[arg(value_name = "FILE|DIR", required = true)]
    pub paths: Vec<PathBuf>,
    /// Language of the report
    #[arg(long, value_enum, default_value_t)]
    pub lang: LangArg,
    /// Form of the report
    #[arg(long, value_enum, default_value_t)]
    pub format: FormatArg,
    /// File for the report, in place of standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Objective for the time to the first token, for goodput
    #[arg(long, value_name = "DUR", value_parser = super::duration)]
    pub slo_ttft: Option<Duration>,
    /// Folder for the sum of parts of a sweep: sweep.json, requests.jsonl, sweep.csv, report.html
    #[arg(long, value_name = "DIR")]
    pub merge_into: Option<PathBuf>,
    /// GPUs of the system, where the files do not say
    #[arg(long, value_name = "N", value_parser = gpus)]
    pub gpus: Option<f64>,
}

/// Does what was asked for.
///
/// # Errors
/// [`MeasurementRefused`] when no sweep supports a verdict; else when nothing could be read or the report not be written.
pub fn run(flags: &AnalyzeArgs) -> anyhow::Result<()> {
    let folders = parts::find(&flags.paths);
    let mut found =
        if folders.is_empty() { import::read(&flags.paths) } else { import::read_beside(&flags.paths, &folders) };
    let (merged, problems) = together(&folders);
    found.problems.extend(problems);
    found.sweeps.splice(0..0, merged.iter().map(|merged| merged.sweep.clone()));
    complain(&found.problems);
    if let Some(out) = &flags.merge_into {
        let [one] = merged.as_slice() else {
            anyhow::bail!(
                "--merge-into: {} sweeps could be put together of parts, and it takes exactly one",
                merged.len()
            );
        };
        super::sweep::write_merged(out, one, flags.lang.into())?;
    }
    let slo = flags.slo_ttft.map(|ttft| Objectives { ttft: ttft.as_secs_f64(), itl: None });
    let sweeps = found.sweeps.into_iter().map(|sweep| with_gpus(sweep, flags.gpus)).collect();
    let mut analysis = Analysis::under(sweeps, slo);
    analysis.problems = found.problems;
    let page = report::render(&analysis, flags.format.into(), flags.lang.into());
    write(&page, flags.out.as_deref())?;
    if analysis.sweeps.is_empty() {
        anyhow::bail!("no load level could be read");
    }
    if analysis.refused() {
        return Err(MeasurementRefused("no sweep supports a verdict".to_owned()).into());
    }
    Ok(())
}

/// The sweeps whose parts are all there.
fn together(folders: &[PathBuf]) -> (Vec<Merged>, Vec<Problem>) {
    let (mut read, mut unreadable) = (Vec::new(), Vec::new());
    for folder in folders {
        match parts::read(folder) {
            Ok(part) => read.push(part),
            Err(problem) => unreadable.push(problem),
        }
    }
    let (merged, problems) = parts::merge(read);
    unreadable.extend(problems);
    (merged, unreadable)
}

/// One line each, to where talk goes.
pub(super) fn complain(problems: &[Problem]) {
    for problem in problems {
        eprintln!("weir: {problem}");
    }
}

/// What is not in the file may be on the command line.
pub(super) fn with_gpus(mut sweep: Sweep, gpus: Option<f64>) -> Sweep {
    sweep.environment.gpus = sweep.environment.gpus.or(gpus);
    sweep
}

/// To the file, or to standard output.
pub(super) fn write(page: &str, out: Option<&Path>) -> anyhow::Result<()> {
    use std::io::Write as _;
    match out {
        Some(path) => fs::write(path, page).with_context(|| format!("cannot write {}", path.display())),
        None => match std::io::stdout().lock().write_all(page.as_bytes()) {
            // A reader that has seen enough, such as `head`, is no failure.
            Err(why) if why.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            written => written.context("cannot write to standard output"),
        },
    }
}

/// A number of GPUs.
pub(super) fn gpus(typed: &str) -> Result<f64, String> {
    match typed.parse::<u32>() {
        Ok(gpus) if gpus > 0 && gpus <= 1_000_000 => Ok(f64::from(gpus)),
        _ => Err("a whole number from 1 is needed".to_owned()),
    }
}
