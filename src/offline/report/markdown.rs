//! The report as a page of Markdown.

use std::fmt::Write as _;

use super::super::analysis::Analysis;
use super::format::Lang;
use super::story::{ReportTable, Story, pick, story};

/// Every sweep under a heading of its own, then what could not be read.
pub fn analysis(analysis: &Analysis, lang: Lang) -> String {
    let mut page = String::new();
    for case in &analysis.sweeps {
        one(&mut page, &story(case, lang), lang);
    }
    if !analysis.problems.is_empty() {
        let _ = writeln!(page, "## {}\n", pick(lang, "Not read", "읽지 못한 것"));
        for problem in &analysis.problems {
            let _ = writeln!(page, "- {}", escaped(&problem.to_string()));
        }
    }
    if page.is_empty() {
        page.push_str(&pick(lang, "No sweep was found.\n", "스윕을 찾지 못했습니다.\n"));
    }
    page
}

// Writing to a string cannot fail, here and below.
fn one(page: &mut String, story: &Story, lang: Lang) {
    let _ = writeln!(page, "# {}\n\n{}\n", escaped(&story.title), escaped(&story.subject));
    let _ =
        writeln!(page, "**{}** {}\n", pick(lang, "Conclusion.", "결론 요약."), escaped(&story.conclusion.join(" ")));
    table(page, &story.table);
    for part in &story.parts {
        let _ = writeln!(page, "\n## {}\n", part.heading);
        for sentence in &part.sentences {
            let _ = writeln!(page, "- {}", escaped(sentence));
        }
    }
    page.push('\n');
}

/// A table, figures to the right.
pub fn table(page: &mut String, table: &ReportTable) {
    let row =
        |cells: &[String]| format!("| {} |", cells.iter().map(|cell| escaped(cell)).collect::<Vec<_>>().join(" | "));
    let rules = (0..table.header.len()).map(|column| if column + 1 == table.header.len() { "---" } else { "---:" });
    let _ = writeln!(page, "{}\n|{}|", row(&table.header), rules.collect::<Vec<_>>().join("|"));
    for cells in &table.rows {
        let _ = writeln!(page, "{}", row(cells));
    }
}

/// Names are from files: nothing in them is markup.
pub fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '|' | '*' | '_' | '[' | ']' | '\\' => escaped.extend(['\\', c]),
            '\n' | '\r' => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}
