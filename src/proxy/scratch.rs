//! One worker's buffers, shared by all its connections, so that a connection that waits owns none.

use std::cell::RefCell;

use crate::vocabulary::time::Timestamp;

/// Only the part that was just read is ever looked at: the rest holds bytes of other connections.
pub(super) struct ScratchBuffers {
    pub read: Box<[u8]>,
    /// What is written for a client or put together out of several reads.
    pub out: Vec<u8>,
    /// When the poll under way last read from a backend.
    pub now: Option<Timestamp>,
}

thread_local! {
    pub(super) static SCRATCH: RefCell<ScratchBuffers> =
        RefCell::new(ScratchBuffers { read: vec![0; READ].into_boxed_slice(), out: Vec::new(), now: None });
}

/// One read from a socket. 4, 16 and 64 KiB measured alike.
const READ: usize = 16 * 1024;
