//! As much of Markdown as the checks need: fences, links and headings.

/// A fenced block: its first line in the page from 1, the word after the fence, the line above the fence, and its lines.
pub struct Fence<'t> {
    pub line: usize,
    pub language: &'t str,
    pub above: &'t str,
    pub lines: Vec<&'t str>,
}

/// The blocks of a page and, with their numbers from 1, the lines outside of them.
pub fn split(page: &str) -> (Vec<Fence<'_>>, Vec<(usize, &str)>) {
    let (mut fences, mut prose) = (Vec::new(), Vec::new());
    let mut open: Option<(&str, Fence<'_>)> = None;
    let mut above = "";
    for (number, line) in (1..).zip(page.lines()) {
        let text = line.trim_start();
        let marks = &text[..text.len() - text.trim_start_matches(['`', '~']).len()];
        open = match open.take() {
            Some((mark, fence)) if marks.starts_with(mark) && text.trim_end() == marks => {
                fences.push(fence);
                None
            }
            Some((mark, mut fence)) => {
                fence.lines.push(line);
                Some((mark, fence))
            }
            None if marks.starts_with("```") || marks.starts_with("~~~") => {
                let language = text[marks.len()..].split_whitespace().next().unwrap_or_default();
                Some((marks, Fence { line: number, language, above, lines: Vec::new() }))
            }
            None => {
                prose.push((number, line));
                None
            }
        };
        above = line;
    }
    fences.extend(open.map(|(_, fence)| fence));
    (fences, prose)
}

/// The line without what stands between backticks.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("``")
}

/// What stands between backticks, piece by piece.
pub fn code_spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Where the links and images of a line lead: `](target "title")`, `[name]: target`, `href="target"` and `src="target"`.
pub fn links(line: &str) -> Vec<String> {
    let line = without_code(line);
    let mut found = Vec::new();
    for (opened, closed) in [("](", ')'), ("href=\"", '"'), ("src=\"", '"')] {
        for (at, _) in line.match_indices(opened) {
            let rest = &line[at + opened.len()..];
            let target = rest.split(closed).next().unwrap_or_default().trim();
            let target = target.split_whitespace().next().unwrap_or_default();
            found.push(target.trim_start_matches('<').trim_end_matches('>').to_owned());
        }
    }
    if line.starts_with('[')
        && let Some((_, target)) = line.split_once("]: ")
    {
        found.extend(target.split_whitespace().next().map(str::to_owned));
    }
    found
}

/// The names that headings and `id="…"` give to places of a page, as GitHub makes them.
pub fn anchors(page: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for (_, line) in split(page).1 {
        if line.starts_with('#') {
            let slug = slug(line.trim_start_matches('#').trim());
            let again = found.iter().filter(|known| **known == slug).count();
            let known = |name: &String| found.contains(name);
            let name = (again.max(1)..).map(|n| format!("{slug}-{n}")).find(|name| !known(name));
            found.push(if again == 0 { slug } else { name.unwrap_or_default() });
        }
        for (at, opened) in line.match_indices("id=\"").chain(line.match_indices("name=\"")) {
            found.extend(line[at + opened.len()..].split('"').next().map(str::to_owned));
        }
    }
    found
}

fn slug(heading: &str) -> String {
    // Of a link its text counts.
    let mut text = String::new();
    let mut rest = heading;
    while let Some((before, after)) = rest.split_once("](") {
        text.push_str(before);
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    text.push_str(rest);
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn fences_are_taken_out_of_the_prose() {
    let page = "one\n<!-- needs: a GPU -->\n  ```console x\n  ls\n  ```\n~~~~\n```\n~~~~\ntwo\n```sh\nopen";
    let (fences, prose) = split(page);
    assert_eq!(prose.iter().map(|(_, line)| *line).collect::<Vec<_>>(), ["one", "<!-- needs: a GPU -->", "two"]);
    let seen: Vec<_> =
        fences.iter().map(|fence| (fence.line, fence.language, fence.above, fence.lines.len())).collect();
    assert_eq!(seen, [(3, "console", "<!-- needs: a GPU -->", 1), (6, "", "  ```", 1), (10, "sh", "two", 1)]);
}

#[test]
fn links_of_every_form_are_read_and_code_is_not() {
    let line = "[a](b.md#c) ![p](<d.png> \"title\") <img src=\"e.svg\"> <a href=\"#f\"> `[x](y)`";
    assert_eq!(links(line), ["b.md#c", "d.png", "#f", "e.svg"]);
    assert_eq!(links("[name]: g.md \"title\""), ["g.md"]);
    assert_eq!(links("a[0] (b) [c]"), Vec::<String>::new());
}

#[test]
fn anchors_are_githubs() {
    let page = "# What is it?\n## `weir serve` – flags\n## Twice\n## Twice\n### [a link](b.md)\n<a id=\"own\"></a>\n```\n# no\n```";
    assert_eq!(anchors(page), ["what-is-it", "weir-serve--flags", "twice", "twice-1", "a-link", "own"]);
}
