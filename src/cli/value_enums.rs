//! Words that several commands take: formats and languages of reports, and the error that means "refused".

use clap::ValueEnum;

use crate::offline::{Lang, ReportFormat};

/// `--format`, as typed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum FormatWord {
    /// For a terminal
    #[default]
    Text,
    /// For programs
    Json,
    /// Markdown
    #[value(alias = "markdown")]
    Md,
    /// One self-contained file with charts
    Html,
}

/// `--lang`, as typed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LangWord {
    /// English
    #[default]
    En,
    /// Korean
    Ko,
}

/// The measurement does not support an answer: exit status 3.
#[derive(Debug, thiserror::Error)]
#[error("refused: {0}")]
pub struct MeasurementRefused(pub String);

impl From<FormatWord> for ReportFormat {
    fn from(word: FormatWord) -> Self {
        match word {
            FormatWord::Text => Self::Text,
            FormatWord::Json => Self::Json,
            FormatWord::Md => Self::Markdown,
            FormatWord::Html => Self::Html,
        }
    }
}

impl From<LangWord> for Lang {
    fn from(word: LangWord) -> Self {
        match word {
            LangWord::En => Self::En,
            LangWord::Ko => Self::Ko,
        }
    }
}
