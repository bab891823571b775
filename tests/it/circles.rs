//! Files that import each other in a circle: none across the folders of `src/`, few inside one.
//!
//! A path leads to the file that defines what it names: through `pub use` and through the modules that a `use` made known. Re-exports
//! are no imports of the file they stand in, unless its own code uses the name. Methods and macros are not followed.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{self, File, code, production, tokens};

/// Circles that one folder may hold: files that are one idea in two parts.
const CIRCLES_IN_A_FOLDER: usize = 3;

/// A name that a `use` makes known in a file: what it stands for, and whether it is a re-export.
struct Known {
    path: Vec<String>,
    is_reexport: bool,
}

/// A file as a module: its path in the crate, the names it knows, and the paths its code is written with.
#[derive(Default)]
struct Module {
    file: String,
    known: BTreeMap<String, Known>,
    globs: Vec<Vec<String>>,
    paths: BTreeSet<Vec<String>>,
    /// Single words of the code outside of `use`.
    words: BTreeSet<String>,
}

/// The modules of a crate by their paths; the root is the empty path.
struct Crate {
    modules: BTreeMap<Vec<String>, Module>,
}

/// The files `a/b.rs` and `a/b/mod.rs` are `a::b`.
fn module_path(file: &str) -> Vec<String> {
    let path = file.trim_start_matches("src/").trim_end_matches(".rs");
    let mut path: Vec<String> = path.split('/').map(str::to_owned).collect();
    if path.last().is_some_and(|last| last == "mod") || path == ["lib"] {
        path.pop();
    }
    path
}

/// Reads one tree of a `use` from `tokens`, and calls `found` with the name that becomes known (`*` for all) and its path.
fn use_tree<'t>(prefix: &[&'t str], tokens: &mut &[&'t str], found: &mut dyn FnMut(&'t str, Vec<&'t str>)) {
    let mut path = prefix.to_vec();
    while let Some((&token, rest)) = tokens.split_first() {
        *tokens = rest;
        match token {
            "::" => continue,
            "{" => {
                while tokens.first().is_some_and(|next| *next != "}") {
                    use_tree(&path, tokens, found);
                    if tokens.first() == Some(&",") {
                        *tokens = &tokens[1..];
                    }
                }
                *tokens = tokens.get(1..).unwrap_or_default();
                return;
            }
            "*" => return found("*", path),
            "self" if !path.is_empty() => {}
            word => path.push(word),
        }
        match tokens.first() {
            Some(&"as") => {
                let name = tokens.get(1).copied().unwrap_or("_");
                *tokens = tokens.get(2..).unwrap_or_default();
                return found(name, path);
            }
            Some(&"::") => {}
            _ => return found(path.last().copied().unwrap_or_default(), path.clone()),
        }
    }
}

/// Makes a path absolute: from `crate`, from `self` and `super`, or from a module that is declared here.
fn absolute(own: &[String], children: &BTreeSet<String>, path: &[&str]) -> Option<Vec<String>> {
    let mut base = own.to_vec();
    let mut rest = path;
    match rest.first() {
        Some(&"crate") => {
            base.clear();
            rest = &rest[1..];
        }
        Some(&"self") => rest = &rest[1..],
        Some(&"super") => {}
        Some(first) if children.contains(*first) => {}
        _ => return None,
    }
    while rest.first() == Some(&"super") {
        base.pop()?;
        rest = &rest[1..];
    }
    base.extend(rest.iter().map(|word| (*word).to_owned()));
    Some(base)
}

fn read(file: &File) -> Module {
    let own = module_path(&file.path);
    let code = code(production(&file.text));
    let tokens = tokens(&code);
    let mut module = Module { file: file.path.clone(), ..Module::default() };
    let children: BTreeSet<String> = tokens
        .windows(3)
        .filter(|window| window[0] == "mod" && window[2] == ";")
        .map(|window| window[1].to_owned())
        .collect();
    let mut rest = tokens.as_slice();
    let mut before = "";
    let mut pending: Vec<Vec<&str>> = Vec::new();
    while let Some((&token, after)) = rest.split_first() {
        rest = after;
        if token == "use" {
            // `pub use` and `pub(crate) use`.
            let is_reexport = before == "pub" || before == ")";
            use_tree(&[], &mut rest, &mut |name, path| {
                let Some(path) = absolute(&own, &children, &path) else { return };
                if name == "*" {
                    module.globs.push(path);
                } else {
                    module.known.insert(name.to_owned(), Known { path, is_reexport });
                }
            });
        } else if token.starts_with(|c: char| c.is_alphabetic() || c == '_') && before != "::" {
            let mut path = vec![token];
            while rest.len() > 1 && rest[0] == "::" && rest[1].starts_with(|c: char| c.is_alphabetic() || c == '_') {
                path.push(rest[1]);
                rest = &rest[2..];
            }
            pending.push(path);
        }
        before = token;
    }
    for path in pending {
        match absolute(&own, &children, &path) {
            Some(path) if path.len() > 1 || own.is_empty() => drop(module.paths.insert(path)),
            _ => match module.known.get(path[0]).filter(|_| path.len() > 1) {
                Some(known) => {
                    let rest = path[1..].iter().map(|word| (*word).to_owned());
                    module.paths.insert(known.path.iter().cloned().chain(rest).collect());
                }
                None => drop(module.words.insert(path[0].to_owned())),
            },
        }
    }
    module
}

impl Crate {
    fn read(files: &[File]) -> Self {
        let files = files.iter().filter(|file| file.path != "src/main.rs");
        Self { modules: files.map(|file| (module_path(&file.path), read(file))).collect() }
    }

    /// The file that defines what `path` names; none where it names a module alone, or nothing here.
    fn definer(&self, path: &[String], hops: usize) -> Option<&str> {
        let depth = (0..=path.len()).rev().find(|depth| self.modules.contains_key(&path[..*depth]))?;
        let module = &self.modules[&path[..depth]];
        let name = path.get(depth)?;
        if hops == 0 {
            return Some(&module.file);
        }
        if let Some(known) = module.known.get(name) {
            let whole: Vec<String> = known.path.iter().chain(&path[depth + 1..]).cloned().collect();
            return self.definer(&whole, hops - 1);
        }
        let defines = |module: &Module| module.words.contains(name);
        if !defines(module) {
            for glob in &module.globs {
                if let Some(other) =
                    self.modules.get(glob).filter(|other| defines(other) || other.known.contains_key(name))
                {
                    let whole: Vec<String> = glob.iter().chain(&path[depth..]).cloned().collect();
                    return self.definer(&whole, hops - 1).or(Some(&other.file));
                }
            }
        }
        Some(&module.file)
    }

    /// Which file imports which.
    fn imports(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        const HOPS: usize = 8;
        let mut imports: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for module in self.modules.values() {
            let used = module.known.iter().filter(|(name, known)| !known.is_reexport || module.words.contains(*name));
            let paths = used.map(|(_, known)| &known.path).chain(&module.paths).chain(&module.globs);
            let files = paths.filter_map(|path| self.definer(path, HOPS)).filter(|file| *file != module.file);
            imports.entry(&module.file).or_default().extend(files);
        }
        imports
    }
}

/// Files of which each reaches each other, with what each of them imports of the others.
type Circle = BTreeMap<String, Vec<String>>;

/// The circles of a crate, largest first.
fn circles(files: &[File]) -> Vec<Circle> {
    let whole = Crate::read(files);
    let imports = whole.imports();
    let reach: BTreeMap<&str, BTreeSet<&str>> = imports
        .keys()
        .map(|file| {
            let (mut seen, mut next) = (BTreeSet::new(), vec![*file]);
            while let Some(file) = next.pop() {
                next.extend(imports.get(file).into_iter().flatten().copied().filter(|to| seen.insert(*to)));
            }
            (*file, seen)
        })
        .collect();
    let mut circles = BTreeSet::new();
    for (file, reached) in &reach {
        let members: BTreeSet<&str> = reached.iter().copied().filter(|other| reach[other].contains(file)).collect();
        if members.len() > 1 {
            let inside = |file: &str| imports[file].intersection(&members).map(|other| (*other).to_owned()).collect();
            circles.insert(members.iter().map(|file| ((*file).to_owned(), inside(file))).collect::<Circle>());
        }
    }
    let mut circles: Vec<_> = circles.into_iter().collect();
    circles.sort_by_key(|circle| std::cmp::Reverse(circle.len()));
    circles
}

/// The first folder below `src/`; the file `a.rs` belongs to `a`.
fn folder(file: &str) -> &str {
    file.trim_start_matches("src/").split(['/', '.']).next().unwrap_or_default()
}

fn shown(circle: &Circle) -> String {
    circle.iter().map(|(file, imports)| format!("  {file} imports {}\n", imports.join(" "))).collect()
}

fn wrong_circles(files: &[File]) -> Vec<String> {
    let mut found = Vec::new();
    let mut inside: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for circle in circles(files) {
        let folders: BTreeSet<&str> = circle.keys().map(|file| folder(file)).collect();
        match folders.iter().next() {
            Some(folder) if folders.len() == 1 => inside.entry((*folder).to_owned()).or_default().push(shown(&circle)),
            _ => found.push(format!("a circle across folders:\n{}", shown(&circle))),
        }
    }
    for (folder, circles) in inside.iter().filter(|(_, circles)| circles.len() > CIRCLES_IN_A_FOLDER) {
        found.push(format!("{} circles in {folder}:\n{}", circles.len(), circles.join("\n")));
    }
    found
}

#[test]
fn files_do_not_import_each_other_in_circles() {
    let files = source::files("src", &["rs"]);
    let whole = Crate::read(&files);
    let count = whole.imports().values().map(BTreeSet::len).sum::<usize>();
    assert!(count > files.len(), "only {count} imports between {} files were read", files.len());
    circles(&files).iter().for_each(|circle| println!("{}", shown(circle)));
    let found = wrong_circles(&files);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

fn crate_of(files: &[(&str, &str)]) -> Vec<File> {
    files.iter().map(|(path, text)| File::new(*path, *text)).collect()
}

#[test]
fn a_circle_is_found() {
    for (a, b) in [
        ("use crate::y::b::B;", "use crate::x::a::A;"),
        ("use crate::y::{b::{self, B}, c};", "fn f(a: crate::x::a::A) {}"),
        ("use crate::y;\nfn f() { y::b::f() }", "use crate::x::A as T;"),
        ("use crate::y::*;", "use crate::x::*;"),
    ] {
        let files = crate_of(&[
            ("src/lib.rs", "pub mod x; pub mod y;"),
            ("src/x/mod.rs", "mod a; pub use a::A;"),
            ("src/x/a.rs", &format!("{a}\npub struct A;")),
            ("src/y.rs", "pub mod b; pub(crate) use b::{B, f};"),
            ("src/y/b.rs", &format!("{b}\npub struct B; fn f() {{}}")),
        ]);
        let found = wrong_circles(&files);
        if a.contains('*') {
            // A glob leads to the module, whose re-exports are no imports.
            assert_eq!(found, Vec::<String>::new());
        } else {
            let circle = "  src/x/a.rs imports src/y/b.rs\n  src/y/b.rs imports src/x/a.rs\n";
            assert_eq!(found, [format!("a circle across folders:\n{circle}")], "{a} {b}");
        }
    }
}

#[test]
fn a_parent_whose_code_uses_its_child_closes_a_circle() {
    let parent = "mod child;\nuse child::Part;\npub struct Whole(Part);";
    let files = crate_of(&[("src/x.rs", parent), ("src/x/child.rs", "use super::Whole;\npub struct Part;")]);
    assert_eq!(circles(&files)[0].keys().collect::<Vec<_>>(), ["src/x.rs", "src/x/child.rs"]);
}

#[test]
fn more_circles_than_a_folder_may_hold_are_found() {
    let texts: Vec<(String, String)> = (0..=CIRCLES_IN_A_FOLDER)
        .flat_map(|n| [(n, "a", "b"), (n, "b", "a")])
        .map(|(n, own, other)| (format!("src/x/{own}{n}.rs"), format!("use super::{other}{n}::F;\npub struct F;")))
        .collect();
    let files: Vec<File> = texts.iter().map(|(path, text)| File::new(path, text)).collect();
    assert_eq!(wrong_circles(&files).len(), 1);
    assert_eq!(wrong_circles(&files[2..]), Vec::<String>::new());
}

#[test]
fn what_is_no_circle_is_not_found() {
    let files = crate_of(&[
        ("src/lib.rs", "pub mod x; pub mod y;"),
        // A module that shows its parts, and parts that use each other in one direction through it.
        ("src/x/mod.rs", "mod a; mod b; pub use a::A; pub use b::B;"),
        ("src/x/a.rs", "use super::B;\npub struct A(B);"),
        ("src/x/b.rs", "// use super::A;\npub struct B;\n#[cfg(test)]\nmod tests { use super::super::A; }"),
        ("src/y.rs", "use crate::x::{A, B};\nuse std::fmt;\npub struct Y(A, B);"),
    ]);
    assert_eq!(circles(&files), Vec::<Circle>::new());
}
