//! Reports: what was found, for people and for programs.
//!
//! `json` is for programs; `text`, `markdown` and `html` have the same sections in the same order: conclusion, throughput,
//! latency, an explanation in plain words, what the measurement cannot say, what to run next. The sentences of a language are in
//! one file each.

mod chart;
mod comparison;
mod document;
mod english;
mod format;
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
pub use format::{Lang, ReportFormat};
pub use planned::planned;

use super::analysis::Analysis;

/// The report of an analysis. It ends with a line break.
pub fn render(analysis: &Analysis, format: ReportFormat, lang: Lang) -> String {
    match format {
        ReportFormat::Text => text::analysis(analysis, lang),
        ReportFormat::Json => json::analysis(analysis, lang),
        ReportFormat::Markdown => markdown::analysis(analysis, lang),
        ReportFormat::Html => html::analysis(analysis, lang),
    }
}
