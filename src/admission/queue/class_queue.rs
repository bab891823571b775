//! Those who wait for one backend: by class, inside a class by tenant, inside a tenant by arrival. Bounded.
//!
//! Tenants share a class by tokens: each dispatch is charged to its tenant, and the one that has been charged least goes
//! first (virtual token counter, Sheng et al. 2023). It decides an order and no admission; [`super::scheduler`] says who is next.

use std::collections::BTreeMap;
use std::time::Duration;

use super::tenant_queue::{QueuedRequest, TenantQueue};
use crate::admission::request::{AdmissionRequest, Tenant};
use crate::admission::settings::Settings;
use crate::vocabulary::class::Class;
use crate::vocabulary::shed_reason::ShedReason;
use crate::vocabulary::time::Timestamp;

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    pub(in crate::admission) arrived: Timestamp,
    pub(in crate::admission) number: u64,
    pub(in crate::admission) class: Class,
    pub(in crate::admission) tenant: Tenant,
}

/// One backend's queue.
#[derive(Debug)]
pub(in crate::admission) struct Queue<T> {
    classes: [ClassQueue<T>; 4],
    requests: usize,
    bytes: u64,
    next: u64,
}

/// One class's lanes.
#[derive(Debug)]
pub(in crate::admission) struct ClassQueue<T> {
    pub lanes: BTreeMap<Tenant, TenantQueue<T>>,
    /// Those who wait in them.
    pub requests: usize,
    bytes: u64,
    /// Dispatches that earlier classes had while this one waited or wanted, by its share of them.
    pub credit: f64,
    /// One of its own was refused since its last dispatch, because those of other classes would have made it late.
    pub wanted: bool,
}

impl<T> Queue<T> {
    pub fn new() -> Self {
        Self { classes: std::array::from_fn(|_| ClassQueue::new()), requests: 0, bytes: 0, next: 0 }
    }

    /// Why there is no room for one more, if there is none.
    pub fn refusal(&self, ask: &AdmissionRequest, settings: &Settings) -> Option<ShedReason> {
        let share = settings.classes.of(ask.class).queue.clamp(0.0, 1.0);
        let class = &self.classes[ask.class.index()];
        let (of_class, bytes) = (settings.max_requests as f64 * share, settings.max_bytes as f64 * share);
        if self.requests >= settings.max_requests || class.requests as f64 + 1.0 > of_class {
            return Some(ShedReason::QueueFull);
        }
        let more = u64::from(ask.bytes);
        let is_too_big = self.bytes + more > settings.max_bytes || (class.bytes + more) as f64 > bytes;
        is_too_big.then_some(ShedReason::QueueBytes)
    }

    /// Takes it in; the caller has asked [`Queue::refusal`]. `credit` tokens are what a tenant that comes back may be behind.
    pub fn push(&mut self, ask: AdmissionRequest, item: T, credit: f64) -> Ticket {
        let ticket = Ticket { arrived: ask.arrived, number: self.next, class: ask.class, tenant: ask.tenant };
        self.next += 1;
        self.requests += 1;
        self.bytes += u64::from(ask.bytes);
        self.classes[ask.class.index()].push(QueuedRequest { ticket, ask, item }, credit);
        ticket
    }

    /// Who stands first in a lane.
    pub fn head(&self, class: Class, tenant: Tenant) -> Option<AdmissionRequest> {
        self.class(class).lanes.get(&tenant)?.head().copied()
    }

    /// A lane of that class whose head has waited for longer than it may.
    pub fn expired(&self, class: Class, now: Timestamp, max_wait: Duration) -> Option<Tenant> {
        let is_over = |ask: &AdmissionRequest| now.since(ask.arrived) > ask.slo.unwrap_or(max_wait);
        let mut lanes = self.class(class).waiting();
        lanes.find(|(_, lane)| lane.head().is_some_and(is_over)).map(|(tenant, _)| tenant)
    }

    /// Takes the head of a lane out.
    pub fn pop(&mut self, class: Class, tenant: Tenant) -> Option<QueuedRequest<T>> {
        let waiting = self.class_mut(class).lanes.get_mut(&tenant)?.pop()?;
        Some(self.gone(waiting))
    }

    /// Takes one out, wherever it stands.
    pub fn remove(&mut self, ticket: Ticket) -> Option<QueuedRequest<T>> {
        let waiting = self.class_mut(ticket.class).lanes.get_mut(&ticket.tenant)?.remove(ticket)?;
        Some(self.gone(waiting))
    }

    /// Somebody arrived, whatever becomes of him.
    pub fn on_arrival(&mut self, ask: &AdmissionRequest, now: f64) {
        self.class_mut(ask.class).lane(ask.tenant).arrivals.add(now);
    }

    /// A tenant was served so many tokens that it was not charged yet; less than none if it was charged too much.
    pub fn charge(&mut self, class: Class, tenant: Tenant, tokens: f64) {
        if let Some(lane) = self.class_mut(class).lanes.get_mut(&tenant) {
            lane.virtual_time += tokens;
        }
    }

    /// Forgets tenants that have nothing waiting and have not come for a while.
    pub fn forget_idle(&mut self, now: f64) {
        for class in &mut self.classes {
            if class.lanes.len() > MANY_LANES {
                class.lanes.retain(|_, lane| !lane.is_empty() || lane.arrivals.at(now) > FORGOTTEN);
            }
        }
    }

    pub fn class(&self, class: Class) -> &ClassQueue<T> {
        &self.classes[class.index()]
    }

    pub fn class_mut(&mut self, class: Class) -> &mut ClassQueue<T> {
        &mut self.classes[class.index()]
    }

    pub fn len(&self) -> usize {
        self.requests
    }

    pub fn is_empty(&self) -> bool {
        self.requests == 0
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn gone(&mut self, waiting: QueuedRequest<T>) -> QueuedRequest<T> {
        self.requests -= 1;
        self.bytes -= u64::from(waiting.ask.bytes);
        let class = self.class_mut(waiting.ask.class);
        class.requests -= 1;
        class.bytes -= u64::from(waiting.ask.bytes);
        if class.requests == 0 && !class.wanted {
            class.credit = 0.0;
        }
        waiting
    }
}

impl<T> ClassQueue<T> {
    fn new() -> Self {
        Self { lanes: BTreeMap::new(), requests: 0, bytes: 0, credit: 0.0, wanted: false }
    }

    /// A tenant that becomes active starts where the others are, less a credit: without it every burst of a small tenant
    /// would come after all that the large ones have waiting.
    fn push(&mut self, waiting: QueuedRequest<T>, credit: f64) {
        let least = self.least_charged();
        self.requests += 1;
        self.bytes += u64::from(waiting.ask.bytes);
        let lane = self.lane(waiting.ask.tenant);
        if let Some(least) = least.filter(|_| lane.is_empty()) {
            lane.virtual_time = lane.virtual_time.max(least - credit);
        }
        lane.push(waiting);
    }

    fn lane(&mut self, tenant: Tenant) -> &mut TenantQueue<T> {
        self.lanes.entry(tenant).or_insert_with(TenantQueue::new)
    }

    /// Lanes in which somebody waits.
    pub fn waiting(&self) -> impl Iterator<Item = (Tenant, &TenantQueue<T>)> {
        self.lanes.iter().filter(|(_, lane)| !lane.is_empty()).map(|(tenant, lane)| (*tenant, lane))
    }

    /// Arrivals per second.
    pub fn arrival_rate(&self, now: f64) -> f64 {
        self.lanes.values().map(|lane| lane.arrivals.at(now)).sum()
    }

    fn least_charged(&self) -> Option<f64> {
        self.waiting().map(|(_, lane)| lane.virtual_time).reduce(f64::min)
    }
}

/// From here on idle tenants are looked for; a lane is about 150 bytes.
const MANY_LANES: usize = 256;
/// Arrivals per second of who has not come for half a minute.
const FORGOTTEN: f64 = 1e-5;
