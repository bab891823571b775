//! Which request is next: the earliest class with a waiting request, unless a later class is due; in it the tenant charged least.
//!
//! A class is due when its share of the dispatches of others, while it waited, adds up to one. So its head waits for at most
//! `ceil(1/share)` dispatches of others and one of each other class that is due. A class whose requests are refused because they
//! would wait too long earns its share too: when it is due, its next request is accepted.

use super::class_queue::ClassQueues;
use super::tenant_queue::TenantQueue;
use crate::admission::request::Tenant;
use crate::admission::settings::Classes;
use crate::vocabulary::class::Class;

/// The first request of a tenant, which may be next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NextHead {
    pub class: Class,
    pub tenant: Tenant,
    /// Its class is due: the reserve does not hold it back.
    pub due: bool,
}

/// The next request among those that `may` accepts.
pub(super) fn next<T>(queue: &ClassQueues<T>, may: impl Fn(&NextHead, &TenantQueue<T>) -> bool) -> Option<NextHead> {
    let due = Class::ALL.into_iter().filter(|class| is_due(queue, *class)).map(|class| (class, true));
    let all = Class::ALL.into_iter().map(|class| (class, false));
    due.chain(all).find_map(|(class, due)| least_charged(queue, class, due, &may))
}

/// Whether the next dispatch belongs to that class by its share.
pub(super) fn is_due<T>(queue: &ClassQueues<T>, class: Class) -> bool {
    queue.class(class).credit >= DUE
}

/// A request of that class is dispatched: the other waiting classes gain credit.
pub(super) fn on_dispatch<T>(queue: &mut ClassQueues<T>, class: Class, classes: &Classes) {
    for other in Class::ALL {
        let share = classes.of(other).share.clamp(0.0, 1.0);
        let waiting = queue.class_mut(other);
        if other == class {
            waiting.credit = (waiting.credit - DUE).max(0.0);
            waiting.wanted = false;
        } else if waiting.requests > 0 || waiting.wanted {
            waiting.credit = (waiting.credit + share).min(2.0 * DUE);
        }
    }
}

fn least_charged<T>(
    queue: &ClassQueues<T>,
    class: Class,
    due: bool,
    may: &impl Fn(&NextHead, &TenantQueue<T>) -> bool,
) -> Option<NextHead> {
    let heads =
        queue.class(class).waiting().map(|(tenant, tenant_queue)| (NextHead { class, tenant, due }, tenant_queue));
    let least = heads
        .filter(|(next, tenant_queue)| may(next, tenant_queue))
        .min_by(|(_, a), (_, b)| a.virtual_time.total_cmp(&b.virtual_time));
    least.map(|(next, _)| next)
}

/// One dispatch, minus a margin for the rounding of sums of shares.
const DUE: f64 = 1.0 - 1e-9;
