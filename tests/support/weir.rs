//! weir in this process: started on free ports, asked over its own sockets.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;
use weir::app::{RunningServer, start};
use weir::config::{Config, Overrides};
use weir::engine_metrics::settings::EngineKind;
use weir::measure::journal::{JournalLine, JournalRecord};
use weir::measure::{AccountStats, Outcome, Snapshot};
use weir::proxy::state::ProxyState;

use super::client;

/// A weir that runs until it is stopped or dropped.
pub struct Weir {
    running: Option<RunningServer>,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    journal: Option<PathBuf>,
}

impl Weir {
    /// Defaults, in front of `backends`.
    pub fn before(backends: &[SocketAddr]) -> Self {
        Self::with(backends, "", |_| {})
    }

    /// With a file of settings; `adjust` is where a test sets its test_hook. The backends' own metrics are not read: a scripted
    /// one sees nothing but what the test sends.
    pub fn with(backends: &[SocketAddr], settings: &str, adjust: impl FnOnce(&mut ProxyState)) -> Self {
        Self::started(backends, settings, EngineKind::None, adjust)
    }

    /// With a file of settings, reading the metrics of engines.
    pub fn reading_engines(backends: &[SocketAddr], settings: &str) -> Self {
        Self::started(backends, settings, EngineKind::Auto, |_| {})
    }

    /// From a whole file.
    pub fn of(text: &str) -> Self {
        let local = Some("127.0.0.1:0".parse().unwrap());
        let overrides = Overrides { listen: local, admin: local, ..Overrides::default() };
        let config = Config::parse(text, "test", &overrides, &|_| None).unwrap();
        let running = start(config, |_| {}).unwrap();
        Self { address: running.address, admin: running.admin, running: Some(running), journal: None }
    }

    fn started(
        backends: &[SocketAddr],
        settings: &str,
        engine: EngineKind,
        adjust: impl FnOnce(&mut ProxyState),
    ) -> Self {
        let local = Some("127.0.0.1:0".parse().unwrap());
        let overrides = Overrides { listen: local, admin: local, ..Overrides::default() };
        let lines: String = backends
            .iter()
            .map(|backend| format!("\n  - {{url: 'http://{backend}', engine: {}}}", engine.as_str()))
            .collect();
        let config = Config::parse(&format!("backends:{lines}\n{settings}"), "test", &overrides, &|_| None).unwrap();
        let journal = config.journal.path.clone();
        let running = start(config, adjust).unwrap();
        Self { address: running.address, admin: running.admin, running: Some(running), journal }
    }

    pub fn proxy(&self) -> &ProxyState {
        &self.running.as_ref().unwrap().proxy
    }

    /// For whoever serves another socket with it.
    pub fn shared(&self) -> Arc<ProxyState> {
        self.running.as_ref().unwrap().proxy.clone()
    }

    /// The books now, which must balance.
    pub fn snapshot(&self) -> Snapshot {
        let snapshot = self.proxy().ledger.snapshot(self.proxy().clock.now());
        snapshot.check().unwrap();
        snapshot
    }

    /// The books once nothing is under way.
    pub fn settled(&self) -> Snapshot {
        super::time::until("nothing is under way", || self.proxy().drain.underway() == 0);
        self.snapshot()
    }

    /// The body of a page of the admin port.
    pub fn page(&self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n");
        let answer = client::ask(self.admin, request.as_bytes());
        assert_eq!(answer.status, 200, "{path}: {}", answer.head);
        answer.text()
    }

    pub fn status(&self) -> Value {
        serde_json::from_str(&self.page("/status")).unwrap()
    }

    /// Stops, and reads the journal that is then complete.
    pub fn stop(mut self) -> Vec<JournalRecord> {
        self.running.take().unwrap().stop();
        let Some(path) = &self.journal else { return Vec::new() };
        let text = std::fs::read_to_string(path).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.filter_map(|line| if let JournalLine::Request(record) = line { Some(*record) } else { None }).collect()
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
        }
    }
}

/// A file name that no other test uses.
pub fn scratch(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

/// A number of the books, summed over backends and models.
pub fn total(snapshot: &Snapshot, count: impl Fn(&AccountStats) -> u64) -> u64 {
    snapshot.accounts.iter().map(|account| count(&account.stats)).sum()
}

pub fn finished(snapshot: &Snapshot, outcome: Outcome) -> u64 {
    total(snapshot, |books| books.finished(outcome))
}
