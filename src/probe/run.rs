//! A run: some synthetic requests in flight, watched ten times a second, ended at once when the guard says so.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::guard::{Guard, GuardView, StopReason};
use super::ladder::{HeldStep, Ladder, NextStep, ProbedKnee};
use super::settings::Settings;
use crate::admission::pool::{Acquire, Permit, Pool, Refused};
use crate::admission::{AdmissionRequest, Class, Tenant};
use crate::clock::Clock;
use crate::export::probe::{ProbeControl, RunSummary, SeenKnee, Status, SyntheticOutcome, SyntheticShare};
use crate::load::body::BodyTemplate;
use crate::load::client::{Client, GiveUp, LoadTarget, PreparedRequest};
use crate::load::record::{LoadOutcome, LoadRecord};
use crate::load::workload::{TokenLength, Workload};
use crate::measure::snapshot::Snapshot;
use crate::measure::{AccountStats, BucketSettings, Buckets, Ledger, Objective, ObjectiveResult, Phase};
use crate::vocabulary::backend_id::BackendId;
use crate::vocabulary::time::Timestamp;

/// What a run needs of the process it runs in.
#[derive(Clone)]
pub struct ProbeContext {
    /// The process's clock.
    pub clock: Clock,
    /// The backends and the lines before them.
    pub pool: Arc<Pool>,
    /// The books of clients.
    pub ledger: Arc<Ledger>,
    /// Addresses of the backends, with their places.
    pub backends: Arc<dyn Fn() -> Vec<(BackendId, String)> + Send + Sync>,
    /// Whether the estimate calls any backend saturated.
    pub saturated: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Whether the process drains.
    pub draining: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// Starts and stops runs, one at a time.
pub struct Prober {
    context: ProbeContext,
    settings: Settings,
    progress: Arc<ProbeProgress>,
}

/// What a run and those who ask about it share.
#[derive(Default)]
struct ProbeProgress {
    running: AtomicBool,
    asked_to_stop: AtomicBool,
    held: AtomicU64,
    in_flight: AtomicU64,
    decoding: AtomicU64,
    sent: AtomicU64,
    tokens: AtomicU64,
    /// When the next request may be sent.
    next: Mutex<Timestamp>,
    past: Mutex<RunHistory>,
}

/// What is kept from run to run.
#[derive(Default)]
struct RunHistory {
    backends: Vec<SyntheticShare>,
    last: Option<RunSummary>,
}

impl Prober {
    /// A prober that has never run.
    pub fn new(context: ProbeContext, settings: Settings) -> Self {
        let progress = ProbeProgress::default();
        progress.past().backends = vec![no_share(); (context.backends)().len()];
        Self { context, settings, progress: Arc::new(progress) }
    }
}

impl ProbeControl for Prober {
    fn start(&self) -> Result<(), String> {
        if self.progress.running.swap(true, Relaxed) {
            return Err("a run is under way".to_owned());
        }
        self.progress.asked_to_stop.store(false, Relaxed);
        let run = Arc::new(ProbeRun {
            context: self.context.clone(),
            settings: self.settings,
            progress: self.progress.clone(),
        });
        let progress = self.progress.clone();
        let thread = std::thread::Builder::new().name("weir-probe".into()).spawn(move || {
            let _over = RunGuard(progress);
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(run.run()),
                Err(error) => tracing::error!(%error, "a probe could not begin"),
            }
        });
        thread.map(|_| ()).map_err(|error| {
            self.progress.running.store(false, Relaxed);
            format!("no thread for it: {error}")
        })
    }

    fn stop(&self) -> bool {
        self.progress.asked_to_stop.store(true, Relaxed);
        self.progress.running.load(Relaxed)
    }

    fn status(&self) -> Status {
        let progress = &self.progress;
        let past = progress.past();
        Status {
            running: progress.running.load(Relaxed),
            held: progress.held.load(Relaxed),
            in_flight: progress.in_flight.load(Relaxed),
            backends: past.backends.clone(),
            last: past.last.clone(),
        }
    }
}

impl ProbeProgress {
    fn past(&self) -> MutexGuard<'_, RunHistory> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn on_end(&self, backend: BackendId, ended: SyntheticOutcome, ttft: Option<Duration>) {
        let (mut past, place) = (self.past(), backend.index());
        let shares = &mut past.backends;
        shares.resize_with(shares.len().max(place + 1), no_share);
        shares[place].ended[ended as usize] += 1;
        if let Some(ttft) = ttft {
            shares[place].ttft.record(u64::try_from(ttft.as_nanos()).unwrap_or(u64::MAX));
        }
    }
}

fn no_share() -> SyntheticShare {
    SyntheticShare { ended: Default::default(), ttft: Buckets::new(&BucketSettings::default().ttft) }
}

/// Says that a run is over, however it ends.
struct RunGuard(Arc<ProbeProgress>);

impl Drop for RunGuard {
    fn drop(&mut self) {
        self.0.held.store(0, Relaxed);
        self.0.running.store(false, Relaxed);
    }
}

struct ProbeRun {
    context: ProbeContext,
    settings: Settings,
    progress: Arc<ProbeProgress>,
}

impl ProbeRun {
    async fn run(self: Arc<Self>) {
        tracing::info!("a probe begins");
        let began = ProbeTotals::of(&self.progress);
        let mut ladder = Ladder::new(self.settings.max_in_flight);
        let (stop, knee) = self.climb(&began, &mut ladder).await;
        tracing::info!(reason = stop.word(), "a probe ended: {stop}");
        let seen = self.seen(stop, knee, ladder.best());
        self.progress.past().last = Some(seen);
    }

    /// Watches clients for a while, then holds step after step, until something ends it. With the crew its requests end.
    async fn climb(self: &Arc<Self>, began: &ProbeTotals, ladder: &mut Ladder) -> (StopReason, Option<ProbedKnee>) {
        let mut guard = Guard::new(self.settings);
        let alone = match self.watch(LOOK, began, |view| guard.before(view)).await {
            Ok(watched) => watched,
            Err(stop) => return (stop, None),
        };
        let mut crew = match Crew::new(self).await {
            Ok(crew) => crew,
            Err(stop) => return (stop, None),
        };
        loop {
            let held = match ladder.next(alone.batch) {
                NextStep::Hold(held) => held,
                NextStep::Found(knee) => return (StopReason::Found, Some(knee)),
                NextStep::NotReached => return (StopReason::NotReached, None),
            };
            let settle = self.settings.step / 3;
            crew.hold(held, settle / 2);
            self.progress.held.store(u64::from(held), Relaxed);
            for (span, counts) in [(settle, false), (self.settings.step - settle, true)] {
                match self.watch(span, began, |view| guard.during(view)).await {
                    Ok(Watched { batch, tokens }) if counts => ladder.on_step(HeldStep { held, batch, tokens }),
                    Ok(_) => {}
                    Err(stop) => return (stop, None),
                }
            }
        }
    }

    /// Looks ten times a second for `span`. `Err`: the guard, or somebody, wants an end.
    async fn watch(
        &self,
        span: Duration,
        began: &ProbeTotals,
        mut guard: impl FnMut(&GuardView) -> Option<StopReason>,
    ) -> Result<Watched, StopReason> {
        let clock = self.context.clock;
        let (from, mut looks, mut batch) = (clock.now(), 0_u32, 0.0);
        let events_before = self.events(&self.context.ledger.snapshot(from));
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let now = clock.now();
            let snapshot = self.context.ledger.snapshot(now);
            if self.progress.asked_to_stop.load(Relaxed) {
                return Err(StopReason::Asked);
            }
            if let Some(stop) = guard(&self.view(&snapshot, began)) {
                return Err(stop);
            }
            let clients: u64 = snapshot.accounts.iter().map(|books| books.in_flight[Phase::Decode.index()]).sum();
            batch += (clients + self.progress.decoding.load(Relaxed)) as f64;
            looks += 1;
            let seconds = now.since(from).as_secs_f64();
            if now.since(from) >= span {
                let events = self.events(&snapshot) - events_before;
                return Ok(Watched { batch: batch / f64::from(looks), tokens: events / seconds });
            }
        }
    }

    /// Output tokens so far, of clients and run. Events are counted as they come, usage only at the end: clients' events are
    /// scaled by what usage made of them.
    fn events(&self, snapshot: &Snapshot) -> f64 {
        let sum = |of: fn(&AccountStats) -> u64| snapshot.accounts.iter().map(|books| of(books)).sum::<u64>() as f64;
        let (events, ended) = (sum(|books| books.chunks), sum(|books| books.output_tokens.iter().sum()));
        // What is still on its way has events and no usage yet: a few per cent once thousands have ended.
        let an_event = if events > 0.0 { (ended / events).max(1.0) } else { 1.0 };
        events * an_event + self.progress.tokens.load(Relaxed) as f64
    }

    fn view(&self, snapshot: &Snapshot, began: &ProbeTotals) -> GuardView {
        let sum = |of: fn(&AccountStats) -> u64| snapshot.accounts.iter().map(|books| of(books)).sum::<u64>();
        let unix = self.context.clock.unix_seconds(snapshot.at);
        let totals = ProbeTotals::of(&self.progress).since(began);
        let oldest = snapshot.accounts.iter().filter_map(|books| books.oldest_queued).min();
        GuardView {
            now: snapshot.at,
            time_of_day: Duration::from_secs_f64(unix.max(0.0) % 86_400.0),
            offered: sum(|books| books.offered()),
            met: sum(|books| books.slo[Objective::Ttft.index()][ObjectiveResult::Met.index()]),
            missed: sum(|books| books.slo[Objective::Ttft.index()][ObjectiveResult::Missed.index()]),
            queued: sum(|books| books.queued.iter().sum()),
            queued_for: oldest.map_or(Duration::ZERO, |since| snapshot.at.since(since)),
            pending: sum(|books| books.pending),
            saturated: (self.context.saturated)(),
            draining: (self.context.draining)(),
            tokens: totals.tokens,
            failed: totals.failed,
            ended: totals.ended,
        }
    }

    /// What is told of the run: the knee in requests of the clients' own length, where that is known.
    fn seen(&self, stop: StopReason, knee: Option<ProbedKnee>, best: Option<f64>) -> RunSummary {
        let now = self.context.clock.now();
        let snapshot = self.context.ledger.snapshot(now);
        let lengths =
            |of: fn(&Buckets) -> f64| snapshot.accounts.iter().map(|books| of(&books.request_output)).sum::<f64>();
        let (count, tokens) = (lengths(|buckets| buckets.count() as f64), lengths(Buckets::sum_outward));
        let length = if count >= ENOUGH_LENGTHS { tokens / count } else { f64::from(self.settings.output_tokens) };
        RunSummary {
            stopped: stop.word(),
            sentence: stop.to_string(),
            at_least: best.map(|tokens| tokens / length),
            ended_at: self.context.clock.unix_seconds(now),
            knee: knee.map(|knee| SeenKnee {
                requests_per_second: knee.tokens / length,
                low: knee.spread.0 / length,
                high: knee.spread.1 / length,
                output_tokens_per_second: knee.tokens,
                in_flight: knee.batch,
            }),
        }
    }
}

/// What a span of looking came to.
struct Watched {
    batch: f64,
    tokens: f64,
}

/// What runs have used so far.
#[derive(Clone, Copy)]
struct ProbeTotals {
    tokens: u64,
    failed: u64,
    ended: u64,
}

impl ProbeTotals {
    fn of(progress: &ProbeProgress) -> Self {
        let past = progress.past();
        let count =
            |ended: SyntheticOutcome| past.backends.iter().map(|share| share.ended[ended as usize]).sum::<u64>();
        let failed = count(SyntheticOutcome::Failed) + count(SyntheticOutcome::Refused);
        Self { tokens: progress.tokens.load(Relaxed), failed, ended: failed + count(SyntheticOutcome::Completed) }
    }

    fn since(self, began: &Self) -> Self {
        Self { tokens: self.tokens - began.tokens, failed: self.failed - began.failed, ended: self.ended - began.ended }
    }
}

/// What sends to the backend that stood at a place when the run began.
struct Sender {
    url: String,
    client: Client,
    form: BodyTemplate,
}

/// Those who hold synthetic requests: each sends its next one when the last has ended. Dropping it hangs up on all.
struct Crew {
    run: Arc<ProbeRun>,
    /// By place.
    clients: Arc<[Option<Sender>]>,
    tasks: JoinSet<()>,
}

impl Crew {
    async fn new(run: &Arc<ProbeRun>) -> Result<Self, StopReason> {
        let mut clients = Vec::new();
        for (backend, url) in (run.context.backends)() {
            let target = LoadTarget::resolve(&url).await.map_err(|_| StopReason::Fails)?;
            let model = target.first_model(BodyTemplate::default().api).await;
            let form = BodyTemplate {
                model: model.unwrap_or_else(|| BodyTemplate::default().model),
                ..BodyTemplate::default()
            };
            let place = backend.index();
            clients.resize_with(clients.len().max(place + 1), || None);
            let client = Client::new(target, HeaderMap::new(), run.context.clock);
            clients[place] = Some(Sender { url, client, form });
        }
        Ok(Self { run: run.clone(), clients: clients.into(), tasks: JoinSet::new() })
    }

    /// Fills up to `held`, one after the other within `span`: all at once they would be a burst, and clients behind it.
    fn hold(&mut self, held: u32, span: Duration) {
        let pause = span / (held.saturating_sub(self.tasks.len() as u32)).max(1);
        let mut wait = Duration::ZERO;
        while self.tasks.len() < held as usize {
            let (run, clients) = (self.run.clone(), self.clients.clone());
            wait += pause;
            self.tasks.spawn(async move {
                sleep(wait).await;
                loop {
                    run.one(&clients).await;
                }
            });
        }
    }
}

impl ProbeRun {
    /// One synthetic request: its turn, its answer, its end.
    async fn one(&self, clients: &[Option<Sender>]) {
        self.pause().await;
        let (progress, clock) = (&self.progress, self.context.clock);
        let id = progress.sent.fetch_add(1, Relaxed);
        let lengths = (TokenLength::Fixed(self.settings.input_tokens), TokenLength::Fixed(self.settings.output_tokens));
        let draw = Workload { prompt: lengths.0, output: lengths.1, seed: SEED }.draw(id);
        let mut permit = match self.turn().await {
            Ok(permit) => permit,
            Err((backend, wait)) => {
                progress.on_end(backend, SyntheticOutcome::Refused, None);
                return sleep(wait).await;
            }
        };
        let place = usize::from(permit.backend().0);
        let sender = clients.get(place).and_then(Option::as_ref);
        let backend = permit.backend();
        let stands = |url: &str| (self.context.backends)().iter().any(|(place, now)| *place == backend && now == url);
        let Some(Sender { client, form, .. }) = sender.filter(|sender| stands(&sender.url)) else {
            // It came or moved after the run began: the run is not about it.
            drop(permit);
            return sleep(NEWCOMER).await;
        };
        let body = Bytes::from(form.body(&draw));
        let outgoing = PreparedRequest { api: form.api, body, give_up: GiveUp::Never, keep_gaps: false };
        let mut record = LoadRecord::offered(&draw, clock.now());
        let mut out = Out::new(progress);
        client
            .exchange_watched(&outgoing, &mut record, |now, tokens| {
                if out.on_tokens(tokens) {
                    permit.on_first_token(now);
                } else {
                    permit.on_tokens(tokens);
                }
            })
            .await;
        drop(out);
        permit.end(clock.now());
        let ended = match record.outcome {
            LoadOutcome::Completed => SyntheticOutcome::Completed,
            LoadOutcome::Shed { .. } => SyntheticOutcome::Refused,
            _ => SyntheticOutcome::Failed,
        };
        progress.on_end(backend, ended, record.ttft_from_send());
        if record.outcome != LoadOutcome::Completed {
            sleep(AFTER_A_FAILURE).await;
        }
    }

    /// Its turn, as any request of the lowest class has it; `Err`: how long to stay away.
    async fn turn(&self) -> Result<Permit, (BackendId, Duration)> {
        let ask = AdmissionRequest {
            class: Class::Bulk,
            tenant: Tenant(u16::MAX),
            ..AdmissionRequest::new(self.context.clock.now(), self.settings.input_tokens as f32)
        };
        let (backend, refused) = match self.context.pool.arrive(ask, None, self.context.clock.now()) {
            Acquire::Granted(permit) => return Ok(permit),
            Acquire::Refused(backend, refused) => (backend, refused),
            Acquire::Queued(mut waiting) => match poll_fn(|cx| waiting.poll(cx)).await {
                Ok(permit) => return Ok(permit),
                Err(refused) => (waiting.home(), refused),
            },
        };
        let wait = match refused {
            Refused::Shed(shed) => shed.retry_after.max(AFTER_A_FAILURE),
            Refused::NoBackend => AFTER_A_FAILURE,
        };
        Err((backend, wait))
    }

    /// Waits until the largest rate allows another request; whoever asks first goes first.
    async fn pause(&self) {
        let now = self.context.clock.now();
        let gap = Duration::try_from_secs_f64(1.0 / self.settings.max_rate).unwrap_or(LONGEST_GAP).min(LONGEST_GAP);
        let at = {
            let mut next = self.progress.next.lock().unwrap_or_else(PoisonError::into_inner);
            let at = now.max(*next);
            *next = at + gap;
            at
        };
        sleep(at.since(now)).await;
    }
}

/// Counts a request that is out, until it is dropped.
struct Out<'a> {
    progress: &'a ProbeProgress,
    begun: bool,
}

impl<'a> Out<'a> {
    fn new(progress: &'a ProbeProgress) -> Self {
        progress.in_flight.fetch_add(1, Relaxed);
        Self { progress, begun: false }
    }

    /// Says whether these were the first.
    fn on_tokens(&mut self, tokens: u32) -> bool {
        self.progress.tokens.fetch_add(u64::from(tokens), Relaxed);
        let first = !std::mem::replace(&mut self.begun, true);
        if first {
            self.progress.decoding.fetch_add(1, Relaxed);
        }
        first
    }
}

impl Drop for Out<'_> {
    fn drop(&mut self) {
        self.progress.in_flight.fetch_sub(1, Relaxed);
        if self.begun {
            self.progress.decoding.fetch_sub(1, Relaxed);
        }
    }
}

/// Before the next request is sent instead of one to a backend that the run does not know.
const NEWCOMER: Duration = Duration::from_millis(100);
/// How long clients are watched before anything is sent.
const LOOK: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A failing backend is not asked more often than this by each of the crew.
const AFTER_A_FAILURE: Duration = Duration::from_secs(1);

/// However small the largest rate: a run has an end.
const LONGEST_GAP: Duration = Duration::from_secs(3600);

/// Requests of clients that must have ended before their mean length is taken for theirs.
const ENOUGH_LENGTHS: f64 = 30.0;

/// Prompts of one process's runs never repeat: their numbers go on.
const SEED: u64 = 0x77_65_69_72;
