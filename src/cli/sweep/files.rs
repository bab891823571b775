//! The folder of a sweep: requests as they come, the rest at the end.
//!
//! `requests.jsonl` is written level by level, so that an end by force leaves what was measured. A file that cannot be
//! written is reported at the end and does not stop a measurement in progress.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::load::record::LoadRecord;
use crate::load::times::LevelTimes;
use crate::offline::{Analysis, JudgedSweep, Lang, ReportFormat, file, report};
use crate::sweep::parts::{LevelNotes, MergedLevel, SweepPart};
use crate::sweep::run::{SweepEnd, Swept};
use crate::sweep::search::SearchLoad;

/// A folder that is being filled.
pub struct SweepFolder {
    path: PathBuf,
    requests: BufWriter<File>,
    failed: Option<io::Error>,
    began: SystemTime,
    kept: Vec<LevelNotes>,
}

impl SweepFolder {
    /// Makes the folder, and the file of requests in it.
    ///
    /// # Errors
    /// Either cannot be made.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        let requests = path.join("requests.jsonl");
        let file = File::create(&requests).with_context(|| format!("cannot write {}", requests.display()))?;
        Ok(Self {
            path: path.to_owned(),
            requests: BufWriter::new(file),
            failed: None,
            began: UNIX_EPOCH,
            kept: Vec::new(),
        })
    }

    /// A level begins: from now on its stamps count.
    pub fn on_begin(&mut self, now: SystemTime) {
        self.began = now;
    }

    /// Adds the requests of a level.
    pub fn on_level(&mut self, number: usize, records: &[LoadRecord]) {
        let since = self.began.duration_since(UNIX_EPOCH).unwrap_or_default();
        let began_unix_us = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        self.kept.push(LevelNotes { number, began_unix_us, histograms: LevelTimes::of(records) });
        if let Err(why) = self.append(number, records) {
            self.failed.get_or_insert(why);
        }
    }

    /// Adds a level of several parts.
    pub fn on_merged(&mut self, level: &MergedLevel) {
        if let Err(why) = self.append(level.kept.number, &level.records) {
            self.failed.get_or_insert(why);
        }
        self.kept.push(level.kept.clone());
    }

    /// Writes the rest of what was merged.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn finish_merged(self, analysis: &Analysis, lang: Lang) -> anyhow::Result<()> {
        for judged in &analysis.sweeps {
            let keys = with_kept(judged, &self.kept.iter().collect::<Vec<_>>(), lang);
            self.write("sweep.json", &format!("{:#}\n", Value::Object(keys)))?;
            self.write("sweep.csv", &file::csv(&judged.sweep))?;
        }
        self.close(analysis, lang)
    }

    /// Writes the rest.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn finish(self, analysis: &Analysis, swept: &Swept, part: Option<SweepPart>, lang: Lang) -> anyhow::Result<()> {
        for judged in &analysis.sweeps {
            let name = &judged.sweep.id;
            let own = self.kept_of(judged, swept);
            let mut keys = with_kept(judged, &own, lang);
            add_search(&mut keys, swept);
            if let Some(part) = &part {
                keys.insert("part".to_owned(), json!(part));
            }
            self.write(&format!("{name}.json"), &format!("{:#}\n", Value::Object(keys)))?;
            self.write(&format!("{name}.csv"), &file::csv(&judged.sweep))?;
        }
        self.close(analysis, lang)
    }

    fn close(mut self, analysis: &Analysis, lang: Lang) -> anyhow::Result<()> {
        self.write("report.html", &report::render(analysis, ReportFormat::Html, lang))?;
        match self.failed.take() {
            Some(why) => Err(why).with_context(|| format!("cannot write {}/requests.jsonl", self.path.display())),
            None => Ok(()),
        }
    }

    /// What was kept of the levels of one sweep: open and closed levels are two.
    fn kept_of(&self, judged: &JudgedSweep, swept: &Swept) -> Vec<&LevelNotes> {
        let closed = judged.sweep.is_closed();
        let of = |number: usize| swept.levels.get(number - 1).map(|level| matches!(level.load, SearchLoad::Closed(_)));
        self.kept.iter().filter(|kept| of(kept.number) == Some(closed)).collect()
    }

    fn append(&mut self, level: usize, records: &[LoadRecord]) -> io::Result<()> {
        for record in records {
            // Gaps are summed up in the level; here they would be most of the file.
            let record = LoadRecord { gaps: Vec::new(), ..record.clone() };
            serde_json::to_writer(&mut self.requests, &RequestLine { level, record })?;
            self.requests.write_all(b"\n")?;
        }
        self.requests.flush()
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.path.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

#[derive(Serialize)]
struct RequestLine {
    level: usize,
    #[serde(flatten)]
    record: LoadRecord,
}

/// The file of a sweep, with what each level keeps for adding up the parts.
pub fn with_kept(judged: &JudgedSweep, kept: &[&LevelNotes], lang: Lang) -> Map<String, Value> {
    let text = file::json(&judged.sweep, &judged.verdict, lang);
    // It was written by us as an object with a list of objects in it.
    let Ok(Value::Object(mut keys)) = serde_json::from_str(&text) else { return Map::new() };
    let levels = keys.get_mut("levels").and_then(Value::as_array_mut).into_iter().flatten();
    for (level, kept) in levels.zip(kept) {
        if let (Value::Object(level), Value::Object(kept)) = (level, json!(kept)) {
            level.extend(kept);
        }
    }
    keys
}

/// What the search made of all levels, and how each was run.
fn add_search(keys: &mut Map<String, Value>, swept: &Swept) {
    keys.insert("complete".to_owned(), json!(!matches!(swept.end, SweepEnd::Interrupted)));
    if let Some(search) = &swept.search {
        let (lo, hi) = search.interval();
        let found = search.found();
        let why = match &swept.end {
            SweepEnd::Search(why) => why.to_string(),
            _ => "interrupted".to_owned(),
        };
        keys.insert(
            "search".to_owned(),
            json!({
                "capacity_req_s": found.map(|found| found.capacity),
                "knee_in_flight": found.map(|found| found.in_flight),
                "overloaded_req_s": found.map(|found| found.overloaded),
                "sat_lo": lo, "sat_hi": hi, "levels": swept.levels.len(), "stopped_because": why,
            }),
        );
    }
}
