//! A setting that is never shown: not in a log, not in `/config`, not in the sentence about a mistake.
//!
//! Absent: the rule about which requests need it (`auth`).

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

/// A token of visible ASCII characters.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// `None`: it is empty, or holds what cannot stand in a header.
    pub fn new(text: String) -> Option<Self> {
        let fits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        fits.then_some(Self(text))
    }

    /// The token itself, to compare with.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MASK)
    }
}

impl<'de> Deserialize<'de> for Secret {
    /// Whatever is wrong, the sentence does not quote it: serde's own would.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer).ok();
        text.and_then(Self::new)
            .ok_or_else(|| de::Error::custom("expected text of visible ASCII characters, in quotes"))
    }
}

const MASK: &str = "masked";

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "secret" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_shown_nowhere() {
        let secret = Secret::new("canary".into()).unwrap();
        let shown = format!("{secret:?} {}", serde_json::to_string(&secret).unwrap());
        assert!(!shown.contains("canary"), "{shown}");
        assert_eq!(secret.reveal(), "canary");
    }

    #[test]
    fn a_mistake_is_not_quoted_and_what_fits_is_read() {
        for typed in ["1234567", "\"\"", "\"ca nary\"", "[\"canary\"]", "\"canary\\u00e9\""] {
            let error = serde_json::from_str::<Secret>(typed).unwrap_err().to_string();
            assert!(!error.contains("canary") && !error.contains("1234567"), "{error}");
        }
        assert_eq!(serde_json::from_str::<Secret>("\"canary\"").unwrap().reveal(), "canary");
    }
}
