//! The JSON of an analysis is what its schema says. The schema's few words are checked by hand: type, required, properties,
//! items, enum.

use serde_json::Value;
use weir::offline::sweep::Objectives;
use weir::offline::{Analysis, Lang, ReportFormat, import, report};

use super::data;

fn faults(schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let is = |kind: &str| match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_u64(),
        "null" => value.is_null(),
        other => panic!("{other}"),
    };
    let fits = match &schema["type"] {
        Value::String(kind) => is(kind),
        Value::Array(kinds) => kinds.iter().any(|kind| is(kind.as_str().unwrap())),
        _ => true,
    };
    if !fits || schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        found.push(format!("{at}: {value}"));
    }
    if let Some(members) = value.as_object() {
        for key in schema["required"].as_array().into_iter().flatten() {
            if !members.contains_key(key.as_str().unwrap()) {
                found.push(format!("{at}: no {key}"));
            }
        }
        for (key, inner) in members {
            match schema["properties"].get(key) {
                Some(schema) => faults(schema, inner, &format!("{at}.{key}"), found),
                // A key that the schema lists properties beside, and does not know, is one it forgot.
                None if schema["properties"].is_object() => found.push(format!("{at}: {key} is not in the schema")),
                None => {}
            }
        }
    }
    for (number, inner) in value.as_array().into_iter().flatten().enumerate() {
        faults(&schema["items"], inner, &format!("{at}[{number}]"), found);
    }
}

#[test]
fn the_json_is_what_its_schema_says() {
    let schema: Value = serde_json::from_str(include_str!("../../../docs/use/reports.schema.json")).unwrap();
    let files = ["reference.csv", "guidellm.csv", "vllm.json", "sglang.jsonl", "README.md", "inference-perf"].map(data);
    let read = import::read(&files);
    let mut analysis = Analysis::under(read.sweeps, Some(Objectives { ttft: 1.0, itl: None }));
    analysis.problems = read.problems;
    assert!(analysis.sweeps.len() >= 5 && analysis.problems.len() == 1);
    let value: Value = serde_json::from_str(&report::render(&analysis, ReportFormat::Json, Lang::En)).unwrap();
    let mut found = Vec::new();
    faults(&schema, &value, "$", &mut found);
    assert!(found.is_empty(), "{}", found.join("\n"));
    let mut broken = value;
    broken["sweeps"][0]["kind"] = "perhaps".into();
    faults(&schema, &broken, "$", &mut found);
    assert_eq!(found, ["$.sweeps[0].kind: \"perhaps\""]);
}
