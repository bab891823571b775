//! The report for a terminal.

use std::fmt::Write as _;

use super::super::analysis::Analysis;
use super::format::Lang;
use super::story::{ReportTable, Story, pick, story};

/// Every sweep below the other, then what could not be read.
pub fn analysis(analysis: &Analysis, lang: Lang) -> String {
    let mut page = String::new();
    for case in &analysis.sweeps {
        one(&mut page, &story(case, lang));
    }
    if analysis.sweeps.is_empty() {
        page.push_str(&pick(lang, "No sweep was found.\n", "스윕을 찾지 못했습니다.\n"));
    }
    page
}

// Writing to a string cannot fail, here and below.
fn one(page: &mut String, story: &Story) {
    let _ = writeln!(page, "{}\n  {}\n", story.title, story.subject);
    for sentence in &story.conclusion {
        wrapped(page, "  ", sentence);
    }
    page.push('\n');
    table(page, &story.table);
    for part in &story.parts {
        let _ = writeln!(page, "\n{}", part.heading);
        for sentence in &part.sentences {
            wrapped(page, "  - ", sentence);
        }
    }
    page.push('\n');
}

/// Columns right-aligned, but the last.
pub fn table(page: &mut String, table: &ReportTable) {
    let rows: Vec<&Vec<String>> = std::iter::once(&table.header).chain(&table.rows).collect();
    let columns = table.header.len();
    let widest =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell)).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(widest).collect();
    for row in rows {
        page.push_str("  ");
        for (column, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths.get(column).copied().unwrap_or(0).saturating_sub(width(cell)));
            if column + 1 == columns {
                page.push_str(cell);
            } else {
                let _ = write!(page, "{pad}{cell}  ");
            }
        }
        page.truncate(page.trim_end_matches(' ').len());
        page.push('\n');
    }
}

/// A sentence over several lines, the later ones under the first.
pub fn wrapped(page: &mut String, lead: &str, sentence: &str) {
    let indent = " ".repeat(width(lead));
    let mut line = lead.to_owned();
    let mut is_empty = true;
    for word in sentence.split(' ') {
        if !is_empty && width(&line) + 1 + width(word) > COLUMNS {
            let _ = writeln!(page, "{line}");
            line.clone_from(&indent);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    let _ = writeln!(page, "{line}");
}

/// Columns on a terminal: Hangul and its like take two.
fn width(text: &str) -> usize {
    text.chars()
        .map(|c| if ('\u{1100}'..='\u{11ff}').contains(&c) || ('\u{2e80}'..='\u{ffef}').contains(&c) { 2 } else { 1 })
        .sum()
}

const COLUMNS: usize = 110;
