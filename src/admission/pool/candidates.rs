//! Which backends may be picked: those that are up and not ejected, or else those that are up.

use super::backend_state::BackendState;
use super::parts::BackendId;

#[derive(Clone, Copy)]
pub(super) struct Candidates {
    avoid: Option<usize>,
    /// At least one backend is up and not ejected.
    trusted: bool,
}

impl Candidates {
    pub fn new(backends: &[BackendState], avoid: Option<BackendId>) -> Self {
        let mut candidates = Self { avoid: avoid.map(BackendId::index), trusted: false };
        candidates.trusted = backends.iter().enumerate().any(|(i, one)| candidates.include(i, one) && !one.ejected);
        candidates
    }

    pub fn include(&self, i: usize, backend: &BackendState) -> bool {
        !backend.down && self.avoid != Some(i) && !(self.trusted && backend.ejected)
    }
}

/// The indices of `n` backends, `start` first.
pub(super) fn round_robin(start: usize, n: usize) -> impl Iterator<Item = usize> {
    (0..n).map(move |k| (start + k) % n)
}
