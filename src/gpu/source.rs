//! Sources of GPU readings: NVIDIA's library, or a fake in a test.

use super::reading::{Figures, Identity, ThrottleReason};

/// Opens a source and keeps it open while `body` runs, because its handles borrow from it.
pub trait Driver: Send + 'static {
    /// # Errors
    /// There is no source here; `body` did not run.
    fn with_source(&self, body: &mut dyn FnMut(&mut dyn GpuSource)) -> Result<(), Unavailable>;
}

/// GPUs that can be read. A call may take long or never return, so a thread of its own makes them.
pub trait GpuSource {
    /// The GPUs, in the order of their indices.
    fn identities(&self) -> Vec<Identity>;

    /// Reads everything of the GPU at `index` once.
    fn sample(&mut self, index: usize) -> GpuSample;
}

/// The readings of one GPU in one round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GpuSample {
    pub figures: Figures,
    /// The reasons that throttle its clock; `None` where that cannot be read.
    pub throttling: Option<Vec<ThrottleReason>>,
    /// XID errors since the last round, by number; `None` where the driver does not report them.
    pub xid: Option<Vec<u64>>,
    /// The readings that failed, and why.
    pub failed: Vec<Failure>,
}

/// One reading that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The reading's name: `utilization`, `memory`.
    pub reading: &'static str,
    pub fault: GpuFault,
}

/// Why a reading failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GpuFault {
    /// This GPU, driver or container does not offer it, and will not.
    #[error("not offered")]
    NotOffered,
    /// The device fell off the bus or needs a reset.
    #[error("the device is lost")]
    Lost,
    /// Anything else, in the library's words.
    #[error("{0}")]
    Other(String),
}

/// Why there is no source of GPU readings here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);
