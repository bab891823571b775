//! The flags of `weir sweep`, checked and turned into a job.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use http::{HeaderName, HeaderValue};

use super::{ArrivalsWord, SweepArgs};
use crate::clock::Clock;
use crate::load::body::BodyTemplate;
use crate::load::runner::LoadLevel;
use crate::load::schedule::{Arrivals, Burstiness, Extent, Rate};
use crate::load::trace_file::TraceFile;
use crate::load::workload::Workload;
use crate::sweep::parts::share;
use crate::sweep::run::{LevelPlan, SweepJob, Timetable};
use crate::sweep::search::{Search, SearchLoad};
use crate::vocabulary::slo::Slo;

/// The order.
///
/// # Errors
/// A file cannot be read, or a header field is none.
pub fn of(flags: &SweepArgs) -> anyhow::Result<SweepJob> {
    let listing = flags.workload.as_deref().or(flags.trace.as_deref()).map(read).transpose()?;
    let plan = plan(flags, listing.as_ref())?;
    let mut level = LoadLevel::open(Rate::ONE, 0);
    level.workload = Workload { prompt: flags.input_tokens, output: flags.output_tokens, seed: flags.seed };
    level.pinned = true;
    level.template = BodyTemplate {
        api: flags.dialect,
        model: flags.model.clone().unwrap_or_else(|| BodyTemplate::default().model),
        stream: !flags.no_stream,
        ignore_eos: !flags.plain,
        include_usage: true,
    };
    level.headers = flags.headers.iter().map(|field| header(field)).collect::<anyhow::Result<_>>()?;
    level.grace = flags.grace;
    // A user who names an objective for the first token wants goodput by it; gaps are not part of it.
    level.slo = flags.slo_ttft.map(|ttft| Slo { ttft, itl: std::time::Duration::MAX });
    let count = flags.requests.filter(|_| !is_auto(flags)).map(Extent::Count);
    let whole_trace = listing.as_ref().filter(|_| flags.trace.is_some()).map(|trace| Extent::Count(trace.len() as u64));
    level.trace = listing;
    let extent = count.or(flags.duration.map(Extent::Time)).or(whole_trace);
    let plan = own_share(flags, plan)?;
    if let Some(part) = flags.part.filter(|_| flags.parts.is_some()) {
        // Far from the seeds of other parts and of other levels: no two send the same prompts at the same times.
        level.workload.seed = level.workload.seed.wrapping_add(u64::from(part).wrapping_mul(SEEDS_APART));
    }
    Ok(SweepJob { level, arrivals: arrivals(flags)?, plan, extent, timetable: timetable(flags) })
}

/// What this process sends of each load.
fn own_share(flags: &SweepArgs, plan: LevelPlan) -> anyhow::Result<LevelPlan> {
    let (Some(index), Some(of)) = (flags.part, flags.parts) else { return Ok(plan) };
    anyhow::ensure!(index < of, "--part {index}: parts count from 0, and there are {of}");
    let LevelPlan::Given(loads) = plan else {
        anyhow::bail!("--parts needs --rates or --concurrency: one part cannot search alone")
    };
    let too_few = loads.iter().find(|load| matches!(load, SearchLoad::Closed(clients) if *clients < of));
    if let Some(SearchLoad::Closed(clients)) = too_few {
        anyhow::bail!("--concurrency {clients}: fewer clients than parts ({of})");
    }
    Ok(LevelPlan::Given(loads.into_iter().map(|load| share(load, index, of)).collect()))
}

fn timetable(flags: &SweepArgs) -> Option<Timetable> {
    let beside_others = flags.parts.and(flags.duration).map(|duration| duration + PAUSE);
    let every = flags.every.or(beside_others);
    if flags.start_at.is_none() && every.is_none() {
        return None;
    }
    let wait = flags.start_at.and_then(|at| at.duration_since(super::wall_clock()).ok()).unwrap_or_default();
    let clock = Clock::start();
    let first = clock.instant(clock.now() + wait);
    Some(Timetable { first, every: every.unwrap_or_default() })
}

fn is_auto(flags: &SweepArgs) -> bool {
    flags.rates.is_empty() && flags.concurrency.is_empty() && flags.trace.is_none()
}

fn plan(flags: &SweepArgs, listing: Option<&Arc<TraceFile>>) -> anyhow::Result<LevelPlan> {
    if is_auto(flags) {
        let slo = flags.slo_ttft.map(|slo| slo.as_secs_f64());
        return Ok(LevelPlan::Auto(Search::new(usize::from(flags.most_levels), flags.requests, slo)));
    }
    let mut loads: Vec<SearchLoad> = flags.rates.iter().map(|rate| SearchLoad::Open(rate.per_second())).collect();
    loads.extend(flags.concurrency.iter().map(|clients| SearchLoad::Closed(*clients)));
    if loads.is_empty() {
        let own = listing.and_then(|trace| trace.rate()).context("the trace has no times")?;
        loads.push(SearchLoad::Open(own.per_second()));
    }
    Ok(LevelPlan::Given(loads))
}

fn arrivals(flags: &SweepArgs) -> anyhow::Result<Arrivals> {
    Ok(match flags.arrivals {
        ArrivalsWord::Poisson => Arrivals::Poisson,
        ArrivalsWord::Constant => Arrivals::Constant,
        ArrivalsWord::Gamma => Arrivals::Gamma { burstiness: Burstiness::new(flags.burstiness)? },
    })
}

fn read(file: &Path) -> anyhow::Result<Arc<TraceFile>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(Arc::new(TraceFile::parse(&text).with_context(|| file.display().to_string())?))
}

/// The value is kept out of the error: it may be a key.
fn header(field: &str) -> anyhow::Result<(HeaderName, HeaderValue)> {
    let (name, value) = field.split_once(':').context("--header: write `name: value`")?;
    let name: HeaderName = name.trim().parse().with_context(|| format!("--header: `{name}` is no field name"))?;
    let mut value = HeaderValue::from_str(value.trim()).with_context(|| format!("--header {name}: not a value"))?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// Seeds of one part's levels lie next to each other; those of the next part begin so far away.
const SEEDS_APART: u64 = 1 << 32;

/// Between the last send of a level and the first of the next, where several send: time for the last answers.
const PAUSE: std::time::Duration = std::time::Duration::from_secs(60);
