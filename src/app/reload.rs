//! Reload: reads the configuration again, compares it with the one in force, and applies what a running process can change.
//!
//! All or nothing: a file with a mistake changes nothing. A setting that only a start can change keeps its value and is named.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use serde_json::{Value, json};

use super::backends::Backends;
use super::engine_monitor::MonitorHandle;
use super::from_config;
use crate::clock::Clock;
use crate::config::effective::Effective;
use crate::config::{Config, ConfigSource, Loaded, Origins};
use crate::control_loop::Command;
use crate::export::Reloaded;
use crate::export::logging::LevelHandle;
use crate::export::settings::Passthrough;
use crate::proxy::settings::DrainSettings;
use crate::proxy::state::ProxyState;

/// Reads the configuration again, on request or when its file has changed.
pub struct Reloader {
    /// Absent where a program made the configuration: there is nothing to read again.
    source: Option<ConfigSource>,
    parts: ReloadParts,
    /// Held while the file is read: one reload at a time, and `state` is never locked while the disk is slow.
    reading: Mutex<()>,
    state: Mutex<State>,
}

/// What a reload changes.
pub struct ReloadParts {
    pub proxy: Arc<ProxyState>,
    pub backends: Arc<Backends>,
    pub monitor: MonitorHandle,
    pub drain: Arc<ArcSwap<DrainSettings>>,
    /// Absent where the process did not set up the log.
    pub log_level: Option<LevelHandle>,
}

struct State {
    /// As it was read last, with the settings that only a start can change.
    read: Config,
    in_force: Config,
    origins: Origins,
    accepted: bool,
    accepted_at: f64,
    accepts: u64,
    refusals: u64,
    /// The last error, so that a file that stays bad is logged once.
    refused: Option<String>,
}

/// How reloads went.
#[derive(Clone, Copy, Debug)]
pub struct ReloadCounts {
    pub accepted: bool,
    /// Unix time of the last one that was accepted; the start counts.
    pub accepted_at: f64,
    pub accepts: u64,
    pub refusals: u64,
}

impl Reloader {
    /// With the configuration that the process was started with.
    pub fn new(source: Option<ConfigSource>, loaded: Loaded, parts: ReloadParts) -> Self {
        let Loaded { config, origins } = loaded;
        let state = State {
            read: config.clone(),
            in_force: config,
            origins,
            accepted: true,
            accepted_at: unix_now(&parts.proxy.clock),
            accepts: 0,
            refusals: 0,
            refused: None,
        };
        Self { source, parts, reading: Mutex::new(()), state: Mutex::new(state) }
    }

    /// Reads the configuration again because `asked` says so (`SIGHUP`, `POST`).
    ///
    /// # Errors
    /// Every mistake, one a line; nothing has changed then.
    pub fn reload(&self, asked: &str) -> Result<Reloaded, String> {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let read = self.read();
        let mut state = self.state();
        match read {
            Ok(loaded) => Ok(self.apply(&mut state, loaded, asked)),
            Err(why) => {
                state.refuse(&why, asked);
                Err(why)
            }
        }
    }

    /// Reads the configuration again and applies it if it is another one. A mistake is logged once.
    pub fn reload_if_changed(&self, asked: &str) {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let read = self.read();
        let mut state = self.state();
        match read {
            Ok(loaded) if loaded.config == state.read && state.accepted => {}
            Ok(loaded) => _ = self.apply(&mut state, loaded, asked),
            Err(why) if state.refused.as_ref() == Some(&why) => {}
            Err(why) => state.refuse(&why, asked),
        }
    }

    /// How reloads went.
    pub fn counts(&self) -> ReloadCounts {
        let State { accepted, accepted_at, accepts, refusals, .. } = *self.state();
        ReloadCounts { accepted, accepted_at, accepts, refusals }
    }

    /// What is in force, where it came from, and what waits for the next start; keys in the file's order.
    pub fn describe(&self) -> String {
        let state = self.state();
        let effective = Effective::of(&state.in_force).text();
        let waiting = differing(&state.in_force, &state.read);
        let more = json!({ "origins": state.origins, "needs_restart": waiting }).to_string();
        // Joins two objects with keys into one.
        format!("{},{}", effective.strip_suffix('}').unwrap_or(&effective), more.strip_prefix('{').unwrap_or(&more))
    }

    /// The file that is read, if there is one.
    pub fn file(&self) -> Option<&std::path::Path> {
        self.source.as_ref()?.path.as_deref()
    }

    fn read(&self) -> Result<Loaded, String> {
        let source = self.source.as_ref().ok_or_else(|| "there is no configuration to read again".to_owned())?;
        let loaded = source.load().map_err(|why| why.to_string())?;
        self.parts.backends.check_capacity(&loaded.config.backends)?;
        Ok(loaded)
    }

    fn apply(&self, state: &mut State, Loaded { config, origins }: Loaded, asked: &str) -> Reloaded {
        let next = in_force(&state.in_force, &config);
        let done = Reloaded { changed: differing(&state.in_force, &next), needs_restart: differing(&next, &config) };
        self.parts.apply(&state.in_force, &next);
        (state.read, state.in_force, state.origins) = (config, next, origins);
        (state.accepted, state.accepted_at, state.refused) = (true, unix_now(&self.parts.proxy.clock), None);
        state.accepts += 1;
        let changed = done.changed.join(" ");
        tracing::info!(asked, changed, "the configuration was reloaded");
        if !done.needs_restart.is_empty() {
            let settings = done.needs_restart.join(" ");
            tracing::warn!(settings, "these settings need a restart; until then the old values apply");
        }
        done
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn refuse(&mut self, why: &str, asked: &str) {
        (self.accepted, self.refused) = (false, Some(why.to_owned()));
        self.refusals += 1;
        // A file may have many mistakes, and the log gets one line each.
        let mistakes = why.lines().count();
        for why in why.lines().take(MAX_LOGGED) {
            tracing::error!(asked, why, mistakes, "the new configuration was refused; the old one stays in force");
        }
    }
}

impl ReloadParts {
    fn apply(&self, old: &Config, new: &Config) {
        let proxy = &self.proxy;
        proxy.limits.store(Arc::new(new.limits.clone()));
        proxy.memory.set_limit(new.limits.body_memory);
        proxy.addresses.set_cap(new.limits.max_connections_per_address);
        proxy.trust.store(Arc::new(new.admission.trust.clone()));
        proxy.passes_metrics.store(new.metrics.passthrough == Passthrough::Engine, Relaxed);
        proxy.rules.store(Arc::new(from_config::request_policy(new).after(&proxy.rules.load())));
        // A mode that was switched at the admin port stays, unless the file says another one than before.
        if new.mode != old.mode {
            proxy.rules.load().set_mode(new.mode.into());
        }
        proxy.ledger.set_slo(new.slo);
        let settings = new.admission.settings();
        proxy.pool.reset(new.balance, settings);
        if (new.slo, new.control) != (old.slo, old.control) || settings != old.admission.settings() {
            let slo_ttft = new.slo.ttft;
            self.monitor.send(Command::Reconfigure { slo_ttft, policy: new.control, settings });
        }
        self.drain.store(Arc::new(new.drain.clone()));
        if let Some(log_level) = self.log_level.as_ref().filter(|_| new.log.level != old.log.level) {
            log_level.set(new.log.level);
        }
        if new.backends != old.backends {
            self.backends.set(&new.backends);
        }
    }
}

/// Mistakes that are logged; the answer to a POST has all.
const MAX_LOGGED: usize = 20;

/// The configuration in force after `new` was read in place of `old`: a running process changes the settings of `RELOADED` only.
fn in_force(old: &Config, new: &Config) -> Config {
    let mut next = old.clone();
    RELOADED.iter().for_each(|(_, apply)| apply(&mut next, new));
    next.limits.max_connections = old.limits.max_connections;
    for server in &mut next.backends {
        // The thread that reads GPUs takes their backends at the start.
        let before = old.backends.iter().find(|before| before.name == server.name);
        server.inside.gpu = before.map_or_else(Vec::new, |before| before.inside.gpu.clone());
    }
    next
}

/// The settings that a reload applies, and what takes each one over. `limits.max_connections` and `gpu` of a backend are left as
/// they were.
const RELOADED: [(&str, fn(&mut Config, &Config)); 10] = [
    ("mode", |next, new| next.mode = new.mode),
    ("slo", |next, new| {
        next.slo = new.slo;
        next.slo_routes.clone_from(&new.slo_routes);
    }),
    ("backends", |next, new| next.backends.clone_from(&new.backends)),
    ("balance", |next, new| next.balance = new.balance),
    ("admission", |next, new| next.admission.clone_from(&new.admission)),
    ("control", |next, new| next.control = new.control),
    ("limits", |next, new| next.limits.clone_from(&new.limits)),
    ("drain", |next, new| next.drain.clone_from(&new.drain)),
    ("log.level", |next, new| next.log.level = new.log.level),
    ("metrics.passthrough", |next, new| next.metrics.passthrough = new.metrics.passthrough),
];

/// Paths of the settings in which the two differ. Backends are matched by their names.
fn differing(one: &Config, other: &Config) -> Vec<String> {
    let mut found = Vec::new();
    compare("", &by_name(one), &by_name(other), &mut found);
    found
}

fn by_name(config: &Config) -> Value {
    let mut effective = config.effective();
    let servers =
        config.backends.iter().filter_map(|server| Some((server.name.clone(), serde_json::to_value(server).ok()?)));
    effective["backends"] = Value::Object(servers.collect());
    // Masked above. A change of it counts too; only the path of a difference is shown.
    effective["admin"]["token"] = config.admin.token.as_ref().map(|token| token.reveal().to_owned()).into();
    effective
}

/// Unix time in seconds.
fn unix_now(clock: &Clock) -> f64 {
    clock.unix_seconds(clock.now())
}

fn compare(path: &str, one: &Value, other: &Value, found: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(mine), Value::Object(theirs)) => {
            let keys: std::collections::BTreeSet<_> = mine.keys().chain(theirs.keys()).collect();
            for key in keys {
                let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match (mine.get(key), theirs.get(key)) {
                    (Some(mine), Some(theirs)) => compare(&inner, mine, theirs, found),
                    _ => found.push(inner),
                }
            }
        }
        _ if one != other => found.push(path.to_owned()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sections that only a start reads, or of which a reload applies single keys.
    const NEEDS_RESTART: [&str; 10] =
        ["version", "listen", "workers", "probe", "gpu", "admin", "log", "otlp", "metrics", "journal"];

    #[test]
    fn every_section_either_reloads_or_needs_a_restart() {
        let schema = crate::config::schema::schema();
        let sections: std::collections::BTreeSet<&str> =
            schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        let whole = RELOADED.iter().map(|(path, _)| *path).filter(|path| !path.contains('.'));
        assert_eq!(whole.chain(NEEDS_RESTART).collect::<std::collections::BTreeSet<_>>(), sections);
        assert_eq!(sections.len(), 18, "a section is in both lists");
        for path in RELOADED.iter().map(|(path, _)| path.replace('.', "/properties/")) {
            assert!(schema.pointer(&format!("/properties/{path}")).is_some(), "{path} is not in the schema");
        }
    }
}
