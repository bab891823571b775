//! `weir sweep`: runs load levels against a target and says where it saturates.
//!
//! What was typed becomes an order (`order`), progress goes to standard error (`watch`), results to a folder (`files`) and
//! the report to standard output. It holds no load and no verdict.

mod files;
mod order;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::sync::watch as channel;

use self::files::SweepFolder;
use self::watch::Watcher;
use super::value_enums::{FormatArg, LangArg, MeasurementRefused};
use crate::load::body::Api;
use crate::load::client::LoadTarget;
use crate::load::schedule::Rate;
use crate::load::workload::TokenLength;
use crate::offline::sweep::{Environment, Objectives, Sweep};
use crate::offline::{Analysis, report};
use crate::sweep::fill;
use crate::sweep::parts::{Merged, SweepPart};
use crate::sweep::run::{self, SweepEnd, SweepEvent, Swept};
use crate::sweep::search::SearchLoad;

/// Flags of `weir sweep`.
#[derive(Clone, Debug, Args)]
pub struct SweepArgs {
    /// Address of the server, http://HOST:PORT
    #[arg(long, value_name = "URL")]
    pub target: String,
    /// Open-loop levels, requests a second
    #[arg(long, value_name = "R,…", value_delimiter = ',', conflicts_with_all = ["concurrency", "auto"])]
    pub rates: Vec<Rate>,
    /// Closed-loop levels, requests in flight
    #[arg(long, value_name = "N,…", value_delimiter = ',', conflicts_with = "auto",
          value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub concurrency: Vec<u32>,
    /// Find the range and the knee: a closed loop up to the plateau, then rates around it (the default without levels)
    #[arg(long)]
    pub auto: bool,
    /// Requests of each level; with --auto of those that decide
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000), conflicts_with = "duration")]
    pub requests: Option<u64>,
    /// How long each level sends
    #[arg(long, value_name = "DUR", value_parser = super::duration, conflicts_with = "auto")]
    pub duration: Option<Duration>,
    /// Law of the gaps between requests
    #[arg(long, value_enum, default_value_t)]
    pub arrivals: ArrivalsWord,
    /// Shape of the gamma law, as vLLM has it: 1 is Poisson, less is burstier
    #[arg(long, value_name = "B", default_value_t = 1.0, value_parser = super::speed)]
    pub burstiness: f64,
    /// Requests in a file, JSONL: {"prompt" or "prompt_tokens", "output_tokens"}
    #[arg(long, value_name = "FILE", conflicts_with_all = ["trace", "input_tokens", "output_tokens"])]
    pub workload: Option<PathBuf>,
    /// Requests and their times from a trace: Mooncake JSONL or Azure CSV
    #[arg(long, value_name = "FILE", conflicts_with_all = ["input_tokens", "output_tokens", "auto", "concurrency"])]
    pub trace: Option<PathBuf>,
    /// Prompt length: tokens, or `lognormal:MEAN,SIGMA`
    #[arg(long, value_name = "D", default_value = "lognormal:162,0.7")]
    pub input_tokens: TokenLength,
    /// Answer length, likewise
    #[arg(long, value_name = "D", default_value = "lognormal:153,0.25")]
    pub output_tokens: TokenLength,
    /// Objective for the time to first token: goodput, and a level that breaks it is past the knee
    #[arg(long, value_name = "DUR", value_parser = super::duration)]
    pub slo_ttft: Option<Duration>,
    /// Name of the model; the first one that the server lists otherwise
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Interface that is called: openai, anthropic, ollama, or openai_chat, openai_completions, anthropic_messages,
    /// ollama_chat, ollama_generate
    #[arg(long, value_name = "API", default_value = "openai", value_parser = dialect)]
    pub dialect: Api,
    /// Ask for whole answers, not streams: no TTFT is known then
    #[arg(long)]
    pub no_stream: bool,
    /// Leave out the keys that only inference engines know (ignore_eos): answers may end before their length
    #[arg(long)]
    pub plain: bool,
    /// Header field of every request, `name: value`; repeat for more
    #[arg(long = "header", value_name = "FIELD")]
    pub headers: Vec<String>,
    /// How long answers are awaited after a level's last request
    #[arg(long, value_name = "DUR", value_parser = super::duration, default_value = "300s")]
    pub grace: Duration,
    /// Most levels of --auto
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u16).range(3..=50))]
    pub most_levels: u16,
    /// Seed of lengths, texts and times
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Of how many processes that send at once this is one: it sends its share of each load; `weir analyze` puts them together
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000), requires_all = ["part", "duration"],
          conflicts_with_all = ["auto", "trace"])]
    pub parts: Option<u32>,
    /// Which of them, from 0; an Indexed Job of Kubernetes says it in the environment
    #[arg(long, value_name = "I", env = "JOB_COMPLETION_INDEX")]
    pub part: Option<u32>,
    /// When the first level begins, such as 2026-11-24T18:00:00Z
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_rfc3339)]
    pub start_at: Option<std::time::SystemTime>,
    /// How long after its predecessor each level begins (with --parts: --duration and 60 s, if not given)
    #[arg(long, value_name = "DUR", value_parser = super::duration)]
    pub every: Option<Duration>,
    /// GPUs behind the target, for `plan` and `compare`
    #[arg(long, value_name = "N", value_parser = super::analyze::gpus)]
    pub gpus: Option<f64>,
    /// Folder for sweep.json, requests.jsonl, sweep.csv and report.html
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Language of the report
    #[arg(long, value_enum, default_value_t)]
    pub lang: LangArg,
    /// Form of the report on standard output
    #[arg(long, value_enum, default_value_t)]
    pub format: FormatArg,
}

/// `--arrivals`, as typed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ArrivalsWord {
    /// Many independent users
    #[default]
    Poisson,
    /// Equal gaps
    Constant,
    /// Gamma gaps, see --burstiness
    Gamma,
}

/// Does what was asked for.
///
/// # Errors
/// [`MeasurementRefused`] when no level says anything about the server, or together they support no verdict; else when the target or a
/// file cannot be used.
pub fn run(flags: &SweepArgs) -> anyhow::Result<()> {
    let mut order = order::of(flags)?;
    // More streams than descriptors would end a level as client-limited; what the system allows is asked for once.
    let _ = rlimit::increase_nofile_limit(MOST_DESCRIPTORS);
    let began = humantime::format_rfc3339_seconds(wall_clock()).to_string();
    let mut folder = flags.folder().as_deref().map(SweepFolder::create).transpose()?;
    let mut watcher = Watcher::new(flags.extent_seconds());
    // One thread: the client is to be no more than one core's worth of load beside the server it measures.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let swept = runtime.block_on(async {
        let target = LoadTarget::resolve(&flags.target).await?;
        if flags.model.is_none()
            && let Some(model) = target.first_model(flags.dialect).await
        {
            order.level.template.model = model;
        }
        let (sender, stop) = channel::channel(false);
        tokio::spawn(async move {
            for asked in 1.. {
                if tokio::signal::ctrl_c().await.is_err() {
                    std::future::pending::<()>().await;
                }
                if asked > 1 {
                    end_at_once();
                }
                // The receiver has ended already, or ends now.
                let _ = sender.send(true);
            }
        });
        let swept = run::run(&target, order, stop, |event| {
            match (&event, &mut folder) {
                (SweepEvent::Begin { .. }, Some(folder)) => folder.on_begin(wall_clock()),
                (SweepEvent::End { number, run, .. }, Some(folder)) => folder.on_level(*number, &run.records),
                _ => {}
            }
            watcher.on(&event);
        })
        .await;
        anyhow::Ok(swept)
    })?;
    finish(flags, &swept, began, folder)
}

/// Writes the files and the report, and says whether there was anything to report.
fn finish(flags: &SweepArgs, swept: &Swept, began: String, folder: Option<SweepFolder>) -> anyhow::Result<()> {
    eprintln!("{}", watch::ending(swept));
    if swept.end == SweepEnd::NoAnswer {
        anyhow::bail!("{} answers no request: see that the server runs, its --model and its --dialect", flags.target);
    }
    let mut analysis = Analysis::of(sweeps(flags, swept, &began));
    let part = flags.part();
    if part.is_some() {
        // Its share of the load says nothing of what the server holds.
        analysis.sweeps.iter_mut().for_each(|judged| judged.verdict.advice.clear());
    }
    if let Some(folder) = folder {
        folder.finish(&analysis, swept, part.clone(), flags.lang.into())?;
    }
    if let Some(SweepPart { index, of, .. }) = part {
        eprintln!("part {index} of {of} is done; `weir analyze` on the folders of all parts says what they found");
        return Ok(());
    }
    super::analyze::write(&report::render(&analysis, flags.format.into(), flags.lang.into()), None)?;
    if analysis.refused() {
        let why = watch::refusal(swept).unwrap_or_else(|| "the levels support no verdict".to_owned());
        return Err(MeasurementRefused(why).into());
    }
    Ok(())
}

/// A folder for the sum of parts, as one process would have written it.
pub(super) fn write_merged(out: &std::path::Path, merged: &Merged, lang: report::Lang) -> anyhow::Result<()> {
    let mut folder = SweepFolder::create(out)?;
    for level in &merged.levels {
        folder.on_merged(level);
    }
    folder.finish_merged(&Analysis::of(vec![merged.sweep.clone()]), lang)
}

/// Open and closed levels are two sweeps; the one that answers the question comes first.
fn sweeps(flags: &SweepArgs, swept: &Swept, began: &str) -> Vec<Sweep> {
    let of = |id: &str, wanted: fn(SearchLoad) -> bool| Sweep {
        id: id.to_owned(),
        environment: flags.environment(began),
        slo: flags.slo_ttft.map(|ttft| Objectives { ttft: ttft.as_secs_f64(), itl: None }),
        levels: swept
            .levels
            .iter()
            .filter(|level| wanted(level.load))
            .map(|level| fill::level(reported(level.load), &level.summary))
            .collect(),
    };
    let open = of("sweep", |load| matches!(load, SearchLoad::Open(_)));
    let closed = |id| of(id, |load| matches!(load, SearchLoad::Closed(_)));
    match (open.levels.is_empty(), closed("ladder")) {
        (true, _) => vec![closed("sweep")],
        (false, ladder) if ladder.levels.is_empty() => vec![open],
        (false, ladder) => vec![open, ladder],
    }
}

fn reported(load: SearchLoad) -> crate::offline::sweep::LevelLoad {
    match load {
        SearchLoad::Closed(clients) => crate::offline::sweep::LevelLoad::Concurrency(f64::from(clients)),
        SearchLoad::Open(rate) => crate::offline::sweep::LevelLoad::Rate(rate),
    }
}

impl SweepArgs {
    fn environment(&self, began: &str) -> Environment {
        let law = match self.arrivals {
            _ if self.trace.is_some() => "trace".to_owned(),
            ArrivalsWord::Poisson => "poisson".to_owned(),
            ArrivalsWord::Constant => "constant".to_owned(),
            ArrivalsWord::Gamma => format!("gamma {}", self.burstiness),
        };
        Environment {
            tool: Some(format!("weir sweep {}", env!("CARGO_PKG_VERSION"))),
            target: Some(self.target.clone()),
            model: self.model.clone(),
            gpus: self.gpus,
            arrivals: Some(law),
            command: Some(self.command()),
            began: Some(began.to_owned()),
            ..Environment::default()
        }
    }

    /// The flags that decide what was measured. Header fields may hold keys, and are left out.
    fn command(&self) -> String {
        let mut command = format!("weir sweep --target {}", self.target);
        let list = |values: Vec<String>| values.join(",");
        if !self.rates.is_empty() {
            command += &format!(" --rates {}", list(self.rates.iter().map(ToString::to_string).collect()));
        } else if !self.concurrency.is_empty() {
            command += &format!(" --concurrency {}", list(self.concurrency.iter().map(ToString::to_string).collect()));
        } else if self.trace.is_none() {
            command += " --auto";
        }
        if let Some(requests) = self.requests {
            command += &format!(" --requests {requests}");
        }
        if let Some(parts) = self.parts {
            command += &format!(" --parts {parts}");
        }
        if let Some(duration) = self.duration {
            command += &format!(" --duration {}", humantime::format_duration(duration));
        }
        match (&self.workload, &self.trace) {
            (Some(file), _) => command += &format!(" --workload {}", file.display()),
            (_, Some(file)) => command += &format!(" --trace {}", file.display()),
            _ => command += &format!(" --input-tokens {} --output-tokens {}", self.input_tokens, self.output_tokens),
        }
        command + &format!(" --seed {}", self.seed)
    }

    /// Which part of a sweep this is.
    fn part(&self) -> Option<SweepPart> {
        let (index, of) = (self.part?, self.parts?);
        let closed = !self.concurrency.is_empty();
        let loads = if closed {
            self.concurrency.iter().map(|clients| f64::from(*clients)).collect()
        } else {
            self.rates.iter().map(|rate| rate.per_second()).collect()
        };
        Some(SweepPart { index, of, loads, closed })
    }

    /// Parts may share a folder: each has one of its own in it.
    fn folder(&self) -> Option<PathBuf> {
        let out = self.out.clone()?;
        Some(match self.part() {
            Some(part) => out.join(format!("part-{}", part.index)),
            None => out,
        })
    }

    fn extent_seconds(&self) -> Option<f64> {
        self.duration.map(|duration| duration.as_secs_f64())
    }
}

/// Ends without files and report.
#[expect(clippy::disallowed_methods, reason = "a second Ctrl-C asks for exactly this")]
fn end_at_once() -> ! {
    std::process::exit(INTERRUPTED)
}

fn dialect(typed: &str) -> Result<Api, crate::load::body::UnknownApi> {
    match typed {
        "openai" => Ok(Api::OpenaiChat),
        "anthropic" => Ok(Api::AnthropicMessages),
        "ollama" => Ok(Api::OllamaChat),
        other => other.parse(),
    }
}

#[expect(clippy::disallowed_methods, reason = "when a sweep began is written as wall-clock time")]
fn wall_clock() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

/// What a shell shows of a process that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// Above the hard limit of any system; what it allows is what one gets.
const MOST_DESCRIPTORS: u64 = 1 << 20;
