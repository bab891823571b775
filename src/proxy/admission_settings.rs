//! The `admission` section: which peers are trusted, how many requests wait, what each class may use, how a refusal is sent.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::admission::{ClassSettings, Classes, Settings};
use crate::vocabulary::units::typed;

/// Who is let in, and in which order. Beside `trust` it matters in mode enforce only.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdmissionSettings {
    /// Networks, such as `10.0.0.0/8`, whose priority, tenant and SLO headers are believed; from anybody else these headers are taken off.
    #[schemars(with = "Vec<Network>")]
    pub trust: Vec<IpNet>,
    /// What waits before one backend; beyond its bounds requests are refused.
    pub queue: QueueSettings,
    /// Whether a dispatched stream without a first token is given up at its objective. `false` lets it go on, late.
    pub late_abort: bool,
    /// Whether a request's own prompt length counts where prompts are most of the work: more goodput, at the cost of long prompts.
    pub length_aware: bool,
    /// Status of a refusal for want of capacity.
    #[schemars(extend("enum" = [429, 503, 529]))]
    pub shed_status: u16,
    /// What each class may, in their order; `x-weir-priority` says which a request is of.
    pub classes: ClassesSettings,
}

/// Bounds of the queue before one backend.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QueueSettings {
    /// Most requests that wait. More lets longer bursts in; beyond rate times objective it changes nothing.
    pub max_requests: usize,
    /// Most bytes of bodies that wait; they count against `limits.body_memory` too.
    #[serde(with = "typed")]
    #[schemars(with = "crate::vocabulary::units::ByteSize")]
    pub max_bytes: u64,
    /// Most that a request without an objective waits.
    #[serde(with = "typed")]
    #[schemars(with = "crate::vocabulary::units::Span", extend("exclusiveMinimum" = "0s"))]
    pub max_wait: Duration,
}

/// What each class may.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClassesSettings {
    /// What keeps the service itself alive.
    pub system: ClassShare,
    /// A person waits for the answer.
    pub interactive: ClassShare,
    /// What says nothing else.
    pub default: ClassShare,
    /// Served whenever there is capacity.
    pub bulk: ClassShare,
}

/// What one class may. All three have to be said.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClassShare {
    /// Least share of the dispatches that it gets while it waits. 0 lets earlier classes starve it.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub share: f64,
    /// Share of the queue's bounds that it may fill. 0 refuses what is not dispatched at once.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub queue: f64,
    /// By how much it may pass the window; 0.1 is ten per cent.
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
