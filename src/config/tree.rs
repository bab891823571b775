//! The file as a tree whose every node knows its place.
//!
//! The YAML library stops at the first fault; a person wants all of them. So the text is first read into this tree, and a
//! struct is then read from the tree (`reading`) as often as needed: each fault takes the node it concerns out of the next
//! reading.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::fault::Position;
use super::substitute::{self, Surroundings};

/// One node.
#[derive(Clone, Debug)]
pub(super) struct TreeNode {
    pub(super) place: Position,
    pub(super) value: TreeValue,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub(super) enum TreeValue {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    /// Text with variables filled in: it may stand for a number or a truth value.
    Filled(String),
    List(Vec<TreeNode>),
    Map(Vec<(String, Position, TreeNode)>),
    /// A fault was reported here.
    Removed,
}

/// One step from a node to one inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PathStep {
    Key(String),
    Index(usize),
}

/// Writes steps as `backends[0].url`.
pub(super) fn path(steps: &[PathStep]) -> String {
    steps.iter().fold(String::new(), |path, step| match step {
        PathStep::Key(key) if path.is_empty() => key.clone(),
        PathStep::Key(key) => format!("{path}.{key}"),
        PathStep::Index(index) => format!("{path}[{index}]"),
    })
}

impl TreeNode {
    /// A document without anything in it.
    pub(super) fn empty() -> Self {
        Self { place: Position { line: 1, column: 1 }, value: TreeValue::Null }
    }

    /// The place of the node that the steps lead to, or of the last one on the way.
    pub(super) fn place_of(&self, steps: &[PathStep]) -> Position {
        steps.split_first().and_then(|(step, rest)| Some(self.child(step)?.place_of(rest))).unwrap_or(self.place)
    }

    /// Whether a fault was reported at the node or around it.
    pub(super) fn is_removed(&self, steps: &[PathStep]) -> bool {
        matches!(self.value, TreeValue::Removed)
            || steps.split_first().is_some_and(|(step, rest)| self.child(step).is_some_and(|n| n.is_removed(rest)))
    }

    /// Takes the node out of further readings. Says whether there was something to take out.
    pub(super) fn remove(&mut self, steps: &[PathStep]) -> bool {
        let Some((step, rest)) = steps.split_first() else {
            return !matches!(std::mem::replace(&mut self.value, TreeValue::Removed), TreeValue::Removed);
        };
        self.child_mut(step).is_some_and(|node| node.remove(rest))
    }

    /// The node that the steps lead to.
    pub(super) fn find(&self, steps: &[PathStep]) -> Option<&Self> {
        steps.iter().try_fold(self, |node, step| node.child(step))
    }

    /// `sentence` about the node that the steps lead to, without a value filled in there: it may be a secret at the wrong key.
    pub(super) fn unquoted(&self, steps: &[PathStep], sentence: String) -> String {
        let Some(TreeValue::Filled(text)) = self.find(steps).map(|node| &node.value) else { return sentence };
        [format!("`{text}`"), format!("{text:?}")]
            .iter()
            .fold(sentence, |sentence, quoted| sentence.replace(quoted.as_str(), "what was filled in"))
    }

    /// Takes out every key that a mapping has already, and reports it.
    pub(super) fn settle(&mut self, trail: &mut Vec<PathStep>, report: &mut dyn FnMut(&[PathStep], Position, String)) {
        match &mut self.value {
            TreeValue::List(nodes) => {
                for (index, node) in nodes.iter_mut().enumerate() {
                    trail.push(PathStep::Index(index));
                    node.settle(trail, report);
                    trail.pop();
                }
            }
            TreeValue::Map(entries) => {
                let mut seen = BTreeMap::<String, u64>::new();
                entries.retain_mut(|(key, place, node)| {
                    trail.push(PathStep::Key(key.clone()));
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
        trail: &mut Vec<PathStep>,
        report: &mut dyn FnMut(&[PathStep], Position, String),
    ) {
        let place = self.place;
        match &mut self.value {
            TreeValue::Text(text) => match substitute::fill(text, surroundings) {
                Ok(None) => {}
                Ok(Some(filled)) => self.value = TreeValue::Filled(filled),
                Err(why) => {
                    report(trail, place, why.to_string());
                    self.value = TreeValue::Removed;
                }
            },
            TreeValue::List(nodes) => {
                for (index, node) in nodes.iter_mut().enumerate() {
                    trail.push(PathStep::Index(index));
                    node.fill(surroundings, trail, report);
                    trail.pop();
                }
            }
            TreeValue::Map(entries) => {
                for (key, _, node) in entries {
                    trail.push(PathStep::Key(key.clone()));
                    node.fill(surroundings, trail, report);
                    trail.pop();
                }
            }
            _ => {}
        }
    }

    fn child(&self, step: &PathStep) -> Option<&Self> {
        match (&self.value, step) {
            (TreeValue::Map(entries), PathStep::Key(key)) => {
                entries.iter().find(|(k, ..)| k == key).map(|(.., node)| node)
            }
            (TreeValue::List(nodes), PathStep::Index(index)) => nodes.get(*index),
            _ => None,
        }
    }

    fn child_mut(&mut self, step: &PathStep) -> Option<&mut Self> {
        match (&mut self.value, step) {
            (TreeValue::Map(entries), PathStep::Key(key)) => {
                entries.iter_mut().find(|(k, ..)| k == key).map(|(.., node)| node)
            }
            (TreeValue::List(nodes), PathStep::Index(index)) => nodes.get_mut(*index),
            _ => None,
        }
    }
}

fn place(location: serde_saphyr::Location) -> Position {
    Position { line: location.line(), column: location.column() }
}

impl From<Spanned<TreeValue>> for TreeNode {
    fn from(spanned: Spanned<TreeValue>) -> Self {
        Self { place: place(spanned.referenced), value: spanned.value }
    }
}

impl<'de> de::Deserialize<'de> for TreeNode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(Self::from)
    }
}

impl<'de> de::Deserialize<'de> for TreeValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = TreeValue;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<TreeValue, E> {
        Ok(TreeValue::Null)
    }

    fn visit_none<E>(self) -> Result<TreeValue, E> {
        Ok(TreeValue::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<TreeValue, E> {
        Ok(TreeValue::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<TreeValue, E> {
        Ok(TreeValue::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<TreeValue, E> {
        Ok(u64::try_from(value).map_or(TreeValue::Signed(value), TreeValue::Unsigned))
    }

    fn visit_f64<E>(self, value: f64) -> Result<TreeValue, E> {
        Ok(TreeValue::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<TreeValue, E> {
        Ok(TreeValue::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<TreeValue, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(TreeValue::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TreeValue, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            entries.push((key.value, place(key.referenced), map.next_value()?));
        }
        Ok(TreeValue::Map(entries))
    }
}
