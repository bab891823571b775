//! Parts of a sweep: several processes send shares of the same load at once, and their folders become one sweep.
//!
//! Requests are put on one clock and summed up as if one process had sent them; gaps between tokens, which no folder keeps,
//! come from histograms that add up bucket for bucket. What does not belong together is refused: a part that is missing or
//! there twice, another command, levels that did not run at the same time. It holds no terminal, and only `find` and `read` touch files.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::fill;
use super::search;
use crate::load::record::LoadRecord;
use crate::load::summary::LevelSummary;
use crate::load::times::LevelTimes;
use crate::offline::import::Problem;
use crate::offline::sweep::{Environment, LevelLoad, Objectives, Sweep};
use crate::vocabulary::slo::Slo;
use crate::vocabulary::time::Timestamp;

/// Which part of a sweep a folder holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweepPart {
    /// Its number, from 0.
    pub index: u32,
    /// How many there are.
    pub of: u32,
    /// The load of each level, of all parts together.
    pub loads: Vec<f64>,
    /// The levels are closed loops.
    pub closed: bool,
}

/// What a `sweep.json` has of a level beside its figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LevelNotes {
    /// Its number in `requests.jsonl`, from 1.
    pub number: usize,
    /// When its clock was at zero, microseconds of Unix time.
    pub began_unix_us: u64,
    /// Its histograms.
    pub histograms: LevelTimes,
}

/// A folder that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct PartFolder {
    /// Where it is, for sentences.
    pub name: String,
    /// Its `sweep.json`.
    pub file: PartFile,
    /// Its requests by the number of their level.
    pub requests: BTreeMap<usize, Vec<LoadRecord>>,
}

/// The keys of a part's `sweep.json` that merging needs.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct PartFile {
    /// What was measured; all parts have the same command.
    pub environment: Environment,
    /// What a good request is.
    pub slo: Option<Objectives>,
    /// Which part it is.
    pub part: SweepPart,
    /// Its levels.
    pub levels: Vec<PartLevel>,
}

/// One level of a part.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct PartLevel {
    /// What a level keeps.
    #[serde(flatten)]
    pub kept: LevelNotes,
    /// The part could not offer its share.
    #[serde(default)]
    pub client_limited: bool,
}

/// A level of all parts together.
#[derive(Clone, Debug, PartialEq)]
pub struct MergedLevel {
    /// What was asked for.
    pub load: LevelLoad,
    /// All requests on one clock, in the order of their intended starts.
    pub records: Vec<LoadRecord>,
    /// What they come to.
    pub summary: LevelSummary,
    /// Number, start and histograms.
    pub kept: LevelNotes,
    /// One part could not offer its share, or the parts did not run together.
    pub proves_nothing: bool,
}

/// A sweep of all parts.
#[derive(Clone, Debug, PartialEq)]
pub struct Merged {
    /// As reports want it.
    pub sweep: Sweep,
    /// With what reports do not want.
    pub levels: Vec<MergedLevel>,
}

/// Folders among `paths`, and below them, that hold a part.
pub fn find(paths: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in paths {
        search_in(path, 0, &mut found);
    }
    found.sort();
    found.dedup();
    found
}

/// Reads a part.
///
/// # Errors
/// A file cannot be read or is not what `weir sweep --parts` writes; the sentence names it.
pub fn read(folder: &Path) -> Result<PartFolder, Problem> {
    let wrong = |name: &str, line: Option<usize>, what: String| Problem {
        file: folder.join(name).display().to_string(),
        line: line.and_then(|line| u32::try_from(line).ok()),
        what,
    };
    let text = fs::read(folder.join(SWEEP)).map_err(|why| wrong(SWEEP, None, format!("cannot be read ({why})")))?;
    let file: PartFile = serde_json::from_slice(&text)
        .map_err(|why| wrong(SWEEP, Some(why.line()), format!("expected a part of a sweep: {why}")))?;
    let lines =
        File::open(folder.join(REQUESTS)).map_err(|why| wrong(REQUESTS, None, format!("cannot be read ({why})")))?;
    let mut requests: BTreeMap<usize, Vec<LoadRecord>> = BTreeMap::new();
    for (number, line) in BufReader::new(lines).lines().enumerate() {
        let line = line.map_err(|why| wrong(REQUESTS, Some(number + 1), format!("cannot be read ({why})")))?;
        let line: PartLine = serde_json::from_str(&line)
            .map_err(|why| wrong(REQUESTS, Some(number + 1), format!("expected a request: {why}")))?;
        requests.entry(line.level).or_default().push(line.record);
    }
    Ok(PartFolder { name: folder.display().to_string(), file, requests })
}

/// Merges parts of the same command; what cannot be merged is a [`Problem`].
pub fn merge(folders: Vec<PartFolder>) -> (Vec<Merged>, Vec<Problem>) {
    let mut groups: BTreeMap<(String, u32), Vec<PartFolder>> = BTreeMap::new();
    for folder in folders {
        let command = folder.file.environment.command.clone().unwrap_or_default();
        groups.entry((command, folder.file.part.of)).or_default().push(folder);
    }
    let (mut merged, mut problems) = (Vec::new(), Vec::new());
    for mut parts in groups.into_values() {
        parts.sort_by_key(|folder| folder.file.part.index);
        match one(&parts) {
            Ok((sweep, said)) => {
                merged.push(sweep);
                problems.extend(said);
            }
            Err(problem) => problems.push(problem),
        }
    }
    (merged, problems)
}

fn one(parts: &[PartFolder]) -> Result<(Merged, Vec<Problem>), Problem> {
    let first = parts.first().ok_or_else(|| said("", "no part at all".to_owned()))?;
    let part = &first.file.part;
    for (expected, folder) in (0..).zip(parts) {
        let index = folder.file.part.index;
        if index < expected {
            return Err(said(&folder.name, format!("part {index} of {} is there twice; nothing is merged", part.of)));
        }
        if index > expected {
            return Err(said(&first.name, format!("part {expected} of {} is missing; nothing is merged", part.of)));
        }
        if (&folder.file.part.loads, folder.file.part.closed) != (&part.loads, part.closed) {
            return Err(said(&folder.name, "has other levels than the other parts; nothing is merged".to_owned()));
        }
    }
    if parts.len() as u64 != u64::from(part.of) {
        return Err(said(&first.name, format!("part {} of {} is missing; nothing is merged", parts.len(), part.of)));
    }
    let (mut levels, mut problems) = (Vec::new(), Vec::new());
    for (number, load) in (1..).zip(&part.loads) {
        match level(parts, number, *load) {
            Ok(level) => {
                if let Some(apart) = too_far_apart(parts, number, &level.summary) {
                    let what = format!(
                        "the parts of level {number} began {:.1} s apart: it proves nothing",
                        apart.as_secs_f64()
                    );
                    problems.push(said(&first.name, what));
                }
                levels.push(level);
            }
            Err(problem) => problems.push(problem),
        }
    }
    let filled = levels.iter().map(|level| {
        let mut filled = fill::level(level.load, &level.summary);
        filled.client_limited |= level.proves_nothing;
        filled
    });
    let sweep = Sweep {
        id: "sweep".to_owned(),
        environment: first.file.environment.clone(),
        slo: first.file.slo,
        levels: filled.collect(),
    };
    Ok((Merged { sweep, levels }, problems))
}

fn level(parts: &[PartFolder], number: usize, load: f64) -> Result<MergedLevel, Problem> {
    let none = Vec::new();
    let mut shares = Vec::with_capacity(parts.len());
    for folder in parts {
        let level = folder.file.levels.iter().find(|level| level.kept.number == number);
        let level = level.ok_or_else(|| said(&folder.name, format!("has no level {number}: it is left out")))?;
        let records = folder.requests.get(&number).unwrap_or(&none);
        let mut own = LevelTimes::of(records);
        own.itl.clone_from(&level.kept.histograms.itl);
        if own != level.kept.histograms {
            return Err(said(
                &folder.name,
                format!("requests.jsonl is not what sweep.json was made of: level {number} is left out"),
            ));
        }
        shares.push((level, records));
    }
    let began = shares.iter().map(|(level, _)| level.kept.began_unix_us).min().unwrap_or_default();
    let mut histograms = LevelTimes::default();
    let mut records = Vec::new();
    for (level, own) in &shares {
        histograms.merge(&level.kept.histograms);
        let late = Duration::from_micros(level.kept.began_unix_us - began);
        records.extend(own.iter().map(|record| later(record, late)));
    }
    records.sort_by_key(|record| record.intended);
    for (id, record) in (0..).zip(&mut records) {
        record.id = id;
    }
    let closed = parts.first().is_some_and(|folder| folder.file.part.closed);
    let slo = parts.first().and_then(|folder| folder.file.slo);
    let slo = slo.map(|slo| Slo { ttft: seconds(slo.ttft), itl: slo.itl.map_or(Duration::MAX, seconds) });
    let mut summary = LevelSummary::new(&records, (!closed).then_some(load), slo);
    summary.itl = histograms.itl.spread();
    let limited = shares.iter().any(|(level, _)| level.client_limited);
    let proves_nothing = limited || too_far_apart(parts, number, &summary).is_some();
    let load = if closed { LevelLoad::Concurrency(load) } else { LevelLoad::Rate(load) };
    Ok(MergedLevel {
        load,
        records,
        summary,
        kept: LevelNotes { number, began_unix_us: began, histograms },
        proves_nothing,
    })
}

/// How far the beginnings of a level lie apart, where that is too far.
fn too_far_apart(parts: &[PartFolder], number: usize, summary: &LevelSummary) -> Option<Duration> {
    let levels = || parts.iter().flat_map(|folder| &folder.file.levels).filter(|level| level.kept.number == number);
    let began = || levels().map(|level| level.kept.began_unix_us);
    let apart = Duration::from_micros(began().max()? - began().min()?);
    let tolerable = seconds(TOLERABLE_SHARE * summary.duration).max(TOLERABLE);
    Some(apart).filter(|apart| *apart > tolerable)
}

/// The same request on a clock that was started this much earlier.
fn later(record: &LoadRecord, late: Duration) -> LoadRecord {
    let shift = |at: Option<Timestamp>| at.map(|at| at + late);
    LoadRecord {
        intended: record.intended + late,
        sent: shift(record.sent),
        first_byte: shift(record.first_byte),
        first_token: shift(record.first_token),
        last_token: shift(record.last_token),
        end: record.end + late,
        ..record.clone()
    }
}

/// This part's share of a load: an equal one of a rate, whole clients of a closed loop, the first parts taking what is over.
pub fn share(load: search::SearchLoad, index: u32, of: u32) -> search::SearchLoad {
    match load {
        search::SearchLoad::Open(rate) => search::SearchLoad::Open(rate / f64::from(of)),
        search::SearchLoad::Closed(clients) => {
            search::SearchLoad::Closed(clients / of + u32::from(index < clients % of))
        }
    }
}

fn search_in(path: &Path, depth: u32, found: &mut Vec<PathBuf>) {
    if depth > MOST_DEPTH || found.len() >= MOST_PARTS {
        return;
    }
    if is_part(path) {
        found.push(path.to_owned());
    }
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            search_in(&entry.path(), depth + 1, found);
        }
    }
}

/// Whether its `sweep.json` is one of a part.
fn is_part(folder: &Path) -> bool {
    #[derive(Deserialize)]
    struct Says {
        part: Option<SweepPart>,
    }
    let text = fs::read(folder.join(SWEEP)).unwrap_or_default();
    serde_json::from_slice::<Says>(&text).is_ok_and(|says| says.part.is_some())
}

fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or(Duration::MAX)
}

fn said(file: &str, what: String) -> Problem {
    Problem { file: file.to_owned(), line: None, what }
}

#[derive(Deserialize)]
struct PartLine {
    level: usize,
    #[serde(flatten)]
    record: LoadRecord,
}

const SWEEP: &str = "sweep.json";
const REQUESTS: &str = "requests.jsonl";
const MOST_DEPTH: u32 = 8;
const MOST_PARTS: usize = 10_000;

/// Beginnings this far apart, or by this share of the level, change its load only at the edges.
const TOLERABLE: Duration = Duration::from_secs(1);
const TOLERABLE_SHARE: f64 = 0.05;
