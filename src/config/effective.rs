//! Everything in force, in the file's own shape and order, and where each value came from.
//!
//! A secret shows as `masked`, whatever it came from. It holds no values of its own.

use std::collections::BTreeMap;

use serde::Serialize;

use super::tree::{self, PathStep, TreeNode, TreeValue};
use super::{Config, Overrides, SloRoute};
use crate::admission::policy;
use crate::vocabulary::units::Span;

/// The configuration as a file would say it.
#[derive(Debug, Serialize)]
pub struct Effective<'c> {
    version: u64,
    listen: std::net::SocketAddr,
    workers: std::num::NonZeroUsize,
    mode: super::Mode,
    slo: EffectiveObjectives<'c>,
    backends: &'c [super::BackendConfig],
    balance: crate::admission::pool::BalancePolicy,
    admission: &'c crate::proxy::admission_settings::AdmissionSettings,
    control: EffectiveRule,
    probe: &'c crate::probe::settings::Settings,
    gpu: &'c crate::gpu::settings::Settings,
    limits: &'c crate::proxy::settings::ProxyLimits,
    admin: &'c crate::export::settings::Admin,
    log: &'c crate::export::settings::LogSettings,
    otlp: &'c crate::export::settings::Otlp,
    drain: &'c crate::proxy::settings::DrainSettings,
    metrics: &'c crate::export::settings::Metrics,
    journal: &'c crate::export::settings::JournalSettings,
}

#[derive(Debug, Serialize)]
struct EffectiveObjectives<'c> {
    ttft: Span,
    itl: Span,
    routes: &'c [SloRoute],
}

#[derive(Debug, Serialize)]
struct EffectiveRule {
    policy: &'static str,
    limit: Option<u32>,
}

/// Where the value of every setting came from, by its path: `default`, `weir.yaml:3`, `environment WEIR_LOG`, `flag --mode`.
pub type Origins = BTreeMap<String, String>;

impl<'c> Effective<'c> {
    /// What `config` says.
    pub fn of(config: &'c Config) -> Self {
        let limit = if let policy::ControlPolicy::Static(limit) = config.control { Some(limit) } else { None };
        Self {
            version: 1,
            listen: config.listen,
            workers: config.workers,
            mode: config.mode,
            slo: EffectiveObjectives {
                ttft: Span(config.slo.ttft),
                itl: Span(config.slo.itl),
                routes: &config.slo_routes,
            },
            backends: &config.backends,
            balance: config.balance,
            admission: &config.admission,
            control: EffectiveRule { policy: config.control.as_str(), limit },
            probe: &config.probe,
            gpu: &config.gpu,
            limits: &config.limits,
            admin: &config.admin,
            log: &config.log,
            otlp: &config.otlp,
            drain: &config.drain,
            metrics: &config.metrics,
            journal: &config.journal,
        }
    }

    /// As JSON, keys in the file's order.
    pub fn text(&self) -> String {
        // Maps have text keys and no value fails to serialize, so there is nothing to report.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The origin of every setting of `config`, which was read from `root`, the tree of the file called `name`.
pub(super) fn origins(config: &Config, root: &TreeNode, name: &str, overrides: &Overrides) -> Origins {
    let mut origins = Origins::new();
    let effective = Effective::of(config).text();
    if let Ok(all) = serde_saphyr::from_str::<TreeNode>(&effective) {
        collect(&all, root, name, &mut Vec::new(), &mut origins);
    }
    for (path, from) in overrides.origins() {
        origins.retain(|known, _| !is_below(known, path));
        origins.insert(path.to_owned(), from);
    }
    origins
}

fn collect(all: &TreeNode, file: &TreeNode, name: &str, steps: &mut Vec<PathStep>, origins: &mut Origins) {
    let children: Vec<(PathStep, &TreeNode)> = match &all.value {
        TreeValue::Map(entries) => entries.iter().map(|(key, _, node)| (PathStep::Key(key.clone()), node)).collect(),
        TreeValue::List(nodes) if nodes.iter().all(|node| matches!(node.value, TreeValue::Map(_))) => {
            nodes.iter().enumerate().map(|(i, node)| (PathStep::Index(i), node)).collect()
        }
        _ => Vec::new(),
    };
    if children.is_empty() {
        let origin =
            file.find(steps).map_or_else(|| "default".to_owned(), |node| format!("{name}:{}", node.place.line));
        origins.insert(tree::path(steps), origin);
    }
    for (step, child) in children {
        steps.push(step);
        collect(child, file, name, steps, origins);
        steps.pop();
    }
}

/// `backends[0].url` is below `backends`, `slo.ttft` below `slo.ttft`.
fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}
