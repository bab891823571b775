//! A load beyond the capacity of a simulated engine in real time, seen from the clients: what was served in time, what was
//! refused and how fast. The capacity is measured on the same machine, in the same minute, on an engine of the same kind.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use weir::clock::Clock;
use weir::engine::profile::{LengthLaw, Setup};
use weir::load::client::LoadTarget;
use weir::load::record::{LoadOutcome, LoadRecord};
use weir::load::runner::{LoadLevel, run_level};
use weir::load::schedule::Rate;
use weir::load::workload::{TokenLength, Workload};
use weir::vocabulary::time::Timestamp;

use super::exposition::Text;
use super::{Engine, Weir};

/// An engine and the objective that goes with it.
#[derive(Clone, Copy)]
pub struct Case {
    pub setup: Setup,
    pub speed: f64,
    pub slo_ttft: Duration,
}

/// What clients saw between the ramp and the last request.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Completed within the objective, a second.
    pub goodput: f64,
    /// Of those that were served.
    pub ttft_p50: f64,
    pub ttft_p99: f64,
    /// Of those that were refused at once (no wait in the queue), seconds.
    pub shed_p99: f64,
    pub offered: usize,
    pub served: usize,
    pub shed: usize,
    pub late: usize,
    /// What weir said it would have refused, over the whole run.
    pub would_shed: f64,
}

impl Case {
    fn engine(&self) -> Engine {
        let Self { setup, speed, .. } = *self;
        Engine::with(Clock::start(), |settings| {
            (settings.setup, settings.speed, settings.recorder) = (setup, speed, None)
        })
    }

    /// Completions a second of an engine with more work than it can take, without anybody between.
    pub fn capacity(&self, workers: u32, seconds: f64) -> f64 {
        let engine = self.engine();
        let mut level = LoadLevel::closed(NonZeroU32::new(workers).unwrap(), 1_000_000);
        level.workload = self.workload(3);
        let records = play(engine.address, level, seconds);
        let (from, to) = window(&records, seconds);
        let ended = |r: &&LoadRecord| r.outcome == LoadOutcome::Completed && (from..to).contains(&r.end);
        records.iter().filter(ended).count() as f64 / to.since(from).as_secs_f64()
    }

    /// `rate` requests a second for `seconds`, through a weir of its own with these settings.
    pub fn through_weir(&self, settings: &str, rate: f64, seconds: f64) -> Seen {
        let engine = self.engine();
        let slo = humantime::format_duration(self.slo_ttft).to_string();
        let weir = Weir::reading_engines(&[engine.address], &format!("slo: {{ttft: {slo}}}\n{settings}"));
        let mut seen = self.load(weir.address, rate, seconds);
        weir.snapshot();
        let metrics = Text::parse(&weir.page("/metrics")).unwrap();
        seen.would_shed = metrics.sum("weir_requests_would_shed_total", |_| true);
        seen
    }

    /// The same without anybody between.
    pub fn load(&self, address: SocketAddr, rate: f64, seconds: f64) -> Seen {
        let mut level = LoadLevel::open(Rate::new(rate).unwrap(), (rate * seconds) as u64);
        level.workload = self.workload(7);
        level.grace = self.slo_ttft * 2;
        self.judge(&play(address, level, f64::INFINITY), seconds)
    }

    fn judge(&self, records: &[LoadRecord], seconds: f64) -> Seen {
        let (from, to) = window(records, seconds);
        let within: Vec<&LoadRecord> = records.iter().filter(|r| (from..to).contains(&r.intended)).collect();
        let took = |r: &LoadRecord, at: Timestamp| at.since(r.intended).as_secs_f64();
        let objective = self.slo_ttft.as_secs_f64();
        let mut ttft: Vec<f64> = within.iter().filter_map(|r| Some(took(r, r.first_token?))).collect();
        let at_once = |r: &&&LoadRecord| matches!(r.outcome, LoadOutcome::Shed { .. }) && took(r, r.end) < AT_ONCE;
        let mut sheds: Vec<f64> = within.iter().filter(at_once).map(|r| took(r, r.end)).collect();
        ttft.sort_by(f64::total_cmp);
        sheds.sort_by(f64::total_cmp);
        let good = records.iter().filter(|r| {
            let on_time = r.first_token.is_some_and(|at| took(r, at) <= objective);
            r.outcome == LoadOutcome::Completed && on_time && (from..to).contains(&r.end)
        });
        Seen {
            goodput: good.count() as f64 / to.since(from).as_secs_f64(),
            ttft_p50: quantile(&ttft, 0.5),
            ttft_p99: quantile(&ttft, 0.99),
            shed_p99: quantile(&sheds, 0.99),
            offered: within.len(),
            served: ttft.len(),
            shed: within.iter().filter(|r| matches!(r.outcome, LoadOutcome::Shed { .. })).count(),
            late: ttft.iter().filter(|t| **t > objective).count(),
            would_shed: 0.0,
        }
    }

    fn workload(&self, seed: u64) -> Workload {
        let law = |LengthLaw { mean, sigma }: LengthLaw| TokenLength::LogNormal { mean, sigma };
        let usual = self.setup.workload;
        Workload { prompt: law(usual.prompt), output: law(usual.output), seed }
    }
}

/// Plays a level; a closed one for `seconds`.
fn play(address: SocketAddr, level: LoadLevel, seconds: f64) -> Vec<LoadRecord> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let target = LoadTarget::resolve(&format!("http://{address}")).await.unwrap();
        let stop = async {
            match seconds.is_finite() {
                true => tokio::time::sleep(Duration::from_secs_f64(seconds)).await,
                false => std::future::pending().await,
            }
        };
        run_level(&target, &level, stop, |_| {}).await.records
    })
}

/// From the ramp's end to the last request.
fn window(records: &[LoadRecord], seconds: f64) -> (Timestamp, Timestamp) {
    let first = records.iter().map(|r| r.intended).min().unwrap_or_default();
    let span = Duration::from_secs_f64(seconds);
    (first + span.mul_f64(RAMP), first + span)
}

fn quantile(sorted: &[f64], q: f64) -> f64 {
    sorted.get(((sorted.len() as f64 * q) as usize).min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// Part of a run until the engine is full and the window has opened.
const RAMP: f64 = 0.35;
/// A refusal that took longer came after a wait in the queue.
const AT_ONCE: f64 = 0.1;
