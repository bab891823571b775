//! What is made from the program itself: the schema and the reference of the configuration, completions, man pages.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::Shell;

use super::Cli;
use crate::config::{reference, schema};

/// Flags of `weir schema`.
#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// Form of the answer
    #[arg(long, value_enum, default_value_t = SchemaForm::Json)]
    pub format: SchemaForm,
}

/// The forms of `weir schema`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SchemaForm {
    /// JSON schema, for editors and CI
    Json,
    /// A configuration file with every setting at its default
    Yaml,
    /// The tables of the reference
    Md,
}

/// Flags of `weir completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell to write for
    pub shell: Shell,
}

/// Flags of `weir man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write a page for every command into this directory, instead of weir(1) to standard output
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

pub(super) fn schema(flags: &SchemaArgs) -> anyhow::Result<()> {
    write(match flags.format {
        SchemaForm::Json => format!("{:#}\n", schema::schema()),
        SchemaForm::Yaml => reference::yaml(),
        SchemaForm::Md => reference::markdown(),
    })
}

pub(super) fn completions(flags: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(flags.shell, &mut Cli::command(), "weir", &mut script);
    write(script)
}

pub(super) fn man(flags: &ManArgs) -> anyhow::Result<()> {
    if let Some(folder) = &flags.out {
        std::fs::create_dir_all(folder)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), folder))
            .with_context(|| format!("cannot write man pages to {}", folder.display()))?;
        return Ok(());
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page)?;
    write(page)
}

/// To standard output; a reader that has had enough (`| head`) is no failure.
fn write(text: impl AsRef<[u8]>) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_ref()) {
        Err(why) if why.kind() != std::io::ErrorKind::BrokenPipe => Err(why.into()),
        _ => Ok(()),
    }
}
