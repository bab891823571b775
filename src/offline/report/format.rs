//! The form and the language of a report.

/// How a report is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReportFormat {
    /// For a terminal.
    #[default]
    Text,
    /// For programs.
    Json,
    /// For a page.
    Markdown,
    /// One file with everything in it.
    Html,
}

/// The language of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lang {
    /// English.
    #[default]
    En,
    /// Korean.
    Ko,
}
