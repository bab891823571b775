//! Which GPUs belong to which backend, and the log line about an engine whose knee has moved, with what throttled its GPUs.

use std::time::Duration;

use super::engine_monitor::MonitorHandle;
use crate::clock::Clock;
use crate::config::{BackendConfig, Config};
use crate::estimate::Shift;
use crate::export::gpu::beside;
use crate::gpu::track::{GpuSelection, GpuTenant};
use crate::vocabulary::backend_id::BackendId;

/// The backends as tenants of the GPUs.
pub fn tenants(config: &Config) -> Vec<GpuTenant> {
    let alone = config.backends.len() == 1;
    config
        .backends
        .iter()
        .map(|server| GpuTenant { backend: server.name.as_str().into(), gpus: whose(server, alone) })
        .collect()
}

/// Those that are named. The only backend, when it is on this machine, runs on whatever GPUs the machine shows.
fn whose(server: &BackendConfig, alone: bool) -> GpuSelection {
    let host = &*server.url.host;
    let here = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    match server.inside.gpu.is_empty() && alone && here {
        true => GpuSelection::All,
        false => GpuSelection::Selected(server.inside.gpu.clone()),
    }
}

/// Logs every shift once, for as long as its task lives.
pub async fn log_shifts(monitor: MonitorHandle, clock: Clock) {
    let mut logged: Vec<Option<Shift>> = Vec::new();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let now = clock.now();
        let estimates = monitor.estimates(now);
        logged.resize(estimates.len().max(logged.len()), None);
        for (index, (logged, estimate)) in logged.iter_mut().zip(estimates).enumerate() {
            let shift = estimate.and_then(|estimate| estimate.reading.shift);
            if let Some(new) = shift.filter(|_| shift != *logged) {
                let name = &monitor.name(BackendId::from_index(index));
                let throttling = beside(new, name, &monitor.gpus(now), clock.epoch().as_secs_f64()).join("; ");
                tracing::info!(
                    backend = &**name,
                    kind = new.kind.word(),
                    throttling,
                    "the knee of the engine has moved"
                );
            }
            *logged = shift.or(*logged);
        }
    }
}

/// Readings are published once a second.
const INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    fn of(backends: &str) -> Vec<GpuSelection> {
        let text = format!("backends:\n{backends}");
        let config = Config::parse(&text, "test", &Overrides::default(), &|_| None).unwrap();
        tenants(&config).into_iter().map(|tenant| tenant.gpus).collect()
    }

    #[test]
    fn the_only_local_backend_has_all_gpus_unless_it_names_some() {
        assert_eq!(of("  - {url: 'http://127.0.0.1:8200'}"), [GpuSelection::All]);
        assert_eq!(of("  - {url: 'http://localhost:8200'}"), [GpuSelection::All]);
        let named = of("  - {url: 'http://127.0.0.1:8200', gpu: [1]}");
        assert_eq!(named, [GpuSelection::Selected(vec!["1".parse().unwrap()])]);
    }

    #[test]
    fn other_backends_have_only_the_gpus_that_they_name() {
        let none = GpuSelection::Selected(Vec::new());
        assert!(of("  - {url: 'http://10.0.0.1:8200'}").iter().all(|whose| *whose == none));
        let two = of("  - {url: 'http://127.0.0.1:8200'}\n  - {url: 'http://127.0.0.1:8201', gpu: [1]}");
        assert_eq!(two, [none, GpuSelection::Selected(vec!["1".parse().unwrap()])]);
    }
}
