//! A waiting request and its position.

use crate::admission::request::{AdmissionRequest, Tenant};
use crate::vocabulary::class::Class;
use crate::vocabulary::time::Timestamp;

/// A position in the queue of one backend. Tickets of one tenant and class sort by arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    pub(super) arrived: Timestamp,
    pub(super) number: u64,
    pub(super) class: Class,
    pub(super) tenant: Tenant,
}

/// A waiting request, and the value that is returned with its verdict.
#[derive(Debug)]
pub(super) struct QueuedRequest<T> {
    pub ticket: Ticket,
    pub request: AdmissionRequest,
    pub item: T,
}
