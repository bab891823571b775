//! What the control loop publishes of each backend, for every reader.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;

use crate::estimate::Reading;
use crate::vocabulary::backend_id::BackendId;
use crate::vocabulary::time::Timestamp;
use crate::vocabulary::would_shed::WouldShed;

/// The last publication of one backend.
#[derive(Clone, Debug)]
pub struct Published {
    /// When it was published.
    pub at: Timestamp,
    pub reading: Reading,
    /// Mode observe: requests that enforcement would have refused, since the start.
    pub would_shed: WouldShed,
    /// Samples that found no room in a buffer, since the start.
    pub lost: u64,
    /// Samples that arrived too late and were given a wrong time, since the start.
    pub late: u64,
    /// How long samples are held back to be put in order.
    pub held_back: Duration,
}

/// The publications of all backends, by index. Reading one never blocks.
#[derive(Debug)]
pub struct PublishedReadings(Box<[ArcSwapOption<Published>]>);

impl PublishedReadings {
    /// Empty, for `backends` backends.
    pub fn new(backends: usize) -> Arc<Self> {
        Arc::new(Self((0..backends).map(|_| ArcSwapOption::empty()).collect()))
    }

    /// The last publication of a backend; `None` before the first, and at `now` if the loop has stopped.
    pub fn read(&self, backend: BackendId, now: Timestamp) -> Option<Arc<Published>> {
        let published = self.0.get(backend.index())?.load_full()?;
        (now.since(published.at) <= STOPPED).then_some(published)
    }

    /// The same for every backend, by index.
    pub fn read_all(&self, now: Timestamp) -> Vec<Option<Arc<Published>>> {
        (0..self.0.len()).map(|i| self.read(BackendId::from_index(i), now)).collect()
    }

    pub(super) fn store(&self, backend: BackendId, published: Option<Published>) {
        if let Some(slot) = self.0.get(backend.index()) {
            slot.store(published.map(Arc::new));
        }
    }
}

/// A publication this old is from a loop that has stopped.
const STOPPED: Duration = Duration::from_secs(10);
