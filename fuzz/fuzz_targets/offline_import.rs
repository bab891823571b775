//! Result files with any content: a level or a problem, never a panic, and no figure in a report that is not a number.
//!
//! The first byte chooses the file's name, for the tables whose load is in it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weir::offline::report::{Lang, ReportFormat, render};
use weir::offline::{Analysis, file, import};

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, rest)) = bytes.split_first() else { return };
    let name = NAMES[usize::from(*choice) % NAMES.len()];
    let found = import::texts([(name, rest)]);
    assert!(!found.sweeps.is_empty() || !found.problems.is_empty());
    assert!(found.problems.iter().all(|problem| !problem.to_string().contains('\n')));
    let mut analysis = Analysis::of(found.sweeps);
    analysis.problems = found.problems;
    for format in [ReportFormat::Text, ReportFormat::Json, ReportFormat::Html] {
        let page = render(&analysis, format, if choice % 2 == 0 { Lang::En } else { Lang::Ko });
        // Names may be anything; numbers in a chart may not.
        let drawn = page
            .split('<')
            .filter(|tag| ["path ", "circle ", "rect ", "line "].iter().any(|kind| tag.starts_with(kind)));
        assert!(drawn.filter_map(|tag| tag.split('>').next()).all(|tag| !tag.contains("NaN") && !tag.contains("inf")));
    }
    for judged in &analysis.sweeps {
        let again = import::texts([("sweep.json", file::json(&judged.sweep, &judged.verdict, Lang::En).as_bytes())]);
        assert!(again.sweeps.len() <= 1);
    }
});

const NAMES: [&str; 4] = ["r.json", "r.csv", "concurrency8/profile_export_aiperf.csv", "request_rate10/x.csv"];
