//! The folder of a sweep: requests as they come, the rest at the end.
//!
//! `requests.jsonl` is written level by level, so that an end by force leaves what was measured. A file that cannot be
//! written is told at the end and does not stop a measurement that is under way.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;
use serde_json::{Value, json};

use crate::load::record::RequestRecord;
use crate::offline::{Analysis, Format, Judged, Lang, file, report};
use crate::sweep::run::{End, Swept};

/// A folder that is being filled.
pub struct Folder {
    path: PathBuf,
    requests: BufWriter<File>,
    failed: Option<io::Error>,
}

impl Folder {
    /// Makes the folder, and the file of requests in it.
    ///
    /// # Errors
    /// Either cannot be made.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        let requests = path.join("requests.jsonl");
        let file = File::create(&requests).with_context(|| format!("cannot write {}", requests.display()))?;
        Ok(Self { path: path.to_owned(), requests: BufWriter::new(file), failed: None })
    }

    /// Adds the requests of a level.
    pub fn on_level(&mut self, number: usize, records: &[RequestRecord]) {
        if let Err(why) = self.append(number, records) {
            self.failed.get_or_insert(why);
        }
    }

    /// Writes the rest.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn finish(mut self, analysis: &Analysis, swept: &Swept, lang: Lang) -> anyhow::Result<()> {
        for judged in &analysis.sweeps {
            let name = &judged.sweep.id;
            self.write(&format!("{name}.json"), &with_search(judged, swept, lang))?;
            self.write(&format!("{name}.csv"), &file::csv(&judged.sweep))?;
        }
        self.write("report.html", &report::render(analysis, Format::Html, lang))?;
        match self.failed.take() {
            Some(why) => Err(why).with_context(|| format!("cannot write {}/requests.jsonl", self.path.display())),
            None => Ok(()),
        }
    }

    fn append(&mut self, level: usize, records: &[RequestRecord]) -> io::Result<()> {
        for record in records {
            // Gaps are summed up in the level; here they would be most of the file.
            let record = RequestRecord { gaps: Vec::new(), ..record.clone() };
            serde_json::to_writer(&mut self.requests, &Line { level, record })?;
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
struct Line {
    level: usize,
    #[serde(flatten)]
    record: RequestRecord,
}

/// The file of a sweep with what the search made of all levels, and how each was run.
fn with_search(judged: &Judged, swept: &Swept, lang: Lang) -> String {
    let text = file::json(&judged.sweep, &judged.verdict, lang);
    let Ok(Value::Object(mut keys)) = serde_json::from_str(&text) else { return text };
    keys.insert("complete".to_owned(), json!(!matches!(swept.end, End::Interrupted)));
    if let Some(search) = &swept.search {
        let (lo, hi) = search.interval();
        let found = search.found();
        let why = match &swept.end {
            End::Search(why) => why.to_string(),
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
    format!("{:#}\n", Value::Object(keys))
}
