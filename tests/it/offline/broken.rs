//! Truncated, empty, with NaN or Infinity, huge, of the wrong type: a sentence with file and line, and the rest is read.

use weir::offline::{
    Analysis, import, report,
    report::{Lang, ReportFormat},
};

use super::{data, weir};

const FILES: [&str; 7] = [
    "vllm.json",
    "sglang.jsonl",
    "guidellm.csv",
    "reference.csv",
    "aiperf/profile_export_aiperf.json",
    "aiperf/profile_export_aiperf.csv",
    "inference-perf/stage_3_lifecycle_metrics.json",
];

fn every_sample() -> impl Iterator<Item = (String, Vec<u8>)> {
    let ours = FILES.into_iter().map(|name| (format!("concurrency8/{name}"), std::fs::read(data(name)).unwrap()));
    let others = ["samples/llmperf/anyscale_7b_summary.json", "samples/vllm-bench/inferencex_variant_seconds.json"];
    ours.chain(
        others.into_iter().filter_map(|name| Some((name.to_owned(), std::fs::read(super::shared(name)?).unwrap()))),
    )
}

/// Reads, judges and writes; whatever it was, there is a level or a sentence, and no figure that is none.
fn survives(name: &str, bytes: &[u8]) -> Vec<String> {
    let found = import::texts([(name, bytes)]);
    let said: Vec<String> = found.problems.iter().map(ToString::to_string).collect();
    assert!(!found.sweeps.is_empty() || !said.is_empty(), "{name}: silence");
    assert!(said.iter().all(|sentence| sentence.starts_with(name) && !sentence.contains('\n')), "{said:?}");
    let analysis = Analysis::of(found.sweeps);
    for format in [ReportFormat::Text, ReportFormat::Json, ReportFormat::Markdown, ReportFormat::Html] {
        let page = report::render(&analysis, format, Lang::Ko);
        assert!(!page.split_whitespace().any(|word| word == "NaN" || word == "inf"), "{page}");
    }
    said
}

#[test]
fn cut_off_anywhere_it_is_a_level_or_a_sentence() {
    for (name, bytes) in every_sample() {
        for part in 0..40 {
            survives(&name, &bytes[..bytes.len() * part / 40]);
        }
        assert!(survives(&name, b"")[0].contains("empty file"));
    }
}

#[test]
fn a_number_that_is_none_is_a_sentence_with_its_line() {
    let sample = std::fs::read_to_string(data("vllm.json")).unwrap();
    let throughput = "\"request_throughput\": 15.976869506344899";
    assert!(sample.contains(throughput));
    for (what, found) in [
        ("\"fast\"", "found the text \"fast\""),
        ("[1]", "found a list of 1"),
        ("-3", "found -3"),
        ("1e400", "found inf"),
        ("Infinity", "found inf"),
        ("1e15", "found 1000000000000000"),
        ("true", "found true"),
    ] {
        let text = sample.replace(throughput, &format!("\"request_throughput\": {what}"));
        let said = survives("v.json", text.as_bytes());
        let wanted = format!("v.json:1: `request_throughput` should be a number from 0 to 10^12, {found}");
        assert_eq!(said, [wanted], "{what}");
    }
    for nothing in ["NaN", "null"] {
        let said =
            survives("v.json", sample.replace(throughput, &format!("\"request_throughput\": {nothing}")).as_bytes());
        assert_eq!(said, ["v.json:1: expected a number in `request_throughput`; the level is left out"]);
    }
}

#[test]
fn a_wrong_field_that_is_not_needed_costs_only_itself() {
    let sample = std::fs::read_to_string(data("vllm.json")).unwrap();
    let text = sample.replace("\"p99_ttft_ms\": 206.54193245995882", "\"p99_ttft_ms\": \"slow\"");
    let found = import::texts([("v.json", text.as_bytes())]);
    assert_eq!((found.sweeps[0].levels[0].ttft.p99, found.problems.len()), (None, 1));
    assert!(found.sweeps[0].levels[0].ttft.mean.is_some());
}

#[test]
fn a_broken_line_of_many_costs_only_itself() {
    let sample = std::fs::read_to_string(data("sglang.jsonl")).unwrap();
    let mut lines: Vec<&str> = sample.lines().collect();
    lines[1] = &lines[1][..200];
    let found = import::texts([("s.jsonl", lines.join("\n").as_bytes())]);
    // What follows on the next line is where a comma was expected; the record after it is read again.
    assert_eq!(found.problems[0].line, Some(2), "{:?}", found.problems);
    assert!(!found.sweeps[0].levels.is_empty());
    let table = "request_rate,request_throughput,mean_ttft_ms\n10,9.1,80\n20,fast,90\n30,12.1,900\n";
    let found = import::texts([("t.csv", table.as_bytes())]);
    assert_eq!(
        found.problems[0].to_string(),
        "t.csv:3: column `request_throughput` should hold a number from 0 to 10^12, found \"fast\""
    );
    assert_eq!(found.sweeps[0].levels.len(), 2);
}

#[test]
fn what_is_unknown_is_told_what_was_expected() {
    assert!(
        survives("x.json", b"{\"hello\": 1}")[0]
            .starts_with("x.json:1: expected a result of vLLM (`request_rate`, `request_throughput`)")
    );
    assert!(survives("x.csv", b"name,age\nann,3\n")[0].contains("or a table with a column `request_rate`"));
    assert!(survives("x.bin", &[0, 159, 146, 150])[0].contains("found binary data"));
    assert!(survives("x.json", &[b'['; 100_000])[0].contains("nested deeper than 64"));
}

#[test]
fn the_rest_is_analysed_and_the_exit_status_says_how_it_went() {
    let folder = std::env::temp_dir().join(format!("weir-broken-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(data("reference.csv"), folder.join("good.csv")).unwrap();
    std::fs::write(folder.join("bad.json"), "{\"request_rate\": 1,\n").unwrap();
    let output = weir(&["analyze", folder.to_str().unwrap()]);
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{complaint}");
    assert!(complaint.contains("bad.json:2: expected a name in quotes, found the end of the file"), "{complaint}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("saturates between 10 and 20 req/s"));
    // Nothing to read: 1. Nothing to conclude: 3. Not understood: 2.
    assert_eq!(weir(&["analyze", folder.join("bad.json").to_str().unwrap()]).status.code(), Some(1));
    std::fs::write(folder.join("noisy.csv"), "concurrency,request_throughput\n4,1\n8,2\n16,0.9\n32,1.6\n").unwrap();
    assert_eq!(weir(&["analyze", folder.join("noisy.csv").to_str().unwrap()]).status.code(), Some(3));
    assert_eq!(
        weir(&["plan", "--baseline", folder.join("noisy.csv").to_str().unwrap(), "--gpus", "4"]).status.code(),
        Some(3)
    );
    assert_eq!(weir(&["analyze"]).status.code(), Some(2));
    std::fs::remove_dir_all(&folder).unwrap();
}
