//! The backends while the process runs: adds, changes and removes them, in every table that has one row a backend.
//!
//! A backend that was taken out of the configuration gets no new request; its streams continue. When the last one has ended and
//! its account has rested for a moment, the backend and its families are removed and its index is free. There is one writer at a
//! time; requests read tables that are swapped whole.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::backend_table::{Backend, BackendTable};
use super::engine_monitor::MonitorHandle;
use crate::config::BackendConfig;
use crate::control_loop::Command;
use crate::proxy::state::ProxyState;
use crate::proxy::upstream::health;
use crate::vocabulary::time::Timestamp;

/// The one writer of the backends.
pub struct Backends {
    proxy: Arc<ProxyState>,
    table: Arc<BackendTable>,
    monitor: MonitorHandle,
    /// Where health checks run.
    health_runtime: Handle,
    handles: Mutex<Vec<BackendHandle>>,
}

/// One backend, and what its removal ends.
struct BackendHandle {
    backend: Arc<Backend>,
    health_check: AbortHandle,
    /// When it was taken out of the configuration, if it was.
    leaving_since: Option<Timestamp>,
}

impl BackendHandle {
    fn name(&self) -> &str {
        &self.backend.config.name
    }
}

impl Backends {
    /// Starts the health checks of the backends in `table`, and the task that removes those which have left.
    pub fn start(
        proxy: Arc<ProxyState>,
        table: Arc<BackendTable>,
        monitor: MonitorHandle,
        health_runtime: Handle,
    ) -> Arc<Self> {
        let backends = Arc::new(Self { proxy, table, monitor, health_runtime, handles: Mutex::default() });
        *backends.handles() = backends.table.iter().map(|backend| backends.handle(backend)).collect();
        let weak = Arc::downgrade(&backends);
        backends.health_runtime.spawn(async move {
            loop {
                tokio::time::sleep(REAP_INTERVAL).await;
                let Some(backends) = weak.upgrade() else { return };
                backends.reap();
            }
        });
        backends
    }

    /// Whether there are slots for all of these beside those that still leave.
    ///
    /// # Errors
    /// How many there are too many, in a sentence.
    pub fn check_capacity(&self, configs: &[BackendConfig]) -> Result<(), String> {
        let handles = self.handles();
        let new = configs.iter().filter(|config| handles.iter().all(|handle| handle.name() != config.name)).count();
        let slots = self.table.len();
        if handles.len() + new <= slots {
            return Ok(());
        }
        Err(format!("backends: {new} new ones beside {} that serve or still drain, the most is {slots}", handles.len()))
    }

    /// Makes these the backends: adds the new ones, changes the known ones, drains the others.
    pub fn set(&self, configs: &[BackendConfig]) {
        let mut handles = self.handles();
        for config in configs {
            match handles.iter_mut().find(|handle| handle.name() == config.name) {
                Some(handle) => self.update(handle, config),
                None => handles.extend(self.add(config)),
            }
        }
        // After the new ones are in place, so that a request in between finds one.
        let now = self.proxy.clock.now();
        for handle in handles.iter_mut().filter(|handle| handle.leaving_since.is_none()) {
            if configs.iter().all(|config| config.name != handle.name()) {
                handle.leaving_since = Some(now);
                handle.health_check.abort();
                self.proxy.pool.drain(handle.backend.id, now);
                tracing::info!(
                    backend = handle.name(),
                    "a backend was taken out of the configuration: it gets no new requests, its streams continue"
                );
            }
        }
    }

    /// The backends that are in the configuration.
    pub fn serving(&self) -> Vec<Arc<Backend>> {
        let handles = self.handles();
        handles.iter().filter(|handle| handle.leaving_since.is_none()).map(|handle| handle.backend.clone()).collect()
    }

    fn add(&self, config: &BackendConfig) -> Option<BackendHandle> {
        let proxy = &self.proxy;
        let id = proxy.pool.add_backend(proxy.rules.load().mode())?;
        let backend = Backend::new(id, config);
        proxy.ledger.add_backend(id, backend.names());
        self.set_target(&backend);
        self.monitor.start_reading(&backend);
        proxy.pool.reinstate(id, proxy.clock.now());
        tracing::info!(backend = config.name, url = %config.url, "a backend was added");
        Some(self.handle(backend))
    }

    fn update(&self, handle: &mut BackendHandle, config: &BackendConfig) {
        let (proxy, old) = (&self.proxy, handle.backend.clone());
        let moved = old.config.url != config.url || old.config.host != config.host;
        let new_engine = moved || old.config.inside != config.inside;
        let backend = match new_engine {
            true => Backend::new(old.id, config),
            false => Backend::with_engine(old.id, config, old.engine.clone()),
        };
        self.table.set(backend.clone());
        if moved {
            self.set_target(&backend);
        }
        if old.config.model_name != config.model_name {
            proxy.ledger.relabel(backend.id, backend.names());
        }
        if new_engine {
            self.monitor.start_reading(&backend);
        }
        let returns = handle.leaving_since.take().is_some();
        if returns {
            proxy.pool.reinstate(backend.id, proxy.clock.now());
        }
        if returns || moved || old.config.health != config.health {
            handle.health_check.abort();
            handle.health_check = self.check_health(&backend);
        }
        handle.backend = backend;
    }

    /// Removes the backends that have left and whose last stream has ended.
    fn reap(&self) {
        let (proxy, now) = (&self.proxy, self.proxy.clock.now());
        self.handles().retain(|handle| {
            let id = handle.backend.id;
            let rested = handle.leaving_since.is_some_and(|since| now.since(since) >= REST);
            // The ledger's account goes before the pool's slot: while the pool holds the slot, no other backend can take it. And
            // neither goes without the other, or a backend that returns would have no account.
            let removed =
                rested && proxy.pool.is_idle(id) && proxy.ledger.remove_backend(id) && proxy.pool.remove_backend(id);
            if removed {
                self.monitor.stop_reading(id);
                self.monitor.send(Command::RemoveBackend(id));
                tracing::info!(backend = handle.name(), "a backend was removed");
            }
            !removed
        });
    }

    /// Sends requests for the backend to its address. What was learned of an engine at another address does not apply to it.
    fn set_target(&self, backend: &Arc<Backend>) {
        self.table.set(backend.clone());
        self.proxy.targets.set(backend.id, backend.target());
        self.proxy.passive_health[backend.id.index()].reset();
        self.monitor.send(Command::AddBackend(backend.id, backend.config.name.as_str().into()));
    }

    fn handle(&self, backend: Arc<Backend>) -> BackendHandle {
        BackendHandle { health_check: self.check_health(&backend), backend, leaving_since: None }
    }

    fn check_health(&self, backend: &Backend) -> AbortHandle {
        let checks = health::watch(self.proxy.clone(), backend.id, backend.health_check());
        self.health_runtime.spawn(checks).abort_handle()
    }

    fn handles(&self) -> MutexGuard<'_, Vec<BackendHandle>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Time between two looks for backends that have left.
const REAP_INTERVAL: Duration = Duration::from_millis(250);
/// From being taken out to being removed at the earliest: a request that was dispatched a moment before has its record in the
/// ledger by then.
const REST: Duration = Duration::from_secs(2);
