//! Why a request is not dispatched, as the pool says it.

use super::parts::Shed;

/// A refusal before dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A queue refused it.
    Shed(Shed),
    /// No backend is up.
    NoBackend,
}
