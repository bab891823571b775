//! What the parts are made with, translated from the configuration.

use tokio::sync::Semaphore;

use crate::config::Config;
use crate::export::auth::AccessPolicy;
use crate::export::settings::Admin;
use crate::measure::{Bounds, BucketSettings};
use crate::proxy::policy::RequestPolicy;

/// How requests are treated; read again at a reload.
pub fn request_policy(config: &Config) -> RequestPolicy {
    let mut policy = RequestPolicy::new(config.mode, Some(config.slo.ttft));
    policy.routes = config.slo_routes.iter().map(|route| (route.path.as_str().into(), route.ttft)).collect();
    policy.max_wait = config.admission.queue.max_wait;
    policy.late_abort = config.admission.late_abort;
    policy.shed_status = config.admission.shed_status;
    // A request is turned into a streaming one before it has a backend, so one backend without reassembly decides for all.
    policy.reassemble = config.backends.iter().all(|backend| backend.reassemble);
    policy
}

/// Who may call the admin port.
pub fn access_policy(admin: &Admin) -> AccessPolicy {
    if admin.token.is_none() && !admin.listen.ip().is_loopback() {
        tracing::warn!(listen = %admin.listen, "the admin port is open to other machines, and admin.token is not set");
    }
    let token = admin.token.as_ref().map(|token| token.reveal().to_owned());
    AccessPolicy { hosts: admin.hosts.clone(), token, neighbours: Vec::new() }
}

/// The buckets of the histograms.
pub fn buckets(config: &Config) -> BucketSettings {
    let mut buckets = BucketSettings::default();
    let configured = &config.metrics.buckets;
    let set = |bounds: &mut Bounds, configured: &Option<Vec<f64>>| {
        if let Some(upper) = configured {
            *bounds = Bounds::seconds(upper);
        }
    };
    set(&mut buckets.ttft, &configured.ttft);
    set(&mut buckets.itl, &configured.itl);
    set(&mut buckets.gap, &configured.gap);
    set(&mut buckets.duration, &configured.duration);
    set(&mut buckets.wait, &configured.wait);
    set(&mut buckets.overhead, &configured.overhead);
    if let Some(upper) = &configured.tokens {
        buckets.tokens = Bounds::tokens(&upper.iter().map(|n| *n as u64).collect::<Vec<_>>());
    }
    buckets
}

/// `configured` connections, or as many as the process's file descriptors allow: each exchange needs two, and the admin port, health
/// checks and files need some. Raises the process's limit to what the system allows first.
pub fn connection_cap(configured: usize) -> usize {
    let hard = rlimit::Resource::NOFILE.get_hard().unwrap_or(u64::MAX);
    let _ = rlimit::Resource::NOFILE.set(hard, hard);
    let _ = rlimit::Resource::CORE.set(0, 0);
    let descriptors = usize::try_from(hard).unwrap_or(usize::MAX);
    let fits = descriptors.saturating_sub(DESCRIPTOR_RESERVE) / 10 * 8 / 2;
    if fits < configured {
        tracing::warn!(configured, fits, "fewer descriptors than limits.max_connections needs; the cap is lowered");
    }
    configured.min(fits).clamp(1, Semaphore::MAX_PERMITS)
}

const DESCRIPTOR_RESERVE: usize = 256;
