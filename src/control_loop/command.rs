//! What a reload changes in the control loop.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::admission;
use crate::admission::policy::ControlPolicy;
use crate::vocabulary::backend_id::BackendId;

/// A change, applied at the next tick.
#[derive(Clone, Debug)]
pub enum Command {
    /// A new backend at this index, or another engine behind the one there.
    AddBackend(BackendId, Arc<str>),
    /// The index is free.
    RemoveBackend(BackendId),
    /// Another objective, policy or queue settings. What the estimate knows of the engines stays; a changed policy or objective starts
    /// the policy afresh.
    Reconfigure { slo_ttft: Duration, policy: ControlPolicy, settings: admission::Settings },
}

/// Commands that wait for the next tick.
#[derive(Debug, Default)]
pub struct CommandQueue(Mutex<Vec<Command>>);

impl CommandQueue {
    /// Adds a command.
    pub fn push(&self, command: Command) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(command);
    }

    pub(super) fn drain(&self) -> Vec<Command> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
