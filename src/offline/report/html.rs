//! The report as one self-contained file: style and charts are in it, and it loads nothing from a network.

use std::fmt::Write as _;

use super::super::analysis::{Analysis, JudgedSweep};
use super::super::verdict::Standing;
use super::chart::charts;
use super::format::Lang;
use super::story::{ReportPart, ReportTable, Story, Topic, pick, story};
use crate::svg::escaped;

/// The page. Light or dark is the reader's choice.
pub fn analysis(analysis: &Analysis, lang: Lang) -> String {
    let mut body = String::new();
    for case in &analysis.sweeps {
        one(&mut body, case, &story(case, lang), lang);
    }
    problems(&mut body, analysis, lang);
    if body.is_empty() {
        let _ = writeln!(body, "<p>{}</p>", pick(lang, "No sweep was found.", "스윕을 찾지 못했습니다."));
    }
    let title = analysis.sweeps.first().map_or("weir", |case| case.sweep.id.as_str());
    page(title, &body, lang)
}

/// A whole document around a body.
pub fn page(title: &str, body: &str, lang: Lang) -> String {
    let code = match lang {
        Lang::En => "en",
        Lang::Ko => "ko",
    };
    format!(
        "<!doctype html>\n<html lang=\"{code}\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n\
         </body>\n</html>\n",
        escaped(title)
    )
}

// Writing to a string cannot fail, here and below.
fn one(body: &mut String, case: &JudgedSweep, story: &Story, lang: Lang) {
    let _ = writeln!(
        body,
        "<article>\n<header>\n<h1>{}</h1>\n<p class=\"subject\">{}</p>",
        escaped(&story.title),
        escaped(&story.subject)
    );
    let _ = writeln!(body, "<p class=\"conclusion\">{}</p>\n</header>", escaped(&story.conclusion.join(" ")));
    figures(body, &story.figures);
    let _ = writeln!(body, "<div class=\"charts\">\n{}</div>", charts(case, lang));
    table(body, &story.table);
    story.parts.iter().for_each(|part| self::part(body, part));
    let _ = writeln!(body, "</article>");
}

fn part(body: &mut String, part: &ReportPart) {
    let _ = writeln!(body, "<section>\n<h2>{}</h2>", escaped(&part.heading));
    if part.topic == Topic::Picture {
        let _ = writeln!(body, "<blockquote>{}</blockquote>", escaped(&part.sentences.join(" ")));
    } else {
        list(body, &part.sentences);
    }
    let _ = writeln!(body, "</section>");
}

/// Sentences below each other.
pub fn list(body: &mut String, sentences: &[String]) {
    body.push_str("<ul>\n");
    for sentence in sentences {
        let _ = writeln!(body, "<li>{}</li>", with_code(&escaped(sentence)));
    }
    body.push_str("</ul>\n");
}

/// What is between backticks is code.
fn with_code(sentence: &str) -> String {
    let mut parts = sentence.split('`');
    let mut page = parts.next().unwrap_or_default().to_owned();
    for (number, part) in parts.enumerate() {
        page.push_str(if number % 2 == 0 { "<code>" } else { "</code>" });
        page.push_str(part);
    }
    if sentence.matches('`').count() % 2 == 1 {
        page.push_str("</code>");
    }
    page
}

/// Key figures.
pub fn figures(body: &mut String, figures: &[(String, String)]) {
    body.push_str("<dl class=\"figures\">\n");
    for (name, value) in figures {
        let _ = writeln!(body, "<div><dt>{}</dt><dd>{}</dd></div>", escaped(name), escaped(value));
    }
    body.push_str("</dl>\n");
}

/// One level a row; saturated ones are marked.
pub fn table(body: &mut String, table: &ReportTable) {
    body.push_str("<div class=\"scroll\"><table>\n<thead><tr>");
    for name in &table.header {
        let _ = write!(body, "<th scope=\"col\">{}</th>", escaped(name));
    }
    body.push_str("</tr></thead>\n<tbody>\n");
    for (number, row) in table.rows.iter().enumerate() {
        let class = table.standings.get(number).map_or("", |standing| match standing {
            Standing::Good => "good",
            Standing::AtCapacity => "edge",
            Standing::Saturated => "bad",
            Standing::LeftOut => "out",
        });
        let _ = write!(body, "<tr class=\"{class}\">");
        for cell in row {
            let _ = write!(body, "<td>{}</td>", escaped(cell));
        }
        body.push_str("</tr>\n");
    }
    body.push_str("</tbody></table></div>\n");
}

fn problems(body: &mut String, analysis: &Analysis, lang: Lang) {
    if analysis.problems.is_empty() {
        return;
    }
    let _ = writeln!(body, "<section class=\"problems\">\n<h2>{}</h2>", pick(lang, "Not read", "읽지 못한 것"));
    list(body, &analysis.problems.iter().map(ToString::to_string).collect::<Vec<_>>());
    let _ = writeln!(body, "</section>");
}

const STYLE: &str = include_str!("style.css");
