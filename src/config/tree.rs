//! The file as a tree whose every node knows its place.
//!
//! The YAML library stops at the first fault; a person wants all of them. So the text is first read into this tree, and a
//! struct is then read from the tree (`reading`) as often as needed: each fault takes the node it concerns out of the next
//! reading.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::fault::Place;
use super::substitute::{self, Surroundings};

/// One node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    /// Text with variables filled in: it may stand for a number or a truth value.
    Filled(String),
    List(Vec<Node>),
    Map(Vec<(String, Place, Node)>),
    /// A fault was reported here.
    Removed,
}

/// One step from a node to one inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// Writes steps as `backends[0].url`.
pub(super) fn path(steps: &[Step]) -> String {
    steps.iter().fold(String::new(), |path, step| match step {
        Step::Key(key) if path.is_empty() => key.clone(),
        Step::Key(key) => format!("{path}.{key}"),
        Step::Index(index) => format!("{path}[{index}]"),
    })
}

impl Node {
    /// A document without anything in it.
    pub(super) fn empty() -> Self {
        Self { place: Place { line: 1, column: 1 }, value: Value::Null }
    }

    /// The place of the node that the steps lead to, or of the last one on the way.
    pub(super) fn place_of(&self, steps: &[Step]) -> Place {
        steps.split_first().and_then(|(step, rest)| Some(self.child(step)?.place_of(rest))).unwrap_or(self.place)
    }

    /// Whether a fault was reported at the node or around it.
    pub(super) fn is_removed(&self, steps: &[Step]) -> bool {
        matches!(self.value, Value::Removed)
            || steps.split_first().is_some_and(|(step, rest)| self.child(step).is_some_and(|n| n.is_removed(rest)))
    }

    /// Takes the node out of further readings. Says whether there was something to take out.
    pub(super) fn remove(&mut self, steps: &[Step]) -> bool {
        let Some((step, rest)) = steps.split_first() else {
            return !matches!(std::mem::replace(&mut self.value, Value::Removed), Value::Removed);
        };
        self.child_mut(step).is_some_and(|node| node.remove(rest))
    }

    /// The node that the steps lead to.
    pub(super) fn find(&self, steps: &[Step]) -> Option<&Self> {
        steps.iter().try_fold(self, |node, step| node.child(step))
    }

    /// The sentence about the node that the steps lead to, without what was filled in there: it may be a secret at the wrong key.
    pub(super) fn unquoted(&self, steps: &[Step], sentence: String) -> String {
        let Some(Value::Filled(text)) = self.find(steps).map(|node| &node.value) else { return sentence };
        [format!("`{text}`"), format!("{text:?}")]
            .iter()
            .fold(sentence, |sentence, quoted| sentence.replace(quoted.as_str(), "what was filled in"))
    }

    /// Takes out every key that a mapping has already, and reports it.
    pub(super) fn settle(&mut self, trail: &mut Vec<Step>, report: &mut dyn FnMut(&[Step], Place, String)) {
        match &mut self.value {
            Value::List(nodes) => {
                for (index, node) in nodes.iter_mut().enumerate() {
                    trail.push(Step::Index(index));
                    node.settle(trail, report);
                    trail.pop();
                }
            }
            Value::Map(entries) => {
                let mut seen = BTreeMap::<String, u64>::new();
                entries.retain_mut(|(key, place, node)| {
                    trail.push(Step::Key(key.clone()));
                    let first = seen.get(key).copied();
                    match first {
                        Some(line) => {
                            report(
                                trail,
                                *place,
                                format!("duplicate key, given in line {line} already: remove one of the two"),
                            );
                        }
                        None => {
                            seen.insert(key.clone(), place.line);
                            node.settle(trail, report);
                        }
                    }
                    trail.pop();
                    first.is_none()
                });
            }
            _ => {}
        }
    }

    /// Fills in variables everywhere below; reports each value that cannot be filled in and takes it out.
    pub(super) fn fill(
        &mut self,
        surroundings: &Surroundings<'_>,
        trail: &mut Vec<Step>,
        report: &mut dyn FnMut(&[Step], Place, String),
    ) {
        let place = self.place;
        match &mut self.value {
            Value::Text(text) => match substitute::fill(text, surroundings) {
                Ok(None) => {}
                Ok(Some(filled)) => self.value = Value::Filled(filled),
                Err(why) => {
                    report(trail, place, why.to_string());
                    self.value = Value::Removed;
                }
            },
            Value::List(nodes) => {
                for (index, node) in nodes.iter_mut().enumerate() {
                    trail.push(Step::Index(index));
                    node.fill(surroundings, trail, report);
                    trail.pop();
                }
            }
            Value::Map(entries) => {
                for (key, _, node) in entries {
                    trail.push(Step::Key(key.clone()));
                    node.fill(surroundings, trail, report);
                    trail.pop();
                }
            }
            _ => {}
        }
    }

    fn child(&self, step: &Step) -> Option<&Self> {
        match (&self.value, step) {
            (Value::Map(entries), Step::Key(key)) => entries.iter().find(|(k, ..)| k == key).map(|(.., node)| node),
            (Value::List(nodes), Step::Index(index)) => nodes.get(*index),
            _ => None,
        }
    }

    fn child_mut(&mut self, step: &Step) -> Option<&mut Self> {
        match (&mut self.value, step) {
            (Value::Map(entries), Step::Key(key)) => entries.iter_mut().find(|(k, ..)| k == key).map(|(.., node)| node),
            (Value::List(nodes), Step::Index(index)) => nodes.get_mut(*index),
            _ => None,
        }
    }
}

fn place(location: serde_saphyr::Location) -> Place {
    Place { line: location.line(), column: location.column() }
}

impl From<Spanned<Value>> for Node {
    fn from(spanned: Spanned<Value>) -> Self {
        Self { place: place(spanned.referenced), value: spanned.value }
    }
}

impl<'de> de::Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(Self::from)
    }
}

impl<'de> de::Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(u64::try_from(value).map_or(Value::Signed(value), Value::Unsigned))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(Value::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            entries.push((key.value, place(key.referenced), map.next_value()?));
        }
        Ok(Value::Map(entries))
    }
}
