//! The `admission` section: who is believed, how many wait, what each class may, what a reply looks like.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::admission::{ClassSettings, Classes, Settings};
use crate::vocabulary::units::typed;

/// Which requests are admitted, and in which order. All but `trust` applies in mode enforce only.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdmissionSettings {
    /// Networks, such as `10.0.0.0/8`, whose priority, tenant and SLO headers are believed. weir removes these
    /// headers from all other requests.
    #[schemars(with = "Vec<Network>")]
    pub trust: Vec<IpNet>,
    /// Bounds of the queue before one backend; beyond them requests are refused.
    pub queue: QueueSettings,
    /// Whether a dispatched stream without a first token is ended at its objective. `false` lets it continue, late.
    pub late_abort: bool,
    /// Whether a request's own prompt length counts where prompts are most of the work. `true` has more goodput
    /// and refuses long prompts more often.
    pub length_aware: bool,
    /// Status of a refusal because of load.
    #[schemars(extend("enum" = [429, 503, 529]))]
    pub shed_status: u16,
    /// The classes in their order; the header `x-weir-priority` names the class of a request.
    pub classes: ClassesSettings,
}

/// Bounds of the queue before one backend.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QueueSettings {
    /// Most requests that wait. More admits longer bursts; above rate times objective it changes nothing.
    pub max_requests: usize,
    /// Most bytes of bodies that wait; they count against `limits.body_memory` too.
    #[serde(with = "typed")]
    #[schemars(with = "crate::vocabulary::units::ByteSize")]
    pub max_bytes: u64,
    /// Longest wait of a request without an objective.
    #[serde(with = "typed")]
    #[schemars(with = "crate::vocabulary::units::Span", extend("exclusiveMinimum" = "0s"))]
    pub max_wait: Duration,
}

/// The classes.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClassesSettings {
    /// Requests that keep the service alive, such as synthetic checks.
    pub system: ClassShare,
    /// A person waits for the answer.
    pub interactive: ClassShare,
    /// Requests without a class.
    pub default: ClassShare,
    /// Batch work that can wait.
    pub bulk: ClassShare,
}

/// The share of one class. All three keys must be set.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClassShare {
    /// Share of the dispatches that it gets while earlier classes wait. 0 lets earlier classes starve it.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub share: f64,
    /// Share of the queue's bounds that it may fill. 0 refuses every request that is not dispatched at once.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub queue: f64,
    /// Share by which it may exceed the window; 0.1 is 10 %.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub headroom: f64,
}

/// How a network is typed.
struct Network;

impl JsonSchema for Network {
    fn schema_name() -> Cow<'static, str> {
        "Network".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "network" })
    }
}

impl AdmissionSettings {
    /// Whether the peer at `address` is believed.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trust.iter().any(|net| net.contains(&address))
    }

    /// As a line takes them.
    pub fn settings(&self) -> Settings {
        let ClassesSettings { system, interactive, default, bulk } = self.classes;
        Settings {
            max_requests: self.queue.max_requests,
            max_bytes: self.queue.max_bytes,
            max_wait: self.queue.max_wait,
            length_aware: self.length_aware,
            classes: Classes {
                system: system.into(),
                interactive: interactive.into(),
                default: default.into(),
                bulk: bulk.into(),
            },
        }
    }
}

impl ClassesSettings {
    /// All four with their names.
    pub fn named(&self) -> [(&'static str, ClassShare); 4] {
        [("system", self.system), ("interactive", self.interactive), ("default", self.default), ("bulk", self.bulk)]
    }
}

impl Default for AdmissionSettings {
    fn default() -> Self {
        Self {
            trust: Vec::new(),
            queue: QueueSettings::default(),
            late_abort: true,
            length_aware: Settings::default().length_aware,
            shed_status: 429,
            classes: ClassesSettings::default(),
        }
    }
}

impl Default for QueueSettings {
    fn default() -> Self {
        let Settings { max_requests, max_bytes, max_wait, .. } = Settings::default();
        Self { max_requests, max_bytes, max_wait }
    }
}

impl Default for ClassesSettings {
    fn default() -> Self {
        let Classes { system, interactive, default, bulk } = Classes::default();
        Self { system: system.into(), interactive: interactive.into(), default: default.into(), bulk: bulk.into() }
    }
}

impl From<ClassSettings> for ClassShare {
    fn from(ClassSettings { share, queue, headroom }: ClassSettings) -> Self {
        Self { share, queue, headroom }
    }
}

impl From<ClassShare> for ClassSettings {
    fn from(ClassShare { share, queue, headroom }: ClassShare) -> Self {
        Self { share, queue, headroom }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_is_by_network_and_off_by_default() {
        let near = "10.1.2.3".parse().unwrap();
        assert!(!AdmissionSettings::default().trusts(near));
        let admission =
            AdmissionSettings { trust: vec!["10.0.0.0/8".parse().unwrap()], ..AdmissionSettings::default() };
        assert!(admission.trusts(near));
        assert!(admission.trusts("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!admission.trusts("11.0.0.1".parse().unwrap()));
    }

    #[test]
    fn the_defaults_are_the_lines_own() {
        assert_eq!(AdmissionSettings::default().settings(), Settings::default());
    }
}
