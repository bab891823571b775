//! Concurrency kept free for earlier classes and small tenants (trunk reservation).
//!
//! The order of the queue is not enough: low requests that were dispatched keep the engine full, and a high one then waits inside
//! it. So a low request is dispatched only while the requests in flight stay below the knee, plus those being started, minus the
//! reserve: `n < D + starts (typical + step) - R`, `R = min(0.15 D, ceil(1.3 sqrt(lambda_high SLO / 2)))`. `R` covers the deviation
//! of the high arrivals within half an objective.

use super::class_queue::{ClassQueue, ClassQueues};
use super::scheduler::NextHead;
use super::tenant_queue::TenantQueue;
use crate::admission::gate::Gate;
use crate::vocabulary::class::Class;
use crate::vocabulary::signals::Signals;

/// Which waiting requests are low, and whether one may be dispatched now.
#[derive(Debug)]
pub(super) struct Reserve<'a> {
    pub signals: &'a Signals,
    pub now: f64,
}

impl Reserve<'_> {
    /// Whether the reserve holds back the first request of that tenant.
    pub fn holds<T>(
        &self,
        queue: &ClassQueues<T>,
        gate: &Gate,
        next: &NextHead,
        tenant_queue: &TenantQueue<T>,
    ) -> bool {
        let Some(knee) = self.signals.knee_in_flight.filter(|_| !next.due) else { return false };
        let high = self.high_arrivals(queue, next.class, tenant_queue);
        if high <= NEGLIGIBLE * self.rate() {
            return false;
        }
        let slo = tenant_queue.head().and_then(|request| request.slo).map_or(DEFAULT_SLO, |slo| slo.as_secs_f64());
        if self.rate() * slo > FAST_STARTS {
            return false;
        }
        let reserve = (SAFETY * (high * slo / 2.0).sqrt()).ceil().min(LARGEST * knee);
        let starting = self.signals.start_rate * (self.signals.typical_ttft + self.signals.step_time);
        f64::from(gate.in_flight()) >= knee + starting - reserve
    }

    /// Arrivals per second of the requests that take precedence over that tenant's.
    fn high_arrivals<T>(&self, queue: &ClassQueues<T>, class: Class, tenant_queue: &TenantQueue<T>) -> f64 {
        let before = Class::ALL.into_iter().take(class.index());
        let earlier: f64 = before.map(|class| queue.class(class).arrival_rate(self.now)).sum();
        let class_queue = queue.class(class);
        let fair = self.fair_rate(class_queue);
        if class_queue.tenants.len() < 2 || tenant_queue.arrivals.at(self.now) <= fair {
            return earlier;
        }
        let small = class_queue
            .tenants
            .values()
            .map(|tenant_queue| tenant_queue.arrivals.at(self.now))
            .filter(|rate| *rate <= fair);
        earlier + small.sum::<f64>()
    }

    /// Arrivals per second above which a tenant exceeds its fair share.
    fn fair_rate<T>(&self, class_queue: &ClassQueue<T>) -> f64 {
        let rate = self.rate();
        let active = class_queue
            .tenants
            .values()
            .filter(|tenant_queue| tenant_queue.arrivals.at(self.now) > NEGLIGIBLE * rate)
            .count();
        GREEDY * rate / active.max(1) as f64
    }

    fn rate(&self) -> f64 {
        self.signals.busy_start_rate.max(SLOWEST)
    }
}

/// Deviations of the high arrivals that the reserve covers.
const SAFETY: f64 = 1.3;
/// Starts within an objective above which there is no reserve: a quarter of the objective frees enough slots that a high
/// request is started in time without one. On such an engine a reserve costs 6 % of the goodput and gains nothing.
const FAST_STARTS: f64 = 80.0;
/// Largest reserve, as a share of the knee.
const LARGEST: f64 = 0.15;
/// Multiple of the fair share of the starts above which a tenant is low.
const GREEDY: f64 = 1.2;
/// Share of the starts below which arrivals are ignored.
const NEGLIGIBLE: f64 = 0.02;
/// Starts per second: the least assumed of any engine.
const SLOWEST: f64 = 0.3;
/// Seconds, for requests without an objective.
const DEFAULT_SLO: f64 = 1.0;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::admission::queue::scheduler;
    use crate::admission::request::{AdmissionRequest, Tenant};
    use crate::vocabulary::signals::Signals;
    use crate::vocabulary::time::Timestamp;

    /// Whether a bulk request is held back at a backend that starts `rate` per second and has `in_flight` of 20 at the knee, when
    /// interactive ones arrive at 0.6 of that rate.
    fn is_held(rate: f64, in_flight: u32, knee: Option<f64>, due: bool) -> bool {
        let signals = Signals { busy_start_rate: rate, knee_in_flight: knee, ..Signals::UNKNOWN };
        let mut queue: ClassQueues<()> = ClassQueues::new();
        let mut gate = Gate::default();
        let request = |class| AdmissionRequest {
            class,
            slo: Some(Duration::from_secs(1)),
            ..AdmissionRequest::new(Timestamp::ZERO, 1.0)
        };
        for n in 1..=100_u32 {
            queue.on_arrival(&request(Class::Interactive), f64::from(n) / (0.6 * rate));
        }
        (0..in_flight).for_each(|_| _ = gate.dispatch(&request(Class::Bulk), 0.0, Timestamp::ZERO));
        queue.push(request(Class::Bulk), (), 0.0);
        let reserve = Reserve { signals: &signals, now: 100.0 / (0.6 * rate) };
        let next = NextHead { class: Class::Bulk, tenant: Tenant(0), due };
        scheduler::next(&queue, |_, tenant_queue| !reserve.holds(&queue, &gate, &next, tenant_queue)).is_none()
    }

    #[test]
    fn a_slow_engine_keeps_slots_free_for_earlier_classes() {
        assert!(is_held(1.5, 19, Some(20.0), false));
        assert!(!is_held(1.5, 17, Some(20.0), false), "the reserve is two slots");
        assert!(!is_held(1.5, 19, None, false), "no knee is known");
    }

    #[test]
    fn a_class_that_is_due_is_not_held_back() {
        assert!(!is_held(1.5, 25, Some(20.0), true));
    }
}
