//! The program: parses the command line, runs the command, and turns an error into an exit status. No other file does the latter.

use std::process::ExitCode;

use clap::Parser;

use weir::cli::{Cli, Exit};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(help_or_error) => {
            // Nothing can be done about a closed terminal.
            let _ = help_or_error.print();
            return if help_or_error.use_stderr() { Exit::Usage } else { Exit::Done }.into();
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
