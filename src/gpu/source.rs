//! What can answer for GPUs: NVIDIA's library, or a fake in a test.

use super::reading::{Figures, Identity, ThrottleReason};

/// Opens whatever answers, and keeps it open while `body` runs: what it hands out may borrow from it.
pub trait Driver: Send + 'static {
    /// # Errors
    /// Nothing answers here; `body` did not run.
    fn attend(&self, body: &mut dyn FnMut(&mut dyn GpuSource)) -> Result<(), Unavailable>;
}

/// GPUs that can be asked. Every question may take long or never end: they are asked from a thread of their own.
pub trait GpuSource {
    /// The GPUs, in the order of their places.
    fn identities(&self) -> Vec<Identity>;

    /// Asks the GPU at `place` everything once.
    fn sample(&mut self, place: usize) -> GpuSample;
}

/// What one GPU answered in one round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GpuSample {
    pub figures: Figures,
    /// The reasons that hold its clock back; `None` where that cannot be read.
    pub throttling: Option<Vec<ThrottleReason>>,
    /// XID errors since the last round, by number; `None` where they cannot be heard.
    pub xid: Option<Vec<u64>>,
    /// What could not be read, and why.
    pub failed: Vec<Failure>,
}

/// One reading that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// A word of ours: `utilization`, `memory`.
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

/// Why nothing answers for GPUs here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);
