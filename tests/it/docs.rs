//! The pages and the comments: a link leads somewhere, a file that is named is there, a command is one that can be typed.
//!
//! Each check lists its findings; beside each stand small texts that fire and that must not. What needs a cluster or a GPU cannot be
//! checked here: such a block is `console`, and the line above it says `<!-- needs: … -->`.

mod commands;
mod markdown;

use std::collections::BTreeMap;

use weir::config::{Config, Overrides};

use super::source::{self, File};

/// The widest row of a table, in characters.
const ROW: usize = 160;
/// Pages whose tables are made from the registry of the metrics: a row holds what it says in a sentence.
const MADE: &[&str] = &["docs/operate/metrics.md"];
/// Folders by which the mention of a file is known, in prose and in comments.
const FOLDERS: &[&str] = &["docs/", "src/", "tests/", "config/", "deploy/", "dashboards/", "benches/"];

/// Every file by its path below the root, with its text where a check reads it.
struct Tree {
    files: BTreeMap<String, String>,
}

impl Tree {
    fn read() -> Self {
        let is_text = |path: &str| path == "Makefile" || path.ends_with(".md") || path.ends_with(".rs");
        let text = |path: &str| std::fs::read_to_string(source::root().join(path)).unwrap();
        let files = source::paths("").into_iter();
        let tree = Self {
            files: files.map(|path| (path.clone(), if is_text(&path) { text(&path) } else { String::new() })).collect(),
        };
        assert!(tree.pages().len() > 10, "only {} pages found", tree.pages().len());
        tree
    }

    fn of(files: &[(&str, &str)]) -> Self {
        Self { files: files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect() }
    }

    /// Whether `path` is a file or a folder.
    fn has(&self, path: &str) -> bool {
        let folder = format!("{}/", path.trim_end_matches('/'));
        let next = self.files.range(folder.clone()..).next();
        self.files.contains_key(path) || next.is_some_and(|(path, _)| path.starts_with(&folder))
    }

    fn has_target(&self, target: &str) -> bool {
        let makefile = self.files.get("Makefile").map_or("", String::as_str);
        let rules = makefile.lines().filter(|line| line.starts_with(|c: char| c.is_alphanumeric()));
        let names = rules.filter_map(|line| line.split_once(':')).filter(|(_, rest)| !rest.starts_with('='));
        names.flat_map(|(names, _)| names.split_whitespace()).any(|name| name == target)
    }

    /// What people read: the pages at the top and below docs/.
    fn pages(&self) -> Vec<File> {
        // A script of deploy/ makes it.
        let is_page = |path: &&String| {
            path.ends_with(".md") && *path != "THIRD-PARTY.md" && (!path.contains('/') || path.starts_with("docs/"))
        };
        self.files.keys().filter(is_page).map(|path| File::new(path, &self.files[path])).collect()
    }

    /// The comments of Rust files and of the Makefile; lines keep their numbers.
    fn comments(&self) -> Vec<File> {
        let comments = |path: &String| {
            let mark = if path == "Makefile" { "#" } else { "//" };
            let comment = |line: &str| {
                let whole = line.trim_start().strip_prefix(mark).map(str::to_owned);
                whole.or_else(|| Some(line.split_once(&format!(" {mark} "))?.1.to_owned())).unwrap_or_default()
            };
            File::new(path, self.files[path].lines().map(comment).collect::<Vec<_>>().join("\n"))
        };
        self.files.keys().filter(|path| path.ends_with(".rs") || *path == "Makefile").map(comments).collect()
    }
}

/// Links whose file or heading is not there.
fn broken_links(tree: &Tree, page: &File) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in markdown::split(&page.text).1 {
        for link in markdown::links(line) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() { Some(page.path.clone()) } else { resolve(&page.path, path) };
            let Some(target) = target.filter(|target| tree.has(target)) else {
                found.push(format!("{}:{number}: {link} leads to no file", page.path));
                continue;
            };
            let is_page = target.ends_with(".md");
            let has_anchor = || markdown::anchors(&tree.files[&target]).iter().any(|known| known == anchor);
            if !anchor.is_empty() && is_page && !has_anchor() {
                found.push(format!("{}:{number}: {link} leads to no heading of {target}", page.path));
            }
        }
    }
    found
}

/// `path` as a link of `page`, from the root; none where it leaves the tree.
fn resolve(page: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Files and make targets that are mentioned in prose or in comments and are not there.
fn broken_mentions(tree: &Tree, page: &File) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in markdown::split(&page.text).1 {
        let paths = FOLDERS.iter().flat_map(|folder| mentions(line, folder)).filter(|path| !tree.has(path));
        found.extend(paths.map(|path| format!("{}:{number}: {path} is not there", page.path)));
        for code in markdown::code_spans(line).filter(|code| code.starts_with("make ")) {
            let commands = commands::of(&[code]);
            let targets = commands.iter().flat_map(|(_, words)| commands::targets(&words[1..]));
            let gone = targets.filter(|target| !tree.has_target(target));
            found.extend(gone.map(|target| format!("{}:{number}: make {target} is no target", page.path)));
        }
    }
    found
}

/// The paths of `line` that begin with `folder`; patterns and placeholders are none.
fn mentions<'t>(line: &'t str, folder: &str) -> Vec<&'t str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
    let mut found = Vec::new();
    for (at, _) in line.match_indices(folder) {
        let before = line[..at].chars().next_back();
        let rest = &line[at..];
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let path = rest[..end].trim_end_matches(['.', '-', '/']);
        let is_pattern = rest[end..].starts_with(['*', '{', '<', '$', '…', '[', '?']);
        // Prose such as "docs/ and src/" and the parts of longer paths.
        let is_alone =
            before.is_none_or(|c| !is_part(c) && !matches!(c, '}' | ')' | '*' | '~' | ':' | '…' | '\\' | '>'));
        if is_alone && !is_pattern && path.len() > folder.len() {
            found.push(path);
        }
    }
    found
}

/// Blocks that say no language, and `console` blocks that do not say what they need.
fn wrong_fences(page: &File) -> Vec<String> {
    let wrong = |fence: &markdown::Fence<'_>| match fence.language {
        "" => Some("the block says no language"),
        "console" if !fence.above.contains("<!-- needs: ") => Some("the line above does not say `<!-- needs: … -->`"),
        _ => None,
    };
    let fences = markdown::split(&page.text).0;
    fences.iter().filter_map(|fence| Some(format!("{}:{}: {}", page.path, fence.line, wrong(fence)?))).collect()
}

/// Commands of `sh` blocks that weir or make would not take.
fn wrong_commands(tree: &Tree, page: &File) -> Vec<String> {
    let mut found = Vec::new();
    for fence in markdown::split(&page.text).0.iter().filter(|fence| fence.language == "sh") {
        for (offset, command) in commands::of(&fence.lines) {
            let wrong = commands::wrong(&command, &|target| tree.has_target(target));
            found.extend(wrong.map(|why| format!("{}:{}: {why}", page.path, fence.line + 1 + offset)));
        }
    }
    found
}

/// Blocks that are marked as a configuration and that weir would refuse.
fn wrong_configurations(page: &File) -> Vec<String> {
    let mut found = Vec::new();
    for fence in markdown::split(&page.text).0.iter().filter(|fence| fence.language == "yaml") {
        if fence.lines.first().is_none_or(|line| !line.starts_with("# weir.yaml")) {
            continue;
        }
        let text = fence.lines.join("\n");
        // A block about something else need not name a backend. A variable may stand for a port.
        let names_backends = fence.lines.iter().any(|line| line.starts_with("backends:"));
        let backends = if names_backends { vec![] } else { vec!["http://127.0.0.1:8200".to_owned()] };
        let overrides = Overrides { backends, ..Overrides::default() };
        if let Err(why) = Config::parse(&text, "weir.yaml", &overrides, &|_| Some("8201".to_owned())) {
            found.push(format!("{}:{}: {why}", page.path, fence.line));
        }
    }
    found
}

/// Rows of tables that are too wide to read as text.
fn wide_rows(page: &File) -> Vec<String> {
    let prose = markdown::split(&page.text).1.into_iter();
    let wide = prose.filter(|(_, line)| line.trim_start().starts_with('|') && line.chars().count() > ROW);
    wide.map(|(number, line)| format!("{}:{number}: {} characters", page.path, line.chars().count())).collect()
}

fn assert_none(findings: impl Iterator<Item = String>) {
    let found: Vec<String> = findings.collect();
    assert!(found.is_empty(), "{} findings\n{}", found.len(), found.join("\n"));
}

#[test]
fn links_lead_somewhere() {
    let tree = Tree::read();
    assert_none(tree.pages().iter().flat_map(|page| broken_links(&tree, page)));
}

#[test]
fn mentions_name_what_is_there() {
    let tree = Tree::read();
    let texts = tree.pages().into_iter().chain(tree.comments());
    assert_none(texts.flat_map(|text| broken_mentions(&tree, &text)));
}

#[test]
fn blocks_say_their_language_and_needs() {
    assert_none(Tree::read().pages().iter().flat_map(wrong_fences));
}

#[test]
fn commands_can_be_typed() {
    let tree = Tree::read();
    assert_none(tree.pages().iter().flat_map(|page| wrong_commands(&tree, page)));
}

#[test]
fn configurations_are_taken() {
    assert_none(Tree::read().pages().iter().flat_map(wrong_configurations));
}

#[test]
fn rows_of_tables_are_not_wide() {
    let pages = Tree::read().pages().into_iter().filter(|page| !MADE.contains(&page.path.as_str()));
    assert_none(pages.flat_map(|page| wide_rows(&page)));
}

const MAKEFILE: &str = "A := b\ndemo: cmake\n\tcargo build\nship sbom: cmake\n# no: target\n";

fn page(text: &str) -> File {
    File::new("docs/use/page.md", text)
}

#[test]
fn a_broken_link_is_found() {
    let tree = Tree::of(&[("docs/use/page.md", ""), ("docs/a.md", "# Here"), ("README.md", "")]);
    for text in [
        "[a](b.md)",
        "![a](../none.png)",
        "[a](../../../README.md)",
        "[a](#none)",
        "[a](../a.md#none)",
        "<img src=\"a.png\">",
    ] {
        assert_eq!(broken_links(&tree, &page(text)).len(), 1, "{text}");
    }
}

#[test]
fn a_link_that_leads_somewhere_is_not_found() {
    let text = "# Own head\n[a](../a.md#here) [b](../../README.md) [c](https://a/b.md) [d](#own-head) [e](../)\n```sh\n[x](y)\n```\n`[x](y)`";
    let tree = Tree::of(&[("docs/use/page.md", text), ("docs/a.md", "# Here"), ("README.md", "")]);
    assert_eq!(broken_links(&tree, &page(text)), Vec::<String>::new());
}

#[test]
fn a_mention_of_nothing_is_found() {
    let tree = Tree::of(&[
        ("Makefile", MAKEFILE),
        ("src/a.rs", concat!("// See docs/none.md.\nf(); /", "/ and tests/none.rs")),
    ]);
    for text in ["as src/none.rs says", "(docs/none.md)", "`tests/none`", "`make none`", "`make demo none A=b`"] {
        assert_eq!(broken_mentions(&tree, &page(text)).len(), 1, "{text}");
    }
    let comments = tree.comments();
    assert_eq!(comments.iter().flat_map(|text| broken_mentions(&tree, text)).count(), 2);
}

#[test]
fn a_mention_of_something_is_not_found() {
    let tree = Tree::of(&[("Makefile", MAKEFILE), ("src/a.rs", "let a = \"docs/none.md\";")]);
    let text = "src/a.rs, in src/; src/*.rs and src/b_{c}.rs, web/src/none.js, https://a/src/none.rs, `make demo A=b`, `make -j ship`, make sure";
    assert_eq!(broken_mentions(&tree, &page(text)), Vec::<String>::new());
    assert_eq!(broken_mentions(&tree, &tree.comments()[1]), Vec::<String>::new());
}

#[test]
fn a_block_without_its_words_is_found() {
    assert_eq!(wrong_fences(&page("```\na\n```\n\n```console\nkubectl\n```")).len(), 2);
}

#[test]
fn a_block_with_its_words_is_not_found() {
    let text = "```sh\na\n```\n<!-- needs: a cluster -->\n```console\nkubectl\n```";
    assert_eq!(wrong_fences(&page(text)), Vec::<String>::new());
}

#[test]
fn a_wrong_command_of_a_block_is_found_at_its_line() {
    let tree = Tree::of(&[("Makefile", MAKEFILE)]);
    let text =
        "```sh\n# Begin.\nweir serve \\\n  --backend http://127.0.0.1:8200\nmake none\n```\n```text\nmake none\n```";
    assert_eq!(wrong_commands(&tree, &page(text)), ["docs/use/page.md:5: make has no target `none`"]);
}

#[test]
fn a_wrong_configuration_is_found() {
    assert_eq!(wrong_configurations(&page("```yaml\n# weir.yaml\nmdoe: observe\n```")).len(), 1);
    assert_eq!(wrong_configurations(&page("```yaml\n# weir.yaml, the whole of it\nbackends: []\n```")).len(), 1);
}

#[test]
fn a_right_configuration_is_not_found() {
    let text = "```yaml\n# weir.yaml\nmode: observe\n```\n```yaml\n# weir.yaml\nbackends: [{url: 'http://127.0.0.1:${PORT}'}]\n```\n```yaml\nkind: Job\n```";
    assert_eq!(wrong_configurations(&page(text)), Vec::<String>::new());
}

#[test]
fn a_wide_row_is_found_and_wide_prose_is_not() {
    let wide = "x".repeat(ROW);
    assert_eq!(wide_rows(&page(&format!("|{wide}|"))).len(), 1);
    assert_eq!(wide_rows(&page(&format!("|{}|\n{wide}x\n```text\n|{wide}|\n```", &wide[2..]))), Vec::<String>::new());
}
