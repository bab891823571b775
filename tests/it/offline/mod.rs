//! What `analyze`, `plan` and `compare` make of results: our own runs, published sweeps where they are at hand, simulated ones.

mod broken;
mod comparing;
mod labelled;
mod reference;
mod samples;
mod schema;
mod simulated;
mod written;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A file of `tests/data/results`.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/results").join(name)
}

/// A file of `../shared/data`; one line when it is not there.
pub fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(name);
    if !path.exists() {
        println!("../shared/data/{name}: absent, left out");
    }
    path.exists().then_some(path)
}

/// weir with these arguments, to its end.
pub fn weir(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir")).args(arguments).output().unwrap()
}

/// Standard output as JSON.
pub fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|why| panic!("{why}: {}", String::from_utf8_lossy(&output.stdout)))
}
