//! The JSON schema of the file, made from the types that read it: meaning, bounds and defaults of every key.
//!
//! Bounds that JSON Schema has no word for (of sizes and spans of time) stand in its own words with their unit, as
//! `"minimum": "1KiB"`. It holds no prose of its own: what a key means is said beside its field.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::file::ConfigFile;
use super::{Config, Overrides};

/// The schema.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<ConfigFile>().to_value();
    unwrap_lines(&mut schema);
    set_defaults(&mut schema, &sample().effective());
    schema["title"] = json!("weir");
    for (place, needed) in NEEDED {
        if let Some(Value::Object(section)) = schema.pointer_mut(place) {
            section.insert("required".to_owned(), json!([needed]));
        }
    }
    schema
}

/// Every default, and one backend called `gpu-0`.
pub(super) fn sample() -> Config {
    let flag = Overrides { backends: vec!["http://127.0.0.1:8200".to_owned()], ..Overrides::default() };
    let mut config = Config::load(None, &flag).unwrap_or_default();
    if let Some(server) = config.backends.first_mut() {
        "gpu-0".clone_into(&mut server.backend.name);
    }
    config
}

/// Comments are broken into lines where the source ends; a description is one line. Defaults are said once, by the program's
/// own below.
fn unwrap_lines(schema: &mut Value) {
    let Some(own) = schema.as_object_mut() else { return };
    own.remove("default");
    if let Some(Value::String(text)) = own.get_mut("description") {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    if let Some(Value::Object(properties)) = own.get_mut("properties") {
        properties.values_mut().for_each(unwrap_lines);
    }
    for inner in ["items", "anyOf", "oneOf"] {
        match own.get_mut(inner) {
            Some(Value::Array(list)) => list.iter_mut().for_each(unwrap_lines),
            Some(one) => unwrap_lines(one),
            None => {}
        }
    }
}

fn set_defaults(schema: &mut Value, in_force: &Value) {
    let Some(schema) = schema.as_object_mut() else { return };
    match in_force {
        Value::Object(values) => {
            let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
            for (key, value) in values {
                properties.get_mut(key).into_iter().for_each(|property| set_defaults(property, value));
            }
        }
        Value::Array(values) if values.iter().any(Value::is_object) => {
            if let (Some(items), Some(first)) = (schema.get_mut("items"), values.first()) {
                set_defaults(items, first);
                forget_defaults(items, &["name", "url"]);
            }
        }
        leaf => _ = schema.insert("default".to_owned(), as_typed(schema, leaf)),
    }
}

/// The number of processors is this machine's own: the default is what stands for it.
fn as_typed(schema: &Map<String, Value>, value: &Value) -> Value {
    let words = schema.get("anyOf").and_then(Value::as_array);
    let auto = words.is_some_and(|words| words.contains(&json!({ "const": "auto" })));
    if auto { json!("auto") } else { value.clone() }
}

/// Removes the sample's own values, which are no defaults.
fn forget_defaults(items: &mut Value, keys: &[&str]) {
    for key in keys {
        if let Some(property) = items.pointer_mut(&format!("/properties/{key}")).and_then(Value::as_object_mut) {
            property.remove("default");
        }
    }
}

/// What has no default. The reader takes all keys for optional, so that one fault does not hide the next.
const NEEDED: [(&str, &str); 3] =
    [("", "backends"), ("/properties/backends/items", "url"), ("/properties/slo/properties/routes/items", "path")];
