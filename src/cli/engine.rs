//! `weir engine`: the simulated inference engine on a port of its own, until Ctrl-C.

use anyhow::Context as _;

use super::EngineArgs;
use crate::clock::Clock;
use crate::engine::profile::Setup;
use crate::engine::server::{self, ServedFamily, Settings};

/// # Errors
/// The profile or its file is not known, or the port cannot be bound.
pub fn run(flags: &EngineArgs) -> anyhow::Result<()> {
    let clock = Clock::start();
    let mut settings = match &flags.params {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            Settings::setup("params", Setup::parse(&text)?, clock)
        }
        None => Settings::profile(&flags.profile, clock)?,
    };
    settings.seed = flags.seed;
    settings.speed = flags.speed;
    settings.faults = flags.faults;
    settings.dialect = match flags.dialect {
        super::DialectArg::Openai => ServedFamily::OpenAi,
        super::DialectArg::Ollama => ServedFamily::Ollama,
        super::DialectArg::Anthropic => ServedFamily::Anthropic,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(flags.listen)
            .await
            .with_context(|| format!("the engine cannot be bound to {}", flags.listen))?;
        eprintln!("{}", settings.sentence(listener.local_addr()?));
        let stop = async {
            let _ = tokio::signal::ctrl_c().await;
        };
        Ok(server::serve(listener, settings, stop).await?)
    })
}
