//! What a client sends while its previous request is still being answered.

/// Bytes and FIN of a client, ahead of the answer.
#[derive(Default)]
pub struct ReadAhead {
    /// The beginning of its next request.
    pub bytes: Vec<u8>,
    /// More came than is kept: the connection cannot carry another request.
    pub overflowed: bool,
    /// Its FIN was seen and tolerated.
    pub half_closed: bool,
    dropped: usize,
}

impl ReadAhead {
    /// Keeps a bounded beginning; past it bytes are dropped unparsed, so that a hang-up behind them stays visible.
    /// `false`: too much came, the connection must end.
    pub fn keep(&mut self, bytes: &[u8]) -> bool {
        if self.overflowed || self.bytes.len() + bytes.len() > KEPT_LIMIT {
            self.overflowed = true;
            self.dropped += bytes.len();
        } else {
            self.bytes.extend_from_slice(bytes);
        }
        self.dropped <= DROPPED_LIMIT
    }
}

/// Bytes of a next request that are kept.
const KEPT_LIMIT: usize = 8 * 1024;
/// Dropped bytes after which the exchange is aborted.
const DROPPED_LIMIT: usize = 1024 * 1024;
