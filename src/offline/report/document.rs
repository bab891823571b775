//! A page of headings, sentences, tables and commands, written as text, Markdown or HTML. It holds no sentence of its own.

use std::fmt::Write as _;

use super::format::{Lang, ReportFormat};
use super::story::ReportTable;
use super::{html, markdown, text};
use crate::svg::escaped;

/// A page.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// Its title.
    pub title: String,
    /// The conclusion.
    pub lead: String,
    /// A name and a value each.
    pub figures: Vec<(String, String)>,
    /// Under each other.
    pub blocks: Vec<DocumentBlock>,
}

/// A part of a page.
#[derive(Clone, Debug)]
pub enum DocumentBlock {
    /// A table.
    Table(ReportTable),
    /// A heading and sentences.
    Sentences(String, Vec<String>),
    /// A heading and lines to type.
    Commands(String, Vec<String>),
}

impl Document {
    /// The page in a format; JSON is not made here.
    pub fn write(&self, format: ReportFormat, lang: Lang) -> String {
        match format {
            ReportFormat::Html => self.html(lang),
            ReportFormat::Markdown => self.markdown(),
            ReportFormat::Text | ReportFormat::Json => self.text(),
        }
    }

    // Writing to a string cannot fail, here and below.
    fn text(&self) -> String {
        let mut page = format!("{}\n\n", self.title);
        text::wrapped(&mut page, "  ", &self.lead);
        for block in &self.blocks {
            page.push('\n');
            match block {
                DocumentBlock::Table(table) => text::table(&mut page, table),
                DocumentBlock::Sentences(heading, sentences) => {
                    let _ = writeln!(page, "{heading}");
                    sentences.iter().for_each(|sentence| text::wrapped(&mut page, "  - ", sentence));
                }
                DocumentBlock::Commands(heading, lines) => {
                    let _ = writeln!(page, "{heading}");
                    for line in lines {
                        let _ = writeln!(page, "  {line}");
                    }
                }
            }
        }
        page
    }

    fn markdown(&self) -> String {
        let mut page = format!("# {}\n\n{}\n", markdown::escaped(&self.title), markdown::escaped(&self.lead));
        for block in &self.blocks {
            match block {
                DocumentBlock::Table(table) => {
                    page.push('\n');
                    markdown::table(&mut page, table);
                }
                DocumentBlock::Sentences(heading, sentences) => {
                    let _ = writeln!(page, "\n## {heading}\n");
                    for sentence in sentences {
                        let _ = writeln!(page, "- {}", markdown::escaped(sentence));
                    }
                }
                DocumentBlock::Commands(heading, lines) => {
                    let _ = writeln!(page, "\n## {heading}\n\n```\n{}\n```", lines.join("\n"));
                }
            }
        }
        page
    }

    fn html(&self, lang: Lang) -> String {
        let mut body = String::new();
        let (title, lead) = (escaped(&self.title), escaped(&self.lead));
        let _ = writeln!(body, "<article>\n<header>\n<h1>{title}</h1>\n<p class=\"conclusion\">{lead}</p>\n</header>");
        html::figures(&mut body, &self.figures);
        for block in &self.blocks {
            match block {
                DocumentBlock::Table(table) => html::table(&mut body, table),
                DocumentBlock::Sentences(heading, sentences) => {
                    let _ = writeln!(body, "<section>\n<h2>{}</h2>", escaped(heading));
                    html::list(&mut body, sentences);
                    let _ = writeln!(body, "</section>");
                }
                DocumentBlock::Commands(heading, lines) => {
                    let (heading, lines) = (escaped(heading), escaped(&lines.join("\n")));
                    let _ =
                        writeln!(body, "<section>\n<h2>{heading}</h2>\n<pre><code>{lines}</code></pre>\n</section>");
                }
            }
        }
        let _ = writeln!(body, "</article>");
        html::page(&self.title, &body, lang)
    }
}
