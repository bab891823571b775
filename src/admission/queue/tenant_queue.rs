//! The waiting requests of one tenant in one class, in order of arrival, and the tokens that the tenant was charged.

use std::collections::VecDeque;

use super::ticket::{QueuedRequest, Ticket};
use crate::admission::gate::tokens;
use crate::admission::request::AdmissionRequest;
use crate::vocabulary::average::DecayingRate;

#[derive(Debug)]
pub(super) struct TenantQueue<T> {
    waiting: VecDeque<QueuedRequest<T>>,
    /// Their prompt tokens.
    tokens: f64,
    /// Tokens that the tenant was charged (virtual token counter).
    pub virtual_time: f64,
    pub arrivals: DecayingRate,
}

impl<T> TenantQueue<T> {
    pub fn new() -> Self {
        Self { waiting: VecDeque::new(), tokens: 0.0, virtual_time: 0.0, arrivals: DecayingRate::new(ARRIVALS) }
    }

    /// Inserts by time of arrival: a request from another queue has waited there already.
    pub fn push(&mut self, waiting: QueuedRequest<T>) {
        self.tokens += tokens(waiting.request.prompt);
        let after = self.waiting.iter().rev().take_while(|other| other.ticket > waiting.ticket).count();
        self.waiting.insert(self.waiting.len() - after, waiting);
    }

    pub fn pop(&mut self) -> Option<QueuedRequest<T>> {
        let waiting = self.waiting.pop_front()?;
        Some(self.taken(waiting))
    }

    pub fn remove(&mut self, ticket: Ticket) -> Option<QueuedRequest<T>> {
        let index = self.waiting.binary_search_by(|waiting| waiting.ticket.cmp(&ticket)).ok()?;
        let waiting = self.waiting.remove(index)?;
        Some(self.taken(waiting))
    }

    pub fn head(&self) -> Option<&AdmissionRequest> {
        self.waiting.front().map(|waiting| &waiting.request)
    }

    pub fn head_ticket(&self) -> Option<Ticket> {
        self.waiting.front().map(|waiting| waiting.ticket)
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Prompt tokens of the waiting requests.
    pub fn tokens(&self) -> f64 {
        self.tokens
    }

    fn taken(&mut self, waiting: QueuedRequest<T>) -> QueuedRequest<T> {
        self.tokens = if self.waiting.is_empty() { 0.0 } else { self.tokens - tokens(waiting.request.prompt) };
        waiting
    }
}

/// Seconds over which arrivals are averaged.
const ARRIVALS: f64 = 3.0;
