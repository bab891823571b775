//! The operator's settings of the queue.

use std::time::Duration;

use crate::vocabulary::class::Class;

/// Settings of one backend's queue; the bounds hold for each backend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Requests that may wait. A larger value admits longer bursts; beyond rate times objective it has no effect.
    pub max_requests: usize,
    /// Bytes of bodies that may wait.
    pub max_bytes: u64,
    /// How long a request without an objective may wait.
    pub max_wait: Duration,
    /// Whether a request's own prompt length counts where prompts are most of the work: more goodput, at the cost of long
    /// prompts.
    pub length_aware: bool,
    pub classes: Classes,
}

/// The settings of every class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Classes {
    /// [`Class::System`].
    pub system: ClassSettings,
    /// [`Class::Interactive`].
    pub interactive: ClassSettings,
    /// [`Class::Default`].
    pub default: ClassSettings,
    /// [`Class::Bulk`].
    pub bulk: ClassSettings,
}

/// The settings of one class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassSettings {
    /// Share of the dispatches that it receives while it waits, whatever the earlier classes send; 0 to 1. Its head waits for at most
    /// 1/share dispatches of others. 0 lets earlier classes starve it.
    pub share: f64,
    /// Share of the queue's bounds that it may fill; 0 to 1. 0 refuses every request that is not dispatched at once.
    pub queue: f64,
    /// By how much it may exceed the window; 0.1 is 10 %.
    pub headroom: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_requests: 5_000,
            max_bytes: 1 << 30,
            max_wait: Duration::from_secs(30),
            length_aware: true,
            classes: Classes::default(),
        }
    }
}

impl Default for Classes {
    fn default() -> Self {
        Self {
            system: ClassSettings { share: 0.0, queue: 1.0, headroom: 0.25 },
            interactive: ClassSettings { share: 0.05, queue: 1.0, headroom: 0.1 },
            default: ClassSettings { share: 0.02, queue: 1.0, headroom: 0.0 },
            bulk: ClassSettings { share: 0.01, queue: 0.5, headroom: 0.0 },
        }
    }
}

impl Classes {
    pub const fn of(&self, class: Class) -> &ClassSettings {
        match class {
            Class::System => &self.system,
            Class::Interactive => &self.interactive,
            Class::Default => &self.default,
            Class::Bulk => &self.bulk,
        }
    }
}
