//! `weir demo`: a simulated engine, weir in front of it, and a load at several levels around the engine's capacity.
//!
//! The table is read off weir's own books, not off the load's. At the end stands what weir made of it beside the engine's known
//! truth, and the same overload once more with enforcement, beside the one without. One process, loopback only.

mod sides;
mod verdict;

use std::net::SocketAddr;
use std::time::Duration;

use crate::admission::Mode;
use crate::app;
use crate::clock::Clock;
use crate::config::{Config, Overrides};
use crate::demo::sides::OverloadSide;
use crate::demo::verdict::Witness;
use crate::engine::profile::{LengthLaw, Profile};
use crate::engine::server::{self, Settings};
use crate::estimate::Reading;
use crate::load::client::LoadTarget;
use crate::load::runner::{LoadLevel, run_level};
use crate::load::schedule::Rate;
use crate::load::workload::{TokenLength, Workload};
use crate::measure::{Buckets, Outcome, Snapshot};

/// What `weir demo` is run with.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// A built-in engine.
    pub profile: String,
    /// How many times faster than the real engine.
    pub speed: f64,
    /// Seed of all random numbers.
    pub seed: u64,
    /// Whether to end after the verdict.
    pub exit: bool,
    /// Whether to leave out the address of the page.
    pub no_browser_hint: bool,
}

/// Runs the levels and prints a line for each.
///
/// # Errors
/// The profile is not known, or a part cannot be started.
// Long: the levels in the order in which they are printed, in one runtime.
pub fn run(flags: &DemoOptions) -> anyhow::Result<()> {
    let clock = Clock::start();
    let mut settings = Settings::profile(&flags.profile, clock)?;
    settings.seed = flags.seed;
    settings.speed = flags.speed;
    let profile = Profile::named(&flags.profile)?;
    let capacity = profile.capacity * flags.speed;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(loopback()).await?;
        let engine = listener.local_addr()?;
        tokio::spawn(server::serve(listener, settings, std::future::pending()));
        let overrides = Overrides {
            listen: Some(loopback()),
            admin: Some(loopback()),
            backends: vec![format!("http://{engine}")],
            ..Overrides::default()
        };
        let mut config = Config::load(None, &overrides)?;
        config.slo.ttft = profile.slo_ttft;
        let params = profile.setup.params;
        for server in &mut config.backends {
            server.inside.max_num_seqs = Some(params.max_num_seqs.get());
            server.inside.kv_tokens = Some(params.kv_tokens.get());
            server.inside.max_num_batched_tokens = Some(params.max_num_batched_tokens.get());
        }
        let running = app::start(config, |_| {})?;
        let mut witness = Witness::default();
        println!("engine {} (capacity {capacity:.1} req/s) behind weir on {}", flags.profile, running.address);
        if !flags.no_browser_hint {
            println!("open in a browser: http://{}/", running.admin);
        }
        println!("metrics and status: http://{}/metrics  http://{}/status", running.admin, running.admin);
        println!("{HEADER}");
        let target = LoadTarget::resolve(&format!("http://{}", running.address)).await?;
        let mut overloads = Vec::new();
        for (share, mode) in LEVELS {
            running.proxy.rules.load().set_mode(mode);
            let rate = capacity * share;
            let before = running.proxy.ledger.snapshot(running.proxy.clock.now());
            let mut level = LoadLevel::open(Rate::new(rate)?, (rate * LEVEL_SECONDS).ceil() as u64);
            level.workload = workload(profile, flags.seed);
            let (mut peak, mut steady, mut state) = (0, Vec::new(), String::new());
            let run = run_level(&target, &level, std::future::pending(), |_| {
                let now = running.proxy.ledger.snapshot(running.proxy.clock.now());
                peak = peak.max(now.accounts.iter().map(|books| books.in_flight()).sum());
                let elapsed = now.at.since(before.at).as_secs_f64();
                if let Some(Some(judged)) = running.estimates().into_iter().next() {
                    witness.on_reading(judged.reading, now.at);
                }
                if (RAMP_SECONDS..=LEVEL_SECONDS).contains(&elapsed) {
                    steady.truncate(1);
                    steady.push(now);
                    state = witness.last().map(stand).unwrap_or_default();
                }
            })
            .await;
            let after = running.proxy.ledger.snapshot(running.proxy.clock.now());
            if let [from, to] = &steady[..] {
                let enforced = if mode == Mode::Enforce { ", enforced" } else { "" };
                println!("{} {state}{enforced}", row(rate, (from, to), &before, &after, peak));
            }
            if share == OVERLOAD {
                let [ramp, end] = [RAMP_SECONDS, LEVEL_SECONDS].map(Duration::from_secs_f64);
                overloads.push(OverloadSide::of(&run.records, profile.slo_ttft, ramp, end));
            }
        }
        println!("{}", witness.verdict(profile, flags.speed));
        if let [without, with] = &overloads[..] {
            println!("{}", sides::beside(without, with, OVERLOAD, capacity, profile.slo_ttft));
        }
        if !flags.exit {
            println!("Ctrl-C ends it");
            tokio::signal::ctrl_c().await?;
        }
        tokio::task::spawn_blocking(move || running.stop()).await?;
        Ok(())
    })
}

/// The state, and the load as a multiple of the knee's once that is known.
fn stand(reading: &Reading) -> String {
    match reading.ratio {
        Some(ratio) => format!("{} {ratio:.1}", reading.state.word()),
        None => reading.state.word().to_owned(),
    }
}

/// The requests that the profile's engine usually serves.
fn workload(profile: &Profile, seed: u64) -> Workload {
    let law = |law: LengthLaw| TokenLength::LogNormal { mean: law.mean, sigma: law.sigma };
    let usual = profile.setup.workload;
    Workload { prompt: law(usual.prompt), output: law(usual.output), seed }
}

/// One level: rates over its steady window, so that neither ramp nor drain is in them; latencies over all of it.
fn row(rate: f64, (from, to): (&Snapshot, &Snapshot), before: &Snapshot, after: &Snapshot, peak: u64) -> String {
    let span = to.at.since(from.at).as_secs_f64();
    let total = |snapshot: &Snapshot, of: fn(&crate::measure::AccountStats) -> u64| {
        snapshot.accounts.iter().map(|account| of(account)).sum::<u64>()
    };
    let grown = |of: fn(&crate::measure::AccountStats) -> u64| (total(to, of) - total(from, of)) as f64 / span;
    let ttft = Grown::of(before, after, |books| &books.ttft[1]);
    let itl = Grown::of(before, after, |books| &books.itl);
    format!(
        "{rate:>9.1} {:>9.2} {:>9.2} {:>10.1} {:>10.1} {:>8.1} {:>9.0} {peak:>9}",
        grown(|books| books.offered()),
        grown(|books| books.finished(Outcome::Completed)),
        ttft.mean() * 1e3,
        ttft.quantile(0.99) * 1e3,
        itl.mean() * 1e3,
        grown(|books| books.output_tokens.iter().sum()),
    )
}

/// What a histogram gained between two snapshots.
struct Grown {
    upper: Vec<f64>,
    counts: Vec<u64>,
    sum: f64,
}

impl Grown {
    fn of(before: &Snapshot, after: &Snapshot, of: fn(&crate::measure::AccountStats) -> &Buckets) -> Self {
        let mut grown = Self { upper: Vec::new(), counts: Vec::new(), sum: 0.0 };
        for (snapshot, sign) in [(after, 1_i64), (before, -1)] {
            for buckets in snapshot.accounts.iter().map(|account| of(account)) {
                grown.upper = buckets.bounds().upper().iter().map(|nanos| *nanos as f64 / 1e9).collect();
                grown.counts.resize(buckets.counts().len(), 0);
                for (mine, theirs) in grown.counts.iter_mut().zip(buckets.counts()) {
                    *mine = mine.wrapping_add_signed(sign * i64::try_from(*theirs).unwrap_or(0));
                }
                grown.sum += sign as f64 * buckets.sum_outward();
            }
        }
        grown
    }

    fn mean(&self) -> f64 {
        let count: u64 = self.counts.iter().sum();
        if count == 0 { 0.0 } else { self.sum / count as f64 }
    }

    /// The upper bound of the bucket that holds the quantile; the last finite bound for what is above all.
    fn quantile(&self, q: f64) -> f64 {
        let rank = (self.counts.iter().sum::<u64>() as f64 * q).ceil() as u64;
        let mut below = 0;
        let place = self.counts.iter().position(|count| {
            below += count;
            below >= rank
        });
        place.and_then(|place| self.upper.get(place).or(self.upper.last())).copied().unwrap_or(0.0)
    }
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

const HEADER: &str = "requested   offered completed  TTFT mean  TTFT p99<   ITL ms  tokens/s in-flight state, load\n    req/s     req/s     req/s         ms         ms     mean                 peak over knee";
/// Levels as shares of the engine's capacity; the last one is played twice.
const LEVELS: [(f64, Mode); 6] = [
    (0.5, Mode::Observe),
    (0.8, Mode::Observe),
    (1.0, Mode::Observe),
    (1.5, Mode::Observe),
    (OVERLOAD, Mode::Observe),
    (OVERLOAD, Mode::Enforce),
];
const OVERLOAD: f64 = 2.0;
const LEVEL_SECONDS: f64 = 14.0;
/// Until a level has filled the engine: about the length of one answer.
const RAMP_SECONDS: f64 = 5.0;
