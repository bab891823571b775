//! The file that shows every setting with its default, and the lists of the reference page, both made from the schema.

use serde_json::Value as Json;

use super::effective::Effective;
use super::schema;
use super::tree::{TreeNode, TreeValue};

/// `config/weir.yaml`: every setting with its default, its meaning above it.
pub fn yaml() -> String {
    let schema = schema::schema();
    let mut page = YamlPage { text: HEAD.to_owned() };
    page.keys(&sample(), &schema, 0);
    page.text
}

/// The lists of `docs/use/configuration.md`: one a section, one item a key.
pub fn markdown() -> String {
    let schema = schema::schema();
    let mut page = ReferencePage { text: String::new(), rest: Vec::new() };
    page.section("", &sample(), &schema);
    while let Some((path, node, schema)) = page.rest.pop() {
        page.section(&path, &node, &schema);
    }
    page.text
}

/// The defaults in the file's order; the order is lost in a map of JSON.
fn sample() -> TreeNode {
    serde_saphyr::from_str(&Effective::of(&schema::sample()).text()).unwrap_or_else(|_| TreeNode::empty())
}

/// A YAML text in the making.
struct YamlPage {
    text: String,
}

impl YamlPage {
    fn keys(&mut self, node: &TreeNode, schema: &Json, depth: usize) {
        let TreeValue::Map(entries) = &node.value else { return };
        let indent = "  ".repeat(depth);
        for (key, _, value) in entries {
            let own = &schema["properties"][key.as_str()];
            if depth == 0 {
                self.text.push('\n');
            }
            self.comment(&indent, own);
            match (&value.value, own.get("default")) {
                (TreeValue::Map(_), _) => {
                    self.line(&format!("{indent}{key}:"));
                    self.keys(value, own, depth + 1);
                }
                (TreeValue::List(list), _) if list.iter().any(|item| matches!(item.value, TreeValue::Map(_))) => {
                    self.line(&format!("{indent}{key}:"));
                    list.iter().for_each(|item| self.item(item, &own["items"], depth + 1));
                }
                (_, Some(default)) => self.line(&format!("{indent}{key}: {}", scalar(default))),
                (TreeValue::Text(text), None) => self.line(&format!("{indent}{key}: {text}")),
                _ => {}
            }
        }
    }

    /// The keys of a list's item, the first one behind its dash.
    fn item(&mut self, node: &TreeNode, schema: &Json, depth: usize) {
        let mut inner = Self { text: String::new() };
        inner.keys(node, schema, depth + 1);
        let indent = "  ".repeat(depth);
        let first = inner.text.lines().position(|line| !line.trim_start().starts_with('#'));
        for (i, line) in inner.text.lines().enumerate() {
            let dashed = line.replacen(&format!("{indent}  "), &format!("{indent}- "), 1);
            self.line(if Some(i) == first { &dashed } else { line });
        }
    }

    fn comment(&mut self, indent: &str, schema: &Json) {
        let mut said = schema["description"].as_str().unwrap_or_default().to_owned();
        if let Some(bounds) = bounds(schema) {
            said = format!("{said} ({bounds})");
        }
        self.wrapped(&format!("{indent}# "), &format!("{indent}# "), &said);
        for (word, meaning) in words(schema).into_iter().filter(|(_, meaning)| !meaning.is_empty()) {
            self.wrapped(&format!("{indent}#   {word}: "), &format!("{indent}#     "), &meaning);
        }
    }

    fn wrapped(&mut self, first: &str, rest: &str, text: &str) {
        let mut line = first.to_owned();
        for word in text.split(' ') {
            if line.len() + word.len() > WIDTH {
                self.line(line.trim_end());
                rest.clone_into(&mut line);
            }
            line.push_str(word);
            line.push(' ');
        }
        self.line(line.trim_end());
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }
}

/// The reference page in the making, and the sections that have no list yet, last first.
struct ReferencePage {
    text: String,
    rest: Vec<(String, TreeNode, Json)>,
}

impl ReferencePage {
    fn section(&mut self, path: &str, node: &TreeNode, schema: &Json) {
        let TreeValue::Map(entries) = &node.value else { return };
        let title = if path.is_empty() { "Top level".to_owned() } else { format!("`{path}`") };
        let description = schema["description"].as_str().unwrap_or_default();
        self.text.push_str(&format!("### {title}\n\n{}\n\n", sentences(description).join("\n")));
        let mut below = Vec::new();
        for (key, _, value) in entries {
            let own = &schema["properties"][key.as_str()];
            let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let typed = match &value.value {
                TreeValue::Map(_) => {
                    below.push((inner, value.clone(), own.clone()));
                    "section, below".to_owned()
                }
                TreeValue::List(list) if list.iter().any(|item| matches!(item.value, TreeValue::Map(_))) => {
                    list.first().into_iter().for_each(|item| {
                        below.push((format!("{inner}[]"), item.clone(), own["items"].clone()));
                    });
                    "list, below".to_owned()
                }
                _ => kind(own),
            };
            self.item(key, &typed, own);
        }
        self.text.push('\n');
        self.rest.extend(below.into_iter().rev());
    }

    /// One key: type and default in its first line, then a line a sentence, then a line a word that may be typed.
    fn item(&mut self, key: &str, typed: &str, schema: &Json) {
        let default = schema.get("default").map(|default| format!(", default `{}`", scalar(default)));
        self.text.push_str(&format!("- **`{key}`**: {typed}{}\n", default.unwrap_or_default()));
        for sentence in sentences(schema["description"].as_str().unwrap_or_default()) {
            self.text.push_str(&format!("  {sentence}\n"));
        }
        for (word, meaning) in words(schema).into_iter().filter(|(_, meaning)| !meaning.is_empty()) {
            self.text.push_str(&format!("  - `{word}`: {meaning}\n"));
        }
    }
}

/// A text one sentence a line, as the pages of docs/ are written.
fn sentences(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let begins = word.starts_with(|c: char| c.is_uppercase() || c == '`' || c.is_ascii_digit());
        if let Some(line) = lines.last_mut().filter(|line| !begins || !line.ends_with('.')) {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// What may be typed, in a few words.
fn kind(schema: &Json) -> String {
    let words = words(schema);
    let plain = match schema["format"].as_str() {
        _ if words.iter().any(|(_, meaning)| !meaning.is_empty()) => "one of the words below".to_owned(),
        _ if !words.is_empty() => words.iter().map(|(word, _)| format!("`{word}`")).collect::<Vec<_>>().join(", "),
        Some("span") => "span of time".to_owned(),
        Some(known @ ("size" | "hours" | "series" | "secret" | "network")) => known.to_owned(),
        _ => match first_type(schema) {
            "string" => "text".to_owned(),
            "integer" => "whole number".to_owned(),
            "array" => format!("list of {}", plural(&schema["items"])),
            "boolean" => "`true`, `false`".to_owned(),
            "number" => "number".to_owned(),
            _ => "`auto` or a whole number".to_owned(),
        },
    };
    let bounds = bounds(schema).map(|bounds| format!(", {bounds}")).unwrap_or_default();
    let or_null = if takes_null(schema) { ", or `null`" } else { "" };
    format!("{plain}{bounds}{or_null}")
}

fn plural(items: &Json) -> &'static str {
    match (first_type(items), items["format"].as_str()) {
        (_, Some("network")) => "networks",
        ("number", _) => "numbers",
        ("object", _) => "mappings",
        _ => "texts",
    }
}

/// `1 to 1024`, `above 0s`, `64KiB at most`; `None` where every value of the type will do.
fn bounds(schema: &Json) -> Option<String> {
    let alternatives = schema["anyOf"].as_array().into_iter().flatten();
    let own = std::iter::once(schema).chain(alternatives).find(|own| {
        ["minimum", "maximum", "exclusiveMinimum", "minItems"].iter().any(|bound| own.get(bound).is_some())
    })?;
    let value = |bound: &str| own.get(bound).filter(|value| **value != 0).map(scalar);
    let (least, most) = (value("minimum").or(value("minItems")), value("maximum").or(value("maxItems")));
    // The bounds of the number's own type are no limits of the setting.
    let most = most.filter(|_| {
        own["format"].is_null() || own["maximum"].is_string() || least.is_some() || own["maximum"].is_f64()
    });
    let most = most.filter(|most| *most != u32::MAX.to_string() && *most != u16::MAX.to_string());
    if own.get("minItems").is_some() {
        return Some(format!("{} to {} entries", least.unwrap_or_default(), most.unwrap_or_default()));
    }
    match (own.get("exclusiveMinimum"), least, most) {
        (Some(above), ..) => Some(format!("above {}", scalar(above))),
        (_, None, None) => None,
        (_, Some(least), None) => Some(format!("{least} at least")),
        (_, None, Some(most)) => Some(format!("0 to {most}")),
        (_, Some(least), Some(most)) if least == most => None,
        (_, Some(least), Some(most)) => Some(format!("{least} to {most}")),
    }
}

/// The words that may be typed, each with its meaning; numbers of a closed list are words too.
fn words(schema: &Json) -> Vec<(String, String)> {
    let listed = schema["enum"].as_array().into_iter().flatten().map(|word| (scalar(word), String::new()));
    let described = schema["oneOf"].as_array().into_iter().flatten().filter_map(|one| {
        let meaning = one["description"].as_str().unwrap_or_default().to_owned();
        Some((one.get("const")?.as_str()?.to_owned(), meaning))
    });
    described.chain(listed).collect()
}

fn first_type(schema: &Json) -> &str {
    match &schema["type"] {
        Json::Array(types) => types.first().and_then(Json::as_str).unwrap_or_default(),
        one => one.as_str().unwrap_or_default(),
    }
}

fn takes_null(schema: &Json) -> bool {
    schema["type"].as_array().is_some_and(|types| types.contains(&Json::from("null")))
}

/// A value as YAML writes it.
fn scalar(value: &Json) -> String {
    match value {
        Json::String(text) if matches!(text.as_str(), "null" | "true" | "false" | "") => format!("\"{text}\""),
        Json::String(text) => text.clone(),
        Json::Number(number) if number.is_f64() => number.as_f64().unwrap_or_default().to_string(),
        other => other.to_string(),
    }
}

/// Comments end here at the latest.
const WIDTH: usize = 120;

const HEAD: &str = "\
# yaml-language-server: $schema=weir.schema.json
# Every setting of weir, with its default. A file needs only what differs: one backend is enough.
# Spans of time carry a unit (500ms, 1m 30s), sizes too (64MiB). Values may hold ${VAR}, ${VAR:-default} and
# ${file:/run/secrets/token}; $$ is one $. `weir check --config FILE` says what is wrong with a file, and where.
# This file is made by `weir schema --format yaml`.
";
