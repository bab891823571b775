//! A fault in the configuration: where it is, and one sentence that says what to do about it.

use std::fmt;

/// A place in the file, both counted from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: u64,
    /// Column.
    pub column: u64,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file, or `command line`.
    pub file: String,
    /// Where in the file, if it is in the file.
    pub place: Option<Position>,
    /// The setting, as `backends[0].url`; empty for the file as a whole.
    pub path: String,
    /// What is wrong and what to write instead; lower case, no full stop.
    pub sentence: String,
}

impl Fault {
    /// A fault of the file as a whole.
    pub(crate) fn of_file(file: &str, sentence: String) -> Self {
        Self { file: file.to_owned(), place: None, path: String::new(), sentence }
    }
}

impl fmt::Display for Fault {
    /// `weir.yaml:3:7: limits.max_body: …`, which editors and terminals turn into a link.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.file)?;
        if let Some(Position { line, column }) = self.place {
            write!(out, ":{line}:{column}")?;
        }
        if !self.path.is_empty() {
            write!(out, ": {}", self.path)?;
        }
        write!(out, ": {}", self.sentence)
    }
}

/// Everything that is wrong, in the order of the file; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<Fault>);

impl ConfigErrors {
    /// `Err` with the faults in the order of the file, `Ok` when there are none.
    pub(crate) fn check(mut faults: Vec<Fault>) -> Result<(), Self> {
        faults.sort_by_key(|fault| fault.place);
        if faults.is_empty() { Ok(()) } else { Err(Self(faults)) }
    }

    /// The faults, in the order of the file.
    pub fn faults(&self) -> &[Fault] {
        &self.0
    }
}

impl From<Fault> for ConfigErrors {
    fn from(fault: Fault) -> Self {
        Self(vec![fault])
    }
}

impl fmt::Display for ConfigErrors {
    /// One line a fault.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            write!(out, "{}{fault}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// `, did you mean …?` for the nearest expected word, or the expected words themselves when none is near.
pub(crate) fn suggestion(typed: &str, expected: &[&str]) -> String {
    /// Below this likeness (Jaro-Winkler, 1 = equal) a suggestion is a guess; `timeout` and `time_out` have 0.97.
    const NEAR: f64 = 0.8;
    let likeness = |word: &&str| strsim::jaro_winkler(typed, word);
    let nearest = expected.iter().copied().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest {
        Some(word) if likeness(&word) >= NEAR => format!(", did you mean `{word}`?"),
        Some(_) => format!(", expected one of {}", listed(expected)),
        None => String::new(),
    }
}

fn listed(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_word_is_suggested() {
        assert_eq!(suggestion("max_bdy", &["max_body", "max_header"]), ", did you mean `max_body`?");
        assert_eq!(suggestion("time_out", &["interval", "timeout"]), ", did you mean `timeout`?");
    }

    #[test]
    fn a_far_word_gets_the_list_instead() {
        assert_eq!(suggestion("zzz", &["json", "text"]), ", expected one of `json`, `text`");
    }
}
