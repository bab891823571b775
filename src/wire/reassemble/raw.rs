//! JSON as it is written: objects in their order, strings joined without being read.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// An object's entries, in order.
pub(super) struct Fields<'a>(pub Vec<(Cow<'a, str>, &'a str)>);

impl<'a> Fields<'a> {
    /// `None`: no object.
    pub fn parse(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The last entry of this name, as engines take it.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| *value)
    }
}

/// An array's elements.
pub(super) fn elements(text: &str) -> Option<Vec<&RawValue>> {
    serde_json::from_str(text).ok()
}

/// What stands between the quotes of a string, escapes as they are.
pub(super) fn inner(text: &str) -> Option<&str> {
    text.strip_prefix('"')?.strip_suffix('"')
}

/// A string's text.
pub(super) fn text(value: &str) -> Option<String> {
    serde_json::from_str(value).ok()
}

/// Appends `"name":value`, after a comma where one belongs.
pub(super) fn put(out: &mut String, name: &str, value: &str) {
    if !out.ends_with('{') {
        out.push(',');
    }
    // A string always has a JSON form.
    out.push_str(&serde_json::to_string(name).unwrap_or_default());
    out.push(':');
    out.push_str(value);
}

/// Entries whose values are joined or replaced as they come.
#[derive(Clone, Debug)]
pub(super) struct RawEntries<V>(pub Vec<(String, V)>);

impl<V> Default for RawEntries<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<V> RawEntries<V> {
    /// The value of this name, made where it first appears.
    pub fn at(&mut self, name: &str, make: impl FnOnce() -> V) -> &mut V {
        let place = self.0.iter().position(|(key, _)| key == name).unwrap_or_else(|| {
            self.0.push((name.to_owned(), make()));
            self.0.len() - 1
        });
        &mut self.0[place].1
    }
}

/// A value that comes in pieces.
#[derive(Clone, Debug)]
pub(super) enum RawPiece {
    /// As it is; a null yields to whatever else comes.
    Value(String),
    /// A string, without quotes.
    Text(String),
    /// An array, without brackets.
    List(String),
    /// An object of lists and strings.
    Object(RawEntries<RawPiece>),
}

impl RawPiece {
    pub fn null() -> Self {
        Self::Value("null".to_owned())
    }

    /// Joins strings and lists, enters objects, replaces the rest.
    pub fn join(&mut self, value: &str) {
        if value == "null" {
            return;
        }
        if let Some(more) = inner(value) {
            match self {
                Self::Text(text) => text.push_str(more),
                _ => *self = Self::Text(more.to_owned()),
            }
        } else if let Some(more) = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).map(str::trim) {
            match self {
                Self::List(list) if !list.is_empty() && !more.is_empty() => {
                    list.push(',');
                    list.push_str(more);
                }
                Self::List(list) => list.push_str(more),
                _ => *self = Self::List(more.to_owned()),
            }
        } else if let Some(fields) = Fields::parse(value) {
            if !matches!(self, Self::Object(_)) {
                *self = Self::Object(RawEntries(Vec::new()));
            }
            if let Self::Object(entries) = self {
                for (key, value) in fields.0 {
                    entries.at(&key, Self::null).join(value);
                }
            }
        } else {
            *self = Self::Value(value.to_owned());
        }
    }

    /// The first value stays.
    pub fn keep(&mut self, value: &str) {
        if matches!(self, Self::Value(null) if null == "null") {
            *self = Self::Value(value.to_owned());
        }
    }

    /// The last value counts, nulls excepted.
    pub fn replace(&mut self, value: &str) {
        if value != "null" {
            *self = Self::Value(value.to_owned());
        }
    }

    pub fn is_empty_text(&self) -> bool {
        matches!(self, Self::Text(text) if text.is_empty())
    }

    pub fn write(&self) -> String {
        match self {
            Self::Value(value) => value.clone(),
            Self::Text(text) => format!("\"{text}\""),
            Self::List(list) => format!("[{list}]"),
            Self::Object(entries) => {
                let mut out = String::from("{");
                entries.0.iter().for_each(|(key, piece)| put(&mut out, key, &piece.write()));
                out.push('}');
                out
            }
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Walk;

        impl<'de> Visitor<'de> for Walk {
            type Value = Fields<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some((key, value)) = map.next_entry::<MemberKey<'de>, &'de RawValue>()? {
                    fields.push((key.0, value.get()));
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Walk)
    }
}

/// A key, borrowed where it has no escapes.
struct MemberKey<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for MemberKey<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RawWord;

        impl<'de> Visitor<'de> for RawWord {
            type Value = MemberKey<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, key: &'de str) -> Result<MemberKey<'de>, E> {
                Ok(MemberKey(Cow::Borrowed(key)))
            }

            fn visit_str<E>(self, key: &str) -> Result<MemberKey<'de>, E> {
                Ok(MemberKey(Cow::Owned(key.to_owned())))
            }
        }

        deserializer.deserialize_str(RawWord)
    }
}
