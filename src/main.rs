//! Parse, run, exit code: the one place where an error becomes an exit status.

use std::process::ExitCode;

use clap::Parser;

use weir::cli::{Cli, Exit};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(asked_or_wrong) => {
            // Nothing can be done about a closed terminal.
            let _ = asked_or_wrong.print();
            return if asked_or_wrong.use_stderr() { Exit::Usage } else { Exit::Done }.into();
        }
    };
    match cli.run() {
        Ok(()) => Exit::Done.into(),
        Err(why) => {
            let exit = Exit::of(&why);
            eprintln!("{}", exit.sentences(&why));
            exit.into()
        }
    }
}
