//! Imports go down the floors of `src/`, never up and never sideways, and the lower floors know no outside hands.
//!
//! The table below is the one of `src/lib.rs` and docs/internals/architecture.md, as code. A path counts wherever it stands: in a
//! `use`, in a signature, in a macro; comments and the tests at a file's foot do not count.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A room: a path below `src/` without `.rs`, its floor, and the rooms of its own floor that it may use.
struct Room {
    path: &'static str,
    floor: u8,
    beside: &'static [&'static str],
}

const fn room(path: &'static str, floor: u8, beside: &'static [&'static str]) -> Room {
    Room { path, floor, beside }
}

/// The longest path that fits a file decides its room. A new file outside every room fails the test.
const ROOMS: &[Room] = &[
    room("vocabulary", 0, &[]),
    room("http1", 1, &[]),
    room("wire", 1, &[]),
    room("measure", 1, &[]),
    room("svg", 1, &[]),
    room("engine/model", 1, &[]),
    room("engine/profile", 1, &["engine/model"]),
    room("load/schedule", 1, &[]),
    room("load/workload", 1, &["load/schedule"]),
    room("load/trace_file", 1, &["load/schedule", "load/workload"]),
    room("gpu/reading", 1, &[]),
    room("probe/settings", 1, &[]),
    room("probe/ladder", 1, &[]),
    room("probe/guard", 1, &["probe/settings"]),
    room("sweep/search", 2, &[]),
    room("estimate", 2, &[]),
    room("admission", 3, &[]),
    room("simulation", 4, &[]),
    room("clock", 5, &[]),
    room("http_client", 5, &[]),
    room("proxy", 5, &["clock", "http_client"]),
    room("export", 5, &["clock", "http_client"]),
    room("control_loop", 5, &["clock"]),
    room("engine_metrics", 5, &["clock", "http_client"]),
    room("gpu", 5, &["clock"]),
    room("engine/server", 5, &["clock"]),
    room("load", 5, &["clock", "http_client"]),
    room("offline", 5, &["clock"]),
    room("config", 6, &[]),
    room("cli", 6, &["config", "app", "demo", "sweep", "top"]),
    room("sweep", 6, &[]),
    room("probe", 6, &[]),
    room("app", 6, &["config", "probe"]),
    room("demo", 6, &["config", "app"]),
    room("top", 6, &[]),
];

/// Files that only declare what is inside a folder of several rooms.
const DECLARATIONS: &[&str] = &["lib", "main", "engine/mod", "engine", "load/mod", "sweep/mod", "probe/mod"];

/// Crates that are hands; nothing up to [`LAST_WITHOUT_HANDS`] touches them.
const HANDS: &[&str] = &["tokio", "pingora_core", "hyper", "hyper_util", "prometheus", "socket2"];
const LAST_WITHOUT_HANDS: u8 = 3;

fn room_of(path: &str) -> Option<&'static Room> {
    let fits =
        |room: &&Room| path == room.path || path.strip_prefix(room.path).is_some_and(|rest| rest.starts_with('/'));
    ROOMS.iter().filter(fits).max_by_key(|room| room.path.len())
}

/// What is wrong with one file, one sentence each.
fn violations(path: &str, text: &str) -> Vec<String> {
    if DECLARATIONS.contains(&path) {
        return Vec::new();
    }
    let Some(own) = room_of(path) else { return vec![format!("{path}: belongs to no room of the table")] };
    let code = production_code(text);
    let mut found = Vec::new();
    for target in crate_paths(&code) {
        let Some(other) = room_of(&target) else {
            found.push(format!("{path}: crate::{} leads to no room", target.replace('/', "::")));
            continue;
        };
        let allowed = other.path == own.path || other.floor < own.floor || own.beside.contains(&other.path);
        if !allowed {
            let way = if other.floor > own.floor { "up" } else { "sideways" };
            found.push(format!("{path} (floor {}) imports {way}: {} (floor {})", own.floor, other.path, other.floor));
        }
    }
    if own.floor <= LAST_WITHOUT_HANDS {
        found.extend(
            HANDS.iter().filter(|hand| names_crate(&code, hand)).map(|hand| format!("{path}: {hand} is a hand")),
        );
    }
    found
}

/// The text without comments, and without what follows the first `#[cfg(test)]`: tests stand at the foot.
fn production_code(text: &str) -> String {
    let above = text.split("#[cfg(test)]").next().unwrap_or_default();
    above.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Everything after `crate::`, as paths with `/`; braces are opened up.
fn crate_paths(code: &str) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if !before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            expand("", &code[at + "crate::".len()..], &mut paths);
        }
    }
    paths
}

/// Reads one path or group at the start of `rest` and returns what follows it.
fn expand<'a>(prefix: &str, rest: &'a str, paths: &mut BTreeSet<String>) -> &'a str {
    let mut rest = rest.trim_start();
    if let Some(group) = rest.strip_prefix('{') {
        rest = group;
        loop {
            rest = expand(prefix, rest, paths).trim_start();
            match rest.strip_prefix(',') {
                Some(next) => rest = next,
                None => return rest.strip_prefix('}').unwrap_or(rest),
            }
        }
    }
    let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    let (name, after) = rest.split_at(length);
    let path = match (prefix, name) {
        (_, "" | "self") => prefix.to_owned(),
        ("", name) => name.to_owned(),
        (prefix, name) => format!("{prefix}/{name}"),
    };
    if let Some(deeper) = after.strip_prefix("::") {
        return expand(&path, deeper, paths);
    }
    if !path.is_empty() {
        paths.insert(path);
    }
    match after.trim_start().strip_prefix("as ") {
        Some(renamed) => renamed.trim_start().trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'),
        None => after,
    }
}

fn names_crate(code: &str, name: &str) -> bool {
    let path = format!("{name}::");
    code.match_indices(&path)
        .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'))
}

fn source_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            source_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn imports_go_down() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    source_files(&source, &mut files);
    assert!(files.len() > 10, "only {} files found", files.len());
    let mut found = Vec::new();
    for file in files {
        let path = file.strip_prefix(&source).unwrap().with_extension("");
        let text = std::fs::read_to_string(&file).unwrap();
        found.extend(violations(path.to_str().unwrap(), &text));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn an_upward_import_is_found() {
    for text in [
        "use crate::proxy::exchange::Exchange;",
        "use crate::{vocabulary::time::Timestamp, proxy::{self, tap}};",
        "fn f(now: crate::proxy::Tap) {}",
        "use crate::vocabulary::time::Timestamp as T;\npub(crate) use crate::proxy as p;",
    ] {
        let found = violations("wire/sse", text);
        assert!(found[0].starts_with("wire/sse (floor 1) imports up: proxy (floor 5)"), "{text}: {found:?}");
    }
}

#[test]
fn a_sideways_import_is_found() {
    assert!(violations("proxy/tap", "use crate::export::metrics::Page;")[0].contains("imports sideways: export"));
    assert!(violations("measure/ledger", "use crate::wire::Usage;")[0].contains("imports sideways: wire"));
    assert!(
        violations("load/client", "use crate::engine::server::serve;")[0].contains("imports sideways: engine/server")
    );
}

#[test]
fn a_hand_on_a_low_floor_is_found() {
    assert_eq!(violations("admission", "use tokio::sync::Mutex;"), ["admission: tokio is a hand"]);
    assert_eq!(
        violations("measure/window", "fn f() -> prometheus::Counter {}"),
        ["measure/window: prometheus is a hand"]
    );
}

#[test]
fn a_file_in_no_room_is_found() {
    assert_eq!(violations("gadget", ""), ["gadget: belongs to no room of the table"]);
}

#[test]
fn what_is_allowed_is_not_found() {
    for (path, text) in [
        (
            "proxy/tap",
            "use crate::clock::Clock;\nuse crate::wire::{sse::{Sse, Event as E}, Usage};\nuse crate::proxy::io;",
        ),
        ("engine/server/mod", "use crate::engine::{model::Engine, profile};\nuse tokio::net::TcpListener;"),
        ("load/client", "use crate::load::schedule::Arrivals;\nuse crate::{wire, vocabulary};"),
        ("wire/sse", "// see crate::proxy\n/// [`crate::proxy::tap`], as tokio::io does\nuse crate::wire::dialect;"),
        ("wire/sse", "fn f() {}\n#[cfg(test)]\nmod tests { use crate::proxy::tap; }"),
        ("app", "use crate::{config::Config, proxy, export};"),
        ("admission", "pub(crate) struct Pool;\nuse my_tokio::x;"),
    ] {
        assert_eq!(violations(path, text), Vec::<String>::new(), "{path}");
    }
}
