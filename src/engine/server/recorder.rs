//! What the engine did for each request, and when: the truth that tests in the same process compare with.
//!
//! Held in memory without bound, so not for a server that runs long.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::vocabulary::time::Timestamp;

/// Collects one [`EngineRecord`] a request.
#[derive(Debug, Default)]
pub struct Recorder {
    bodies: bool,
    log: Mutex<RecordLog>,
    changed: Notify,
}

/// What was done for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineRecord {
    /// The request's `x-request-id`, or the one the engine made.
    pub request_id: String,
    /// When its body had been read.
    pub arrival: Timestamp,
    /// One stamp a token, all choices in one list: immediately before its bytes went to the socket's writer. For an
    /// answer that does not stream, when the token was made.
    pub emissions: Vec<Timestamp>,
    /// How it ended.
    pub end: EngineEnd,
    /// When it ended: the last bytes handed over, or the client found gone.
    pub ended: Timestamp,
    /// The body received; empty unless the recorder keeps bodies.
    pub request_body: Bytes,
    /// The body sent, before HTTP's framing; empty unless the recorder keeps bodies.
    pub response_body: Vec<u8>,
}

/// How the engine's part in a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineEnd {
    /// Everything was handed over.
    Finished,
    /// The client left, or the server stopped.
    Cancelled,
    /// A fault that was asked for.
    Broken,
}

impl Recorder {
    /// Stamps only.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stamps and both bodies.
    pub fn with_bodies() -> Self {
        Self { bodies: true, ..Self::default() }
    }

    /// The record of an ended request, the latest if several had that id.
    pub fn record(&self, request_id: &str) -> Option<EngineRecord> {
        self.log().ended.iter().rev().find(|record| record.request_id == request_id).cloned()
    }

    /// Every ended request, in order of ending.
    pub fn records(&self) -> Vec<EngineRecord> {
        self.log().ended.clone()
    }

    /// Waits for a request to end.
    pub async fn ended(&self, request_id: &str) -> EngineRecord {
        loop {
            let changed = self.changed.notified();
            if let Some(record) = self.record(request_id) {
                return record;
            }
            changed.await;
        }
    }

    /// Waits until this many requests have arrived since the recorder was made.
    pub async fn arrived(&self, requests: u64) {
        loop {
            let changed = self.changed.notified();
            if self.log().arrived >= requests {
                return;
            }
            changed.await;
        }
    }

    pub(super) fn on_arrival(&self) {
        self.log().arrived += 1;
        self.changed.notify_waiters();
    }

    pub(super) fn on_end(&self, record: EngineRecord) {
        self.log().ended.push(record);
        self.changed.notify_waiters();
    }

    pub(super) fn keeps_bodies(&self) -> bool {
        self.bodies
    }

    fn log(&self) -> MutexGuard<'_, RecordLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct RecordLog {
    arrived: u64,
    ended: Vec<EngineRecord>,
}
