//! docs/operate/logs.md and the source say the same messages and the same fields of an access line.

use std::path::{Path, PathBuf};

const PAGE: &str = include_str!("../../docs/operate/logs.md");

/// The messages of our log lines in a source text: the last string of each call.
fn messages(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let mut found = Vec::new();
    for level in ["debug!(", "info!(", "warn!(", "error!("] {
        for (at, opening) in code.match_indices(&format!("tracing::{level}")) {
            found.extend(last_string(&code[at + opening.len()..]));
        }
    }
    found
}

/// The last string before the parenthesis that closes what is open here.
fn last_string(call: &str) -> Option<String> {
    let (mut depth, mut string, mut last) = (1, None::<String>, None);
    let mut chars = call.chars();
    while let Some(c) = chars.next() {
        match (c, &mut string) {
            ('"', Some(text)) => {
                last = Some(std::mem::take(text));
                string = None;
            }
            ('\\', Some(_)) => drop(chars.next()),
            (c, Some(text)) => text.push(c),
            ('"', None) => string = Some(String::new()),
            ('(', None) => depth += 1,
            (')', None) => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    last
}

/// Whether the page has a row for it; what follows `{` is put in while it runs.
fn is_listed(message: &str) -> bool {
    let fixed = message.split('{').next().unwrap_or_default();
    PAGE.contains(&format!("`{fixed}`")) || (fixed != message && PAGE.contains(&format!("`{fixed}…`")))
}

fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(path)
}

#[test]
fn every_message_is_on_the_page() {
    let mut files = Vec::new();
    sources(&source(""), &mut files);
    let all: Vec<String> = files.iter().flat_map(|file| messages(&std::fs::read_to_string(file).unwrap())).collect();
    assert!(all.len() > 30, "{all:?}");
    let missing: Vec<_> = all.iter().filter(|message| !is_listed(message)).collect();
    assert!(missing.is_empty(), "add to docs/operate/logs.md: {missing:?}");
    let known = all.iter().map(|message| message.split('{').next().unwrap_or_default()).collect::<Vec<_>>();
    for row in PAGE.split("## Messages").nth(1).unwrap().lines().filter(|line| line.starts_with("| ")) {
        let Some(message) = row.split('`').nth(1) else { continue };
        let said = known.contains(&message.trim_end_matches('…')) || message == "log lines were lost";
        assert!(said, "nothing says any more: {message}");
    }
}

#[test]
fn every_field_of_an_access_line_is_on_the_page() {
    let text = std::fs::read_to_string(source("export/access.rs")).unwrap();
    let call = text.split("fn write(report").nth(1).unwrap();
    let call = call.split("tracing::info!(").nth(1).unwrap().split("\"request finished\"").next().unwrap();
    let fields: Vec<_> = call.lines().filter_map(|line| line.trim().split([' ', ',']).next()).collect();
    let fields: Vec<_> = fields.into_iter().filter(|field| !field.is_empty() && *field != "target:").collect();
    assert_eq!(fields.len(), 19, "{fields:?}");
    for field in fields {
        assert!(PAGE.contains(&format!("`{field}`")), "{field}");
    }
}

#[test]
fn a_message_that_is_missing_would_be_noticed() {
    let code = "tracing::warn!(\n    error = %f(1, \"x\"), \"a \\\"new\\\" thing (odd)\"\n); g(\"no\")";
    assert_eq!(messages(code), ["a new thing (odd)"]);
    assert!(!is_listed("a new thing (odd)") && is_listed("drained") && is_listed("a probe ended: {stop}"));
}
