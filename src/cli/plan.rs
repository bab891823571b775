//! `weir plan`: from a baseline to the next experiment.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::analyze::{complain, gpus, write};
use super::value_enums::{FormatArg, LangArg, MeasurementRefused};
use crate::offline::plan::{self, NoPlan, PlanRequest};
use crate::offline::verdict::VerdictKind;
use crate::offline::{Analysis, JudgedSweep, import, report};

/// Flags of `weir plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Results of the sweep to plan from: any that `weir analyze` reads
    #[arg(long, value_name = "FILE|DIR")]
    pub baseline: PathBuf,
    /// GPUs of the next system
    #[arg(long, value_name = "N", value_parser = gpus)]
    pub gpus: f64,
    /// GPUs of the baseline, where its files do not say (1)
    #[arg(long, value_name = "N", value_parser = gpus)]
    pub baseline_gpus: Option<f64>,
    /// Expected efficiency: capacity of N GPUs over N times that of one, above 0 to 1
    #[arg(long, value_name = "E", default_value_t = 0.8, value_parser = efficiency)]
    pub efficiency: f64,
    /// Objective for the time to the first token, for the commands
    #[arg(long, value_name = "DUR", value_parser = super::duration)]
    pub slo_ttft: Option<Duration>,
    /// Where the next system listens, for the commands
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000")]
    pub target: String,
    /// Sweep of the baseline to take, where it has several: its name in `weir analyze`
    #[arg(long, value_name = "NAME")]
    pub sweep: Option<String>,
    /// Language of the plan
    #[arg(long, value_enum, default_value_t)]
    pub lang: LangArg,
    /// Form of the plan
    #[arg(long, value_enum, default_value_t)]
    pub format: FormatArg,
    /// File for the plan, in place of standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Does what was asked for.
///
/// # Errors
/// [`MeasurementRefused`] when the baseline is too noisy; else when nothing could be read or the plan not be written.
pub fn run(flags: &PlanArgs) -> anyhow::Result<()> {
    let baseline = one(&flags.baseline, flags.sweep.as_deref())?;
    let wish = PlanRequest {
        gpus: flags.gpus,
        baseline_gpus: flags.baseline_gpus,
        efficiency: flags.efficiency,
        slo_ttft: flags.slo_ttft.map(|slo| slo.as_secs_f64()),
        target: flags.target.clone(),
        file: flags.baseline.display().to_string(),
    };
    let plan = plan::plan(&baseline.sweep, &baseline.verdict, &wish).map_err(|why| match why {
        NoPlan::Noisy(..) => anyhow::Error::from(MeasurementRefused(why.to_string())),
        NoPlan::NoThroughput(_) => why.into(),
    })?;
    write(&report::planned(&plan, flags.format.into(), flags.lang.into()), flags.out.as_deref())
}

/// The sweep of that name; without one the first that has a verdict, else the first.
pub(super) fn one(path: &PathBuf, name: Option<&str>) -> anyhow::Result<JudgedSweep> {
    let found = import::read(std::slice::from_ref(path));
    complain(&found.problems);
    let mut sweeps = Analysis::of(found.sweeps).sweeps;
    let place = match name {
        Some(name) => sweeps.iter().position(|judged| judged.sweep.id == name),
        None => sweeps
            .iter()
            .position(|judged| judged.verdict.kind != VerdictKind::Noisy)
            .or((!sweeps.is_empty()).then_some(0)),
    };
    let Some(place) = place else {
        let names: Vec<&str> = sweeps.iter().map(|judged| judged.sweep.id.as_str()).collect();
        match name {
            Some(name) if !names.is_empty() => {
                anyhow::bail!("{}: no sweep `{name}`; there are {}", path.display(), names.join(", "))
            }
            _ => anyhow::bail!("{}: no load level could be read", path.display()),
        }
    };
    if name.is_none() && sweeps.len() > 1 {
        eprintln!(
            "weir: {}: {} sweeps, `{}` is taken (--sweep names another)",
            path.display(),
            sweeps.len(),
            sweeps[place].sweep.id
        );
    }
    Ok(sweeps.swap_remove(place))
}

fn efficiency(typed: &str) -> Result<f64, String> {
    match typed.parse::<f64>() {
        Ok(efficiency) if efficiency > 0.0 && efficiency <= 1.0 => Ok(efficiency),
        _ => Err("a number above 0, at most 1, is needed".to_owned()),
    }
}
