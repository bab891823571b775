//! `weir rehearse`: reads files, has them played, prints what came out.
//!
//! It holds the files and the terminal; what is simulated and how it is judged lies in `simulation`.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use super::replay;
use crate::engine::profile::Profile;
use crate::estimate::{EngineLimits, Settings};
use crate::simulation;
use crate::simulation::scenario::Subject;
use crate::simulation::{LimiterComparison, Machine, Scenario, Selection, SimulationChart, Truth, Truths, report};
use crate::vocabulary::time::Timestamp;

/// Flags of `weir rehearse`.
#[derive(Debug, Args)]
pub struct RehearseArgs {
    /// Scenario files, or folders of them
    #[arg(value_name = "SCENARIO", required_unless_present_any = ["truth", "journal"])]
    pub scenarios: Vec<PathBuf>,
    /// Play only this engine of each scenario; repeat for more
    #[arg(long, value_name = "NAME")]
    pub engine: Vec<String>,
    /// Play this seed in place of the file's
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Print the findings as a page of tables
    #[arg(long)]
    pub page: bool,
    /// Play the scenarios under every policy, as published and with weir's queue and late abort, and print the goodputs as tables
    #[arg(long, conflicts_with_all = ["page", "svg"])]
    pub rivals: bool,
    /// Draw one engine and one seed of one scenario: the first of each, unless --engine and --seed say another
    #[arg(long, value_name = "FILE", conflicts_with = "page")]
    pub svg: Option<PathBuf>,
    /// Compute the true capacity of an engine, or of every engine and mix of a scenario file, in long closed loops
    #[arg(long, value_name = "PROFILE|SCENARIO", conflicts_with_all = ["scenarios", "page"])]
    pub truth: Vec<String>,
    /// Replay a journal that `weir serve` wrote through the same estimator
    #[arg(long, value_name = "FILE", conflicts_with_all = ["scenarios", "truth", "page", "svg", "engine", "seed"])]
    pub journal: Option<PathBuf>,
    /// With --journal: the objective for the time to first token that the backends were held to
    #[arg(long, value_name = "DUR", value_parser = super::duration, default_value = "1s", requires = "journal")]
    pub slo_ttft: Duration,
    /// With --journal: the engine's most sequences in a batch, for the prediction
    #[arg(long, value_name = "N", requires = "journal")]
    pub max_num_seqs: Option<u32>,
    /// With --journal: the engine's KV memory in tokens, for the prediction
    #[arg(long, value_name = "N", requires = "journal")]
    pub kv_tokens: Option<u32>,
    /// With --journal: the engine's most tokens in one step, for the prediction
    #[arg(long, value_name = "N", requires = "journal")]
    pub max_num_batched_tokens: Option<u32>,
}

/// Something came out that was not expected.
#[derive(Debug, thiserror::Error)]
#[error("{unmet} of {all} expectations were not met")]
pub struct Unmet {
    unmet: usize,
    all: usize,
}

/// Does what was asked for.
///
/// # Errors
/// A file that cannot be read or says nothing sensible; [`Unmet`] when an expectation was not met.
pub fn run(flags: &RehearseArgs) -> anyhow::Result<()> {
    if !flags.truth.is_empty() {
        return truths(&flags.truth);
    }
    if let Some(file) = &flags.journal {
        print!("{}", replay::run(file, &flags.settings())?);
        return Ok(());
    }
    let scenarios = read_all(&flags.scenarios)?;
    if let Some(file) = &flags.svg {
        draw(&scenarios, flags, file)?;
    }
    let choice = Selection { engines: flags.engine.clone(), seeds: flags.seed.map(|seed| vec![seed]) };
    if flags.rivals {
        print!("{}", LimiterComparison::compare(&scenarios, &choice, &mut Truths::kept(), threads()).page());
        return Ok(());
    }
    let findings = simulation::rehearse(&scenarios, &choice, &mut Truths::kept(), threads());
    print!("{}", if flags.page { report::page(&findings) } else { report::text(&findings) });
    let unmet = findings.iter().filter(|finding| !finding.is_met()).count();
    if unmet == 0 { Ok(()) } else { Err(Unmet { unmet, all: findings.len() }.into()) }
}

impl RehearseArgs {
    /// The estimator's settings for the replay of a journal.
    fn settings(&self) -> Settings {
        let (max_num_seqs, kv_tokens) = (self.max_num_seqs, self.kv_tokens);
        let engine = EngineLimits { max_num_seqs, kv_tokens, max_num_batched_tokens: self.max_num_batched_tokens };
        Settings { slo_ttft: self.slo_ttft, engine }
    }
}

/// Draws into `file`, and says on standard error when the state changed and why.
fn draw(scenarios: &[Scenario], flags: &RehearseArgs, file: &Path) -> anyhow::Result<()> {
    let [scenario] = scenarios else { anyhow::bail!("--svg draws one scenario, not {}", scenarios.len()) };
    let wanted = |subject: &&Subject| flags.engine.is_empty() || flags.engine.contains(&subject.name);
    let subject = scenario.engines.iter().find(wanted).context("the scenario has no such engine")?;
    let seed = flags.seed.or(scenario.seeds.first().copied()).unwrap_or(1);
    let (outcome, truths) = simulation::perform(scenario, subject, &mut Truths::kept(), threads(), seed);
    for change in &outcome.transitions {
        let at = change.at.since(Timestamp::ZERO).as_secs_f64();
        eprintln!("{at:8.1} s  {} -> {}: {}", change.from, change.to, change.reason);
    }
    let svg = SimulationChart { scenario, subject, seed, outcome: &outcome, truths: &truths }.svg();
    fs::write(file, svg).with_context(|| file.display().to_string())
}

fn truths(names: &[String]) -> anyhow::Result<()> {
    for name in names {
        let machines = if Path::new(name).exists() {
            simulation::machines_of(&read_all(&[PathBuf::from(name)])?)
        } else {
            vec![(name.clone(), Machine::plain(Profile::named(name)?.setup))]
        };
        for (name, machine) in machines {
            println!("{}", Truth::compute(&machine).line(&name, &machine));
        }
    }
    Ok(())
}

/// The files, and those of the folders in the order of their names.
fn read_all(paths: &[PathBuf]) -> anyhow::Result<Vec<Scenario>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = fs::read_dir(path).with_context(|| path.display().to_string())?;
        let mut inside: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        inside.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
        inside.sort();
        files.extend(inside);
    }
    files.iter().map(|file| read(file)).collect()
}

fn read(file: &Path) -> anyhow::Result<Scenario> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    Ok(Scenario::parse(&name, &text)?)
}

fn threads() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}
