//! The command line: commands, their flags, and the exit status.
//!
//! Data goes to standard output, everything else to standard error. Absent: behaviour; each command is a call.

mod analyze;
mod compare;
mod engine;
mod generate;
mod plan;
mod probe;
mod rehearse;
mod replay;
mod sweep;
mod value_enums;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use analyze::AnalyzeArgs;
pub use compare::CompareArgs;
pub use generate::{CompletionsArgs, ManArgs, SchemaArgs, SchemaForm};
pub use plan::PlanArgs;
pub use probe::ProbeArgs;
pub use rehearse::{RehearseArgs, Unmet};
pub use sweep::SweepArgs;
pub use value_enums::{FormatArg, LangArg, MeasurementRefused};

use crate::config::{Config, ConfigErrors, ConfigSource, Overrides};
use crate::demo::DemoOptions;
use crate::export::settings::LogLevel;
use crate::vocabulary::units::Span;

/// What `weir --version` says: the version, the revision of the source, the compiler.
const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (", env!("WEIR_REVISION"), ", rustc ", env!("WEIR_RUSTC"), ")");

/// Measures the saturation of LLM inference servers from in front of them, under real traffic.
#[derive(Debug, Parser)]
#[command(name = "weir", version = VERSION, about, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: CliCommand,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum CliCommand {
    /// Runs the proxy
    Serve(ServeArgs),
    /// Runs a simulated inference engine: continuous batching in real time
    Engine(EngineArgs),
    /// Runs a simulated engine, weir in front of it and a load, and prints what weir sees
    Demo(DemoArgs),
    /// Checks a configuration file without binding a port or calling a backend
    Check(CheckArgs),
    /// Sends load at several levels and reports where the server saturates
    Sweep(Box<SweepArgs>),
    /// Has a running weir find its knee with synthetic load beside its clients, within limits
    Probe(ProbeArgs),
    /// Simulates traffic, engine and estimate in virtual time and compares the outcome with what a scenario file expects
    Rehearse(RehearseArgs),
    /// Reports where a system saturates, from the results of load generators
    Analyze(AnalyzeArgs),
    /// Plans the next experiment from a baseline: levels, requests, time, tokens, commands
    Plan(PlanArgs),
    /// Compares two systems, or one before and after: speed-up, efficiency, latency, with intervals
    Compare(CompareArgs),
    /// Shows a running weir in the terminal: state, headroom, backends, the last minutes
    Top(TopArgs),
    /// Prints the JSON schema of the configuration, or the reference made from it
    Schema(SchemaArgs),
    /// Prints the completions of a shell
    Completions(CompletionsArgs),
    /// Prints the man page, or writes one for every command
    Man(ManArgs),
}

/// Flags of `weir serve`; each wins over the file.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Configuration file; not needed when --backend is given
    #[arg(long, value_name = "FILE", env = "WEIR_CONFIG", required_unless_present = "backend")]
    pub config: Option<PathBuf>,
    /// Address of the data port
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Address of an inference server, http://HOST:PORT; repeat for more
    #[arg(long, value_name = "URL")]
    pub backend: Vec<String>,
    /// Address of the admin port
    #[arg(long, value_name = "ADDR", env = "WEIR_ADMIN_LISTEN")]
    pub admin: Option<SocketAddr>,
    /// Whether to limit the load: observe or enforce (observe)
    #[arg(long, value_name = "MODE")]
    pub mode: Option<String>,
    /// Objective for the time to first token, such as 1s
    #[arg(long, value_name = "DUR", value_parser = duration)]
    pub slo_ttft: Option<Duration>,
    /// Objective for the time between tokens, such as 200ms
    #[arg(long, value_name = "DUR", value_parser = duration)]
    pub slo_itl: Option<Duration>,
    /// Lowest level of the log lines that are written
    #[arg(long, value_name = "LEVEL", env = "WEIR_LOG")]
    pub log: Option<LogLevelArg>,
}

/// `--log`, as typed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogLevelArg {
    /// An operator must act
    Error,
    /// An operator may want to know
    Warn,
    /// Normal events
    Info,
}

impl From<LogLevelArg> for LogLevel {
    fn from(word: LogLevelArg) -> Self {
        match word {
            LogLevelArg::Error => Self::Error,
            LogLevelArg::Warn => Self::Warn,
            LogLevelArg::Info => Self::Info,
        }
    }
}

/// Flags of `weir engine`.
#[derive(Debug, Args)]
pub struct EngineArgs {
    /// A built-in engine
    #[arg(long, value_name = "NAME", default_value = "seed", conflicts_with = "params")]
    pub profile: String,
    /// Parameters of the step model, as JSON
    #[arg(long, value_name = "FILE")]
    pub params: Option<PathBuf>,
    /// Address to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8200")]
    pub listen: SocketAddr,
    /// API of the engine
    #[arg(long, value_enum, default_value_t = DialectArg::Openai)]
    pub dialect: DialectArg,
    /// Seed of all random numbers
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// How many times faster than the real engine, above 0
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = speed)]
    pub speed: f64,
    /// Misbehave where a request's x-engine-fault asks for it: hang, status=N, slow-head[=MS], reset-after=TOKENS, cut-after=N,
    /// truncate-after=N, error-event-after=N, stall-after=N
    #[arg(long)]
    pub faults: bool,
}

/// The APIs a simulated engine can speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DialectArg {
    /// Chat completions, completions, responses and embeddings
    Openai,
    /// `/api/chat` and `/api/generate`
    Ollama,
    /// `/v1/messages`
    Anthropic,
}

/// Flags of `weir demo`.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// A built-in engine
    #[arg(long, value_name = "NAME", default_value = "seed")]
    pub profile: String,
    /// How many times faster than the real engine
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = speed)]
    pub speed: f64,
    /// Seed of all random numbers
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// End after the verdict instead of staying up until Ctrl-C
    #[arg(long)]
    pub exit: bool,
    /// Do not print the address of the page
    #[arg(long)]
    pub no_browser_hint: bool,
}

/// Flags of `weir top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// The admin port of the weir to look at
    #[arg(long, value_name = "URL", env = "WEIR_ADMIN", default_value = "http://127.0.0.1:9902")]
    pub admin: String,
}

/// Flags of `weir check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Configuration file
    #[arg(long, value_name = "FILE", env = "WEIR_CONFIG")]
    pub config: PathBuf,
}

impl Cli {
    /// Does what was asked for; returns when it is done.
    ///
    /// # Errors
    /// [`ConfigErrors`] for a bad configuration, anything else as the part that failed says it.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            CliCommand::Serve(flags) => serve(&flags),
            CliCommand::Engine(flags) => engine::run(&flags),
            CliCommand::Demo(flags) => crate::demo::run(&flags.into_options()),
            CliCommand::Check(flags) => check(&flags),
            CliCommand::Sweep(flags) => sweep::run(&flags),
            CliCommand::Probe(flags) => probe::run(&flags),
            CliCommand::Rehearse(flags) => rehearse::run(&flags),
            CliCommand::Analyze(flags) => analyze::run(&flags),
            CliCommand::Plan(flags) => plan::run(&flags),
            CliCommand::Compare(flags) => compare::run(&flags),
            CliCommand::Top(flags) => crate::top::run(&flags.admin, in_colour()),
            CliCommand::Schema(flags) => generate::schema(&flags),
            CliCommand::Completions(flags) => generate::completions(&flags),
            CliCommand::Man(flags) => generate::man(&flags),
        }
    }
}

impl DemoArgs {
    fn into_options(self) -> DemoOptions {
        let Self { profile, speed, seed, exit, no_browser_hint } = self;
        DemoOptions { profile, speed, seed, exit, no_browser_hint }
    }
}

impl ServeArgs {
    /// The flags as the configuration takes them.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            listen: self.listen,
            backends: self.backend.clone(),
            admin: self.admin,
            mode: self.mode.clone(),
            slo_ttft: self.slo_ttft,
            slo_itl: self.slo_itl,
            log_level: self.log.map(LogLevel::from),
            from_environment: self.from_environment(),
        }
    }

    /// Which of these values stand in the environment too: a flag that says the same changes nothing.
    fn from_environment(&self) -> Vec<(&'static str, &'static str)> {
        let admin = self.admin.map(|address| address.to_string());
        let log = self.log.map(|word| LogLevel::from(word).as_str().to_owned());
        let read = [("admin.listen", "WEIR_ADMIN_LISTEN", admin), ("log.level", "WEIR_LOG", log)];
        // Which of the two it was, clap does not say afterwards.
        #[allow(clippy::disallowed_methods, reason = "the command line and its variables are read here")]
        let says = |variable: &str, value: &Option<String>| value.is_some() && std::env::var(variable).ok() == *value;
        read.into_iter()
            .filter(|(_, variable, value)| says(variable, value))
            .map(|(path, name, _)| (path, name))
            .collect()
    }
}

fn serve(flags: &ServeArgs) -> anyhow::Result<()> {
    crate::app::serve(ConfigSource { path: flags.config.clone(), overrides: flags.overrides() })
}

fn check(flags: &CheckArgs) -> anyhow::Result<()> {
    let config = Config::load(Some(&flags.config), &Overrides::default())?;
    println!(
        "{}: valid, {} backend(s), data port {}, admin port {}",
        flags.config.display(),
        config.backends.len(),
        config.listen,
        config.admin.listen
    );
    Ok(())
}

/// <https://no-color.org>: set and not empty means none.
fn in_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
}

fn duration(typed: &str) -> Result<Duration, crate::vocabulary::units::UnitError> {
    typed.parse::<Span>().map(|span| span.0)
}

fn speed(typed: &str) -> Result<f64, String> {
    match typed.parse::<f64>() {
        Ok(speed) if speed > 0.0 && speed.is_finite() => Ok(speed),
        _ => Err("a number above 0 is needed".to_owned()),
    }
}

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0.
    Done,
    /// 1.
    Failed,
    /// 2: the command line was not understood.
    Usage,
    /// 3: the measurement was refused: too noisy, or every level failed.
    Refused,
    /// 78, `EX_CONFIG`: a supervisor should not try again.
    BadConfig,
}

impl Exit {
    /// What an error ends the process with.
    pub fn of(why: &anyhow::Error) -> Self {
        if why.is::<ConfigErrors>() {
            Self::BadConfig
        } else if why.is::<MeasurementRefused>() {
            Self::Refused
        } else {
            Self::Failed
        }
    }

    /// The number that the shell sees.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::BadConfig => 78,
        }
    }

    /// The text for standard error: one line a fault of the configuration, else one sentence with its causes.
    pub fn sentences(self, why: &anyhow::Error) -> String {
        match self {
            Self::BadConfig => why.to_string(),
            _ => format!("weir: {why:#}"),
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }

    #[test]
    fn backends_alone_are_enough() {
        let cli = parse("weir serve --backend http://a --backend http://b --slo-ttft 500ms").unwrap();
        let CliCommand::Serve(flags) = cli.command else { panic!("not serve") };
        assert_eq!(flags.overrides().backends, ["http://a", "http://b"]);
        assert_eq!(flags.slo_ttft, Some(Duration::from_millis(500)));
    }

    #[test]
    fn neither_file_nor_backend_is_a_usage_error() {
        assert!(parse("weir serve").unwrap_err().use_stderr());
        assert!(parse("weir serve --backend http://a --slo-ttft 5").unwrap_err().to_string().contains("has no unit"));
        let version = parse("weir --version").unwrap_err();
        assert!(!version.use_stderr());
        assert!(version.to_string().starts_with("weir ") && version.to_string().contains(", rustc "), "{version}");
    }

    #[test]
    fn an_engine_has_a_speed_above_zero() {
        let cli = parse("weir engine --speed 0.5 --faults").unwrap();
        assert!(matches!(cli.command, CliCommand::Engine(EngineArgs { speed: 0.5, faults: true, .. })));
        for bad in ["0", "-1", "inf", "NaN", "fast"] {
            let why = parse(&format!("weir engine --speed={bad}")).unwrap_err().to_string();
            assert!(why.contains("a number above 0 is needed"), "{why}");
        }
    }

    #[test]
    fn a_bad_configuration_has_its_own_exit_code() {
        let flags = Overrides { backends: vec!["https://a".into()], ..Overrides::default() };
        let why = anyhow::Error::from(Config::load(None, &flags).unwrap_err());
        assert_eq!(Exit::of(&why), Exit::BadConfig);
        assert_eq!(Exit::of(&anyhow::anyhow!("other")), Exit::Failed);
        assert!(Exit::BadConfig.sentences(&why).starts_with("command line: --backend: `https://a`: TLS"));
    }
}
