//! Who is next: the earliest class that has somebody waiting, unless a later one is due; in it the tenant served least.
//!
//! A class is due when earlier ones had so many dispatches while it waited that its share of them makes one. So its head
//! waits for at most `ceil(1/share)` dispatches of others and one of each other class that is due with it. A class whose requests
//! are refused because they would wait too long earns its share all the same: when it is due its next one is taken in.

use super::class_queue::Queue;
use super::tenant_queue::TenantQueue;
use crate::admission::request::Tenant;
use crate::admission::settings::Classes;
use crate::vocabulary::class::Class;

/// A head that may be next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::admission) struct NextHead {
    pub class: Class,
    pub tenant: Tenant,
    /// Its class is due: nothing is kept free for others before it.
    pub due: bool,
}

/// The head that goes next among those that `may`.
pub(in crate::admission) fn next<T>(
    queue: &Queue<T>,
    may: impl Fn(&NextHead, &TenantQueue<T>) -> bool,
) -> Option<NextHead> {
    let due = Class::ALL.into_iter().filter(|class| is_due(queue, *class)).map(|class| (class, true));
    let all = Class::ALL.into_iter().map(|class| (class, false));
    due.chain(all).find_map(|(class, due)| least_charged(queue, class, due, &may))
}

/// Whether the next dispatch is that class's by its share.
pub(in crate::admission) fn is_due<T>(queue: &Queue<T>, class: Class) -> bool {
    queue.class(class).credit >= DUE
}

/// One of that class is dispatched: the others that wait have a claim to the next ones.
pub(in crate::admission) fn on_dispatch<T>(queue: &mut Queue<T>, class: Class, classes: &Classes) {
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
    queue: &Queue<T>,
    class: Class,
    due: bool,
    may: &impl Fn(&NextHead, &TenantQueue<T>) -> bool,
) -> Option<NextHead> {
    let heads = queue.class(class).waiting().map(|(tenant, lane)| (NextHead { class, tenant, due }, lane));
    let least =
        heads.filter(|(next, lane)| may(next, lane)).min_by(|(_, a), (_, b)| a.virtual_time.total_cmp(&b.virtual_time));
    least.map(|(next, _)| next)
}

/// A whole dispatch; a little less, so that sums of shares reach it.
const DUE: f64 = 1.0 - 1e-9;
