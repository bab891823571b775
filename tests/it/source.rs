//! The files of the tree as the tests of style read them: which there are, their production part, and Rust without its comments and strings.

use std::path::{Path, PathBuf};

/// A file of the tree: its path below the root, with `/`, and its text.
pub struct File {
    pub path: String,
    pub text: String,
}

impl File {
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into() }
    }
}

/// Folders that hold what a build or a download left.
const NOT_OURS: &[&str] = &["target", "dist", "node_modules", "__pycache__", "corpus", "artifacts"];

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The paths of all files below `folder`, relative to the root, in order; `""` is the whole tree.
pub fn paths(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    walk(&root().join(folder), &mut found);
    let mut paths: Vec<String> =
        found.iter().map(|path| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned()).collect();
    paths.sort();
    paths
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_symlink() || name == ".git" || name.starts_with(".venv") {
            continue;
        }
        if !path.is_dir() {
            found.push(path);
        } else if !NOT_OURS.contains(&name.as_str()) {
            walk(&path, found);
        }
    }
}

/// The files below `folder` whose names end in one of `extensions`, with their texts.
pub fn files(folder: &str, extensions: &[&str]) -> Vec<File> {
    let wanted = |path: &String| extensions.iter().any(|extension| path.ends_with(&format!(".{extension}")));
    let read = |path: String| {
        let text = std::fs::read_to_string(root().join(&path)).unwrap();
        File { path, text }
    };
    paths(folder).into_iter().filter(wanted).map(read).collect()
}

/// What stands above the first `#[cfg(test)]`: tests are at a file's foot.
pub fn production(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or_default()
}

/// The code alone: comments and the insides of strings and characters are blanks, line ends stay where they are.
pub fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = span_at(bytes, at);
        if end == at {
            at += 1;
            continue;
        }
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(out).unwrap()
}

/// The end of the comment, string or character that begins at `at`, or `at` where none does.
fn span_at(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let word_before = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    if rest.starts_with(b"//") {
        return at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    }
    if rest.starts_with(b"/*") {
        return at + find(rest, b"*/").map_or(rest.len(), |end| end + 2);
    }
    if rest[0] == b'"' {
        return at + escaped_end(rest, b'"');
    }
    if !word_before && let Some(length) = raw_length(rest) {
        return at + length;
    }
    if rest[0] == b'\'' {
        let is_character = rest.get(1) == Some(&b'\\')
            || std::str::from_utf8(rest).ok().and_then(|text| {
                let mut characters = text.chars().skip(1);
                characters.next()?;
                characters.next()
            }) == Some('\'');
        return if is_character { at + escaped_end(rest, b'\'') } else { at };
    }
    at
}

/// The length of a literal that begins with `quote` and may hold escapes.
fn escaped_end(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of the raw string at the start of `rest`, if there is one.
fn raw_length(rest: &[u8]) -> Option<usize> {
    let prefix = usize::from(rest[0] == b'b');
    if rest.get(prefix) != Some(&b'r') {
        return None;
    }
    let hashes = rest[prefix + 1..].iter().take_while(|byte| **byte == b'#').count();
    let open = prefix + 1 + hashes;
    if rest.get(open) != Some(&b'"') {
        return None;
    }
    let close = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
    Some(find(&rest[open + 1..], &close).map_or(rest.len(), |end| open + 1 + end + close.len()))
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// Words, `::` and single signs, in order.
pub fn tokens(code: &str) -> Vec<&str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if is_word(first) {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        tokens.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    tokens
}

#[test]
fn comments_and_literals_are_no_code() {
    let text = "let a = \"// no\"; // yes\nlet b = r#\"fn \" x\"#; /* two\nlines */ let c = 'x'; let d = '\\''; f::<'a>(b\"{\")";
    let code = code(text);
    assert_eq!(code.len(), text.len());
    assert_eq!(
        tokens(&code).join(" "),
        "let a = ; let b = ; let c = ; let d = ; f :: < ' a > ( b )",
        "the lifetime stays, the characters go"
    );
    assert_eq!(code.lines().count(), text.lines().count());
}

#[test]
fn the_production_part_ends_where_tests_begin() {
    assert_eq!(production("fn f() {}\n#[cfg(test)]\nmod tests {}"), "fn f() {}\n");
    assert_eq!(production("fn f() {}"), "fn f() {}");
}
