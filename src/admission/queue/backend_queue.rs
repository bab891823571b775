//! One backend's gate with its queue.
//!
//! Every event is a method. After an event that may have made room, call [`BackendQueue::advance`], which returns the requests to
//! dispatch and to refuse. Every method is O(waiting tenants) at most and allocates only when the queue grows.

use std::time::Duration;

use super::class_queue::ClassQueues;
use super::deadline::DeadlineCheck;
use super::reserve::Reserve;
use super::retry_after::RetryAfter;
use super::scheduler::{self, NextHead};
use super::tenant_queue::TenantQueue;
use super::ticket::Ticket;
use crate::admission::gate::{Gate, GateVerdict, Slot};
use crate::admission::gate_stats::GateStats;
use crate::admission::limits::Limits;
use crate::admission::request::AdmissionRequest;
use crate::admission::settings::Settings;
use crate::admission::shed::Shed;
use crate::vocabulary::class::Class;
use crate::vocabulary::mode::Mode;
use crate::vocabulary::shed_reason::ShedReason;
use crate::vocabulary::time::Timestamp;

/// The gate and the queue of one backend. `T` is returned with the verdict on a request that waited.
#[derive(Debug)]
pub struct BackendQueue<T> {
    settings: Settings,
    gate: Gate,
    queue: ClassQueues<T>,
    retry_after: RetryAfter,
    counts: QueueCounts,
    window_bound: bool,
    memory_bound: bool,
    last_sweep: Timestamp,
}

/// What happens to a request on arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    Dispatched(Slot),
    Queued(Ticket),
    Shed(Shed),
}

/// What happens to a request that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dequeued {
    Dispatch(Slot),
    /// Its first token would be late.
    Shed(Shed),
}

/// Requests since the start: `offered = dispatched + shed + left + taken + waiting now`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    pub offered: u64,
    pub dispatched: u64,
    /// Refused at arrival or in the queue.
    pub shed: u64,
    /// Their clients left while they waited.
    pub left: u64,
    /// Another backend took them from the queue.
    pub taken: u64,
}

impl<T> BackendQueue<T> {
    /// An idle backend with an empty queue.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            gate: Gate::default(),
            queue: ClassQueues::new(),
            retry_after: RetryAfter::default(),
            counts: QueueCounts::default(),
            window_bound: false,
            memory_bound: false,
            last_sweep: Timestamp::ZERO,
        }
    }

    /// Requests that wait already stay, even beyond smaller bounds.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// A request arrived: it is dispatched if it is next and there is room, else it waits, unless it would be late.
    ///
    /// If the limits changed since the last [`BackendQueue::advance`], a request may wait although it could be dispatched; the next
    /// call finds it. `item` is called if the request enters the queue.
    pub fn offer(
        &mut self,
        limits: &Limits,
        request: AdmissionRequest,
        item: impl FnOnce() -> T,
        now: Timestamp,
    ) -> Offered {
        self.counts.offered += 1;
        self.queue.on_arrival(&request, seconds(now));
        if self.queue.is_empty() && self.is_dispatched_at_once(limits, &request, now) {
            return Offered::Dispatched(self.dispatch(limits, &request, now));
        }
        if let Some(reason) = self.refusal(limits, &request, now) {
            return Offered::Shed(self.shed(limits, reason, now));
        }
        let credit = self.credit(limits);
        let ticket = self.queue.push(request, item(), credit);
        // A request of an earlier class may overtake those that the reserve or the window holds back.
        match self.next(limits, now) {
            Some(next) if (next.class, next.tenant) == (ticket.class, ticket.tenant) && self.is_head(ticket) => {
                // It was pushed just above.
                let Some(waiting) = self.queue.remove(ticket) else { return Offered::Queued(ticket) };
                Offered::Dispatched(self.dispatch(limits, &waiting.request, now))
            }
            _ => Offered::Queued(ticket),
        }
    }

    /// Dispatches the requests for which there is room, and refuses those that would be late.
    pub fn advance(&mut self, limits: &Limits, now: Timestamp, dequeued: &mut impl FnMut(T, Dequeued)) {
        self.sweep(limits, now, dequeued);
        while let Some(next) = self.next_allowed(limits, now) {
            let Some(head) = self.queue.head(next.class, next.tenant) else { return };
            let late = limits.mode == Mode::Enforce && self.deadline_check(limits, now).is_late(&head);
            if !late && !self.has_room_for(limits, &next, now) {
                return;
            }
            let Some(waiting) = self.queue.pop(next.class, next.tenant) else { return };
            let verdict = if late {
                Dequeued::Shed(self.shed(limits, ShedReason::Deadline, now))
            } else {
                Dequeued::Dispatch(self.dispatch(limits, &waiting.request, now))
            };
            dequeued(waiting.item, verdict);
        }
    }

    /// The first token of a dispatched request arrived; `false` if the request was not pending.
    pub fn on_first_token(&mut self, slot: Slot, now: Timestamp) -> bool {
        self.gate.on_first_token(slot, now)
    }

    /// `more` tokens of its answer arrived.
    pub fn on_tokens(&mut self, slot: Slot, more: u32) {
        self.gate.on_tokens(slot, more);
    }

    /// A dispatched request ended, in any way; `false` if it had ended already.
    pub fn on_end(&mut self, slot: Slot) -> bool {
        let Some(ended) = self.gate.on_end(slot) else { return false };
        self.queue.charge(ended.class, ended.tenant, ANSWER * ended.uncharged);
        true
    }

    /// The client of a waiting request left: it leaves the queue and is never dispatched. `None` if it was dequeued already.
    pub fn leave(&mut self, ticket: Ticket) -> Option<T> {
        let waiting = self.queue.remove(ticket)?;
        self.counts.left += 1;
        Some(waiting.item)
    }

    /// The deadline timer of a waiting request expired: it is refused.
    pub fn expire(&mut self, limits: &Limits, ticket: Ticket, now: Timestamp) -> Option<(T, Shed)> {
        let waiting = self.queue.remove(ticket)?;
        Some((waiting.item, self.shed(limits, ShedReason::Deadline, now)))
    }

    /// When the client of a dispatched request that will be late should retry; spaced like a refusal.
    pub fn retry_after(&mut self, limits: &Limits, now: Timestamp) -> Duration {
        self.retry_after.promise(now, limits.signals.busy_start_rate)
    }

    /// Takes the next request, for another backend that has room.
    pub fn take_next(&mut self) -> Option<(AdmissionRequest, T)> {
        let next = scheduler::next(&self.queue, |_, _| true)?;
        let waiting = self.queue.pop(next.class, next.tenant)?;
        self.counts.taken += 1;
        Some((waiting.request, waiting.item))
    }

    /// Takes all requests, in the order of dispatch: the backend is not available.
    pub fn take_all(&mut self) -> Vec<(AdmissionRequest, T)> {
        std::iter::from_fn(|| self.take_next()).collect()
    }

    /// The report for the policy. Clears what is counted since the last one.
    pub fn gate_stats(&mut self, now: Timestamp) -> GateStats {
        GateStats {
            window_bound: std::mem::take(&mut self.window_bound),
            memory_bound: std::mem::take(&mut self.memory_bound),
            queued: self.queue.len(),
            oldest_pending: self.gate.oldest_pending().map_or(0.0, |(since, _)| now.since(since).as_secs_f64()),
            pending: self.gate.awaiting(),
            in_flight: self.gate.in_flight(),
            context: self.gate.context(),
        }
    }

    /// Whether such a request would be dispatched at once.
    pub fn has_room(&self, limits: &Limits, request: &AdmissionRequest, now: Timestamp) -> bool {
        let headroom = self.settings.classes.of(request.class).headroom;
        self.queue.is_empty() && self.gate.verdict(limits, request.prompt, headroom, now) == GateVerdict::Open
    }

    /// Requests that fit into the window or the concurrency limit; negative beyond it.
    pub fn room(&self, limits: &Limits) -> f64 {
        let window = limits.concurrency.map_or(limits.window, f64::from);
        let taken = if limits.concurrency.is_some() { self.gate.in_flight() } else { self.gate.awaiting() };
        window - f64::from(taken)
    }

    /// Seconds that such a request would wait here.
    pub fn expected_wait(&self, limits: &Limits, request: &AdmissionRequest, now: Timestamp) -> f64 {
        self.deadline_check(limits, now).wait(request)
    }

    /// Requests that wait.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Requests of one class that wait.
    pub fn queued_of(&self, class: Class) -> usize {
        self.queue.class(class).requests
    }

    /// Bytes of their bodies.
    pub fn queued_bytes(&self) -> u64 {
        self.queue.bytes()
    }

    /// When the oldest waiting request arrived.
    pub fn oldest_queued(&self) -> Option<Timestamp> {
        let waiting = Class::ALL.into_iter().flat_map(|class| self.queue.class(class).waiting());
        waiting.filter_map(|(_, tenant_queue)| tenant_queue.head()).map(|request| request.arrived).min()
    }

    /// Prompt tokens of a request in flight; 0 if it ended.
    pub fn prompt(&self, slot: Slot) -> f64 {
        self.gate.prompt(slot)
    }

    /// Requests dispatched and not ended.
    pub fn in_flight(&self) -> u32 {
        self.gate.in_flight()
    }

    /// Of those, streams without a first token.
    pub fn pending(&self) -> u32 {
        self.gate.awaiting()
    }

    pub fn counts(&self) -> QueueCounts {
        self.counts
    }

    /// Whether a request is dispatched at once, given an empty queue.
    fn is_dispatched_at_once(&mut self, limits: &Limits, request: &AdmissionRequest, now: Timestamp) -> bool {
        let headroom = self.settings.classes.of(request.class).headroom;
        let verdict = self.gate.verdict(limits, request.prompt, headroom, now);
        self.count_verdict(verdict);
        verdict == GateVerdict::Open && !self.is_reserved_from(limits, request, now)
    }

    /// Why the request may not wait, if it may not.
    fn refusal(&mut self, limits: &Limits, request: &AdmissionRequest, now: Timestamp) -> Option<ShedReason> {
        if limits.mode == Mode::Observe {
            return None;
        }
        let full = self.queue.refusal(request, &self.settings);
        if full.is_some() || !self.deadline_check(limits, now).is_hopeless(request) {
            return full;
        }
        let class = self.queue.class_mut(request.class);
        class.wanted |= class.requests == 0;
        Some(ShedReason::Saturated)
    }

    /// Refuses the first requests of all tenants whose deadline passed, next or not.
    fn sweep(&mut self, limits: &Limits, now: Timestamp, dequeued: &mut impl FnMut(T, Dequeued)) {
        if now.since(self.last_sweep) < SWEEP || self.queue.is_empty() || limits.mode == Mode::Observe {
            return;
        }
        self.last_sweep = now;
        self.queue.forget_idle(seconds(now));
        let max_wait = self.settings.max_wait;
        for class in Class::ALL {
            while let Some(tenant) = self.queue.expired(class, now, max_wait) {
                let Some(waiting) = self.queue.pop(class, tenant) else { break };
                dequeued(waiting.item, Dequeued::Shed(self.shed(limits, ShedReason::Deadline, now)));
            }
        }
    }

    /// The next request among those that the reserve does not hold back.
    fn next_allowed(&self, limits: &Limits, now: Timestamp) -> Option<NextHead> {
        let reserve = Reserve { signals: &limits.signals, now: seconds(now) };
        let holds =
            |next: &NextHead, tenant_queue: &TenantQueue<T>| reserve.holds(&self.queue, &self.gate, next, tenant_queue);
        scheduler::next(&self.queue, |next, tenant_queue| limits.mode == Mode::Observe || !holds(next, tenant_queue))
    }

    /// The next request, if there is room for it.
    fn next(&mut self, limits: &Limits, now: Timestamp) -> Option<NextHead> {
        let next = self.next_allowed(limits, now)?;
        self.has_room_for(limits, &next, now).then_some(next)
    }

    fn has_room_for(&mut self, limits: &Limits, next: &NextHead, now: Timestamp) -> bool {
        let Some(head) = self.queue.head(next.class, next.tenant) else { return false };
        let headroom = self.settings.classes.of(next.class).headroom;
        let verdict = self.gate.verdict(limits, head.prompt, headroom, now);
        self.count_verdict(verdict);
        verdict == GateVerdict::Open
    }

    fn is_reserved_from(&self, limits: &Limits, request: &AdmissionRequest, now: Timestamp) -> bool {
        let reserve = Reserve { signals: &limits.signals, now: seconds(now) };
        let next = NextHead { class: request.class, tenant: request.tenant, due: false };
        let tenant_queue = self.queue.class(request.class).tenants.get(&request.tenant);
        limits.mode == Mode::Enforce
            && tenant_queue.is_some_and(|tenant_queue| reserve.holds(&self.queue, &self.gate, &next, tenant_queue))
    }

    fn is_head(&self, ticket: Ticket) -> bool {
        let tenant_queue = self.queue.class(ticket.class).tenants.get(&ticket.tenant);
        tenant_queue.is_some_and(|tenant_queue| tenant_queue.head_ticket() == Some(ticket))
    }

    fn count_verdict(&mut self, verdict: GateVerdict) {
        self.window_bound |= verdict == GateVerdict::Full;
        self.memory_bound |= verdict == GateVerdict::MemoryBound;
    }

    fn dispatch(&mut self, limits: &Limits, request: &AdmissionRequest, now: Timestamp) -> Slot {
        let answer = limits.signals.mean_answer;
        self.counts.dispatched += 1;
        scheduler::on_dispatch(&mut self.queue, request.class, &self.settings.classes);
        self.queue.charge(request.class, request.tenant, f64::from(request.prompt) + ANSWER * answer);
        self.gate.dispatch(request, answer, now)
    }

    fn shed(&mut self, limits: &Limits, reason: ShedReason, now: Timestamp) -> Shed {
        self.counts.shed += 1;
        Shed { reason, retry_after: self.retry_after(limits, now) }
    }

    /// Tokens by which a returning tenant starts below the others: four mean requests.
    fn credit(&self, limits: &Limits) -> f64 {
        4.0 * (self.gate.mean_prompt() + ANSWER * limits.signals.mean_answer)
    }

    fn deadline_check<'a>(&'a self, limits: &'a Limits, now: Timestamp) -> DeadlineCheck<'a, T> {
        let oldest = self.gate.oldest_pending();
        DeadlineCheck { limits, settings: &self.settings, queue: &self.queue, gate: &self.gate, oldest, now }
    }
}

fn seconds(at: Timestamp) -> f64 {
    at.since(Timestamp::ZERO).as_secs_f64()
}

/// An answer token costs about as much as two prompt tokens.
const ANSWER: f64 = 2.0;
/// How often the deadlines of all tenants' first requests are checked.
const SWEEP: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::admission::request::Tenant;
    use crate::vocabulary::signals::Signals;

    fn at(seconds: f64) -> Timestamp {
        Timestamp::from_nanos((seconds * 1e9) as u64)
    }

    /// At an engine that starts ten requests per second.
    fn limits(window: f64) -> Limits {
        let signals = Signals { busy_start_rate: 10.0, recent_ttft: 10.0, ..Signals::UNKNOWN };
        Limits { window, signals, ..Limits::new(Mode::Enforce) }
    }

    fn request(arrived: f64) -> AdmissionRequest {
        AdmissionRequest { slo: Some(Duration::from_secs(1)), ..AdmissionRequest::new(at(arrived), 100.0) }
    }

    fn of(class: Class, arrived: f64) -> AdmissionRequest {
        AdmissionRequest { class, ..request(arrived) }
    }

    /// A backend with `pending` dispatched requests.
    fn queue(pending: usize) -> (BackendQueue<u32>, Vec<Slot>) {
        let mut queue = BackendQueue::new(Settings::default());
        let slots = (0..pending).map(|_| slot(queue.offer(&limits(1e6), request(0.0), || 0, at(0.0)))).collect();
        (queue, slots)
    }

    fn slot(offered: Offered) -> Slot {
        let Offered::Dispatched(slot) = offered else { panic!("{offered:?}") };
        slot
    }

    fn ticket(offered: Offered) -> Ticket {
        let Offered::Queued(ticket) = offered else { panic!("{offered:?}") };
        ticket
    }

    /// It waits; its ticket does not matter.
    fn queued(offered: Offered) {
        ticket(offered);
    }

    fn reason(offered: Offered) -> ShedReason {
        let Offered::Shed(shed) = offered else { panic!("{offered:?}") };
        shed.reason
    }

    fn advance(queue: &mut BackendQueue<u32>, limits: &Limits, now: f64) -> (Vec<u32>, Vec<u32>) {
        let (mut dispatched, mut shed) = (Vec::new(), Vec::new());
        queue.advance(limits, at(now), &mut |item, dequeued| match dequeued {
            Dequeued::Dispatch(_) => dispatched.push(item),
            Dequeued::Shed(_) => shed.push(item),
        });
        (dispatched, shed)
    }

    #[test]
    fn a_request_with_room_is_dispatched_and_the_next_waits() {
        let (mut queue, slots) = queue(2);
        let limits = limits(2.0);
        ticket(queue.offer(&limits, request(0.1), || 7, at(0.1)));
        assert_eq!(advance(&mut queue, &limits, 0.2), (vec![], vec![]), "nothing has changed");
        assert!(queue.on_first_token(slots[0], at(0.3)));
        assert_eq!(advance(&mut queue, &limits, 0.3), (vec![7], vec![]));
        assert_eq!((queue.queued(), queue.pending(), queue.in_flight()), (0, 2, 3));
    }

    #[test]
    fn a_queue_longer_than_the_objective_refuses_at_arrival() {
        let (mut queue, _) = queue(1);
        let limits = limits(1.0);
        // Ten starts per second within 0.9 s: nine requests before it.
        (0..10).for_each(|n| queued(queue.offer(&limits, request(0.0), || n, at(0.0))));
        assert_eq!(reason(queue.offer(&limits, request(0.0), || 10, at(0.0))), ShedReason::Saturated);
        let patient = AdmissionRequest { slo: Some(Duration::from_secs(2)), ..request(0.0) };
        ticket(queue.offer(&limits, patient, || 11, at(0.0)));
    }

    #[test]
    fn a_request_that_would_be_late_is_refused() {
        let (mut queue, slots) = queue(1);
        let mut limits = limits(1.0);
        limits.signals.excess_ttft = 0.3;
        (0..3).for_each(|n| queued(queue.offer(&limits, request(0.1 * f64::from(n)), || n, at(0.1 * f64::from(n)))));
        assert_eq!(advance(&mut queue, &limits, 0.65), (vec![], vec![]), "the first is in time");
        assert_eq!(
            advance(&mut queue, &limits, 0.75),
            (vec![], vec![0]),
            "0.75 + 0.3 > 1, and there is no room either"
        );
        queue.on_first_token(slots[0], at(0.76));
        assert_eq!(advance(&mut queue, &limits, 1.05), (vec![1], vec![2]), "the second finds an idle engine");
    }

    #[test]
    fn a_request_whose_client_left_is_never_dispatched() {
        let (mut queue, slots) = queue(1);
        let limits = limits(1.0);
        let tickets: Vec<Ticket> = (0..3).map(|n| ticket(queue.offer(&limits, request(0.0), || n, at(0.0)))).collect();
        assert_eq!(queue.leave(tickets[0]), Some(0));
        assert_eq!(queue.leave(tickets[0]), None, "only once");
        assert_eq!(queue.leave(tickets[1]), Some(1));
        queue.on_end(slots[0]);
        assert_eq!(advance(&mut queue, &limits, 0.1), (vec![2], vec![]));
        assert_eq!(queue.leave(tickets[2]), None, "it was dispatched");
    }

    #[test]
    fn bounds_are_exact_in_requests_and_bytes() {
        let classes = crate::admission::settings::Classes::default();
        let settings = Settings { max_requests: 4, max_bytes: 100, classes, ..Settings::default() };
        let mut queue = BackendQueue::new(settings);
        slot(queue.offer(&limits(1.0), request(0.0), || 0, at(0.0)));
        let patient = |class| AdmissionRequest { slo: None, ..of(class, 0.0) };
        let big = |bytes, class| AdmissionRequest { bytes, ..patient(class) };
        ticket(queue.offer(&limits(1.0), big(60, Class::Default), || 1, at(0.0)));
        assert_eq!(reason(queue.offer(&limits(1.0), big(41, Class::Default), || 2, at(0.0))), ShedReason::QueueBytes);
        ticket(queue.offer(&limits(1.0), big(40, Class::Default), || 3, at(0.0)));
        assert_eq!(queue.queued_bytes(), 100);
        ticket(queue.offer(&limits(1.0), patient(Class::Bulk), || 4, at(0.0)));
        ticket(queue.offer(&limits(1.0), patient(Class::Bulk), || 5, at(0.0)));
        assert_eq!(reason(queue.offer(&limits(1.0), patient(Class::Default), || 6, at(0.0))), ShedReason::QueueFull);
        assert_eq!((queue.queued(), queue.queued_of(Class::Bulk)), (4, 2));
    }

    #[test]
    fn a_class_fills_its_share_of_the_queue_and_no_more() {
        let mut queue = BackendQueue::new(Settings { max_requests: 4, ..Settings::default() });
        slot(queue.offer(&limits(1.0), request(0.0), || 0, at(0.0)));
        (0..2).for_each(|_| queued(queue.offer(&limits(1.0), of(Class::Bulk, 0.0), || 1, at(0.0))));
        assert_eq!(reason(queue.offer(&limits(1.0), of(Class::Bulk, 0.0), || 2, at(0.0))), ShedReason::QueueFull);
        ticket(queue.offer(&limits(1.0), of(Class::Default, 0.0), || 3, at(0.0)));
    }

    #[test]
    fn classes_are_served_in_order_and_inside_by_arrival() {
        let (mut queue, slots) = queue(1);
        let limits = limits(1.0);
        let order = [Class::Bulk, Class::Default, Class::Interactive, Class::Default, Class::System];
        let arrive = |(n, class): (usize, &Class)| queued(queue.offer(&limits, of(*class, 0.0), || n as u32, at(0.0)));
        order.iter().enumerate().for_each(arrive);
        queue.on_first_token(slots[0], at(0.1));
        assert_eq!(advance(&mut queue, &limits_of(9.0), 0.1).0, [4, 2, 1, 3, 0]);
    }

    fn limits_of(window: f64) -> Limits {
        limits(window)
    }

    /// The starvation bound: a class with share s is served after at most ceil(1/s) dispatches of others.
    #[test]
    fn a_waiting_class_receives_its_share_behind_any_load() {
        let mut settings = Settings { max_requests: 100_000, ..Settings::default() };
        settings.classes.bulk.share = 0.1;
        settings.classes.default.share = 0.0;
        let mut queue = BackendQueue::new(settings);
        let limits = limits(1.0);
        let patient = |class| AdmissionRequest { slo: None, ..of(class, 0.0) };
        let mut last = slot(queue.offer(&limits, patient(Class::Default), || 0, at(0.0)));
        (0..5).for_each(|_| queued(queue.offer(&limits, patient(Class::Bulk), || 1, at(0.0))));
        let (mut order, mut now) = (Vec::new(), 0.0);
        while order.len() < 60 {
            now += 0.01;
            (0..2).for_each(|_| queued(queue.offer(&limits, patient(Class::Default), || 0, at(now))));
            queue.on_end(last);
            queue.advance(&limits, at(now), &mut |item, dequeued| {
                let Dequeued::Dispatch(slot) = dequeued else { panic!("{dequeued:?}") };
                (last, _) = (slot, order.push(item));
            });
        }
        let positions: Vec<usize> =
            order.iter().enumerate().filter(|(_, item)| **item == 1).map(|(position, _)| position).collect();
        assert_eq!(positions.len(), 5);
        assert!(positions[0] <= 10 && positions.windows(2).all(|pair| pair[1] - pair[0] <= 11), "{positions:?}");
    }

    /// Of 100 dispatches, those of a class whose requests would be late behind the others.
    fn dispatches_of_the_hopeless(share: f64) -> usize {
        let mut settings = Settings::default();
        settings.classes.bulk.share = share;
        let mut queue = BackendQueue::new(settings);
        let limits = limits(1.0);
        let patient = |now| AdmissionRequest { slo: None, ..of(Class::Interactive, now) };
        let mut last = slot(queue.offer(&limits, patient(0.0), || 0, at(0.0)));
        (0..6).for_each(|_| queued(queue.offer(&limits, patient(0.0), || 0, at(0.0))));
        let mut order = Vec::new();
        for n in 1..=100 {
            let now = 0.1 * f64::from(n);
            if let Offered::Shed(shed) = queue.offer(&limits, of(Class::Bulk, now), || 1, at(now)) {
                assert_eq!(shed.reason, ShedReason::Saturated);
            }
            queue.on_end(last);
            queue.advance(&limits, at(now), &mut |item, dequeued| {
                let Dequeued::Dispatch(slot) = dequeued else { panic!("{dequeued:?}") };
                (last, _) = (slot, order.push(item));
            });
            queued(queue.offer(&limits, patient(now), || 0, at(now)));
        }
        order.iter().filter(|item| **item == 1).count()
    }

    #[test]
    fn a_class_refused_for_earlier_ones_still_has_its_share() {
        let served = dispatches_of_the_hopeless(0.1);
        assert!((8..=10).contains(&served), "{served} of 100 dispatches");
    }

    #[test]
    fn a_refused_class_without_a_share_receives_nothing() {
        assert_eq!(dispatches_of_the_hopeless(0.0), 0);
    }

    #[test]
    fn tenants_share_by_tokens_not_by_requests() {
        let (mut queue, slots) = queue(1);
        let limits = limits(1.0);
        let patient = |tenant, prompt| AdmissionRequest { slo: None, tenant: Tenant(tenant), prompt, ..request(0.0) };
        (0..20).for_each(|_| queued(queue.offer(&limits, patient(1, 100.0), || 1, at(0.0))));
        (0..20).for_each(|_| queued(queue.offer(&limits, patient(2, 300.0), || 2, at(0.0))));
        queue.on_end(slots[0]);
        let mut order = advance(&mut queue, &limits_of(13.0), 0.1).0;
        order.truncate(12);
        let first = order.iter().filter(|tenant| **tenant == 1).count();
        assert!((8..=10).contains(&first), "three times the prompt, a third of the dispatches: {order:?}");
    }

    #[test]
    fn another_queue_takes_over_in_order_and_by_arrival() {
        let (mut busy, _) = queue(1);
        (1..=3)
            .for_each(|n| queued(busy.offer(&limits(1.0), request(0.1 * f64::from(n)), || n, at(0.1 * f64::from(n)))));
        let (mut other, slots) = queue(1);
        ticket(other.offer(&limits(1.0), request(0.25), || 9, at(0.25)));
        let (taken, item) = busy.take_next().unwrap();
        assert_eq!((taken.arrived, item), (at(0.1), 1));
        ticket(other.offer(&limits(1.0), taken, || item, at(0.35)));
        for (taken, item) in busy.take_all() {
            ticket(other.offer(&limits(1.0), taken, || item, at(0.35)));
        }
        assert_eq!((busy.queued(), busy.counts().taken), (0, 3));
        other.on_end(slots[0]);
        assert_eq!(advance(&mut other, &limits_of(9.0), 0.4).0, [1, 2, 9, 3]);
    }

    #[test]
    fn mode_observe_dispatches_all_and_also_those_that_wait() {
        let (mut queue, _) = queue(1);
        ticket(queue.offer(&limits(1.0), request(0.0), || 1, at(0.0)));
        let observe = Limits { mode: Mode::Observe, ..limits(1.0) };
        assert_eq!(advance(&mut queue, &observe, 5.0).0, [1], "even long after its deadline");
        slot(queue.offer(&observe, request(5.0), || 2, at(5.0)));
    }

    #[test]
    fn where_prompts_are_the_work_their_tokens_are_added_up() {
        let (mut queue, _) = queue(1);
        let mut limits = limits(1.0);
        limits.signals.per_prompt_token = Some(0.001);
        let prompt = |prompt, n| (AdmissionRequest { prompt, ..request(0.0) }, n);
        let mut offer = |(request, n): (AdmissionRequest, u32)| queue.offer(&limits, request, || n, at(0.0));
        ticket(offer(prompt(500.0, 1)));
        // 100 pending, 500 waiting, and its own within 1000.
        assert_eq!(reason(offer(prompt(401.0, 2))), ShedReason::Saturated);
        ticket(offer(prompt(399.0, 3)));
    }

    #[test]
    fn gate_stats_are_read_and_cleared() {
        let (mut queue, slots) = queue(2);
        queue.on_first_token(slots[1], at(1.0));
        queue.on_tokens(slots[1], 10);
        assert!(!queue.gate_stats(at(1.0)).window_bound, "no request was held back");
        let capped = Limits { kv_cap: Some(250.0), ..limits(9.0) };
        ticket(queue.offer(&capped, request(1.0), || 1, at(1.0)));
        let gate_stats = queue.gate_stats(at(3.0));
        let expected = GateStats {
            window_bound: false,
            memory_bound: true,
            queued: 1,
            oldest_pending: 3.0,
            pending: 1,
            in_flight: 2,
            context: 210.0,
        };
        assert_eq!(gate_stats, expected);
        assert_eq!(queue.gate_stats(at(3.0)), GateStats { memory_bound: false, ..expected });
    }

    #[derive(Clone, Copy, Debug)]
    enum TestEvent {
        Offer { class: usize, tenant: u16, bytes: u32, slo: Option<u16> },
        FirstToken(usize),
        Tokens(usize),
        End(usize),
        Leave(usize),
        Take,
        Window(u8),
        Time(u16),
    }

    fn event() -> impl Strategy<Value = TestEvent> {
        prop_oneof![
            6 => (0..4_usize, 0..3_u16, 0..40_u32, prop::option::of(1..3_000_u16))
                .prop_map(|(class, tenant, bytes, slo)| TestEvent::Offer { class, tenant, bytes, slo }),
            3 => any::<usize>().prop_map(TestEvent::FirstToken),
            1 => any::<usize>().prop_map(TestEvent::Tokens),
            3 => any::<usize>().prop_map(TestEvent::End),
            1 => any::<usize>().prop_map(TestEvent::Leave),
            1 => Just(TestEvent::Take),
            1 => (0..12_u8).prop_map(TestEvent::Window),
            2 => (0..800_u16).prop_map(TestEvent::Time),
        ]
    }

    proptest! {
        /// After every event the counts add up and no bound is exceeded; no request overtakes inside a class and tenant; a request
        /// that left is never dispatched; the window is exceeded by the headroom only.
        #[test]
        fn a_queue_keeps_its_promises(events in prop::collection::vec(event(), 1..200)) {
            let settings = Settings { max_requests: 6, max_bytes: 120, ..Settings::default() };
            let mut queue: BackendQueue<u32> = BackendQueue::new(settings);
            let (mut limits, mut now, mut next) = (limits(3.0), at(1.0), 0_u32);
            let mut requests: Vec<AdmissionRequest> = Vec::new();
            let mut in_flight: Vec<Slot> = Vec::new();
            let mut tickets: Vec<(Ticket, u32)> = Vec::new();
            let mut gone: Vec<u32> = Vec::new();
            let mut last: std::collections::HashMap<(Class, Tenant), u32> = Default::default();
            for event in events {
                let before = queue.pending();
                let mut dispatched: Vec<(u32, Slot)> = Vec::new();
                match event {
                    TestEvent::Offer { class, tenant, bytes, slo } => {
                        let (class, tenant) = (Class::ALL[class], Tenant(tenant));
                        let slo = slo.map(|slo| Duration::from_millis(slo.into()));
                        let request = AdmissionRequest { class, tenant, bytes, slo, ..AdmissionRequest::new(now, 100.0) };
                        requests.push(request);
                        match queue.offer(&limits, request, || next, now) {
                            Offered::Dispatched(slot) => dispatched.push((next, slot)),
                            Offered::Queued(ticket) => tickets.push((ticket, next)),
                            Offered::Shed(shed) => {
                                prop_assert!((Duration::from_secs(1)..=Duration::from_secs(60)).contains(&shed.retry_after));
                                prop_assert_eq!(shed.retry_after.subsec_nanos(), 0);
                            }
                        }
                        next += 1;
                    }
                    TestEvent::FirstToken(n) if !in_flight.is_empty() => {
                        queue.on_first_token(in_flight[n % in_flight.len()], now);
                    }
                    TestEvent::Tokens(n) if !in_flight.is_empty() => queue.on_tokens(in_flight[n % in_flight.len()], 5),
                    TestEvent::End(n) if !in_flight.is_empty() => {
                        let slot = in_flight.swap_remove(n % in_flight.len());
                        prop_assert!(queue.on_end(slot) && !queue.on_end(slot));
                    }
                    TestEvent::Leave(n) if !tickets.is_empty() => {
                        let (ticket, item) = tickets.swap_remove(n % tickets.len());
                        if queue.leave(ticket).is_some() {
                            gone.push(item);
                        }
                    }
                    TestEvent::Take => gone.extend(queue.take_next().map(|(_, item)| item)),
                    TestEvent::Window(window) => limits.window = f64::from(window),
                    TestEvent::Time(milliseconds) => now = now + Duration::from_millis(milliseconds.into()),
                    _ => {}
                }
                queue.advance(&limits, now, &mut |item, dequeued| {
                    if let Dequeued::Dispatch(slot) = dequeued {
                        dispatched.push((item, slot));
                    }
                });
                for (item, slot) in dispatched {
                    in_flight.push(slot);
                    prop_assert!(!gone.contains(&item), "{} had left", item);
                    let request = requests[item as usize];
                    let previous = last.insert((request.class, request.tenant), item);
                    prop_assert!(previous.is_none_or(|previous| previous < item), "{:?} before {}", previous, item);
                }
                let counts = queue.counts();
                let accounted = counts.dispatched + counts.shed + counts.left + counts.taken + queue.queued() as u64;
                prop_assert_eq!(counts.offered, accounted);
                prop_assert_eq!(queue.in_flight() as usize, in_flight.len());
                prop_assert!(queue.queued() <= 6 && queue.queued_bytes() <= 120);
                let most = (limits.window * 1.25).round().max(1.0) as u32;
                prop_assert!(queue.pending() <= most.max(before), "{} pending, {} allowed", queue.pending(), most);
            }
        }
    }
}
