//! Names what is being built for `weir --version`: the revision of the source and the compiler. It makes no code and fails no build.
//!
//! A development build names no revision: it would have to be compiled again after every commit, or tell an old one. A release
//! build is made again whenever the source or the checked-out commit changed, so what it tells is true.

// The environment is what a build script is told things by.
#![allow(clippy::disallowed_methods)]

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What ends up in the binary; a change of any of these makes the tree differ from its commit.
const SOURCES: [&str; 5] = ["src", "build.rs", "Cargo.toml", "Cargo.lock", "config"];
/// Digits of a revision: enough to be unique, short enough to be typed.
const DIGITS: &str = "--short=12";

fn main() {
    println!("cargo::rerun-if-env-changed=WEIR_REVISION");
    println!("cargo::rerun-if-changed=build.rs");
    let revision = if env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        SOURCES.iter().for_each(|path| println!("cargo::rerun-if-changed={path}"));
        given().or_else(checked_out).or_else(packaged).unwrap_or_else(|| "unknown revision".into())
    } else {
        "development build".into()
    };
    let compiler =
        env::var_os("RUSTC").and_then(|rustc| said(Command::new(rustc).arg("--version"))).unwrap_or_default();
    println!("cargo::rustc-env=WEIR_REVISION={revision}");
    println!("cargo::rustc-env=WEIR_RUSTC={}", compiler.strip_prefix("rustc ").unwrap_or("unknown"));
}

/// By whoever builds: an image is built from a context without `.git`.
fn given() -> Option<String> {
    env::var("WEIR_REVISION").ok().filter(|revision| !revision.is_empty())
}

/// The commit that is checked out, and whether the sources differ from it. A tree that lies inside somebody else's
/// repository is none of its commits.
fn checked_out() -> Option<String> {
    let top = PathBuf::from(git(&["rev-parse", "--show-toplevel"])?);
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR")?);
    if top.canonicalize().ok()? != here.canonicalize().ok()? {
        return None;
    }
    for name in ["HEAD", "packed-refs"].map(String::from).into_iter().chain(git(&["symbolic-ref", "--quiet", "HEAD"])) {
        // A path that does not exist would have the build made again every time.
        if let Some(path) = git(&["rev-parse", "--git-path", &name]).filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let revision = git(&["rev-parse", DIGITS, "HEAD"])?;
    let mut status = vec!["status", "--porcelain", "--untracked-files=no", "--"];
    status.extend(SOURCES);
    let changed = git(&status).is_none_or(|files| !files.is_empty());
    Some(if changed { format!("{revision}-changed") } else { revision })
}

/// The commit that `cargo package` wrote down.
fn packaged() -> Option<String> {
    let text = std::fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let digits = text.split_once("\"sha1\": \"")?.1.split('"').next()?;
    Some(digits.get(..12)?.to_owned())
}

fn git(arguments: &[&str]) -> Option<String> {
    said(Command::new("git").args(arguments))
}

/// The standard output of a program that went well.
fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
