//! A serde reader over the tree: what a struct makes of it, and which node it did not accept.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor};

use super::fault::{Position, suggestion};
use super::tree::{PathStep, TreeNode, TreeValue};

/// What a struct did not accept, and where. Steps are collected from the inside out.
#[derive(Debug)]
pub(super) struct Mismatch {
    inside_out: Vec<PathStep>,
    pub(super) place: Option<Position>,
    pub(super) sentence: String,
    /// The key whose absence this is.
    pub(super) missing: Option<&'static str>,
}

impl Mismatch {
    /// The steps from the root.
    pub(super) fn steps(&self) -> Vec<PathStep> {
        self.inside_out.iter().rev().cloned().collect()
    }

    fn inside(mut self, step: PathStep, place: Position) -> Self {
        self.inside_out.push(step);
        self.place.get_or_insert(place);
        self
    }

    fn new(sentence: String) -> Self {
        Self { inside_out: Vec::new(), place: None, sentence, missing: None }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.sentence)
    }
}

impl std::error::Error for Mismatch {}

impl de::Error for Mismatch {
    fn custom<T: fmt::Display>(sentence: T) -> Self {
        Self::new(sentence.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(format!("expected {}, found {found}", plain(&expected.to_string())))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("unknown key `{field}`{}", suggestion(field, expected)))
    }

    fn missing_field(field: &'static str) -> Self {
        let sentence = format!("`{field}` is missing: add `{field}: …`, there is no default for it here");
        Self { missing: Some(field), ..Self::new(sentence) }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("unknown value `{variant}`{}", suggestion(variant, expected)))
    }
}

/// Rust's names of types in the words of YAML.
fn plain(expected: &str) -> String {
    match expected {
        "usize" | "u64" | "u32" | "u16" => "a whole number",
        "a sequence" => "a list such as `[a, b]`",
        "a string" => "text",
        "a nonzero usize" => "a whole number from 1",
        "a boolean" => "`true` or `false`",
        "f64" => "a number",
        other if other.starts_with("struct ") => "a mapping of keys to values",
        other => other,
    }
    .to_owned()
}

impl<'de> Deserializer<'de> for &'de TreeNode {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match &self.value {
            TreeValue::Null | TreeValue::Removed => visitor.visit_unit(),
            TreeValue::Bool(value) => visitor.visit_bool(*value),
            TreeValue::Unsigned(value) => visitor.visit_u64(*value),
            TreeValue::Signed(value) => visitor.visit_i64(*value),
            TreeValue::Float(value) => visitor.visit_f64(*value),
            TreeValue::Text(text) | TreeValue::Filled(text) => visitor.visit_str(text),
            TreeValue::List(nodes) => visitor.visit_seq(Elements(nodes.iter().enumerate())),
            TreeValue::Map(entries) => visitor.visit_map(MapEntries { rest: entries.iter(), value: None }),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.filled().and_then(|text| text.parse().ok()) {
            Some(value) => visitor.visit_bool(value),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.filled().and_then(|text| text.parse().ok()) {
            Some(value) => visitor.visit_u64(value),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.filled().and_then(|text| text.parse().ok()) {
            Some(value) => visitor.visit_f64(value),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match &self.value {
            TreeValue::Null | TreeValue::Removed => visitor.visit_none(),
            TreeValue::Filled(text) if matches!(text.as_str(), "" | "null") => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        match &self.value {
            // A section whose every key is commented out.
            TreeValue::Null => visitor.visit_map(MapEntries { rest: [].iter(), value: None }),
            // A derived reader would take a list for the fields in their order.
            TreeValue::List(_) => Err(de::Error::invalid_type(Unexpected::Seq, &"a mapping of keys to values")),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        match &self.value {
            TreeValue::Text(text) | TreeValue::Filled(text) => {
                let word: StrDeserializer<'_, Mismatch> = text.as_str().into_deserializer();
                visitor.visit_enum(word)
            }
            _ => Err(Mismatch::new(format!("expected one word{}", suggestion("", variants)))),
        }
    }

    fn is_human_readable(&self) -> bool {
        true
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u128 f32 char str string bytes byte_buf unit unit_struct newtype_struct seq tuple tuple_struct
        map identifier ignored_any
    }
}

impl TreeNode {
    fn filled(&self) -> Option<&str> {
        match &self.value {
            TreeValue::Filled(text) => Some(text),
            _ => None,
        }
    }
}

struct Elements<'de>(std::iter::Enumerate<std::slice::Iter<'de, TreeNode>>);

impl<'de> SeqAccess<'de> for Elements<'de> {
    type Error = Mismatch;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Mismatch> {
        let Some((index, node)) = self.0.find(|(_, node)| !matches!(node.value, TreeValue::Removed)) else {
            return Ok(None);
        };
        seed.deserialize(node).map(Some).map_err(|fault| fault.inside(PathStep::Index(index), node.place))
    }
}

struct MapEntries<'de> {
    rest: std::slice::Iter<'de, (String, Position, TreeNode)>,
    value: Option<&'de (String, Position, TreeNode)>,
}

impl<'de> MapAccess<'de> for MapEntries<'de> {
    type Error = Mismatch;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Mismatch> {
        self.value = self.rest.find(|(.., node)| !matches!(node.value, TreeValue::Removed));
        let Some((key, place, _)) = self.value else { return Ok(None) };
        let word: StrDeserializer<'_, Mismatch> = key.as_str().into_deserializer();
        seed.deserialize(word).map(Some).map_err(|fault| fault.inside(PathStep::Key(key.clone()), *place))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Mismatch> {
        let (key, _, node) = self.value.take().ok_or_else(|| Mismatch::new("a value without a key".to_owned()))?;
        seed.deserialize(node).map_err(|fault| fault.inside(PathStep::Key(key.clone()), node.place))
    }
}
