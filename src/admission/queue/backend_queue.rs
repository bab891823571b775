//! One backend's gate with the queue before it.
//!
//! Every event is a call; after one that may have made room, call [`Line::advance`], which says whose turn it is. All of it is
//! O(tenants that wait) at most, and nothing allocates beyond the queue's own growth.

use std::time::Duration;

use super::class_queue::{Queue, Ticket};
use super::deadline::Outlook;
use super::reserve::Reserve;
use super::retry_after::RetryAfter;
use super::scheduler;
use super::scheduler::NextHead;
use super::tenant_queue::TenantQueue;
use crate::admission::gate::{Gate, GateVerdict, Slot};
use crate::admission::limits::Limits;
use crate::admission::request::AdmissionRequest;
use crate::admission::settings::Settings;
use crate::admission::shed::Shed;
use crate::vocabulary::class::Class;
use crate::vocabulary::mode::Mode;
use crate::vocabulary::shed_reason::ShedReason;
use crate::vocabulary::time::Timestamp;

/// The line before one backend. `T` is what comes back with the verdict on a request that had to wait.
#[derive(Debug)]
pub struct BackendQueue<T> {
    settings: Settings,
    gate: Gate,
    queue: Queue<T>,
    pace: RetryAfter,
    counts: QueueCounts,
    refused: bool,
    memory_bound: bool,
    swept: Timestamp,
}

/// What became of a request at its arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It goes.
    Dispatched(Slot),
    /// It waits.
    Queued(Ticket),
    /// It is refused.
    Shed(Shed),
}

/// What becomes of a request that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dequeued {
    /// It goes.
    Dispatch(Slot),
    /// It would be too late.
    Shed(Shed),
}

/// Requests ever: `offered = dispatched + shed + left + taken + waiting now`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// That came to this line.
    pub offered: u64,
    /// That were dispatched.
    pub dispatched: u64,
    /// That were refused, at arrival or in the queue.
    pub shed: u64,
    /// Whose clients left the queue.
    pub left: u64,
    /// That another line took over.
    pub taken: u64,
}

/// What control has to know of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GateStats {
    /// The window, or the limit of requests in flight, held somebody back since the last look.
    pub refused: bool,
    /// The cap of the context did.
    pub memory_bound: bool,
    /// Who wait.
    pub queued: usize,
    /// Seconds since dispatch of who has waited longest for a first token.
    pub oldest_pending: f64,
    /// Streams without a first token.
    pub pending: u32,
    /// Dispatched and not ended.
    pub in_flight: u32,
    /// Prompt and answer tokens of those in flight.
    pub context: f64,
}

impl<T> BackendQueue<T> {
    /// An empty line before an idle backend.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            gate: Gate::default(),
            queue: Queue::new(),
            pace: RetryAfter::default(),
            counts: QueueCounts::default(),
            refused: false,
            memory_bound: false,
            swept: Timestamp::ZERO,
        }
    }

    /// Obeys other settings from now on. Who waits already stays, also beyond smaller bounds.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// A request arrived: it goes at once if it is its turn and there is room, else it waits, unless that is of no use.
    ///
    /// A line that was not advanced since its limits changed may let a request wait that could go; the next
    /// [`Line::advance`] finds it. `item` is asked for if it has to stand in the queue.
    pub fn offer(
        &mut self,
        limits: &Limits,
        ask: AdmissionRequest,
        item: impl FnOnce() -> T,
        now: Timestamp,
    ) -> Offered {
        self.counts.offered += 1;
        self.queue.on_arrival(&ask, seconds(now));
        if self.queue.is_empty() && self.may_go_now(limits, &ask, now) {
            return Offered::Dispatched(self.dispatch(limits, &ask, now));
        }
        if let Some(reason) = self.refusal(limits, &ask, now) {
            return Offered::Shed(self.shed(limits, reason, now));
        }
        let credit = self.credit(limits);
        let ticket = self.queue.push(ask, item(), credit);
        // Somebody of an earlier class may pass those whom the reserve or the window's headroom does not let go.
        match self.next(limits, now) {
            Some(next) if (next.class, next.tenant) == (ticket.class, ticket.tenant) && self.is_head(ticket) => {
                // It was put there a line above.
                let Some(waiting) = self.queue.remove(ticket) else { return Offered::Queued(ticket) };
                Offered::Dispatched(self.dispatch(limits, &waiting.ask, now))
            }
            _ => Offered::Queued(ticket),
        }
    }

    /// Dispatches who may go now, and refuses who would be too late.
    pub fn advance(&mut self, limits: &Limits, now: Timestamp, call: &mut impl FnMut(T, Dequeued)) {
        self.sweep(limits, now, call);
        while let Some(next) = self.first(limits, now) {
            let Some(head) = self.queue.head(next.class, next.tenant) else { return };
            let late = limits.mode == Mode::Enforce && self.outlook(limits, now).is_late(&head);
            if !late && !self.may_pass(limits, &next, now) {
                return;
            }
            let Some(waiting) = self.queue.pop(next.class, next.tenant) else { return };
            let verdict = if late {
                Dequeued::Shed(self.shed(limits, ShedReason::Deadline, now))
            } else {
                Dequeued::Dispatch(self.dispatch(limits, &waiting.ask, now))
            };
            call(waiting.item, verdict);
        }
    }

    /// The first token of a dispatched request came; false if it was not waited for.
    pub fn on_first_token(&mut self, slot: Slot, now: Timestamp) -> bool {
        self.gate.on_first_token(slot, now)
    }

    /// So many more tokens of its answer came.
    pub fn on_tokens(&mut self, slot: Slot, more: u32) {
        self.gate.on_tokens(slot, more);
    }

    /// A dispatched request is over, however; false if it was already.
    pub fn on_end(&mut self, slot: Slot) -> bool {
        let Some(ended) = self.gate.on_end(slot) else { return false };
        self.queue.charge(ended.class, ended.tenant, ANSWER * ended.uncharged);
        true
    }

    /// A client hung up while it waited: it is out of the queue now and will never be dispatched. `None` if its call has
    /// come already.
    pub fn leave(&mut self, ticket: Ticket) -> Option<T> {
        let waiting = self.queue.remove(ticket)?;
        self.counts.left += 1;
        Some(waiting.item)
    }

    /// A waiting request's own timer ran out: it is refused.
    pub fn expire(&mut self, limits: &Limits, ticket: Ticket, now: Timestamp) -> Option<(T, Shed)> {
        let waiting = self.queue.remove(ticket)?;
        Some((waiting.item, self.shed(limits, ShedReason::Deadline, now)))
    }

    /// When somebody should come back who was dispatched and will be late: paced like a refusal.
    pub fn retry_after(&mut self, limits: &Limits, now: Timestamp) -> Duration {
        self.pace.promise(now, limits.signals.busy_start_rate)
    }

    /// Takes out who is next, for another backend that has room.
    pub fn take_next(&mut self) -> Option<(AdmissionRequest, T)> {
        let next = scheduler::next(&self.queue, |_, _| true)?;
        let waiting = self.queue.pop(next.class, next.tenant)?;
        self.counts.taken += 1;
        Some((waiting.ask, waiting.item))
    }

    /// Takes everybody out, in the order of their turns: the backend is gone.
    pub fn take_all(&mut self) -> Vec<(AdmissionRequest, T)> {
        std::iter::from_fn(|| self.take_next()).collect()
    }

    /// What happened since the last call, for control.
    pub fn gate_stats(&mut self, now: Timestamp) -> GateStats {
        GateStats {
            refused: std::mem::take(&mut self.refused),
            memory_bound: std::mem::take(&mut self.memory_bound),
            queued: self.queue.len(),
            oldest_pending: self.gate.oldest_pending().map_or(0.0, |(since, _)| now.since(since).as_secs_f64()),
            pending: self.gate.awaiting(),
            in_flight: self.gate.in_flight(),
            context: self.gate.context(),
        }
    }

    /// Whether a request like that would be dispatched at once.
    pub fn has_room(&self, limits: &Limits, ask: &AdmissionRequest, now: Timestamp) -> bool {
        let headroom = self.settings.classes.of(ask.class).headroom;
        self.queue.is_empty() && self.gate.verdict(limits, ask.prompt, headroom, now) == GateVerdict::Open
    }

    /// Requests that the window still has room for; less than none beyond it.
    pub fn room(&self, limits: &Limits) -> f64 {
        let window = limits.concurrency.map_or(limits.window, f64::from);
        let taken = if limits.concurrency.is_some() { self.gate.in_flight() } else { self.gate.awaiting() };
        window - f64::from(taken)
    }

    /// Seconds that a request like that would wait here before its turn.
    pub fn expected_wait(&self, limits: &Limits, ask: &AdmissionRequest, now: Timestamp) -> f64 {
        self.outlook(limits, now).wait(ask)
    }

    /// Who wait.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Who wait, of one class.
    pub fn queued_of(&self, class: Class) -> usize {
        self.queue.class(class).requests
    }

    /// Bytes of their bodies.
    pub fn queued_bytes(&self) -> u64 {
        self.queue.bytes()
    }

    /// When who has waited longest in the queue arrived.
    pub fn oldest_queued(&self) -> Option<Timestamp> {
        let lanes = Class::ALL.into_iter().flat_map(|class| self.queue.class(class).waiting());
        lanes.filter_map(|(_, lane)| lane.head()).map(|ask| ask.arrived).min()
    }

    /// Prompt tokens of a request in flight; 0 if it is over.
    pub fn prompt(&self, slot: Slot) -> f64 {
        self.gate.prompt(slot)
    }

    /// Dispatched and not ended.
    pub fn in_flight(&self) -> u32 {
        self.gate.in_flight()
    }

    /// Of those, streams without a first token.
    pub fn pending(&self) -> u32 {
        self.gate.awaiting()
    }

    /// Requests ever.
    pub fn counts(&self) -> QueueCounts {
        self.counts
    }

    /// Whether it goes, with nobody before it.
    fn may_go_now(&mut self, limits: &Limits, ask: &AdmissionRequest, now: Timestamp) -> bool {
        let headroom = self.settings.classes.of(ask.class).headroom;
        let verdict = self.gate.verdict(limits, ask.prompt, headroom, now);
        self.note(verdict);
        verdict == GateVerdict::Open && !self.is_reserved_from(limits, ask, now)
    }

    /// Why it is of no use to let it wait, if it is of none.
    fn refusal(&mut self, limits: &Limits, ask: &AdmissionRequest, now: Timestamp) -> Option<ShedReason> {
        if limits.mode == Mode::Observe {
            return None;
        }
        let full = self.queue.refusal(ask, &self.settings);
        if full.is_some() || !self.outlook(limits, now).is_hopeless(ask) {
            return full;
        }
        let class = self.queue.class_mut(ask.class);
        class.wanted |= class.requests == 0;
        Some(ShedReason::Saturated)
    }

    /// Refuses the heads whose time is over, whoever's turn it is.
    fn sweep(&mut self, limits: &Limits, now: Timestamp, call: &mut impl FnMut(T, Dequeued)) {
        if now.since(self.swept) < SWEEP || self.queue.is_empty() || limits.mode == Mode::Observe {
            return;
        }
        self.swept = now;
        self.queue.forget_idle(seconds(now));
        let max_wait = self.settings.max_wait;
        for class in Class::ALL {
            while let Some(tenant) = self.queue.expired(class, now, max_wait) {
                let Some(waiting) = self.queue.pop(class, tenant) else { break };
                call(waiting.item, Dequeued::Shed(self.shed(limits, ShedReason::Deadline, now)));
            }
        }
    }

    /// Whose turn it is among those that nothing is kept free for.
    fn first(&self, limits: &Limits, now: Timestamp) -> Option<NextHead> {
        let reserve = Reserve { signals: &limits.signals, now: seconds(now) };
        let holds = |next: &NextHead, lane: &TenantQueue<T>| reserve.holds(&self.queue, &self.gate, next, lane);
        scheduler::next(&self.queue, |next, lane| limits.mode == Mode::Observe || !holds(next, lane))
    }

    /// The same, if there is room for it.
    fn next(&mut self, limits: &Limits, now: Timestamp) -> Option<NextHead> {
        let next = self.first(limits, now)?;
        self.may_pass(limits, &next, now).then_some(next)
    }

    fn may_pass(&mut self, limits: &Limits, next: &NextHead, now: Timestamp) -> bool {
        let Some(head) = self.queue.head(next.class, next.tenant) else { return false };
        let headroom = self.settings.classes.of(next.class).headroom;
        let verdict = self.gate.verdict(limits, head.prompt, headroom, now);
        self.note(verdict);
        verdict == GateVerdict::Open
    }

    fn is_reserved_from(&self, limits: &Limits, ask: &AdmissionRequest, now: Timestamp) -> bool {
        let reserve = Reserve { signals: &limits.signals, now: seconds(now) };
        let next = NextHead { class: ask.class, tenant: ask.tenant, due: false };
        let lane = self.queue.class(ask.class).lanes.get(&ask.tenant);
        limits.mode == Mode::Enforce && lane.is_some_and(|lane| reserve.holds(&self.queue, &self.gate, &next, lane))
    }

    fn is_head(&self, ticket: Ticket) -> bool {
        let lane = self.queue.class(ticket.class).lanes.get(&ticket.tenant);
        lane.is_some_and(|lane| lane.first() == Some(ticket))
    }

    fn note(&mut self, verdict: GateVerdict) {
        self.refused |= verdict == GateVerdict::Full;
        self.memory_bound |= verdict == GateVerdict::MemoryBound;
    }

    fn dispatch(&mut self, limits: &Limits, ask: &AdmissionRequest, now: Timestamp) -> Slot {
        let answer = limits.signals.mean_answer;
        self.counts.dispatched += 1;
        scheduler::on_dispatch(&mut self.queue, ask.class, &self.settings.classes);
        self.queue.charge(ask.class, ask.tenant, f64::from(ask.prompt) + ANSWER * answer);
        self.gate.dispatch(ask, answer, now)
    }

    fn shed(&mut self, limits: &Limits, reason: ShedReason, now: Timestamp) -> Shed {
        self.counts.shed += 1;
        Shed { reason, retry_after: self.retry_after(limits, now) }
    }

    /// Tokens that a tenant who comes back may be behind the others: four usual requests.
    fn credit(&self, limits: &Limits) -> f64 {
        4.0 * (self.gate.mean_prompt() + ANSWER * limits.signals.mean_answer)
    }

    fn outlook<'a>(&'a self, limits: &'a Limits, now: Timestamp) -> Outlook<'a, T> {
        let oldest = self.gate.oldest_pending();
        Outlook { limits, settings: &self.settings, queue: &self.queue, gate: &self.gate, oldest, now }
    }
}

fn seconds(at: Timestamp) -> f64 {
    at.since(Timestamp::ZERO).as_secs_f64()
}

/// A token of an answer costs about as much as two of a prompt.
const ANSWER: f64 = 2.0;
/// How often all heads are looked at for their deadlines.
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

    /// A window of so many, at an engine that starts ten requests per second.
    fn limits(window: f64) -> Limits {
        let signals = Signals { busy_start_rate: 10.0, recent_ttft: 10.0, ..Signals::UNKNOWN };
        Limits { window, signals, ..Limits::new(Mode::Enforce) }
    }

    fn ask(arrived: f64) -> AdmissionRequest {
        AdmissionRequest { slo: Some(Duration::from_secs(1)), ..AdmissionRequest::new(at(arrived), 100.0) }
    }

    fn of(class: Class, arrived: f64) -> AdmissionRequest {
        AdmissionRequest { class, ..ask(arrived) }
    }

    /// A line with `pending` dispatched requests.
    fn line(pending: usize) -> (BackendQueue<u32>, Vec<Slot>) {
        let mut line = BackendQueue::new(Settings::default());
        let slots = (0..pending).map(|_| slot(line.offer(&limits(1e6), ask(0.0), || 0, at(0.0)))).collect();
        (line, slots)
    }

    fn slot(offered: Offered) -> Slot {
        let Offered::Dispatched(slot) = offered else { panic!("{offered:?}") };
        slot
    }

    fn ticket(offered: Offered) -> Ticket {
        let Offered::Queued(ticket) = offered else { panic!("{offered:?}") };
        ticket
    }

    /// It waits, and nobody asks where.
    fn queued(offered: Offered) {
        ticket(offered);
    }

    fn reason(offered: Offered) -> ShedReason {
        let Offered::Shed(shed) = offered else { panic!("{offered:?}") };
        shed.reason
    }

    fn advance(line: &mut BackendQueue<u32>, limits: &Limits, now: f64) -> (Vec<u32>, Vec<u32>) {
        let (mut dispatched, mut shed) = (Vec::new(), Vec::new());
        line.advance(limits, at(now), &mut |item, call| match call {
            Dequeued::Dispatch(_) => dispatched.push(item),
            Dequeued::Shed(_) => shed.push(item),
        });
        (dispatched, shed)
    }

    #[test]
    fn who_finds_room_goes_at_once_and_the_next_waits_for_it() {
        let (mut line, slots) = line(2);
        let limits = limits(2.0);
        ticket(line.offer(&limits, ask(0.1), || 7, at(0.1)));
        assert_eq!(advance(&mut line, &limits, 0.2), (vec![], vec![]), "nothing has changed");
        assert!(line.on_first_token(slots[0], at(0.3)));
        assert_eq!(advance(&mut line, &limits, 0.3), (vec![7], vec![]));
        assert_eq!((line.queued(), line.pending(), line.in_flight()), (0, 2, 3));
    }

    #[test]
    fn a_line_longer_than_the_objective_refuses_at_arrival_and_a_shorter_one_does_not() {
        let (mut line, _) = line(1);
        let limits = limits(1.0);
        // Ten starts a second, 0.9 of a second: nine before oneself.
        (0..10).for_each(|n| queued(line.offer(&limits, ask(0.0), || n, at(0.0))));
        assert_eq!(reason(line.offer(&limits, ask(0.0), || 10, at(0.0))), ShedReason::Saturated);
        let patient = AdmissionRequest { slo: Some(Duration::from_secs(2)), ..ask(0.0) };
        ticket(line.offer(&limits, patient, || 11, at(0.0)));
    }

    #[test]
    fn who_would_be_too_late_is_dropped_and_not_dispatched() {
        let (mut line, slots) = line(1);
        let mut limits = limits(1.0);
        limits.signals.excess_ttft = 0.3;
        (0..3).for_each(|n| queued(line.offer(&limits, ask(0.1 * f64::from(n)), || n, at(0.1 * f64::from(n)))));
        assert_eq!(advance(&mut line, &limits, 0.65), (vec![], vec![]), "the first is in time");
        assert_eq!(advance(&mut line, &limits, 0.75), (vec![], vec![0]), "0.75 + 0.3 > 1, and there is no room even");
        line.on_first_token(slots[0], at(0.76));
        assert_eq!(advance(&mut line, &limits, 1.05), (vec![1], vec![2]), "behind nobody there is nothing to wait for");
    }

    #[test]
    fn a_client_that_hung_up_is_never_dispatched() {
        let (mut line, slots) = line(1);
        let limits = limits(1.0);
        let tickets: Vec<Ticket> = (0..3).map(|n| ticket(line.offer(&limits, ask(0.0), || n, at(0.0)))).collect();
        assert_eq!(line.leave(tickets[0]), Some(0));
        assert_eq!(line.leave(tickets[0]), None, "only once");
        assert_eq!(line.leave(tickets[1]), Some(1));
        line.on_end(slots[0]);
        assert_eq!(advance(&mut line, &limits, 0.1), (vec![2], vec![]));
        assert_eq!(line.leave(tickets[2]), None, "its call has come");
    }

    #[test]
    fn bounds_are_exact_in_requests_and_bytes() {
        let classes = crate::admission::settings::Classes::default();
        let settings = Settings { max_requests: 4, max_bytes: 100, classes, ..Settings::default() };
        let mut line = BackendQueue::new(settings);
        slot(line.offer(&limits(1.0), ask(0.0), || 0, at(0.0)));
        let patient = |class| AdmissionRequest { slo: None, ..of(class, 0.0) };
        let big = |bytes, class| AdmissionRequest { bytes, ..patient(class) };
        ticket(line.offer(&limits(1.0), big(60, Class::Default), || 1, at(0.0)));
        assert_eq!(reason(line.offer(&limits(1.0), big(41, Class::Default), || 2, at(0.0))), ShedReason::QueueBytes);
        ticket(line.offer(&limits(1.0), big(40, Class::Default), || 3, at(0.0)));
        assert_eq!(line.queued_bytes(), 100);
        ticket(line.offer(&limits(1.0), patient(Class::Bulk), || 4, at(0.0)));
        ticket(line.offer(&limits(1.0), patient(Class::Bulk), || 5, at(0.0)));
        assert_eq!(reason(line.offer(&limits(1.0), patient(Class::Default), || 6, at(0.0))), ShedReason::QueueFull);
        assert_eq!((line.queued(), line.queued_of(Class::Bulk)), (4, 2));
    }

    #[test]
    fn a_class_fills_its_part_of_the_queue_and_no_more() {
        let mut line = BackendQueue::new(Settings { max_requests: 4, ..Settings::default() });
        slot(line.offer(&limits(1.0), ask(0.0), || 0, at(0.0)));
        (0..2).for_each(|_| queued(line.offer(&limits(1.0), of(Class::Bulk, 0.0), || 1, at(0.0))));
        assert_eq!(reason(line.offer(&limits(1.0), of(Class::Bulk, 0.0), || 2, at(0.0))), ShedReason::QueueFull);
        ticket(line.offer(&limits(1.0), of(Class::Default, 0.0), || 3, at(0.0)));
    }

    #[test]
    fn an_earlier_class_goes_first_and_inside_a_class_who_came_first() {
        let (mut line, slots) = line(1);
        let limits = limits(1.0);
        let order = [Class::Bulk, Class::Default, Class::Interactive, Class::Default, Class::System];
        let arrive = |(n, class): (usize, &Class)| queued(line.offer(&limits, of(*class, 0.0), || n as u32, at(0.0)));
        order.iter().enumerate().for_each(arrive);
        line.on_first_token(slots[0], at(0.1));
        assert_eq!(advance(&mut line, &limits_of(9.0), 0.1).0, [4, 2, 1, 3, 0]);
    }

    fn limits_of(window: f64) -> Limits {
        limits(window)
    }

    /// The starvation bound: a class with share s goes after at most ceil(1/s) dispatches of others.
    #[test]
    fn a_class_that_waits_gets_its_share_whoever_stands_before_it() {
        let mut settings = Settings { max_requests: 100_000, ..Settings::default() };
        settings.classes.bulk.share = 0.1;
        settings.classes.default.share = 0.0;
        let mut line = BackendQueue::new(settings);
        let limits = limits(1.0);
        let patient = |class| AdmissionRequest { slo: None, ..of(class, 0.0) };
        let mut last = slot(line.offer(&limits, patient(Class::Default), || 0, at(0.0)));
        (0..5).for_each(|_| queued(line.offer(&limits, patient(Class::Bulk), || 1, at(0.0))));
        let (mut order, mut now) = (Vec::new(), 0.0);
        while order.len() < 60 {
            now += 0.01;
            (0..2).for_each(|_| queued(line.offer(&limits, patient(Class::Default), || 0, at(now))));
            line.on_end(last);
            line.advance(&limits, at(now), &mut |item, call| {
                let Dequeued::Dispatch(slot) = call else { panic!("{call:?}") };
                (last, _) = (slot, order.push(item));
            });
        }
        let places: Vec<usize> =
            order.iter().enumerate().filter(|(_, item)| **item == 1).map(|(place, _)| place).collect();
        assert_eq!(places.len(), 5);
        assert!(places[0] <= 10 && places.windows(2).all(|pair| pair[1] - pair[0] <= 11), "{places:?}");
    }

    /// Dispatches of a class whose requests would be too late behind the others', of a hundred.
    fn dispatches_of_the_hopeless(share: f64) -> usize {
        let mut settings = Settings::default();
        settings.classes.bulk.share = share;
        let mut line = BackendQueue::new(settings);
        let limits = limits(1.0);
        let patient = |now| AdmissionRequest { slo: None, ..of(Class::Interactive, now) };
        let mut last = slot(line.offer(&limits, patient(0.0), || 0, at(0.0)));
        (0..6).for_each(|_| queued(line.offer(&limits, patient(0.0), || 0, at(0.0))));
        let mut order = Vec::new();
        for turn in 1..=100 {
            let now = 0.1 * f64::from(turn);
            if let Offered::Shed(shed) = line.offer(&limits, of(Class::Bulk, now), || 1, at(now)) {
                assert_eq!(shed.reason, ShedReason::Saturated);
            }
            line.on_end(last);
            line.advance(&limits, at(now), &mut |item, call| {
                let Dequeued::Dispatch(slot) = call else { panic!("{call:?}") };
                (last, _) = (slot, order.push(item));
            });
            queued(line.offer(&limits, patient(now), || 0, at(now)));
        }
        order.iter().filter(|item| **item == 1).count()
    }

    #[test]
    fn a_class_that_is_refused_for_those_before_it_gets_its_share_all_the_same() {
        let served = dispatches_of_the_hopeless(0.1);
        assert!((8..=10).contains(&served), "{served} of 100 turns");
    }

    #[test]
    fn a_class_without_a_share_that_is_refused_gets_nothing() {
        assert_eq!(dispatches_of_the_hopeless(0.0), 0);
    }

    #[test]
    fn tenants_share_by_tokens_and_a_small_one_is_not_behind_the_crowd() {
        let (mut line, slots) = line(1);
        let limits = limits(1.0);
        let patient = |tenant, prompt| AdmissionRequest { slo: None, tenant: Tenant(tenant), prompt, ..ask(0.0) };
        (0..20).for_each(|_| queued(line.offer(&limits, patient(1, 100.0), || 1, at(0.0))));
        (0..20).for_each(|_| queued(line.offer(&limits, patient(2, 300.0), || 2, at(0.0))));
        line.on_end(slots[0]);
        let mut order = advance(&mut line, &limits_of(13.0), 0.1).0;
        order.truncate(12);
        let first = order.iter().filter(|tenant| **tenant == 1).count();
        assert!((8..=10).contains(&first), "three times the prompt, a third of the turns: {order:?}");
    }

    #[test]
    fn another_line_takes_over_in_the_order_of_turns_and_by_the_time_of_arrival() {
        let (mut busy, _) = line(1);
        (1..=3).for_each(|n| queued(busy.offer(&limits(1.0), ask(0.1 * f64::from(n)), || n, at(0.1 * f64::from(n)))));
        let (mut other, slots) = line(1);
        ticket(other.offer(&limits(1.0), ask(0.25), || 9, at(0.25)));
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
    fn in_mode_observe_everybody_goes_and_a_switch_lets_go_who_waits() {
        let (mut line, _) = line(1);
        ticket(line.offer(&limits(1.0), ask(0.0), || 1, at(0.0)));
        let observe = Limits { mode: Mode::Observe, ..limits(1.0) };
        assert_eq!(advance(&mut line, &observe, 5.0).0, [1], "also long after its time");
        slot(line.offer(&observe, ask(5.0), || 2, at(5.0)));
    }

    #[test]
    fn where_prompts_are_the_work_their_tokens_are_added_up() {
        let (mut line, _) = line(1);
        let mut limits = limits(1.0);
        limits.signals.per_prompt_token = Some(0.001);
        let prompt = |prompt, n| (AdmissionRequest { prompt, ..ask(0.0) }, n);
        let mut offer = |(ask, n): (AdmissionRequest, u32)| line.offer(&limits, ask, || n, at(0.0));
        ticket(offer(prompt(500.0, 1)));
        // 100 pending, 500 waiting, and its own within 1000.
        assert_eq!(reason(offer(prompt(401.0, 2))), ShedReason::Saturated);
        ticket(offer(prompt(399.0, 3)));
    }

    #[test]
    fn pressure_is_taken_and_cleared() {
        let (mut line, slots) = line(2);
        line.on_first_token(slots[1], at(1.0));
        line.on_tokens(slots[1], 10);
        assert!(!line.gate_stats(at(1.0)).refused, "nobody was held back");
        let capped = Limits { kv_cap: Some(250.0), ..limits(9.0) };
        ticket(line.offer(&capped, ask(1.0), || 1, at(1.0)));
        let gate_stats = line.gate_stats(at(3.0));
        let expected = GateStats {
            refused: false,
            memory_bound: true,
            queued: 1,
            oldest_pending: 3.0,
            pending: 1,
            in_flight: 2,
            context: 210.0,
        };
        assert_eq!(gate_stats, expected);
        assert_eq!(line.gate_stats(at(3.0)), GateStats { memory_bound: false, ..expected });
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
        /// After every event the books add up and nothing is beyond its bound; nobody overtakes inside a class and tenant;
        /// who has left is never dispatched; the window is passed by the headroom only.
        #[test]
        fn a_line_keeps_its_promises(events in prop::collection::vec(event(), 1..200)) {
            let settings = Settings { max_requests: 6, max_bytes: 120, ..Settings::default() };
            let mut line: BackendQueue<u32> = BackendQueue::new(settings);
            let (mut limits, mut now, mut next) = (limits(3.0), at(1.0), 0_u32);
            let mut asks: Vec<AdmissionRequest> = Vec::new();
            let mut flying: Vec<Slot> = Vec::new();
            let mut tickets: Vec<(Ticket, u32)> = Vec::new();
            let mut gone: Vec<u32> = Vec::new();
            let mut last: std::collections::HashMap<(Class, Tenant), u32> = Default::default();
            for event in events {
                let before = line.pending();
                let mut dispatched: Vec<(u32, Slot)> = Vec::new();
                match event {
                    TestEvent::Offer { class, tenant, bytes, slo } => {
                        let (class, tenant) = (Class::ALL[class], Tenant(tenant));
                        let slo = slo.map(|slo| Duration::from_millis(slo.into()));
                        let ask = AdmissionRequest { class, tenant, bytes, slo, ..AdmissionRequest::new(now, 100.0) };
                        asks.push(ask);
                        match line.offer(&limits, ask, || next, now) {
                            Offered::Dispatched(slot) => dispatched.push((next, slot)),
                            Offered::Queued(ticket) => tickets.push((ticket, next)),
                            Offered::Shed(shed) => {
                                prop_assert!((Duration::from_secs(1)..=Duration::from_secs(60)).contains(&shed.retry_after));
                                prop_assert_eq!(shed.retry_after.subsec_nanos(), 0);
                            }
                        }
                        next += 1;
                    }
                    TestEvent::FirstToken(n) if !flying.is_empty() => {
                        line.on_first_token(flying[n % flying.len()], now);
                    }
                    TestEvent::Tokens(n) if !flying.is_empty() => line.on_tokens(flying[n % flying.len()], 5),
                    TestEvent::End(n) if !flying.is_empty() => {
                        let slot = flying.swap_remove(n % flying.len());
                        prop_assert!(line.on_end(slot) && !line.on_end(slot));
                    }
                    TestEvent::Leave(n) if !tickets.is_empty() => {
                        let (ticket, item) = tickets.swap_remove(n % tickets.len());
                        if line.leave(ticket).is_some() {
                            gone.push(item);
                        }
                    }
                    TestEvent::Take => gone.extend(line.take_next().map(|(_, item)| item)),
                    TestEvent::Window(window) => limits.window = f64::from(window),
                    TestEvent::Time(milliseconds) => now = now + Duration::from_millis(milliseconds.into()),
                    _ => {}
                }
                line.advance(&limits, now, &mut |item, call| {
                    if let Dequeued::Dispatch(slot) = call {
                        dispatched.push((item, slot));
                    }
                });
                for (item, slot) in dispatched {
                    flying.push(slot);
                    prop_assert!(!gone.contains(&item), "{} had left", item);
                    let ask = asks[item as usize];
                    let previous = last.insert((ask.class, ask.tenant), item);
                    prop_assert!(previous.is_none_or(|previous| previous < item), "{:?} before {}", previous, item);
                }
                let counts = line.counts();
                let accounted = counts.dispatched + counts.shed + counts.left + counts.taken + line.queued() as u64;
                prop_assert_eq!(counts.offered, accounted);
                prop_assert_eq!(line.in_flight() as usize, flying.len());
                prop_assert!(line.queued() <= 6 && line.queued_bytes() <= 120);
                let most = (limits.window * 1.25).round().max(1.0) as u32;
                prop_assert!(line.pending() <= most.max(before), "{} pending, {} allowed", line.pending(), most);
            }
        }
    }
}
