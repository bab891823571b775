//! `weir probe`: starts, stops and shows synthetic load in a running weir, through its admin port.
//!
//! Absent: load. The running weir decides what it sends and when it ends.

use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::value_enums::MeasurementRefused;
use crate::load::client::LoadTarget;

/// Flags of `weir probe`.
#[derive(Clone, Debug, Args)]
pub struct ProbeArgs {
    /// What to do
    #[arg(value_enum)]
    pub act: ProbeAct,
    /// Address of the admin port
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9902")]
    pub admin: String,
    /// The admin token
    #[arg(long, value_name = "TOKEN", env = "WEIR_ADMIN_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// With start: wait for the end and print what was found; exit status 3 when nothing was
    #[arg(long)]
    pub wait: bool,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProbeAct {
    /// Begin a run
    Start,
    /// End it
    Stop,
    /// Say how it goes
    Status,
}

/// Does what was asked for; prints the status.
///
/// # Errors
/// The port cannot be asked or says no; [`MeasurementRefused`] when a run that was waited for found no knee.
pub fn run(flags: &ProbeArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let target = LoadTarget::resolve(&flags.admin).await?;
        let mut status = ask(&target, flags, flags.act).await?;
        if flags.wait && flags.act == ProbeAct::Start {
            while status["running"] == true {
                tokio::time::sleep(LOOK_EVERY).await;
                status = ask(&target, flags, ProbeAct::Status).await?;
            }
        }
        println!("{status:#}");
        if flags.wait && status["last"]["knee"].is_null() {
            let why = status["last"]["reason"].as_str().unwrap_or("no run has ended").to_owned();
            return Err(MeasurementRefused(why).into());
        }
        Ok(())
    })
}

async fn ask(target: &LoadTarget, flags: &ProbeArgs, act: ProbeAct) -> anyhow::Result<Value> {
    let (method, path) = match act {
        ProbeAct::Start => (http::Method::POST, "/probe?set=start"),
        ProbeAct::Stop => (http::Method::POST, "/probe?set=stop"),
        ProbeAct::Status => (http::Method::GET, "/probe"),
    };
    let answer = target.ask(method, path, flags.token.as_deref(), PATIENCE).await;
    let (status, body) = answer.with_context(|| format!("{} does not answer", flags.admin))?;
    let body: Value = serde_json::from_slice(&body).with_context(|| format!("{} is no admin port", flags.admin))?;
    match body["error"].as_str() {
        Some(why) => anyhow::bail!("{} says {status}: {why}", flags.admin),
        None => Ok(body),
    }
}

const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_secs(1);
