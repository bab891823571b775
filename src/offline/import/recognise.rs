//! Chooses the importer of a file by its content.

use super::super::sweep::Sweep;
use super::json::{self, JsonNode};
use super::reading::{ImportedFile, Problem};
use super::{aiperf, csv, gather, generic, guidellm, infperf, llmperf, sglang, vllm, weir};

/// What was read, and what could not be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImportResult {
    /// Levels that belong together, in the order in which they were found.
    pub sweeps: Vec<Sweep>,
    /// One sentence each.
    pub problems: Vec<Problem>,
}

/// Reads files that are in memory, by name and bytes. Pure.
pub fn texts<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> ImportResult {
    let (mut pieces, mut problems) = (Vec::new(), Vec::new());
    for (name, bytes) in files {
        let reading = text(name, bytes);
        pieces.extend(reading.pieces);
        problems.extend(reading.problems);
    }
    ImportResult { sweeps: gather::sweeps(pieces), problems }
}

/// Reads one file.
pub(super) fn text(name: &str, bytes: &[u8]) -> ImportedFile {
    let mut reading = ImportedFile::of(name);
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_start_matches('\u{feff}');
    if bytes.contains(&0) {
        reading.wrong(None, "expected text, found binary data (or UTF-16: save it as UTF-8)");
    } else if text.trim().is_empty() {
        reading.wrong(Some(1), "expected a result of a load generator, found an empty file");
    } else if text.trim_start().starts_with(['{', '[']) {
        documents(text, &mut reading);
    } else {
        table(name, text, &mut reading);
    }
    if reading.pieces.is_empty() && reading.problems.is_empty() {
        reading.wrong(None, "expected at least one load level, found none");
    }
    reading
}

fn documents(text: &str, reading: &mut ImportedFile) {
    let (nodes, faults) = json::documents(text);
    for fault in faults {
        reading.wrong(Some(fault.line), fault.what);
    }
    for node in &nodes {
        let list = node.items();
        // A list may hold many runs.
        if list.is_empty() { document(node, reading) } else { list.iter().for_each(|node| document(node, reading)) }
    }
}

fn document(node: &JsonNode, reading: &mut ImportedFile) {
    type Importer = (fn(&JsonNode) -> bool, fn(&JsonNode, &mut ImportedFile));
    const IMPORTERS: [Importer; 8] = [
        (weir::knows, weir::read),
        (guidellm::knows, guidellm::read),
        (infperf::knows, infperf::read),
        (aiperf::knows, aiperf::read),
        (llmperf::knows, llmperf::read),
        (llmperf::knows_wrapper, llmperf::read_wrapper),
        (sglang::knows, sglang::read),
        (vllm::knows, vllm::read),
    ];
    if aiperf::is_a_record(node) || infperf::is_a_summary(node) {
        let what = "holds single requests or several stages added up, not one load level; read the summary of each level instead";
        if reading.problems.last().is_none_or(|problem| problem.what != what) {
            reading.wrong(Some(node.line), what);
        }
        return;
    }
    match IMPORTERS.iter().find(|(knows, _)| knows(node)) {
        Some((_, read)) => read(node, reading),
        None => unknown(node, reading),
    }
}

/// Only the first unknown document of a file gets the long sentence.
fn unknown(node: &JsonNode, reading: &mut ImportedFile) {
    let keys: Vec<String> = node.members().iter().take(4).map(|(key, _)| json::short(key)).collect();
    let found = if keys.is_empty() { node.value.to_string() } else { format!("an object with {}", keys.join(", ")) };
    let what =
        if reading.problems.is_empty() { format!("{EXPECTED}; found {found}") } else { format!("unknown: {found}") };
    reading.wrong(Some(node.line), what);
}

fn table(name: &str, text: &str, reading: &mut ImportedFile) {
    let rows = csv::rows(text);
    let first = rows.iter().position(|row| !row.is_blank()).unwrap_or(0);
    let rows = &rows[first..];
    let Some(header) = rows.first() else { return reading.wrong(Some(1), "expected a table, found nothing") };
    if guidellm::knows_table(header) {
        guidellm::read_table(rows, reading);
    } else if aiperf::knows_table(header) {
        aiperf::read_table(rows, name, reading);
    } else if generic::knows(header) {
        generic::read(rows, reading);
    } else {
        let columns: Vec<String> = header.fields.iter().take(4).map(|field| json::short(field)).collect();
        let found = columns.join(", ");
        reading
            .wrong(Some(header.line), format!("expected JSON, or a table with {}; found {found}", generic::EXPECTED));
    }
}

const EXPECTED: &str = "expected a result of vLLM (`request_rate`, `request_throughput`), SGLang (`dataset_name`, `backend`), AIPerf or GenAI-Perf \
    (`request_throughput.avg`), GuideLLM (`benchmarks`), inference-perf (`load_summary`, `successes`), llmperf (`results_ttft_s_mean`) or weir (`schema`)";
