//! Reports: what was found, for people and for programs.
//!
//! `json` is for programs; `text`, `markdown` and `html` tell the same story in the same order: conclusion, throughput,
//! latency, a picture in plain words, what the measurement cannot say, what to run next. The words of a language stand in
//! one file each.

mod chart;
mod comparison;
mod document;
mod english;
mod html;
pub(super) mod json;
mod korean;
mod language;
mod markdown;
mod number;
mod planned;
mod story;
mod svg;
mod text;

pub use comparison::comparison;
pub use planned::planned;

use super::Analysis;

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

/// The report of an analysis. It ends with a line break.
pub fn render(analysis: &Analysis, format: ReportFormat, lang: Lang) -> String {
    match format {
        ReportFormat::Text => text::analysis(analysis, lang),
        ReportFormat::Json => json::analysis(analysis, lang),
        ReportFormat::Markdown => markdown::analysis(analysis, lang),
        ReportFormat::Html => html::analysis(analysis, lang),
    }
}
