//! The backends while the process runs: who stands at which place, who comes, who leaves.
//!
//! A backend that was taken out of the configuration takes nothing more; its streams go on, and when the last one has ended
//! and its books have rested for a moment, it and its families are gone and its place is free. One writer at a time; what
//! requests read of it are tables that are swapped whole.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::engine_monitor;
use super::{check, names, target};
use crate::config::BackendConfig;
use crate::control_loop::Command;
use crate::proxy::state::ProxyState;
use crate::proxy::upstream::health;
use crate::vocabulary::backend_id::BackendId;
use crate::vocabulary::time::Timestamp;

/// The backends and whoever looks after them.
pub struct Backends {
    proxy: Arc<ProxyState>,
    watched: engine_monitor::MonitorHandle,
    /// Where health checks run.
    health_runtime: Handle,
    posts: Mutex<Vec<BackendHandle>>,
}

/// One backend at its place.
struct BackendHandle {
    place: BackendId,
    server: BackendConfig,
    check: AbortHandle,
    /// Since when it is on its way out.
    leaving: Option<Timestamp>,
}

impl Backends {
    /// The backends that `proxy` was made with, each at its place. Their health is asked from `health_runtime` on.
    pub fn start(
        proxy: Arc<ProxyState>,
        watched: engine_monitor::MonitorHandle,
        health_runtime: Handle,
        servers: &[BackendConfig],
    ) -> Arc<Self> {
        let fleet = Self { proxy, watched, health_runtime, posts: Mutex::default() };
        let post = |(i, server): (usize, &BackendConfig)| {
            let place = BackendId(u16::try_from(i).unwrap_or(u16::MAX));
            BackendHandle { place, server: server.clone(), check: fleet.ask(place, server), leaving: None }
        };
        let posts: Vec<BackendHandle> = servers.iter().enumerate().map(post).collect();
        *fleet.posts.lock().unwrap_or_else(PoisonError::into_inner) = posts;
        let fleet = Arc::new(fleet);
        let weak = Arc::downgrade(&fleet);
        fleet.health_runtime.spawn(async move {
            loop {
                tokio::time::sleep(ROUND).await;
                let Some(fleet) = weak.upgrade() else { return };
                fleet.reap();
            }
        });
        fleet
    }

    /// Whether there are places for all of these beside those that still leave.
    ///
    /// # Errors
    /// How many there are too many, in a sentence.
    pub fn has_room(&self, servers: &[BackendConfig]) -> Result<(), String> {
        let posts = self.posts.lock().unwrap_or_else(PoisonError::into_inner);
        let new = servers.iter().filter(|server| posts.iter().all(|post| post.server.name != server.name)).count();
        let places = self.proxy.targets.places();
        if posts.len() + new <= places {
            return Ok(());
        }
        Err(format!("backends: {new} new ones beside {} that serve or still drain, the most is {places}", posts.len()))
    }

    /// From now on the backends are these.
    pub fn set(&self, servers: &[BackendConfig]) {
        let mut posts = self.posts.lock().unwrap_or_else(PoisonError::into_inner);
        for server in servers {
            match posts.iter_mut().find(|post| post.server.name == server.name) {
                Some(post) => self.keep(post, server),
                None => posts.extend(self.add(server)),
            }
        }
        // After the new ones stand: a request in between finds somebody.
        let now = self.proxy.clock.now();
        for post in posts.iter_mut().filter(|post| post.leaving.is_none()) {
            if servers.iter().all(|server| server.name != post.server.name) {
                post.leaving = Some(now);
                post.check.abort();
                self.proxy.pool.drain(post.place, now);
                tracing::info!(
                    backend = post.server.name,
                    "a backend leaves: it takes nothing more, its streams go on"
                );
            }
        }
    }

    /// Addresses of those that stay, with their places.
    pub fn addresses(&self) -> Vec<(BackendId, BackendConfig)> {
        let posts = self.posts.lock().unwrap_or_else(PoisonError::into_inner);
        posts.iter().filter(|post| post.leaving.is_none()).map(|post| (post.place, post.server.clone())).collect()
    }

    fn add(&self, server: &BackendConfig) -> Option<BackendHandle> {
        let proxy = &self.proxy;
        let place = proxy.pool.add_backend(proxy.rules.load().mode())?;
        proxy.ledger.add_backend(place, names(server));
        proxy.targets.set(place, target(server));
        proxy.passive_health[usize::from(place.0)].reset();
        self.watched.read(place, server);
        self.watched.send(Command::AddBackend(place, server.name.as_str().into()));
        proxy.pool.reinstate(place, proxy.clock.now());
        tracing::info!(backend = server.name, url = %server.url, "a backend came");
        Some(BackendHandle { place, server: server.clone(), check: self.ask(place, server), leaving: None })
    }

    fn keep(&self, post: &mut BackendHandle, server: &BackendConfig) {
        let (proxy, place) = (&self.proxy, post.place);
        let moved = post.server.url != server.url || post.server.host != server.host;
        if moved {
            proxy.targets.set(place, target(server));
            proxy.passive_health[usize::from(place.0)].reset();
            // What was learned of the engine at the old address says nothing of the new one.
            self.watched.send(Command::AddBackend(place, server.name.as_str().into()));
        }
        if post.server.model_name != server.model_name {
            proxy.ledger.relabel(place, names(server));
        }
        if moved || post.server.inside != server.inside {
            self.watched.read(place, server);
        }
        let back = post.leaving.take().is_some();
        if back {
            proxy.pool.reinstate(place, proxy.clock.now());
        }
        if back || moved || post.server.health != server.health {
            post.check.abort();
            post.check = self.ask(place, server);
        }
        post.server = server.clone();
    }

    /// Whoever has left entirely is forgotten.
    fn reap(&self) {
        let (proxy, now) = (&self.proxy, self.proxy.clock.now());
        let mut posts = self.posts.lock().unwrap_or_else(PoisonError::into_inner);
        posts.retain(|post| {
            let rested = post.leaving.is_some_and(|since| now.since(since) >= REST);
            // The books go before the place: while the pool holds it, nobody else can come to it. And neither goes without the other,
            // or a backend that comes back would have no books.
            let gone = rested
                && proxy.pool.is_idle(post.place)
                && proxy.ledger.remove_backend(post.place)
                && proxy.pool.remove_backend(post.place);
            if gone {
                self.watched.leave(post.place);
                self.watched.send(Command::RemoveBackend(post.place));
                tracing::info!(backend = post.server.name, "a backend is gone");
            }
            !gone
        });
    }

    fn ask(&self, place: BackendId, server: &BackendConfig) -> AbortHandle {
        self.health_runtime.spawn(health::watch(self.proxy.clone(), place, check(server))).abort_handle()
    }
}

/// How often it is looked whether somebody has left.
const ROUND: Duration = Duration::from_millis(250);
/// From being taken out to being forgotten at the earliest: a request that was sent there a moment before has its line in the
/// books by then.
const REST: Duration = Duration::from_secs(2);
