//! Levels become sweeps: what ran with the same tool on the same system with the same kind of requests belongs together.
//!
//! A column `sweep_id` decides where there is one. Else levels of one folder belong together; a tool that makes a folder a run
//! is recognised by its folders having one level each, which then join in the folder above. Open and closed loops are
//! never mixed.

use std::collections::BTreeMap;

use super::super::sweep::{Level, LevelLoad, Sweep};
use super::reading::ImportedLevel;

/// All pieces as sweeps, in the order of their first levels.
pub fn sweeps(pieces: Vec<ImportedLevel>) -> Vec<Sweep> {
    let mut groups: BTreeMap<SweepKey, Vec<ImportedLevel>> = BTreeMap::new();
    for piece in pieces {
        groups.entry(SweepKey::of(&piece)).or_default().push(piece);
    }
    join_folders_of_one(&mut groups);
    let mut groups: Vec<(SweepKey, Vec<ImportedLevel>)> = groups.into_iter().collect();
    groups.sort_by(|left, right| first(&left.1).cmp(&first(&right.1)));
    let names: Vec<String> = groups.iter().map(|(key, pieces)| key.name(pieces)).collect();
    let parts = groups.into_iter().zip(names.iter()).map(|((key, pieces), name)| {
        let shared = names.iter().filter(|other| *other == name).count() > 1;
        sweep(if shared { format!("{name} ({})", key.apart()) } else { name.clone() }, pieces)
    });
    unique(parts.collect())
}

/// What two levels of one sweep share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SweepKey {
    sweep: Option<String>,
    folder: String,
    tool: String,
    engine: String,
    model: String,
    gpus: String,
    shape: String,
    closed: bool,
    burst: bool,
}

impl SweepKey {
    fn of(piece: &ImportedLevel) -> Self {
        let word = |word: &Option<String>| word.clone().unwrap_or_default();
        let environment = &piece.environment;
        Self {
            sweep: piece.sweep.clone(),
            // Where the source names its sweep, the file distinguishes two runs of the same name.
            folder: if piece.sweep.is_some() {
                piece.level.origin.file.clone()
            } else {
                folder(&piece.level.origin.file).to_owned()
            },
            tool: word(&environment.tool),
            engine: word(&environment.engine),
            model: word(&environment.model),
            gpus: environment.gpus.map(|gpus| gpus.to_string()).unwrap_or_default(),
            shape: piece.shape.clone(),
            closed: matches!(piece.level.load, LevelLoad::Concurrency(_)),
            burst: piece.level.load == LevelLoad::Burst,
        }
    }

    fn name(&self, pieces: &[ImportedLevel]) -> String {
        if let Some(name) = &self.sweep {
            return name.clone();
        }
        let file = pieces.first().map(|piece| piece.level.origin.file.as_str()).unwrap_or_default();
        let one_file = pieces.iter().all(|piece| piece.level.origin.file == file);
        let path = if one_file { stem(file) } else { last(&self.folder) };
        if path.is_empty() { "sweep".to_owned() } else { path.to_owned() }
    }

    /// What distinguishes it from others of the same name.
    fn apart(&self) -> String {
        let load = if self.burst {
            "burst"
        } else if self.closed {
            "closed loop"
        } else {
            "open loop"
        };
        let words = [self.model.as_str(), self.shape.as_str(), load].into_iter().filter(|word| !word.is_empty());
        words.collect::<Vec<_>>().join(", ")
    }
}

/// Groups of one level whose folders lie side by side become one group of the folder above.
fn join_folders_of_one(groups: &mut BTreeMap<SweepKey, Vec<ImportedLevel>>) {
    let mut above: BTreeMap<SweepKey, Vec<SweepKey>> = BTreeMap::new();
    for (key, pieces) in groups.iter() {
        if pieces.len() == 1 && key.sweep.is_none() {
            above
                .entry(SweepKey { folder: folder(&key.folder).to_owned(), ..key.clone() })
                .or_default()
                .push(key.clone());
        }
    }
    for (joined, single) in above.into_iter().filter(|(_, single)| single.len() > 1) {
        let pieces: Vec<ImportedLevel> = single.iter().filter_map(|key| groups.remove(key)).flatten().collect();
        groups.entry(joined).or_default().extend(pieces);
    }
}

fn sweep(id: String, pieces: Vec<ImportedLevel>) -> Sweep {
    let environment = pieces.first().map(|piece| piece.environment.clone()).unwrap_or_default();
    let slo = pieces.iter().find_map(|piece| piece.slo);
    let mut levels: Vec<Level> = Vec::with_capacity(pieces.len());
    for piece in pieces {
        // Often both the JSON and the CSV of one run are there.
        if !levels.iter().rev().take(MOST_COMPARED).any(|level| is_the_same_run(level, &piece.level)) {
            levels.push(piece.level);
        }
    }
    Sweep { id, environment, slo, levels }
}

/// The same figures, as far as they were rounded, from two files.
fn is_the_same_run(left: &Level, right: &Level) -> bool {
    let near = |a: Option<f64>, b: Option<f64>| match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() <= ROUNDED * a.abs().max(b.abs()),
        _ => false,
    };
    left.origin.file != right.origin.file
        && near(left.load.value(), right.load.value())
        && near(left.whole.requests, right.whole.requests)
        && near(left.ttft.mean.or(left.ttft.p50), right.ttft.mean.or(right.ttft.p50))
}

/// A name that occurs twice gets a number.
fn unique(mut sweeps: Vec<Sweep>) -> Vec<Sweep> {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for sweep in &mut sweeps {
        let times = seen.entry(sweep.id.clone()).or_default();
        *times += 1;
        if *times > 1 {
            sweep.id = format!("{} #{times}", sweep.id);
        }
    }
    sweeps
}

fn first(pieces: &[ImportedLevel]) -> Option<&super::super::sweep::LevelOrigin> {
    pieces.first().map(|piece| &piece.level.origin)
}

fn folder(path: &str) -> &str {
    path.rfind(['/', '\\']).map_or("", |at| &path[..at])
}

fn last(path: &str) -> &str {
    path.rfind(['/', '\\']).map_or(path, |at| &path[at + 1..])
}

fn stem(path: &str) -> &str {
    let name = last(path);
    let stem = name.rfind('.').filter(|at| *at > 0).map_or(name, |at| &name[..at]);
    // A name that every run of a tool has is replaced by the folder's.
    let folder = last(folder(path));
    if COMMON.contains(&stem) && !folder.is_empty() { folder } else { stem }
}

const COMMON: [&str; 5] = ["sweep", "profile_export_aiperf", "profile_export_genai_perf", "benchmarks", "results"];

/// Two decimals of a small figure are half a percent.
const ROUNDED: f64 = 5e-3;

/// The same run lies near in the order of files.
const MOST_COMPARED: usize = 200;
