//! The two quantities a person types with a unit: sizes (`64MiB`) and spans of time (`1m 30s`).
//!
//! [`ByteSize`] and [`Span`] read and print the written form; the settings hold `u64`, `usize` and `Duration`. The module [`typed`]
//! joins the two in `#[serde(with = "…")]`. A bare number is refused, because 30 could be seconds or milliseconds.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

/// A number of bytes, written as `64MiB`, `1GiB`, `512 KiB` or `4096B`; `kB`, `MB`, `GB` are powers of 1000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A span of time, written as `500ms`, `30s` or `1m 30s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// Why a size or a span of time was not understood: one sentence without a full stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// A number without a unit.
    #[error("`{0}` has no unit: write a size such as `64MiB`")]
    BareSize(String),
    /// Not a size.
    #[error("`{0}` is not a size such as `64MiB`")]
    Size(String),
    /// A number without a unit.
    #[error("`{0}` has no unit: write a span of time such as `500ms` or `1m 30s`")]
    BareSpan(String),
    /// Not a span of time; the second part is the reason of the parser.
    #[error("`{0}` is not a span of time such as `500ms` or `1m 30s` ({1})")]
    Span(String, String),
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(typed: &str) -> Result<Self, UnitError> {
        if is_bare(typed) {
            return Err(UnitError::BareSize(typed.to_owned()));
        }
        typed
            .parse::<bytesize::ByteSize>()
            .map(|size| Self(size.as_u64()))
            .map_err(|_| UnitError::Size(typed.to_owned()))
    }
}

impl fmt::Display for ByteSize {
    /// The largest binary unit that divides the size, so that reading it back gives the same number.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        match UNITS.iter().find(|(_, bits)| self.0 > 0 && self.0.trailing_zeros() >= *bits) {
            Some((unit, bits)) => write!(out, "{}{unit}", self.0 >> bits),
            None => write!(out, "{}B", self.0),
        }
    }
}

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(typed: &str) -> Result<Self, UnitError> {
        if is_bare(typed) {
            return Err(UnitError::BareSpan(typed.to_owned()));
        }
        humantime::parse_duration(typed).map(Self).map_err(|why| UnitError::Span(typed.to_owned(), why.to_string()))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(out)
    }
}

/// A quantity that is written as text with its unit.
trait Quantity: FromStr<Err = UnitError> + fmt::Display {
    /// What to write, for an error message.
    const EXPECTED: &'static str;
    /// The error for a number without a unit.
    fn without_unit(number: String) -> UnitError;
}

impl Quantity for ByteSize {
    const EXPECTED: &'static str = "a size such as `64MiB`";

    fn without_unit(number: String) -> UnitError {
        UnitError::BareSize(number)
    }
}

impl Quantity for Span {
    const EXPECTED: &'static str = "a span of time such as `500ms` or `1m 30s`";

    fn without_unit(number: String) -> UnitError {
        UnitError::BareSpan(number)
    }
}

struct QuantityVisitor<T>(std::marker::PhantomData<T>);

impl<T: Quantity> Visitor<'_> for QuantityVisitor<T> {
    type Value = T;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(T::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, typed: &str) -> Result<T, E> {
        typed.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        Err(E::custom(T::without_unit(number.to_string())))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        Err(E::custom(T::without_unit(number.to_string())))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        Err(E::custom(T::without_unit(number.to_string())))
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(QuantityVisitor(std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(QuantityVisitor(std::marker::PhantomData))
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for ByteSize {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "size", "pattern": "^\\s*[0-9.]+\\s*[KkMmGgTtPp]?[Ii]?[Bb]?\\s*$|\\$\\{" })
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "span", "pattern": "^(\\s*[0-9]+\\s*[a-zµ]+)+\\s*$|\\$\\{" })
    }
}

/// A plain value of a setting, and the form in which a file holds it.
pub trait WithUnit: Sized {
    /// The form in the file: [`ByteSize`] or [`Span`].
    type Written: for<'de> Deserialize<'de> + Serialize;
    /// Reads the value.
    ///
    /// # Errors
    /// The number does not fit this machine.
    fn from_written(written: Self::Written) -> Result<Self, UnitError>;
    /// Gives the form with its unit.
    fn to_written(&self) -> Self::Written;
}

impl WithUnit for Duration {
    type Written = Span;

    fn from_written(written: Span) -> Result<Self, UnitError> {
        Ok(written.0)
    }

    fn to_written(&self) -> Span {
        Span(*self)
    }
}

impl WithUnit for u64 {
    type Written = ByteSize;

    fn from_written(written: ByteSize) -> Result<Self, UnitError> {
        Ok(written.0)
    }

    fn to_written(&self) -> ByteSize {
        ByteSize(*self)
    }
}

impl WithUnit for usize {
    type Written = ByteSize;

    fn from_written(written: ByteSize) -> Result<Self, UnitError> {
        Self::try_from(written.0).map_err(|_| UnitError::Size(written.to_string()))
    }

    fn to_written(&self) -> ByteSize {
        ByteSize(*self as u64)
    }
}

/// `#[serde(with = "crate::vocabulary::units::typed")]`: the struct holds a `Duration`, or a `u64` or `usize` of bytes; the file
/// holds the form with a unit.
pub mod typed {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use super::WithUnit;

    /// Reads the form with a unit.
    ///
    /// # Errors
    /// A bare number, text that is not the unit, or a number too large for this machine.
    pub fn deserialize<'de, V: WithUnit, D: Deserializer<'de>>(deserializer: D) -> Result<V, D::Error> {
        V::from_written(V::Written::deserialize(deserializer)?).map_err(D::Error::custom)
    }

    /// Writes the form with a unit.
    ///
    /// # Errors
    /// Only the serializer's own.
    pub fn serialize<V: WithUnit, S: Serializer>(value: &V, serializer: S) -> Result<S::Ok, S::Error> {
        value.to_written().serialize(serializer)
    }
}

/// Whether this is a number without a unit.
fn is_bare(typed: &str) -> bool {
    typed.trim().parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_printed_alike() {
        for (typed, bytes, printed) in [
            ("64MiB", 64 << 20, "64MiB"),
            ("2 GiB", 2 << 30, "2GiB"),
            ("1kB", 1000, "1000B"),
            ("1.5KiB", 1536, "1536B"),
            ("0B", 0, "0B"),
        ] {
            let size: ByteSize = typed.parse().unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (bytes, printed), "{typed}");
            assert_eq!(printed.parse(), Ok(size));
        }
    }

    #[test]
    fn spans_are_read_and_printed_alike() {
        for (typed, meant) in [
            ("500ms", Duration::from_millis(500)),
            ("1m 30s", Duration::from_secs(90)),
            ("2h", Duration::from_secs(7200)),
            ("0s", Duration::ZERO),
        ] {
            let span: Span = typed.parse().unwrap();
            assert_eq!((span.0, span.to_string().as_str()), (meant, typed));
        }
    }

    #[test]
    fn a_bare_number_is_refused_with_an_example() {
        assert_eq!("30".parse::<Span>(), Err(UnitError::BareSpan("30".into())));
        assert_eq!("64".parse::<ByteSize>(), Err(UnitError::BareSize("64".into())));
        let sentence = serde_json::from_str::<Span>("30").unwrap_err().to_string();
        assert!(sentence.starts_with("`30` has no unit: write a span of time such as `500ms`"), "{sentence}");
    }

    #[test]
    fn other_text_is_refused_by_name() {
        assert_eq!("much".parse::<ByteSize>(), Err(UnitError::Size("much".into())));
        assert_eq!("-1MiB".parse::<ByteSize>(), Err(UnitError::Size("-1MiB".into())));
        let sentence = "1 fortnight".parse::<Span>().unwrap_err().to_string();
        assert!(sentence.starts_with("`1 fortnight` is not a span of time"), "{sentence}");
    }

    #[test]
    fn a_struct_holds_plain_values() {
        #[derive(serde::Deserialize, serde::Serialize)]
        struct Both {
            #[serde(with = "typed")]
            wait: Duration,
            #[serde(with = "typed")]
            limit: usize,
        }
        let both: Both = serde_json::from_str(r#"{"wait":"10s","limit":"1KiB"}"#).unwrap();
        assert_eq!((both.wait, both.limit), (Duration::from_secs(10), 1024));
        assert_eq!(serde_json::to_string(&both).unwrap(), r#"{"wait":"10s","limit":"1KiB"}"#);
    }
}
