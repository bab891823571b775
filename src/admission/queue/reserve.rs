//! What is kept free for those who must not wait (trunk reservation).
//!
//! Order in the queue is not enough: low requests that were dispatched keep the engine full, and a high one then waits inside
//! it. So a low one may go only while fewer are in flight than the knee, what is just being started, and the reserve allow:
//! `n < D + starts (usual + gap) - R`, `R = min(0.15 D, ceil(1.3 sqrt(lambda_high SLO / 2)))`: room for the deviation of the high
//! arrivals within half an objective.

use super::class_queue::{ClassQueue, Queue};
use super::scheduler::NextHead;
use super::tenant_queue::TenantQueue;
use crate::admission::gate::Gate;
use crate::vocabulary::class::Class;
use crate::vocabulary::signals::Signals;

/// Whether a low request may go now, and who counts as low.
#[derive(Debug)]
pub(in crate::admission) struct Reserve<'a> {
    pub signals: &'a Signals,
    pub now: f64,
}

impl Reserve<'_> {
    /// Whether the reserve holds back the head of that lane.
    pub fn holds<T>(&self, queue: &Queue<T>, gate: &Gate, next: &NextHead, lane: &TenantQueue<T>) -> bool {
        let Some(knee) = self.signals.knee_in_flight.filter(|_| !next.due) else { return false };
        let high = self.high_arrivals(queue, next.class, lane);
        if high <= FEW * self.rate() {
            return false;
        }
        let slo = lane.head().and_then(|ask| ask.slo).map_or(USUAL_SLO, |slo| slo.as_secs_f64());
        if self.rate() * slo > MANY {
            return false;
        }
        let reserve = (SAFETY * (high * slo / 2.0).sqrt()).ceil().min(LARGEST * knee);
        let starting = self.signals.start_rate * (self.signals.typical_ttft + self.signals.step_time);
        f64::from(gate.in_flight()) >= knee + starting - reserve
    }

    /// Arrivals per second of those for whom a request of that lane has to make room.
    fn high_arrivals<T>(&self, queue: &Queue<T>, class: Class, lane: &TenantQueue<T>) -> f64 {
        let before = Class::ALL.into_iter().take(class.index());
        let earlier: f64 = before.map(|class| queue.class(class).arrival_rate(self.now)).sum();
        let lanes = queue.class(class);
        let most = self.most(lanes);
        if lanes.lanes.len() < 2 || lane.arrivals.at(self.now) <= most {
            return earlier;
        }
        let small = lanes.lanes.values().map(|lane| lane.arrivals.at(self.now)).filter(|rate| *rate <= most);
        earlier + small.sum::<f64>()
    }

    /// Arrivals per second from which on a tenant takes more than its part.
    fn most<T>(&self, lanes: &ClassQueue<T>) -> f64 {
        let rate = self.rate();
        let active = lanes.lanes.values().filter(|lane| lane.arrivals.at(self.now) > FEW * rate).count();
        GREEDY * rate / active.max(1) as f64
    }

    fn rate(&self) -> f64 {
        self.signals.busy_start_rate.max(SLOWEST)
    }
}

/// Deviations of the high arrivals that are kept free.
const SAFETY: f64 = 1.3;
/// Starts within an objective from which on nothing is kept free: so many places become free in a quarter of it that a high one which
/// finds none has its turn in time. On such an engine a reserve costs 6 % of the goodput and buys nothing.
const MANY: f64 = 80.0;
/// Share of the knee that is kept free at most.
const LARGEST: f64 = 0.15;
/// Times its fair part of the starts: a tenant above is low.
const GREEDY: f64 = 1.2;
/// Share of the starts below which arrivals do not matter.
const FEW: f64 = 0.02;
/// Starts per second that are assumed of any engine.
const SLOWEST: f64 = 0.3;
/// Seconds, for requests without an objective.
const USUAL_SLO: f64 = 1.0;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::admission::queue::scheduler;
    use crate::admission::request::{AdmissionRequest, Tenant};
    use crate::vocabulary::signals::Signals;
    use crate::vocabulary::time::Timestamp;

    /// Whether a bulk request is held back at a backend that starts `rate` per second and has `in_flight` of 20 at the knee, when
    /// interactive ones come at six tenths of that rate.
    fn is_held(rate: f64, in_flight: u32, knee: Option<f64>, due: bool) -> bool {
        let signals = Signals { busy_start_rate: rate, knee_in_flight: knee, ..Signals::UNKNOWN };
        let mut queue: Queue<()> = Queue::new();
        let mut gate = Gate::default();
        let ask = |class| AdmissionRequest {
            class,
            slo: Some(Duration::from_secs(1)),
            ..AdmissionRequest::new(Timestamp::ZERO, 1.0)
        };
        for n in 1..=100_u32 {
            queue.on_arrival(&ask(Class::Interactive), f64::from(n) / (0.6 * rate));
        }
        (0..in_flight).for_each(|_| _ = gate.dispatch(&ask(Class::Bulk), 0.0, Timestamp::ZERO));
        queue.push(ask(Class::Bulk), (), 0.0);
        let reserve = Reserve { signals: &signals, now: 100.0 / (0.6 * rate) };
        let next = NextHead { class: Class::Bulk, tenant: Tenant(0), due };
        scheduler::next(&queue, |_, lane| !reserve.holds(&queue, &gate, &next, lane)).is_none()
    }

    #[test]
    fn a_slow_engine_keeps_places_free_for_earlier_classes() {
        assert!(is_held(1.5, 19, Some(20.0), false));
        assert!(!is_held(1.5, 17, Some(20.0), false), "so many and no more");
        assert!(!is_held(1.5, 19, None, false), "of what knee?");
    }

    #[test]
    fn who_is_due_is_not_held_back() {
        assert!(!is_held(1.5, 25, Some(20.0), true));
    }
}
