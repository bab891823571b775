//! What can be counted of the style: names that are searchable, words that a reader knows, files and functions that fit a screen or two.
//!
//! Each check is a function that lists its findings; beside each stand small texts that fire and that must not.

use std::collections::BTreeMap;

use super::source::{self, File, code, production, tokens};

/// A type's name is searched for: it names one type of the crate. `State` may be private to several files.
const SHARED_NAMES: &[&str] = &["Settings", "Error"];

/// The longest production part of a file, in lines.
const FILE_LINES: usize = 450;
/// The longest function that needs no reason, in lines.
const FUNCTION_LINES: usize = 60;
/// The longest name of a test, in characters: it fits a line of a report beside its module.
const TEST_NAME: usize = 59;
/// Whether the names of the tests in `src/` are held to it too.
const TEST_NAMES_IN_SRC: bool = false;

/// Where a word may not stand.
#[derive(Clone, Copy, PartialEq)]
enum Reach {
    /// Code, comments and pages.
    Everywhere,
    /// Code and its comments; a page may need the word for something else.
    Code,
}

/// A word or phrase in small letters, what to write instead, and its reach. In code it counts as a part of a name too: `desk` is in
/// `DeskState` and in `desk_of`.
struct Word {
    word: &'static str,
    instead: &'static str,
    reach: Reach,
}

const fn word(word: &'static str, instead: &'static str) -> Word {
    Word { word, instead, reach: Reach::Everywhere }
}

const fn code_word(word: &'static str, instead: &'static str) -> Word {
    Word { word, instead, reach: Reach::Code }
}

/// Words that only this project's authors understood, or that make a person of a request. Words with a second, ordinary meaning in the
/// field are not here: a floor is a lower bound, a visitor is serde's, a gateway is an HTTP status.
const WORDS: &[Word] = &[
    word("whoever", "the caller, the task"),
    word("somebody", "the caller, a client, another process"),
    word("nobody", "no client, no task"),
    word("anew", "again"),
    word("told", "recorded, reported, notified, observed"),
    word("so many", "N"),
    word("of use", "worthwhile, useful"),
    word("him", "it"),
    word("his", "its"),
    word("house", "the crate, the process, the system"),
    word("rooms", "modules"),
    word("tray", "SampleBuffer"),
    word("trays", "SampleBuffer"),
    word("desk", "BackendState, Pages"),
    word("desks", "BackendState, Pages"),
    word("seat", "Waiter, ConnSlot"),
    word("seats", "Waiter, ConnSlot"),
    word("crowd", "ClosedLoopDetector, closed loop"),
    word("crest", "knee_chart"),
    word("steer", "control_loop"),
    word("steers", "control_loop"),
    word("embark", "begin, acquire"),
    word("workbench", "SCRATCH"),
    word("vitals", "PassiveHealth"),
    word("addressee", "ReplyContext"),
    word("confession", "lost_lines_notice"),
    // Kubernetes has a Helm of its own.
    code_word("helm", "BackendLoop"),
    // The flag --rivals stays.
    code_word("rival", "ConcurrencyLimiter"),
    // The command `weir rehearse` stays, and what its pages call a rehearsal.
    code_word("mod rehearsal", "simulation"),
    code_word("crate rehearsal", "simulation"),
];

/// Where a word of the table is right: path, word, reason.
const RIGHT_WORDS: &[(&str, &str, &str)] = &[
    ("src/load/workload.rs", "him", "one of the short words that prompts are made of"),
    ("src/load/workload.rs", "his", "one of the short words that prompts are made of"),
];

/// Functions over [`FUNCTION_LINES`]: path, name, reason. A comment `// Long: reason` above the function does as well.
const LONG_FUNCTIONS: &[(&str, &str, &str)] = &[];

/// The declarations of types in the production part: name, and whether it can be seen outside its file.
fn types(text: &str) -> Vec<(String, bool)> {
    let code = code(production(text));
    let mut found = Vec::new();
    for line in code.lines() {
        let is_inner = line.starts_with(' ');
        let line = line.trim_start();
        let is_seen = line.starts_with("pub");
        let declared =
            line.split_once(' ').filter(|(first, _)| first.starts_with("pub")).map_or(line, |(_, rest)| rest);
        let Some((kind, rest)) = declared.split_once(' ') else { continue };
        // A `type` inside braces belongs to an implementation.
        if !matches!(kind, "struct" | "enum" | "union" | "trait" | "type") || kind == "type" && is_inner {
            continue;
        }
        found.extend(tokens(rest).first().map(|name| ((*name).to_owned(), is_seen)));
    }
    found
}

/// Names that more than one type bears.
fn names_twice(files: &[File]) -> Vec<String> {
    let mut bearers: BTreeMap<String, Vec<(&str, bool)>> = BTreeMap::new();
    for file in files {
        for (name, is_seen) in types(&file.text) {
            bearers.entry(name).or_default().push((&file.path, is_seen));
        }
    }
    bearers.retain(|name, places| {
        if name == "State" {
            places.retain(|(_, is_seen)| *is_seen);
        }
        places.len() > 1 && !SHARED_NAMES.contains(&name.as_str())
    });
    let list = |places: &[(&str, bool)]| places.iter().map(|(path, _)| *path).collect::<Vec<_>>().join(", ");
    bearers.iter().map(|(name, places)| format!("{name}: {}", list(places))).collect()
}

/// The words of a line in small letters; names are taken apart at `_` and at their capitals.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut before_is_small = false;
    for c in line.chars() {
        if !c.is_alphabetic() || before_is_small && c.is_uppercase() {
            words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
        }
        if c.is_alphabetic() {
            word.extend(c.to_lowercase());
        }
        before_is_small = c.is_lowercase();
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

/// Words of the table, line by line.
fn private_words(file: &File) -> Vec<String> {
    let is_page = file.path.ends_with(".md");
    let is_right = |word: &str| RIGHT_WORDS.iter().any(|(path, right, _)| *path == file.path && *right == word);
    let table: Vec<(&Word, Vec<&str>)> = WORDS
        .iter()
        .filter(|entry| !(is_right(entry.word) || is_page && entry.reach == Reach::Code))
        .map(|entry| (entry, entry.word.split(' ').collect()))
        .collect();
    let mut found = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        let words = words(line);
        for (entry, phrase) in &table {
            if words.windows(phrase.len()).any(|window| window == phrase.as_slice()) {
                found.push(format!("{}:{}: \"{}\", write {}", file.path, number + 1, entry.word, entry.instead));
            }
        }
    }
    found
}

/// Files whose production part is too long.
fn long_files(files: &[File]) -> Vec<String> {
    let lines = |file: &File| production(&file.text).trim_end().lines().count();
    files
        .iter()
        .filter(|file| lines(file) > FILE_LINES)
        .map(|file| format!("{}: {} lines above its tests", file.path, lines(file)))
        .collect()
}

/// A function: its name, its first line from 0, and how many lines it has.
struct Function {
    name: String,
    line: usize,
    lines: usize,
}

fn functions(text: &str) -> Vec<Function> {
    let code = code(text);
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let before = code[..at].chars().next_back();
        let Some(&name) = tokens(&code[at + 3..]).first() else { continue };
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') || !name.starts_with(char::is_alphabetic) {
            continue;
        }
        let Some(end) = body_end(&code[at..]) else { continue };
        let line = code[..at].matches('\n').count();
        found.push(Function { name: name.to_owned(), line, lines: code[at..at + end].matches('\n').count() + 1 });
    }
    found
}

/// Where the body of the function at the start of `code` ends; a declaration has none.
fn body_end(code: &str) -> Option<usize> {
    let (mut depth, mut braces) = (0_usize, 0_usize);
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.checked_sub(1)?,
            ';' if depth == 0 && braces == 0 => return None,
            '{' => braces += 1,
            '}' => {
                braces = braces.checked_sub(1)?;
                if braces == 0 && depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// Functions that are too long and say no reason.
fn long_functions(file: &File) -> Vec<String> {
    let text = production(&file.text);
    let lines: Vec<&str> = text.lines().collect();
    let says_why = |function: &Function| {
        let above = lines[..function.line].iter().rev().map(|line| line.trim_start());
        let mut head = above.take_while(|line| line.starts_with("//") || line.starts_with("#["));
        head.any(|line| line.starts_with("// Long: "))
            || LONG_FUNCTIONS.iter().any(|(path, name, _)| *path == file.path && *name == function.name)
    };
    functions(text)
        .iter()
        .filter(|function| function.lines > FUNCTION_LINES && !says_why(function))
        .map(|function| format!("{}:{}: {} has {} lines", file.path, function.line + 1, function.name, function.lines))
        .collect()
}

/// Tests whose names are too long.
fn long_test_names(file: &File) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_test = false;
    for (number, line) in code(&file.text).lines().enumerate() {
        let line = line.trim();
        if line.starts_with("#[") {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            continue;
        }
        let name = line.split_once("fn ").and_then(|(_, rest)| tokens(rest).first().copied());
        if let Some(name) = name.filter(|name| is_test && name.len() > TEST_NAME) {
            found.push(format!("{}:{}: {} characters: {name}", file.path, number + 1, name.len()));
        }
        is_test &= line.is_empty();
    }
    found
}

fn source_files() -> Vec<File> {
    let files = source::files("src", &["rs"]);
    assert!(files.len() > 10, "only {} files found", files.len());
    files
}

fn assert_none(found: &[String]) {
    assert!(found.is_empty(), "{} findings\n{}", found.len(), found.join("\n"));
}

#[test]
#[ignore = "until the renames have landed"]
fn no_name_is_borne_by_two_types() {
    assert_none(&names_twice(&source_files()));
}

#[test]
#[ignore = "until the renames have landed"]
fn no_private_word_is_left() {
    let code = source_files().into_iter().chain(source::files("web/src", &["js", "html", "css"]));
    let pages = source::files("docs", &["md"]);
    assert_none(&code.chain(pages).flat_map(|file| private_words(&file)).collect::<Vec<_>>());
}

#[test]
#[ignore = "until the renames have landed"]
fn no_file_is_too_long() {
    assert_none(&long_files(&source_files()));
}

#[test]
#[ignore = "until the renames have landed"]
fn no_function_is_too_long_without_a_reason() {
    assert_none(&source_files().iter().flat_map(long_functions).collect::<Vec<_>>());
}

#[test]
fn the_names_of_tests_fit_a_line() {
    let folders = if TEST_NAMES_IN_SRC { ["tests", "src"].as_slice() } else { &["tests"] };
    let files = folders.iter().flat_map(|folder| source::files(folder, &["rs"]));
    assert_none(&files.flat_map(|file| long_test_names(&file)).collect::<Vec<_>>());
}

#[test]
fn the_tables_name_what_is_there() {
    for (path, name, reason) in LONG_FUNCTIONS {
        let text = std::fs::read_to_string(source::root().join(path)).unwrap_or_default();
        let is_long = |function: &Function| function.name == *name && function.lines > FUNCTION_LINES;
        assert!(functions(production(&text)).iter().any(is_long), "{path}: {name} is short or gone");
        assert!(!reason.is_empty(), "{path}: {name} says no reason");
    }
    for (path, word, reason) in RIGHT_WORDS {
        assert!(source::root().join(path).exists() && !reason.is_empty(), "{path}: {word}");
    }
}

#[test]
fn a_name_of_two_types_is_found() {
    let a = File::new("src/a.rs", "pub struct Line;\nenum State {}\npub(crate) enum Error {}");
    let b = File::new("src/b.rs", "    pub(super) struct Line<T>(T);\nenum State {}\nenum Error {}");
    assert_eq!(names_twice(&[a, b]), ["Line: src/a.rs, src/b.rs"]);
    let [a, b] = ["a", "b"].map(|name| File::new(name, "pub enum State {}"));
    assert_eq!(names_twice(&[a, b]), ["State: a, b"]);
}

#[test]
fn other_mentions_of_a_name_are_not_found() {
    let a =
        File::new("src/a.rs", "pub struct Line;\npub enum State {}\nimpl Future for Line {\n    type Output = ();\n}");
    let b = File::new(
        "src/b.rs",
        "// struct Line\nfn f(line: Line) {}\nenum State {}\nimpl Future for B {\n    type Output = ();\n}\n#[cfg(test)]\nstruct Line;",
    );
    assert_eq!(names_twice(&[a, b]), Vec::<String>::new());
}

#[test]
fn a_private_word_is_found() {
    let found = |path: &str, text: &str| private_words(&File::new(path, text)).len();
    for text in [
        "// Whoever asks",
        "fn told() {}",
        "struct DeskState;",
        "let first_seat = 1;",
        "so many of them",
        "use crate::helm;",
    ] {
        assert_eq!(found("src/a.rs", text), 1, "{text}");
    }
    assert_eq!(found("docs/a.md", "Somebody must act.\nTold anew."), 3);
    assert_eq!(found("src/a.rs", "use crate::rehearsal::chart;\nmod rehearsal;"), 2);
}

#[test]
fn an_ordinary_word_is_not_found() {
    let found = |path: &str, text: &str| private_words(&File::new(path, text));
    let none = Vec::<String>::new();
    assert_eq!(found("docs/a.md", "A Helm chart; a desktop; the sole use; `weir rehearse --rivals`"), none);
    assert_eq!(found("src/a.rs", "fn history(this: History) {} // a seated, thousandfold rehearsal"), none);
}

#[test]
fn a_long_file_is_found_and_its_tests_do_not_count() {
    let (long, short) = ("x\n".repeat(FILE_LINES + 1), "x\n".repeat(FILE_LINES));
    assert_eq!(long_files(&[File::new("a", long.clone())]).len(), 1);
    assert_eq!(long_files(&[File::new("a", format!("{short}#[cfg(test)]\n{long}"))]).len(), 0);
}

#[test]
fn a_long_function_is_found_unless_it_says_why() {
    let function =
        |lines: usize| format!("pub async fn f(a: [u8; 2]) -> u8\nwhere\n{}{{\n}}\n", "\n".repeat(lines - 4));
    let found = |text: String| long_functions(&File::new("a", text));
    assert_eq!(found(function(61)), ["a:1: f has 61 lines"]);
    assert_eq!(found(function(60)), Vec::<String>::new());
    assert_eq!(
        found(format!("/// Doc.\n// Long: one arm a state.\n#[must_use]\n{}", function(61))),
        Vec::<String>::new()
    );
    assert_eq!(found(format!("// Long: another.\n\n{}", function(61))).len(), 1);
    assert_eq!(found(format!("#[cfg(test)]\n{}", function(61))), Vec::<String>::new());
}

#[test]
fn a_long_name_of_a_test_is_found() {
    let test = |attribute: &str, length: usize| format!("{attribute}\n#[ignore]\nfn {}() {{}}", "n".repeat(length));
    let found = |text: String| long_test_names(&File::new("a", text)).len();
    assert_eq!(found(test("#[test]", 60)), 1);
    assert_eq!(found(test("#[tokio::test(start_paused = true)]", 60)), 1);
    assert_eq!(found(test("#[test]", 59)), 0);
    assert_eq!(found(test("#[inline]", 60)), 0);
}
