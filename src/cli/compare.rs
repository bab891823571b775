//! `weir compare`: one system against another, or the same before and after.

use std::path::PathBuf;

use clap::Args;

use super::analyze::{gpus, with_gpus, write};
use super::plan::one;
use super::value_enums::{FormatArg, LangArg, MeasurementRefused};
use crate::offline::compare::compare;
use crate::offline::{JudgedSweep, report};

/// Flags of `weir compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Results of the system to compare with: any that `weir analyze` reads
    #[arg(value_name = "BASE")]
    pub base: PathBuf,
    /// Results of the other system; several of different sizes give a law of scaling
    #[arg(value_name = "CANDIDATE", required = true)]
    pub candidates: Vec<PathBuf>,
    /// GPUs of the candidate, where its files do not say; repeat for several candidates, in their order
    #[arg(long, value_name = "N", value_parser = gpus)]
    pub gpus: Vec<f64>,
    /// GPUs of the base, where its files do not say (1)
    #[arg(long, value_name = "N", value_parser = gpus)]
    pub base_gpus: Option<f64>,
    /// Sweep of the base to take, where it has several: its name in `weir analyze`
    #[arg(long, value_name = "NAME")]
    pub base_sweep: Option<String>,
    /// Sweep of the candidates to take, where they have several
    #[arg(long, value_name = "NAME")]
    pub sweep: Option<String>,
    /// Language of the report
    #[arg(long, value_enum, default_value_t)]
    pub lang: LangArg,
    /// Form of the report
    #[arg(long, value_enum, default_value_t)]
    pub format: FormatArg,
    /// File for the report, in place of standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Does what was asked for.
///
/// # Errors
/// [`MeasurementRefused`] when a side does not carry a comparison; else when nothing could be read or the report not be written.
pub fn run(flags: &CompareArgs) -> anyhow::Result<()> {
    let base = sized(one(&flags.base, flags.base_sweep.as_deref())?, flags.base_gpus);
    let mut candidates: Vec<(String, JudgedSweep)> = Vec::new();
    for (number, path) in flags.candidates.iter().enumerate() {
        let gpus = flags.gpus.get(number).or(flags.gpus.last()).copied();
        candidates.push((path.display().to_string(), sized(one(path, flags.sweep.as_deref())?, gpus)));
    }
    let named: Vec<(&str, &JudgedSweep)> = candidates.iter().map(|(file, judged)| (file.as_str(), judged)).collect();
    let file = flags.base.display().to_string();
    let found = compare((&file, &base), &named).ok_or_else(|| anyhow::anyhow!("there is nothing to compare with"))?;
    write(&report::comparison(&found, flags.format.into(), flags.lang.into()), flags.out.as_deref())?;
    if found.refused.is_some() {
        return Err(MeasurementRefused("the two do not carry a comparison".to_owned()).into());
    }
    Ok(())
}

fn sized(judged: JudgedSweep, gpus: Option<f64>) -> JudgedSweep {
    JudgedSweep { sweep: with_gpus(judged.sweep, gpus), ..judged }
}
