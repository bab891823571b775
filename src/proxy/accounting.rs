//! A measured request on its way into the books.

use super::request::reader::Request;
use super::spans::caption;
use super::state::Worker;
use crate::measure::{Account, Arrival, Entry};
use crate::vocabulary::backend_id::BackendId;

/// Whose books a measured request belongs to, and what is known of it.
pub(super) fn account(worker: &Worker, request: &Request, backend: BackendId) -> Option<(Account, Arrival)> {
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

/// Opens the books for a measured request, at the backend that is to serve it. Should another one, it is moved.
pub(super) fn offer(worker: &Worker, request: &Request, backend: BackendId) -> Option<Entry> {
    let (account, arrival) = account(worker, request, backend)?;
    let mut entry = Entry::offer(&worker.shard, account, request.hints.class, arrival);
    entry.set_report(caption(worker, request));
    Some(entry)
}

/// Moves an entry to the books of the backend that serves the request after all.
pub(super) fn move_to(worker: &Worker, request: &Request, entry: &mut Entry, backend: BackendId) {
    if entry.account().backend == backend {
        return;
    }
    if let Some((account, _)) = account(worker, request, backend) {
        entry.move_to(account, worker.proxy.clock.now());
    }
}
