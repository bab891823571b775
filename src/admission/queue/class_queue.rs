//! The requests that wait for one backend: by class, inside a class by tenant, inside a tenant by arrival. Bounded.
//!
//! Tenants share a class by tokens: each dispatch is charged to its tenant, and the tenant that was charged least is served next
//! (virtual token counter, Sheng et al. 2023).
//!
//! Absent: the choice of the next request (`scheduler`) and admission.

use std::collections::BTreeMap;
use std::time::Duration;

use super::tenant_queue::TenantQueue;
use super::ticket::{QueuedRequest, Ticket};
use crate::admission::request::{AdmissionRequest, Tenant};
use crate::admission::settings::Settings;
use crate::vocabulary::class::Class;
use crate::vocabulary::shed_reason::ShedReason;
use crate::vocabulary::time::Timestamp;

/// All classes of one backend.
#[derive(Debug)]
pub(super) struct ClassQueues<T> {
    classes: [ClassQueue<T>; 4],
    requests: usize,
    bytes: u64,
    next: u64,
}

#[derive(Debug)]
pub(super) struct ClassQueue<T> {
    pub tenants: BTreeMap<Tenant, TenantQueue<T>>,
    /// Requests that wait in this class.
    pub requests: usize,
    bytes: u64,
    /// Dispatches of other classes while this one waited or was `wanted`, times its share.
    pub credit: f64,
    /// A request of this class was refused since its last dispatch, because the requests of other classes made it late.
    pub wanted: bool,
}

impl<T> ClassQueues<T> {
    pub fn new() -> Self {
        Self { classes: std::array::from_fn(|_| ClassQueue::new()), requests: 0, bytes: 0, next: 0 }
    }

    /// Why the queue has no room for one more request, if it has none.
    pub fn refusal(&self, request: &AdmissionRequest, settings: &Settings) -> Option<ShedReason> {
        let share = settings.classes.of(request.class).queue.clamp(0.0, 1.0);
        let class = &self.classes[request.class.index()];
        let (of_class, bytes) = (settings.max_requests as f64 * share, settings.max_bytes as f64 * share);
        if self.requests >= settings.max_requests || class.requests as f64 + 1.0 > of_class {
            return Some(ShedReason::QueueFull);
        }
        let more = u64::from(request.bytes);
        let is_too_big = self.bytes + more > settings.max_bytes || (class.bytes + more) as f64 > bytes;
        is_too_big.then_some(ShedReason::QueueBytes)
    }

    /// The caller has checked [`ClassQueues::refusal`]. A tenant that returns starts `credit` tokens below the others.
    pub fn push(&mut self, request: AdmissionRequest, item: T, credit: f64) -> Ticket {
        let ticket =
            Ticket { arrived: request.arrived, number: self.next, class: request.class, tenant: request.tenant };
        self.next += 1;
        self.requests += 1;
        self.bytes += u64::from(request.bytes);
        self.classes[request.class.index()].push(QueuedRequest { ticket, request, item }, credit);
        ticket
    }

    /// The first waiting request of a tenant.
    pub fn head(&self, class: Class, tenant: Tenant) -> Option<AdmissionRequest> {
        self.class(class).tenants.get(&tenant)?.head().copied()
    }

    /// A tenant whose first request has waited longer than it may.
    pub fn expired(&self, class: Class, now: Timestamp, max_wait: Duration) -> Option<Tenant> {
        let is_over = |request: &AdmissionRequest| now.since(request.arrived) > request.slo.unwrap_or(max_wait);
        let mut tenants = self.class(class).waiting();
        tenants.find(|(_, tenant_queue)| tenant_queue.head().is_some_and(is_over)).map(|(tenant, _)| tenant)
    }

    /// Takes the first request of a tenant.
    pub fn pop(&mut self, class: Class, tenant: Tenant) -> Option<QueuedRequest<T>> {
        let waiting = self.class_mut(class).tenants.get_mut(&tenant)?.pop()?;
        Some(self.taken(waiting))
    }

    /// Takes a request out, at any position.
    pub fn remove(&mut self, ticket: Ticket) -> Option<QueuedRequest<T>> {
        let waiting = self.class_mut(ticket.class).tenants.get_mut(&ticket.tenant)?.remove(ticket)?;
        Some(self.taken(waiting))
    }

    /// Counts an arrival, whatever happens to the request.
    pub fn on_arrival(&mut self, request: &AdmissionRequest, now: f64) {
        self.class_mut(request.class).tenant_queue(request.tenant).arrivals.add(now);
    }

    /// A tenant was served `tokens` beyond what it was charged; negative if it was charged too much.
    pub fn charge(&mut self, class: Class, tenant: Tenant, tokens: f64) {
        if let Some(tenant_queue) = self.class_mut(class).tenants.get_mut(&tenant) {
            tenant_queue.virtual_time += tokens;
        }
    }

    /// Drops tenants that have no waiting request and no recent arrival.
    pub fn forget_idle(&mut self, now: f64) {
        for class in &mut self.classes {
            if class.tenants.len() > MANY_TENANTS {
                class
                    .tenants
                    .retain(|_, tenant_queue| !tenant_queue.is_empty() || tenant_queue.arrivals.at(now) > FORGOTTEN);
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

    fn taken(&mut self, waiting: QueuedRequest<T>) -> QueuedRequest<T> {
        self.requests -= 1;
        self.bytes -= u64::from(waiting.request.bytes);
        let class = self.class_mut(waiting.request.class);
        class.requests -= 1;
        class.bytes -= u64::from(waiting.request.bytes);
        if class.requests == 0 && !class.wanted {
            class.credit = 0.0;
        }
        waiting
    }
}

impl<T> ClassQueue<T> {
    fn new() -> Self {
        Self { tenants: BTreeMap::new(), requests: 0, bytes: 0, credit: 0.0, wanted: false }
    }

    /// A tenant that becomes active starts at the least charged of the others, less a credit: without it every burst of a small
    /// tenant would wait behind all requests of the large ones.
    fn push(&mut self, waiting: QueuedRequest<T>, credit: f64) {
        let least = self.least_charged();
        self.requests += 1;
        self.bytes += u64::from(waiting.request.bytes);
        let tenant_queue = self.tenant_queue(waiting.request.tenant);
        if let Some(least) = least.filter(|_| tenant_queue.is_empty()) {
            tenant_queue.virtual_time = tenant_queue.virtual_time.max(least - credit);
        }
        tenant_queue.push(waiting);
    }

    fn tenant_queue(&mut self, tenant: Tenant) -> &mut TenantQueue<T> {
        self.tenants.entry(tenant).or_insert_with(TenantQueue::new)
    }

    /// Tenants that have a waiting request.
    pub fn waiting(&self) -> impl Iterator<Item = (Tenant, &TenantQueue<T>)> {
        self.tenants
            .iter()
            .filter(|(_, tenant_queue)| !tenant_queue.is_empty())
            .map(|(tenant, tenant_queue)| (*tenant, tenant_queue))
    }

    /// Arrivals per second.
    pub fn arrival_rate(&self, now: f64) -> f64 {
        self.tenants.values().map(|tenant_queue| tenant_queue.arrivals.at(now)).sum()
    }

    fn least_charged(&self) -> Option<f64> {
        self.waiting().map(|(_, tenant_queue)| tenant_queue.virtual_time).reduce(f64::min)
    }
}

/// Above this number idle tenants are dropped; a tenant queue takes about 150 bytes.
const MANY_TENANTS: usize = 256;
/// Arrivals per second of a tenant without one for 30 s.
const FORGOTTEN: f64 = 1e-5;
