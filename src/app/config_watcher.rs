//! Reloads when the configuration file has changed: watches its folder, and reads the file from time to time in case no event came.
//!
//! The folder and not the file: editors and Kubernetes replace the file. A ConfigMap's files are links through `..data`, which
//! is swapped whole, so an event of any name counts, and the content of the file decides.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use notify::{RecursiveMode, Watcher};

use super::reload::Reloader;

/// The watching thread. Dropping it ends it.
pub struct ConfigWatcher {
    stop: Sender<WatchEvent>,
    thread: Option<JoinHandle<()>>,
}

enum WatchEvent {
    Changed,
    Stop,
}

impl ConfigWatcher {
    /// Watches for as long as it lives. `None` where there is no file.
    pub fn start(reloader: Arc<Reloader>) -> Option<Self> {
        let folder =
            reloader.file()?.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = folder.to_owned();
        let (stop, events) = channel();
        let changed = stop.clone();
        let thread = std::thread::Builder::new().name("weir-notice".into()).spawn(move || {
            let on_event = move |event: notify::Result<notify::Event>| {
                if event.is_ok_and(|event| !event.kind.is_access()) {
                    let _ = changed.send(WatchEvent::Changed);
                }
            };
            let watcher = notify::recommended_watcher(on_event).and_then(|mut watcher| {
                watcher.watch(&folder, RecursiveMode::NonRecursive)?;
                Ok(watcher)
            });
            if watcher.is_err() {
                tracing::warn!(
                    seconds = POLL.as_secs(),
                    "the folder of the configuration cannot be watched; the file is read at intervals instead"
                );
            }
            // The file may have changed between the start and the watch.
            reloader.reload_if_changed("watch");
            watch(&events, &reloader);
        });
        let thread = thread
            .inspect_err(
                |error| tracing::warn!(%error, "the configuration is not watched: its thread could not be started"),
            )
            .ok();
        Some(Self { stop, thread })
    }
}

impl Drop for ConfigWatcher {
    fn drop(&mut self) {
        let _ = self.stop.send(WatchEvent::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that watches the configuration ended in a panic");
        }
    }
}

fn watch(events: &Receiver<WatchEvent>, reloader: &Reloader) {
    loop {
        match events.recv_timeout(POLL) {
            Ok(WatchEvent::Changed) => {
                if !wait_for_quiet(events) {
                    return;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Ok(WatchEvent::Stop) | Err(RecvTimeoutError::Disconnected) => return,
        }
        reloader.reload_if_changed("watch");
    }
}

/// Waits until no event follows another; `false` when the thread is to stop. A folder that changes all the time is read all the
/// same, after `MAX_WAITS`.
fn wait_for_quiet(events: &Receiver<WatchEvent>) -> bool {
    for _ in 0..MAX_WAITS {
        match events.recv_timeout(QUIET) {
            Ok(WatchEvent::Changed) => {}
            Ok(WatchEvent::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => return true,
        }
    }
    true
}

/// A file is written in several steps.
const QUIET: Duration = Duration::from_millis(250);
const MAX_WAITS: usize = 20;
/// Network file systems report no change that another machine makes.
const POLL: Duration = Duration::from_secs(30);
