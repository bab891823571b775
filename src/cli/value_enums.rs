//! Words that several commands take: formats and languages of reports, and the error that means "refused".

use clap::ValueEnum;

use crate::offline::{Lang, ReportFormat};

/// `--format`, as typed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
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
pub enum LangArg {
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

impl From<FormatArg> for ReportFormat {
    fn from(word: FormatArg) -> Self {
        match word {
            FormatArg::Text => Self::Text,
            FormatArg::Json => Self::Json,
            FormatArg::Md => Self::Markdown,
            FormatArg::Html => Self::Html,
        }
    }
}

impl From<LangArg> for Lang {
    fn from(word: LangArg) -> Self {
        match word {
            LangArg::En => Self::En,
            LangArg::Ko => Self::Ko,
        }
    }
}
