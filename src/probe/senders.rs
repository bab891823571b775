//! The tasks that hold synthetic requests in flight: each sends its next one when the last has ended.

use std::future::poll_fn;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::context::ProbeContext;
use super::progress::ProbeProgress;
use super::settings::Settings;
use crate::admission::pool::{Acquire, Permit, Refused};
use crate::admission::{AdmissionRequest, Class, Tenant};
use crate::export::probe::SyntheticOutcome;
use crate::load::body::BodyTemplate;
use crate::load::client::{BadTarget, Client, GiveUp, LoadTarget, PreparedRequest};
use crate::load::record::{LoadOutcome, LoadRecord};
use crate::load::workload::{TokenLength, Workload};
use crate::vocabulary::backend_id::BackendId;

/// The tasks. Dropping it hangs up on all of their requests.
pub(super) struct Senders {
    shared: Arc<SenderContext>,
    tasks: JoinSet<()>,
}

/// What all tasks use.
struct SenderContext {
    context: ProbeContext,
    settings: Settings,
    progress: Arc<ProbeProgress>,
    /// By the backend's index.
    senders: Vec<Option<Sender>>,
}

/// What sends to a backend, as it was configured when the run began.
struct Sender {
    url: String,
    client: Client,
    template: BodyTemplate,
}

impl Senders {
    /// Resolves the backends' addresses and asks each for its model.
    pub async fn new(
        context: &ProbeContext,
        settings: Settings,
        progress: &Arc<ProbeProgress>,
    ) -> Result<Self, BadTarget> {
        let mut senders = Vec::new();
        for (backend, url) in (context.backends)() {
            let target = LoadTarget::resolve(&url).await?;
            let model = target.first_model(BodyTemplate::default().api).await;
            let template = BodyTemplate {
                model: model.unwrap_or_else(|| BodyTemplate::default().model),
                ..BodyTemplate::default()
            };
            let index = backend.index();
            senders.resize_with(senders.len().max(index + 1), || None);
            let client = Client::new(target, HeaderMap::new(), context.clock);
            senders[index] = Some(Sender { url, client, template });
        }
        let shared = SenderContext { context: context.clone(), settings, progress: progress.clone(), senders };
        Ok(Self { shared: Arc::new(shared), tasks: JoinSet::new() })
    }

    /// Fills up to `held`, one after the other within `span`: all at once they would be a burst, and clients behind it.
    pub fn hold(&mut self, held: u32, span: Duration) {
        let pause = span / (held.saturating_sub(self.tasks.len() as u32)).max(1);
        let mut wait = Duration::ZERO;
        while self.tasks.len() < held as usize {
            let shared = self.shared.clone();
            wait += pause;
            self.tasks.spawn(async move {
                sleep(wait).await;
                loop {
                    shared.send_one().await;
                }
            });
        }
    }
}

impl SenderContext {
    /// One synthetic request, from its admission to its end.
    async fn send_one(&self) {
        self.wait_for_rate().await;
        let (progress, clock) = (&self.progress, self.context.clock);
        let id = progress.sent.fetch_add(1, Relaxed);
        let lengths = (TokenLength::Fixed(self.settings.input_tokens), TokenLength::Fixed(self.settings.output_tokens));
        let draw = Workload { prompt: lengths.0, output: lengths.1, seed: SEED }.draw(id);
        let mut permit = match self.acquire().await {
            Ok(permit) => permit,
            Err((backend, wait)) => {
                progress.on_end(backend, SyntheticOutcome::Refused, None);
                return sleep(wait).await;
            }
        };
        let backend = permit.backend();
        let sender = self.senders.get(backend.index()).and_then(Option::as_ref);
        let is_current = |url: &str| (self.context.backends)().iter().any(|(id, now)| *id == backend && now == url);
        let Some(Sender { client, template, .. }) = sender.filter(|sender| is_current(&sender.url)) else {
            // It was added or changed after the run began: the run is not about it.
            drop(permit);
            return sleep(UNKNOWN_BACKEND).await;
        };
        let body = Bytes::from(template.body(&draw));
        let request = PreparedRequest { api: template.api, body, give_up: GiveUp::Never, keep_gaps: false };
        let mut record = LoadRecord::offered(&draw, clock.now());
        let mut in_flight = InFlightCount::new(progress);
        client
            .exchange_watched(&request, &mut record, |now, tokens| {
                if in_flight.on_tokens(tokens) {
                    permit.on_first_token(now);
                } else {
                    permit.on_tokens(tokens);
                }
            })
            .await;
        drop(in_flight);
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

    /// A permit, granted as to any request of the lowest class; `Err` says how long to send nothing.
    async fn acquire(&self) -> Result<Permit, (BackendId, Duration)> {
        let request = AdmissionRequest {
            class: Class::Bulk,
            tenant: Tenant(u16::MAX),
            ..AdmissionRequest::new(self.context.clock.now(), self.settings.input_tokens as f32)
        };
        let (backend, refused) = match self.context.pool.arrive(request, None, self.context.clock.now()) {
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

    /// Waits until the largest rate allows another request, in the order of the calls.
    async fn wait_for_rate(&self) {
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

/// Counts a request as in flight until it is dropped.
struct InFlightCount<'a> {
    progress: &'a ProbeProgress,
    has_tokens: bool,
}

impl<'a> InFlightCount<'a> {
    fn new(progress: &'a ProbeProgress) -> Self {
        progress.in_flight.fetch_add(1, Relaxed);
        Self { progress, has_tokens: false }
    }

    /// Returns whether these were the first.
    fn on_tokens(&mut self, tokens: u32) -> bool {
        self.progress.tokens.fetch_add(u64::from(tokens), Relaxed);
        let first = !std::mem::replace(&mut self.has_tokens, true);
        if first {
            self.progress.decoding.fetch_add(1, Relaxed);
        }
        first
    }
}

impl Drop for InFlightCount<'_> {
    fn drop(&mut self) {
        self.progress.in_flight.fetch_sub(1, Relaxed);
        if self.has_tokens {
            self.progress.decoding.fetch_sub(1, Relaxed);
        }
    }
}

/// How long a task pauses that was given a backend the run does not know.
const UNKNOWN_BACKEND: Duration = Duration::from_millis(100);

/// A failing backend is not asked more often than this by each task.
const AFTER_A_FAILURE: Duration = Duration::from_secs(1);

/// However small the largest rate: a run has an end.
const LONGEST_GAP: Duration = Duration::from_secs(3600);

/// The same for every run: prompts never repeat, because request numbers go on from run to run.
const SEED: u64 = 0x77_65_69_72;
