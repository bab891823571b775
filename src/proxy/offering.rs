//! A measured request on its way into the books.

use super::arriving::Request;
use super::gateway::Worker;
use crate::backend::BackendId;
use crate::measure::{Account, Arrival, Entry, Priority};

/// Whose books a measured request belongs to, and what is known of it.
pub(super) fn account(worker: &Worker, request: &Request, backend: BackendId) -> Option<(Account, Arrival)> {
    let shape = request.shape.as_ref()?;
    let gateway = &worker.gateway;
    let account = Account { backend, model: gateway.ledger.model(backend, shape.model.as_deref()) };
    let arrival = Arrival {
        at: request.arrived,
        stream: shape.stream,
        trace: gateway.traces,
        dialect: shape.dialect.as_str(),
        prompt_tokens: shape.prompt_tokens_estimate(),
        max_output: shape.max_output,
        choices: shape.choices,
    };
    Some((account, arrival))
}

/// Opens the books for a measured request.
pub(super) fn offer(worker: &Worker, request: &Request, backend: BackendId) -> Option<Entry> {
    let (account, arrival) = account(worker, request, backend)?;
    Some(Entry::offer(&worker.shard, account, Priority::Default, arrival))
}

/// A request on its way into the books while a backend is dialled for it. They are opened at the backend that will serve it:
/// with another one in reserve, only once the one that is dialled answers, so that no counter ever has to be taken back. It is
/// booked once, and on every path: a task that ends before that books it as abandoned in the queue.
pub(super) struct Offering<'a> {
    worker: &'a Worker,
    request: &'a Request,
    backend: BackendId,
    pub booked: bool,
    entry: Option<Entry>,
}

impl<'a> Offering<'a> {
    pub fn new(worker: &'a Worker, request: &'a Request, backend: BackendId) -> Self {
        let mut offering = Self { worker, request, backend, booked: false, entry: None };
        offering.move_to(backend);
        offering
    }

    /// `backend` is dialled now.
    pub fn move_to(&mut self, backend: BackendId) {
        self.backend = backend;
        if !self.worker.gateway.pool.has_another(backend) {
            self.book();
        }
    }

    /// Nothing can change the backend any more.
    pub fn settle(mut self) -> Option<Entry> {
        self.book();
        self.entry.take()
    }

    fn book(&mut self) {
        if !std::mem::replace(&mut self.booked, true) {
            self.entry = offer(self.worker, self.request, self.backend);
        }
    }
}

impl Drop for Offering<'_> {
    fn drop(&mut self) {
        self.book();
    }
}
