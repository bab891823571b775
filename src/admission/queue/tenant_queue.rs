//! Those of one tenant in one class that wait, in order of arrival, and what the tenant has had so far.

use std::collections::VecDeque;

use super::class_queue::Ticket;
use crate::admission::gate::tokens;
use crate::admission::request::AdmissionRequest;
use crate::vocabulary::average::DecayingRate;

/// One tenant's line inside a class.
#[derive(Debug)]
pub(in crate::admission) struct TenantQueue<T> {
    waiting: VecDeque<QueuedRequest<T>>,
    /// Their prompt tokens.
    tokens: f64,
    /// Tokens that it was charged, on the class's clock (virtual token counter).
    pub virtual_time: f64,
    pub arrivals: DecayingRate,
}

/// Somebody who waits.
#[derive(Debug)]
pub(in crate::admission) struct QueuedRequest<T> {
    pub ticket: Ticket,
    pub ask: AdmissionRequest,
    pub item: T,
}

impl<T> TenantQueue<T> {
    pub fn new() -> Self {
        Self { waiting: VecDeque::new(), tokens: 0.0, virtual_time: 0.0, arrivals: DecayingRate::new(ARRIVALS) }
    }

    /// Takes a place by time of arrival: who came from another line has waited there.
    pub fn push(&mut self, waiting: QueuedRequest<T>) {
        self.tokens += tokens(waiting.ask.prompt);
        let after = self.waiting.iter().rev().take_while(|other| other.ticket > waiting.ticket).count();
        self.waiting.insert(self.waiting.len() - after, waiting);
    }

    pub fn pop(&mut self) -> Option<QueuedRequest<T>> {
        let waiting = self.waiting.pop_front()?;
        Some(self.gone(waiting))
    }

    pub fn remove(&mut self, ticket: Ticket) -> Option<QueuedRequest<T>> {
        let place = self.waiting.binary_search_by(|waiting| waiting.ticket.cmp(&ticket)).ok()?;
        let waiting = self.waiting.remove(place)?;
        Some(self.gone(waiting))
    }

    pub fn head(&self) -> Option<&AdmissionRequest> {
        self.waiting.front().map(|waiting| &waiting.ask)
    }

    /// The head's place.
    pub fn first(&self) -> Option<Ticket> {
        self.waiting.front().map(|waiting| waiting.ticket)
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Prompt tokens of those who wait.
    pub fn tokens(&self) -> f64 {
        self.tokens
    }

    fn gone(&mut self, waiting: QueuedRequest<T>) -> QueuedRequest<T> {
        self.tokens = if self.waiting.is_empty() { 0.0 } else { self.tokens - tokens(waiting.ask.prompt) };
        waiting
    }
}

/// Seconds over which arrivals are counted.
const ARRIVALS: f64 = 3.0;
