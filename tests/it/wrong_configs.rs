//! Several hundred wrong configurations, made from the schema: every key with a wrong type, out of its bounds, misspelt, given
//! twice, and left out where it must not be. Each is told at its place, by its path, with what to write instead.

use serde_json::{Value, json};
use weir::config::{Config, Fault, Overrides, schema};

/// One setting of the schema.
struct Key {
    /// `limits.max_body`, `backends[0].url`.
    path: String,
    schema: Value,
    required: bool,
}

/// One wrong configuration and what has to be said of it.
struct Wrong {
    text: String,
    /// Line of the mistake.
    line: u64,
    path: String,
    /// The sentence holds one of these.
    mends: Vec<String>,
}

/// What a sentence that helps holds.
const MENDS: [&str; 7] = ["expected ", "write ", "such as ", "at least ", "at most ", " needs ", "give one "];

fn keys(path: &str, schema: &Value, all: &mut Vec<Key>) {
    let required: Vec<_> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (key, own) in schema["properties"].as_object().into_iter().flatten() {
        let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        all.push(Key { path: inner.clone(), schema: own.clone(), required: required.contains(&key.as_str()) });
        keys(&inner, own, all);
        if own["items"]["properties"].is_object() {
            keys(&format!("{inner}[0]"), &own["items"], all);
        }
    }
}

/// A file that is right but for what stands at `path`; also the line of that.
fn file(path: &str, written: impl Fn(&str, &str) -> Vec<String>) -> (String, u64) {
    let mut lines = vec!["# generated".to_owned()];
    let steps: Vec<&str> = path.split('.').collect();
    let (mut depth, mut dashed) = (0, false);
    for step in &steps[..steps.len() - 1] {
        let name = step.trim_end_matches("[0]");
        let dash = if std::mem::take(&mut dashed) { "- " } else { "" };
        lines.push(format!("{}{dash}{name}:", "  ".repeat(depth)));
        depth += 1 + usize::from(!dash.is_empty());
        dashed = step.ends_with("[0]");
        if dashed {
            lines.extend(
                sound(name, path)
                    .iter()
                    .enumerate()
                    .map(|(i, line)| format!("{}{}{line}", "  ".repeat(depth), if i == 0 { "- " } else { "  " })),
            );
            dashed = sound(name, path).is_empty();
            depth += usize::from(!dashed);
        }
    }
    let indent = "  ".repeat(depth) + if dashed { "- " } else { "" };
    if let Some(class) = path.strip_prefix("admission.classes.").and_then(|rest| rest.split_once('.')) {
        let rest = ["share", "queue", "headroom"].into_iter().filter(|key| *key != class.1);
        lines.extend(rest.map(|key| format!("{indent}{key}: 0.5")));
    }
    if path == "control.limit" {
        lines.push("  policy: static".to_owned());
    }
    let key = steps[steps.len() - 1];
    lines.extend(written(&indent, key));
    let line = lines.len() as u64;
    if !path.starts_with("backends") {
        lines.extend(["backends:".to_owned(), "  - url: http://127.0.0.1:8200".to_owned()]);
    }
    (lines.join("\n") + "\n", line)
}

/// What an item of a list needs beside the key in question.
fn sound(list: &str, path: &str) -> Vec<String> {
    let needed = match list {
        "backends" => "url: http://127.0.0.1:8200",
        _ => "path: /v1/embeddings",
    };
    let itself = path.ends_with(&format!("].{}", needed.split(':').next().unwrap()));
    if itself { Vec::new() } else { vec![needed.to_owned()] }
}

/// The paths whose value is one or more sections.
fn is_section(schema: &Value) -> bool {
    schema["properties"].is_object()
}

fn types(schema: &Value) -> Vec<&str> {
    let alternatives =
        schema["anyOf"].as_array().into_iter().flatten().chain(schema["oneOf"].as_array().into_iter().flatten());
    let own = std::iter::once(schema).chain(alternatives);
    own.flat_map(|schema| match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect::<Vec<_>>(),
    })
    .collect()
}

/// Values of a type that this key does not take.
fn wrong_types(schema: &Value) -> Vec<&'static str> {
    let types = types(schema);
    let takes = |kind: &str| types.contains(&kind);
    let mut wrong = Vec::new();
    if !takes("array") {
        wrong.push("[1, 2]");
    }
    if !takes("object") {
        wrong.push("{ a: 1 }");
    }
    if !takes("boolean") && schema["enum"] != json!(["auto", true, false]) {
        wrong.push("true");
    }
    if takes("integer") || takes("number") || takes("boolean") {
        wrong.push("plenty");
    }
    if takes("array") || takes("object") {
        wrong.push("word");
    }
    if takes("string")
        && ["span", "size", "network", "hours", "series"].iter().any(|format| schema["format"] == *format)
    {
        wrong.push("'?'");
    }
    wrong
}

/// Values of the right type outside the bounds that the schema tells.
fn out_of_range(schema: &Value) -> Vec<String> {
    let alternatives = schema["anyOf"].as_array().into_iter().flatten();
    let mut wrong = Vec::new();
    for own in std::iter::once(schema).chain(alternatives) {
        if let Some(least) = own["minimum"].as_f64() {
            wrong.push(format!("{}", least - 1.0));
        }
        if let Some(most) = own["maximum"].as_f64() {
            wrong.push(format!("{}", most + 1.0));
        }
        match own["exclusiveMinimum"].as_str() {
            Some(zero) => wrong.push(zero.to_owned()),
            None => wrong.extend(own["exclusiveMinimum"].as_f64().map(|above| format!("{above}"))),
        }
        if own["minimum"] == "1KiB" {
            wrong.extend(["1023B".to_owned(), "65KiB".to_owned()]);
        }
        if own["minimum"] == "100ms" {
            wrong.extend(["99ms".to_owned(), "61s".to_owned()]);
        }
        if own["minimum"] == "1s" {
            wrong.push("999ms".to_owned());
        }
        if own["minItems"] == 1 {
            wrong.push("[]".to_owned());
        }
        if let Some(words) = own["enum"].as_array() {
            wrong.push(if words[0].is_number() { "200".to_owned() } else { "sideways".to_owned() });
        }
    }
    if schema["oneOf"].is_array() {
        wrong.push("sideways".to_owned());
    }
    if schema["pattern"].is_string() && !schema["format"].is_string() {
        wrong.push("' '".to_owned());
    }
    wrong
}

fn wrong() -> Vec<Wrong> {
    let mut all = Vec::new();
    keys("", &schema::schema(), &mut all);
    let mut wrong = Vec::new();
    let mends = || MENDS.map(str::to_owned).to_vec();
    for Key { path, schema, required } in &all {
        let last = path.rsplit('.').next().unwrap().to_owned();
        let mut add = |text: (String, u64), path: &str, mends: Vec<String>| {
            wrong.push(Wrong { text: text.0, line: text.1, path: path.to_owned(), mends });
        };
        let values = wrong_types(schema).into_iter().map(str::to_owned).chain(out_of_range(schema));
        for value in values {
            add(file(path, |indent, key| vec![format!("{indent}{key}: {value}")]), path, mends());
        }
        // One letter too many is a slip that has one way back.
        let slip = format!("{last}{}", &last[last.len() - 1..]);
        let above = path.rsplit_once('.').map_or(String::new(), |(above, _)| format!("{above}."));
        // Without its limit, `static` has a fault of its own.
        if !*required && path != "control.limit" {
            let text = file(path, |indent, _| vec![format!("{indent}{slip}:")]);
            add(text, &format!("{above}{slip}"), vec![format!("did you mean `{last}`?")]);
        }
        let value = right(path, schema);
        let twice = file(path, |indent, key| {
            let again = indent.replace('-', " ");
            vec![format!("{indent}{key}: {value}"), format!("{again}{key}: {value}")]
        });
        add(twice, path, vec!["remove one".to_owned()]);
    }
    wrong.extend(left_out());
    wrong
}

/// What must not be left out.
fn left_out() -> Vec<Wrong> {
    let class = |missing: &str| {
        let rest: Vec<_> = ["share", "queue", "headroom"].into_iter().filter(|key| *key != missing).collect();
        (
            format!(
                "backends: [{{url: 'http://a'}}]\nadmission:\n  classes:\n    bulk: {{ {}: 1, {}: 1 }}\n",
                rest[0], rest[1]
            ),
            4,
            "admission.classes.bulk".to_owned(),
            format!("add `{missing}:"),
        )
    };
    let said = [
        ("listen: 127.0.0.1:1\n".to_owned(), 1, "backends".to_owned(), "--backend".to_owned()),
        ("\nbackends: []\n".to_owned(), 2, "backends".to_owned(), "--backend".to_owned()),
        ("backends:\n  - name: a\n".to_owned(), 2, "backends[0].url".to_owned(), "such as `url:".to_owned()),
        (
            "backends: [{url: 'http://a'}]\nslo:\n  routes:\n    - ttft: 1s\n".to_owned(),
            4,
            "slo.routes[0].path".to_owned(),
            "such as `path:".to_owned(),
        ),
        (
            "backends: [{url: 'http://a'}]\ncontrol:\n  policy: static\n".to_owned(),
            3,
            "control.policy".to_owned(),
            "as `limit: 64`".to_owned(),
        ),
        class("share"),
        class("queue"),
        class("headroom"),
    ];
    said.into_iter().map(|(text, line, path, mend)| Wrong { text, line, path, mends: vec![mend] }).collect()
}

/// A value that this key takes.
fn right(path: &str, schema: &Value) -> String {
    match path {
        "backends" => "[{ url: 'http://a' }]".to_owned(),
        "backends[0].name" => "a".to_owned(),
        "backends[0].url" => "http://127.0.0.1:8200".to_owned(),
        "slo.routes[0].path" => "/v1/x".to_owned(),
        "control.limit" => "3".to_owned(),
        _ if path.starts_with("admission.classes.") && is_section(schema) => {
            "{ share: 0, queue: 1, headroom: 0 }".to_owned()
        }
        _ if is_section(schema) => "{}".to_owned(),
        _ => schema.get("default").unwrap_or(&json!(null)).to_string(),
    }
}

fn faults(text: &str) -> Vec<Fault> {
    match Config::parse(text, "weir.yaml", &Overrides::default(), &|_| None) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.faults().to_vec(),
    }
}

#[test]
fn every_wrong_configuration_is_named_at_its_place() {
    let wrong = wrong();
    assert!(wrong.len() >= 300, "only {} wrong configurations", wrong.len());
    let mut unhelpful = Vec::new();
    for Wrong { text, line, path, mends } in &wrong {
        let faults = faults(text);
        let fits = |fault: &Fault| {
            let there = fault.place.is_some_and(|place| place.line == *line && place.column >= 1);
            there && fault.path.starts_with(path.as_str()) && mends.iter().any(|mend| fault.sentence.contains(mend))
        };
        if !(faults.len() == 1 && fits(&faults[0])) {
            let said: Vec<_> = faults.iter().map(ToString::to_string).collect();
            unhelpful.push(format!("{text}line {line}, {path}, one of {mends:?}: {said:#?}"));
        }
    }
    assert!(unhelpful.is_empty(), "{} of {}:\n{}", unhelpful.len(), wrong.len(), unhelpful.join("\n"));
    println!("{} wrong configurations", wrong.len());
}

#[test]
fn the_same_files_with_right_values_are_accepted() {
    let mut all = Vec::new();
    keys("", &schema::schema(), &mut all);
    for Key { path, schema, .. } in &all {
        let value = right(path, schema);
        let (text, _) = file(path, |indent, key| vec![format!("{indent}{key}: {value}")]);
        assert_eq!(faults(&text), [], "{text}");
    }
}

#[test]
fn many_mistakes_in_one_file_are_told_together() {
    let text = "listen: 1\nmode: observ\nmode: enforce\nbackends:\n  - { url: 'http://a', max_num_seqs: 0 }\nlimits: { max_bodyy: 1MiB, idle_timeout: 0s }\n";
    let lines: Vec<_> = faults(text).iter().map(|fault| fault.place.unwrap().line).collect();
    assert_eq!(lines, [1, 2, 3, 5, 6, 6]);
}
