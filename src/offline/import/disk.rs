//! Reads files and folders from disk; nothing else in `offline` does.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::gather;
use super::reading::Problem;
use super::recognise::{ImportResult, text};

/// Reads files, and folders with all below them. A named file is always tried; in a folder only those whose name may be a
/// result's.
pub fn read(paths: &[PathBuf]) -> ImportResult {
    let found = read_beside(paths, &[]);
    if found.sweeps.is_empty() && found.problems.is_empty() {
        let names = paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        let what = "expected .json, .jsonl or .csv files, found none".to_owned();
        return ImportResult { problems: vec![Problem { file: names, line: None, what }], ..found };
    }
    found
}

/// The same without what lies in these folders.
pub fn read_beside(paths: &[PathBuf], folders: &[PathBuf]) -> ImportResult {
    let mut found = ImportResult::default();
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() { walk(path, 0, &mut files, &mut found.problems) } else { files.push(path.clone()) }
    }
    files.dedup();
    files.retain(|file| file.parent().is_none_or(|parent| !folders.iter().any(|folder| folder == parent)));
    let mut pieces = Vec::new();
    for file in &files {
        let name = file.display().to_string();
        match bytes(file) {
            Ok(bytes) => {
                let reading = text(&name, &bytes);
                pieces.extend(reading.pieces);
                found.problems.extend(reading.problems);
            }
            Err(what) => found.problems.push(Problem { file: name, line: None, what }),
        }
    }
    found.sweeps = gather::sweeps(pieces);
    found
}

fn walk(folder: &Path, depth: u32, files: &mut Vec<PathBuf>, problems: &mut Vec<Problem>) {
    let mut wrong = |what: String| problems.push(Problem { file: folder.display().to_string(), line: None, what });
    if depth > MOST_DEPTH || files.len() > MOST_FILES {
        return wrong(format!(
            "deeper than {MOST_DEPTH} folders or more than {MOST_FILES} files; what lies beyond is left out"
        ));
    }
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(why) => return wrong(format!("cannot be read ({why})")),
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort_by_key(|path| natural(path));
    for path in &paths {
        if path.is_dir() && !path.is_symlink() {
            walk(path, depth + 1, files, problems);
        } else if path.is_file() && may_be_a_result(path, &paths) {
            files.push(path.clone());
        }
    }
}

/// By its name: `.json`, `.jsonl` or `.csv`, and neither one that tools write beside their results nor the table of a JSON
/// that lies beside it.
fn may_be_a_result(path: &Path, beside: &[PathBuf]) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    if ASIDE.iter().any(|aside| name.contains(aside)) {
        return false;
    }
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("json" | "jsonl") => true,
        Some("csv") => !beside.contains(&path.with_extension("json")),
        _ => false,
    }
}

/// Numbers in a name count as numbers: stage_2 comes before stage_10.
fn natural(path: &Path) -> Vec<(String, u64)> {
    let name = path.to_string_lossy();
    let mut parts = Vec::new();
    let mut rest = name.as_ref();
    while !rest.is_empty() {
        let word = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (text, after) = rest.split_at(word);
        let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        parts.push((text.to_owned(), after[..digits].parse().unwrap_or(0)));
        rest = &after[digits..];
    }
    parts
}

fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|why| format!("cannot be read ({why})"))?;
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|why| format!("cannot be read ({why})"))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(format!("larger than {} MiB; cut the single requests out of it", MOST_BYTES >> 20));
    }
    Ok(bytes)
}

/// What tools write beside their results: single requests, server metrics, sums over stages, settings.
const ASIDE: [&str; 9] = [
    "requests.jsonl",
    "per_request",
    "prometheus",
    "summary_lifecycle",
    "inputs.json",
    "profile_export.json",
    "individual_responses",
    "config.json",
    "server_metrics",
];

const MOST_DEPTH: u32 = 8;
const MOST_FILES: usize = 10_000;
const MOST_BYTES: u64 = 256 << 20;
