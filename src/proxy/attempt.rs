//! A request's attempt at one backend: the connection, the permit, and the open entry in the statistics.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;

use super::end::End;
use super::exchange::Exchange;
use super::request::received::Request;
use super::response::tap::Tap;
use super::state::Worker;
use super::upstream::target::Target;
use crate::admission::pool::Permit;
use crate::measure::{Account, Arrival, Entry, ReportContext};
use crate::vocabulary::backend_id::BackendId;
use crate::vocabulary::time::Timestamp;

/// A connection to a backend, and the statistics of the request that is about to use it.
pub(super) struct Attempt {
    pub link: UpstreamConnection,
    pub backend: BackendId,
    pub tap: Tap,
    /// Of a request that is not measured; otherwise the tap has it.
    pub _permit: Option<Permit>,
}

/// A connection to a backend.
pub(super) struct UpstreamConnection {
    pub stream: TcpStream,
    /// Where it leads.
    pub target: Arc<Target>,
    /// It comes from the pool.
    pub reused: bool,
    /// Nothing was tried again so far.
    pub may_retry: bool,
    /// When the request got it.
    pub since: Timestamp,
    /// The same, less what weir had worked on the request before.
    pub begun: Timestamp,
}

impl Attempt {
    /// A request that has a connection. Without an `entry` so far, it is offered and admitted in one step.
    pub fn begin(
        worker: &Worker,
        request: &Request,
        link: UpstreamConnection,
        permit: Permit,
        entry: Option<Entry>,
        dispatched: Timestamp,
    ) -> Self {
        let backend = permit.backend();
        worker.proxy.retries.earn();
        tracing::debug!(
            request_id = %request.id,
            backend = &*link.target.name,
            pooled = link.reused,
            waited_ms = request.queued.as_millis(),
            "request dispatched"
        );
        let Some(((account, arrival), shape)) = account(worker, request, backend).zip(request.shape.as_ref()) else {
            return Self { link, backend, tap: Tap::passing(dispatched), _permit: Some(permit) };
        };
        let entry = match entry {
            Some(mut entry) => {
                entry.admit(dispatched);
                entry
            }
            None => {
                let mut entry = Entry::admitted(&worker.shard, account, request.hints.class, arrival, dispatched);
                entry.set_report(report_context(worker, request));
                entry
            }
        };
        let tap = Tap::measured(entry, permit, shape.dialect, dispatched).with_prompts(shape.prompts);
        Self { link, backend, tap, _permit: None }
    }

    /// The pooled connection was closed before it carried a byte of an answer, and nothing was tried again yet. A backend that
    /// closes later than `STALE_WITHIN` had the request and may have worked on it: trying again could do the work twice.
    pub fn is_stale(&self, exchange: &Exchange, end: End, now: Timestamp) -> bool {
        let silent = end.is_connection_lost() && exchange.received() == 0;
        silent && self.link.reused && self.link.may_retry && now.since(self.link.since) < STALE_WITHIN
    }
}

/// Opens the entry of a measured request, at the backend that is to serve it. If another one serves it, the entry is moved.
pub(super) fn offer(worker: &Worker, request: &Request, backend: BackendId) -> Option<Entry> {
    let (account, arrival) = account(worker, request, backend)?;
    let mut entry = Entry::offer(&worker.shard, account, request.hints.class, arrival);
    entry.set_report(report_context(worker, request));
    Some(entry)
}

/// Moves an entry to the account of the backend that serves the request after all.
pub(super) fn move_to(worker: &Worker, request: &Request, entry: &mut Entry, backend: BackendId) {
    if entry.account().backend == backend {
        return;
    }
    if let Some((account, _)) = account(worker, request, backend) {
        entry.move_to(account, worker.proxy.clock.now());
    }
}

/// The account of a measured request, and what is known of it.
fn account(worker: &Worker, request: &Request, backend: BackendId) -> Option<(Account, Arrival)> {
    let shape = request.shape.as_ref()?;
    let proxy = &worker.proxy;
    let account = Account { backend, model: proxy.ledger.model(backend, shape.model.as_deref()) };
    let arrival = Arrival {
        at: request.arrived,
        stream: request.is_streamed(),
        assembled: request.assembling.is_some(),
        trace: proxy.traces,
        dialect: shape.dialect.as_str(),
        prompt_tokens: shape.prompt_tokens_estimate(),
        max_output: shape.max_output,
        choices: shape.choices,
        slo_ttft: request.slo_ttft,
    };
    Some((account, arrival))
}

/// What a measured request carries for the access log and the spans, if one of them wants it.
fn report_context(worker: &Worker, request: &Request) -> Option<Box<ReportContext>> {
    let proxy = &*worker.proxy;
    let to = proxy.reports.as_ref()?;
    let span = request.span.as_deref().copied();
    let wanted = proxy.access_log || span.is_some();
    wanted.then(|| ReportContext::new(to.clone(), request.id.to_string().into(), span))
}

/// A connection that was closed already says so within a round trip; this is one of a bad day.
const STALE_WITHIN: Duration = Duration::from_secs(1);
