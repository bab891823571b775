//! A fake of NVIDIA's library, compiled for one test, which tells it what to answer.

use std::path::{Path, PathBuf};
use std::process::Command;

/// One compiled fake in a folder of its own, removed with it.
pub struct FakeNvml {
    folder: PathBuf,
}

impl FakeNvml {
    /// Compiled with the system's C compiler, which the build of weir needs as well.
    pub fn build(test: &str) -> Self {
        Self::with(test, &[])
    }

    /// As an old driver has it, without some of the calls.
    pub fn old(test: &str) -> Self {
        Self::with(test, &["-DOLD"])
    }

    fn with(test: &str, flags: &[&str]) -> Self {
        let folder = super::weir::scratch(&format!("nvml-{test}"));
        std::fs::create_dir_all(&folder).unwrap();
        let fake = Self { folder };
        fake.answer("");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/fakenvml.c");
        let control_loop = format!("-DSTEER=\"{}\"", fake.control_loop().display());
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", &control_loop, "-o"]).arg(fake.library()).arg(source).args(flags);
        assert!(compiler.status().unwrap().success());
        fake
    }

    /// What it answers from now on: lines of `key value`, see fakenvml.c.
    pub fn answer(&self, lines: &str) {
        // Replaced in one step: it may be read at any moment.
        let new = self.folder.join("new");
        std::fs::write(&new, format!("{lines}\n")).unwrap();
        std::fs::rename(new, self.control_loop()).unwrap();
    }

    /// The settings that read it.
    pub fn settings(&self) -> String {
        format!("gpu: {{interval: 100ms, library: {}}}\n", self.library().display())
    }

    pub fn library(&self) -> PathBuf {
        self.folder.join("libnvidia-ml.so.1")
    }

    fn control_loop(&self) -> PathBuf {
        self.folder.join("control_loop")
    }
}

impl Drop for FakeNvml {
    fn drop(&mut self) {
        self.answer("");
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
