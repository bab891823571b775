//! A JSON reader for result files: it keeps the line of every value, accepts `NaN` and `Infinity`, and reads several
//! documents one after the other.
//!
//! serde_json refuses the literals that Python writes and keeps no lines. Depth and number of values are bounded; no input makes
//! it panic. It holds no format.

use std::fmt;

/// A value and the line it begins on.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonNode {
    /// Counted from 1.
    pub line: u32,
    /// The value.
    pub value: JsonValue,
}

/// A JSON value. Numbers may be NaN or infinite.
#[derive(Clone, Debug, PartialEq)]
pub enum JsonValue {
    /// `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A number, or one of Python's literals.
    Number(f64),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<JsonNode>),
    /// An object, in the order of the file; of a key that occurs twice the last counts.
    Map(Vec<(String, JsonNode)>),
}

/// Where and why reading stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonFault {
    /// Counted from 1.
    pub line: u32,
    /// What was expected, and what was found.
    pub what: String,
}

impl JsonNode {
    /// The member of that name.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            JsonValue::Map(members) => members.iter().rev().find(|(name, _)| name == key).map(|(_, node)| node),
            _ => None,
        }
    }

    /// The member at the end of a path of names.
    pub fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// Whether it is an object with that member.
    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// The string, if it is one.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            JsonValue::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The elements of a list; none of anything else.
    pub fn items(&self) -> &[Self] {
        match &self.value {
            JsonValue::List(items) => items,
            _ => &[],
        }
    }

    /// The members of an object; none of anything else.
    pub fn members(&self) -> &[(String, Self)] {
        match &self.value {
            JsonValue::Map(members) => members,
            _ => &[],
        }
    }
}

impl fmt::Display for JsonValue {
    /// What was found, for a sentence: the kind, and a short value.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => out.write_str("null"),
            Self::Bool(value) => write!(out, "{value}"),
            Self::Number(value) => write!(out, "{value}"),
            Self::Text(text) => write!(out, "the text \"{}\"", short(text)),
            Self::List(items) => write!(out, "a list of {}", items.len()),
            Self::Map(members) => write!(out, "an object of {}", members.len()),
        }
    }
}

/// At most 40 characters on one line, for a sentence.
pub fn short(text: &str) -> String {
    let mut short: String = text.chars().take(MOST_SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(MOST_SHOWN).is_some() {
        short.push('…');
    }
    short
}

/// Reads every document of a text. After a fault it goes on at the next line that begins with `{`, as in JSON Lines.
pub fn documents(text: &str) -> (Vec<JsonNode>, Vec<JsonFault>) {
    let mut reader = JsonReader { rest: text, line: 1, left: MOST_VALUES };
    let (mut nodes, mut faults) = (Vec::new(), Vec::new());
    loop {
        reader.blank();
        if reader.rest.is_empty() {
            return (nodes, faults);
        }
        let (rest, line) = (reader.rest, reader.line);
        match reader.value(0) {
            Ok(node) => nodes.push(node),
            Err(what) => {
                faults.push(JsonFault { line: reader.line, what });
                // The next record may have been swallowed by the broken one.
                (reader.rest, reader.line) = (rest, line);
                if faults.len() >= MOST_FAULTS || reader.left == 0 || !reader.skip_to_next_record() {
                    return (nodes, faults);
                }
            }
        }
    }
}

struct JsonReader<'a> {
    rest: &'a str,
    line: u32,
    left: u32,
}

type Read<T> = Result<T, String>;

impl JsonReader<'_> {
    fn blank(&mut self) {
        let length = self.rest.find(|c: char| !matches!(c, ' ' | '\t' | '\r' | '\n')).unwrap_or(self.rest.len());
        self.pass(length);
    }

    /// Moves on by `length` bytes; they end on a character.
    fn pass(&mut self, length: usize) {
        let (passed, rest) = self.rest.split_at(length);
        self.line = self.line.saturating_add(passed.bytes().filter(|byte| *byte == b'\n').count() as u32);
        self.rest = rest;
    }

    fn skip_to_next_record(&mut self) -> bool {
        match self.rest.find("\n{") {
            Some(at) => self.pass(at + 1),
            None => return false,
        }
        true
    }

    fn takes(&mut self, word: &str) -> bool {
        let there = self.rest.starts_with(word);
        if there {
            self.pass(word.len());
        }
        there
    }

    fn value(&mut self, depth: u32) -> Read<JsonNode> {
        self.blank();
        if depth > MOST_DEPTH {
            return Err(format!("nested deeper than {MOST_DEPTH}"));
        }
        self.left = self.left.checked_sub(1).ok_or_else(|| format!("more than {MOST_VALUES} values in one file"))?;
        let line = self.line;
        let value = match self.rest.as_bytes().first() {
            Some(b'{') => self.map(depth)?,
            Some(b'[') => self.list(depth)?,
            Some(b'"') => JsonValue::Text(self.text()?),
            Some(_) => self.word()?,
            None => return Err("expected a value, found the end of the file".to_owned()),
        };
        Ok(JsonNode { line, value })
    }

    fn map(&mut self, depth: u32) -> Read<JsonValue> {
        self.pass(1);
        let mut members = Vec::new();
        self.blank();
        if self.takes("}") {
            return Ok(JsonValue::Map(members));
        }
        loop {
            self.blank();
            if !self.rest.starts_with('"') {
                return Err(format!("expected a name in quotes, found {}", self.found()));
            }
            let name = self.text()?;
            self.blank();
            if !self.takes(":") {
                return Err(format!("expected `:` after \"{}\", found {}", short(&name), self.found()));
            }
            members.push((name, self.value(depth + 1)?));
            if self.ends("}")? {
                return Ok(JsonValue::Map(members));
            }
        }
    }

    fn list(&mut self, depth: u32) -> Read<JsonValue> {
        self.pass(1);
        let mut items = Vec::new();
        self.blank();
        if self.takes("]") {
            return Ok(JsonValue::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.ends("]")? {
                return Ok(JsonValue::List(items));
            }
        }
    }

    /// A comma, or the end.
    fn ends(&mut self, end: &str) -> Read<bool> {
        self.blank();
        if self.takes(end) {
            return Ok(true);
        }
        if self.takes(",") { Ok(false) } else { Err(format!("expected `,` or `{end}`, found {}", self.found())) }
    }

    fn text(&mut self) -> Read<String> {
        self.pass(1);
        let mut text = String::new();
        loop {
            let at = self.rest.find(['"', '\\', '\n']).unwrap_or(self.rest.len());
            if self.rest[at..].is_empty() || self.rest[at..].starts_with('\n') {
                let found = if self.rest[at..].is_empty() { "file" } else { "line" };
                return Err(format!(
                    "expected the closing quote of \"{}\", found the end of the {found}",
                    short(&text)
                ));
            }
            text.push_str(&self.rest[..at]);
            self.pass(at);
            if self.takes("\"") {
                return Ok(text);
            }
            self.pass(1);
            text.push(self.escape()?);
        }
    }

    fn escape(&mut self) -> Read<char> {
        let Some(letter) = self.rest.chars().next() else {
            return Err("expected an escape, found the end of the file".to_owned());
        };
        self.pass(letter.len_utf8());
        Ok(match letter {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\u{8}',
            'f' => '\u{c}',
            '"' | '\\' | '/' => letter,
            'u' => {
                let code = self.rest.get(..4).and_then(|digits| u32::from_str_radix(digits, 16).ok());
                let code = code.ok_or_else(|| "expected four hexadecimal digits after `\\u`".to_owned())?;
                self.pass(4);
                // Halves of a surrogate pair become U+FFFD each: no key needs them.
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            other => return Err(format!("expected an escape, found `\\{}`", short(&other.to_string()))),
        })
    }

    fn word(&mut self) -> Read<JsonValue> {
        let length = self
            .rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')))
            .unwrap_or(self.rest.len());
        let word = &self.rest[..length];
        let value = match word {
            "null" => JsonValue::Null,
            "true" => JsonValue::Bool(true),
            "false" => JsonValue::Bool(false),
            "NaN" => JsonValue::Number(f64::NAN),
            "Infinity" => JsonValue::Number(f64::INFINITY),
            "-Infinity" => JsonValue::Number(f64::NEG_INFINITY),
            _ => match word.parse::<f64>() {
                Ok(number) if word.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => JsonValue::Number(number),
                _ => return Err(format!("expected a value, found {}", self.found())),
            },
        };
        self.pass(length);
        Ok(value)
    }

    fn found(&self) -> String {
        let end = self
            .rest
            .find(|c: char| c.is_whitespace() || matches!(c, ',' | ':' | '}' | ']'))
            .unwrap_or(self.rest.len());
        match &self.rest[..end] {
            "" => self
                .rest
                .chars()
                .next()
                .map_or_else(|| "the end of the file".to_owned(), |c| format!("`{}`", short(&c.to_string()))),
            word => format!("`{}`", short(word)),
        }
    }
}

/// Result files are shallow; a text of brackets alone must not exhaust the stack.
const MOST_DEPTH: u32 = 64;

/// Values of one file: per-request arrays of a long run fit, and memory stays below 2 GiB.
const MOST_VALUES: u32 = 20_000_000;

/// Faults of one file after which it is given up.
const MOST_FAULTS: usize = 20;

/// Characters of a found text that are shown.
const MOST_SHOWN: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_python_writes_is_read() {
        let (nodes, faults) =
            documents("{\"a\": NaN, \"b\": [Infinity, -Infinity, -1.5e3],\n \"c\": \"x\\u00e9\\n\"}\n{\"d\": null}\n");
        assert!(faults.is_empty(), "{faults:?}");
        assert!(matches!(nodes[0].get("a").unwrap().value, JsonValue::Number(nan) if nan.is_nan()));
        assert_eq!(nodes[0].get("b").unwrap().items()[2].value, JsonValue::Number(-1500.0));
        assert_eq!((nodes[0].get("c").unwrap().line, nodes[0].get("c").unwrap().text()), (2, Some("xé\n")));
        assert_eq!(nodes[1].line, 3);
    }

    #[test]
    fn a_fault_names_its_line_and_what_was_expected() {
        for (text, line, what) in [
            ("{\"a\": 1,\n \"b\"; 2}", 2, "expected `:` after \"b\", found `;`"),
            ("{\"a\": 1\n", 2, "expected `,` or `}`, found the end of the file"),
            ("{\"a\": \"x", 1, "expected the closing quote of \"\", found the end of the file"),
            ("{\"a\": hello}", 1, "expected a value, found `hello`"),
            ("{\"a\": 1.2.3}", 1, "expected a value, found `1.2.3`"),
            ("[1,", 1, "expected a value, found the end of the file"),
            ("{\"a\": \"x\n\"}", 1, "expected the closing quote of \"\", found the end of the line"),
        ] {
            let (_, faults) = documents(text);
            assert_eq!(faults, [JsonFault { line, what: what.to_owned() }], "{text}");
        }
    }

    #[test]
    fn a_broken_record_costs_only_itself() {
        let (nodes, faults) = documents("{\"a\": 1}\n{\"a\": \n{\"a\": 3}\n");
        assert_eq!((nodes.len(), faults.len()), (2, 1), "{faults:?}");
        let (nodes, faults) = documents("{\"a\": 1}\n{\"a\": 2,, }\n{\"a\": 3}\n");
        assert_eq!((nodes.len(), faults[0].line), (2, 2));
    }

    #[test]
    fn depth_is_bounded() {
        let (_, faults) = documents(&"[".repeat(100_000));
        assert!(faults[0].what.contains("deeper than 64"));
    }
}
