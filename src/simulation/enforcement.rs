//! The settings of admission and of clients in a scenario file.
//!
//! ```toml
//! [control]
//! mode = "enforce"            # or observe, the default: every request is dispatched
//! policy = "static"           # first_token_window (default), static, aimd, gradient2, vegas, envoy_gradient, none
//! limit = 2.0                 # of static: times the engine's best concurrency; default 1
//! queue = false               # a request that is not dispatched at once is refused; default true
//! late_abort = false          # a request without a first token in time is not aborted; default true
//! kv_cap = false              # no cap on the context in flight; default true
//! length_aware = false        # a prompt's own length does not count; default true
//!
//! [clients]
//! classes = { interactive = 0.2, default = 0.3, bulk = 0.5 }   # parts of the traffic
//! tenants = [2.2, 0.08, 0.08]                                  # parts of the traffic, tenant by tenant
//! retry = "retry_after"       # a refused client tries again, three times at most; or immediately
//! ```

use std::collections::BTreeMap;

use serde::Deserialize;

use super::scenario_fault::ScenarioFault;
use crate::admission::policy::ControlPolicy;
use crate::admission::{Class, Mode, Settings, Tenant};

/// How admission is set in a run.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Enforcement {
    /// Whether requests are held back.
    pub mode: ModeChoice,
    /// Which rule makes the limits.
    pub policy: PolicyChoice,
    /// Of a static limit: times the engine's best concurrency.
    pub limit: f64,
    /// Whether there is a queue.
    pub queue: bool,
    /// Whether a dispatched request without a first token is aborted at its objective.
    pub late_abort: bool,
    /// Whether the context in flight is capped where memory overflows.
    pub kv_cap: bool,
    /// Whether a prompt's own length counts where prompts are the work.
    pub length_aware: bool,
}

/// [`Mode`], as it is written in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModeChoice {
    /// [`Mode::Observe`].
    #[default]
    Observe,
    /// [`Mode::Enforce`].
    Enforce,
}

/// [`ControlPolicy`], without the numbers that only the engine's truth gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyChoice {
    /// [`ControlPolicy::FirstTokenWindow`].
    #[default]
    FirstTokenWindow,
    /// [`ControlPolicy::Static`], at a multiple of the true best concurrency.
    Static,
    /// [`ControlPolicy::Aimd`].
    Aimd,
    /// [`ControlPolicy::Gradient2`].
    Gradient2,
    /// [`ControlPolicy::Vegas`].
    Vegas,
    /// [`ControlPolicy::EnvoyGradient`].
    EnvoyGradient,
    /// [`ControlPolicy::None`].
    None,
}

/// The clients that send the traffic.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Clients {
    /// Parts of the traffic; empty is all in the default class.
    pub classes: BTreeMap<Class, f64>,
    /// Parts of the traffic by tenant; empty is one.
    pub tenants: Vec<f64>,
    /// What a refused client does.
    pub retry: Retry,
}

/// What a refused client does, three times at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// It gives up.
    #[default]
    Never,
    /// It tries again after `Retry-After`, and up to half as long again.
    RetryAfter,
    /// It tries again within 20 to 70 ms.
    Immediately,
}

impl Default for Enforcement {
    fn default() -> Self {
        Self {
            mode: ModeChoice::Observe,
            policy: PolicyChoice::FirstTokenWindow,
            limit: 1.0,
            queue: true,
            late_abort: true,
            kv_cap: true,
            length_aware: true,
        }
    }
}

impl Enforcement {
    pub const fn mode(&self) -> Mode {
        match self.mode {
            ModeChoice::Observe => Mode::Observe,
            ModeChoice::Enforce => Mode::Enforce,
        }
    }

    /// The rule, at an engine that is best driven with `concurrency` requests in flight.
    pub fn policy(&self, concurrency: f64) -> ControlPolicy {
        match self.policy {
            PolicyChoice::FirstTokenWindow => ControlPolicy::FirstTokenWindow,
            PolicyChoice::Static => ControlPolicy::Static((self.limit * concurrency).round().max(1.0) as u32),
            PolicyChoice::Aimd => ControlPolicy::Aimd,
            PolicyChoice::Gradient2 => ControlPolicy::Gradient2,
            PolicyChoice::Vegas => ControlPolicy::Vegas,
            PolicyChoice::EnvoyGradient => ControlPolicy::EnvoyGradient,
            PolicyChoice::None => ControlPolicy::None,
        }
    }

    /// The queue's settings.
    pub fn settings(&self) -> Settings {
        let usual = Settings::default();
        let max_requests = if self.queue { usual.max_requests } else { 0 };
        Settings { max_requests, length_aware: self.length_aware, ..usual }
    }
}

impl Clients {
    /// Class and tenant of a request, from two random numbers between 0 and 1.
    pub fn draw(&self, class: f64, tenant: f64) -> (Class, Tenant) {
        let classes: Vec<(Class, f64)> = self.classes.iter().map(|(class, part)| (*class, *part)).collect();
        let tenants: Vec<(u16, f64)> = (0..).zip(self.tenants.iter().copied()).collect();
        (pick(&classes, class).unwrap_or_default(), Tenant(pick(&tenants, tenant).unwrap_or_default()))
    }

    pub(super) fn check(&self) -> Result<(), ScenarioFault> {
        let mut parts = self.classes.values().chain(&self.tenants);
        if parts.any(|part| !(part.is_finite() && *part > 0.0)) {
            return Err(ScenarioFault::new("clients", "a part is a number above zero"));
        }
        Ok(())
    }
}

fn pick<K: Copy>(parts: &[(K, f64)], random: f64) -> Option<K> {
    let all: f64 = parts.iter().map(|(_, part)| part).sum();
    let mut left = random * all;
    for (key, part) in parts {
        left -= part;
        if left < 0.0 {
            return Some(*key);
        }
    }
    parts.last().map(|(key, _)| *key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_drawn_in_proportion() {
        let clients = Clients { tenants: vec![2.0, 1.0, 1.0], ..Clients::default() };
        let drawn = [0.0, 0.49, 0.51, 0.74, 0.76, 1.0].map(|random| clients.draw(0.5, random).1.0);
        assert_eq!(drawn, [0, 0, 1, 1, 2, 2]);
        assert_eq!(clients.draw(0.5, 0.0).0, Class::Default);
    }

    #[test]
    fn without_a_queue_no_request_may_wait() {
        let typed: Enforcement = toml::from_str("mode = \"enforce\"\nqueue = false\npolicy = \"static\"").unwrap();
        assert_eq!(typed.settings().max_requests, 0);
        assert_eq!(typed.policy(40.0), ControlPolicy::Static(40));
        assert!(toml::from_str::<Enforcement>("modus = \"enforce\"").is_err());
    }
}
