//! A request arrives: it receives a permit, waits, or is refused.

use super::backends::Pool;
use super::parts::{AdmissionRequest, Arc, BackendId, Offered, Timestamp};
use super::permit::Permit;
use super::queue_wait::QueueWait;
use super::refused::Refused;
use super::waiter::WaiterCell;

/// What happens to a request on arrival.
#[derive(Debug)]
pub enum Acquire {
    /// It is dispatched at once.
    Granted(Permit),
    /// It waits.
    Queued(QueueWait),
    /// It is refused; the refusal counts for this backend.
    Refused(BackendId, Refused),
}

impl Pool {
    /// A request asks for a permit at any backend but `avoid`, which has just failed it.
    ///
    /// Ejection is a suspicion, so an ejected backend is used when no other is left; a backend that is down is never picked.
    pub fn arrive(self: &Arc<Self>, request: AdmissionRequest, avoid: Option<BackendId>, now: Timestamp) -> Acquire {
        self.with(now, |state, _| {
            let Some(i) = state.choose(&request, avoid) else {
                return Acquire::Refused(state.first(), Refused::NoBackend);
            };
            state.next_pick = i + 1;
            let (queue, limits) = state.backends[i].queue_and_limits(state.now);
            // Most requests are dispatched at once and need no waiter.
            let mut waiter = None;
            match queue.offer(limits, request, || waiter.insert(WaiterCell::new()).clone(), state.now) {
                Offered::Dispatched(slot) => {
                    Acquire::Granted(Permit::new(self.clone(), BackendId::from_index(i), slot))
                }
                Offered::Shed(shed) => Acquire::Refused(BackendId::from_index(i), Refused::Shed(shed)),
                Offered::Queued(ticket) => {
                    let waiter = waiter.unwrap_or_else(WaiterCell::new);
                    waiter.set_position(BackendId::from_index(i), ticket);
                    Acquire::Queued(QueueWait::new(self.clone(), waiter, BackendId::from_index(i)))
                }
            }
        })
    }

    /// Picks a backend for a request that is not measured; it bypasses the queues.
    pub fn pass(self: &Arc<Self>, avoid: Option<BackendId>) -> Option<Permit> {
        let index = self.choose_unmeasured(avoid)?;
        Some(Permit::unmeasured(self.clone(), BackendId::from_index(index)))
    }
}
