//! Notices that the file has changed: the folder is watched, and looked into now and then in case nothing was said.
//!
//! The folder and not the file: editors and Kubernetes put another file in its place. A ConfigMap's files are links through
//! `..data`, which is swapped whole, so an event of any name counts, and what is read decides.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use notify::{RecursiveMode, Watcher};

use super::reload::Reloader;

/// The thread that notices. Dropping it ends it.
pub struct ConfigWatcher {
    stop: Sender<Said>,
    thread: Option<JoinHandle<()>>,
}

enum Said {
    Changed,
    Stop,
}

impl ConfigWatcher {
    /// Watches for as long as it lives. `None`: there is no file.
    pub fn start(reloader: Arc<Reloader>) -> Option<Self> {
        let folder =
            reloader.file()?.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = folder.to_owned();
        let (stop, told) = channel();
        let changed = stop.clone();
        let thread = std::thread::Builder::new().name("weir-notice".into()).spawn(move || {
            let on_event = move |event: notify::Result<notify::Event>| {
                if event.is_ok_and(|event| !event.kind.is_access()) {
                    let _ = changed.send(Said::Changed);
                }
            };
            let watcher = notify::recommended_watcher(on_event).and_then(|mut watcher| {
                watcher.watch(&folder, RecursiveMode::NonRecursive)?;
                Ok(watcher)
            });
            if watcher.is_err() {
                tracing::warn!(
                    seconds = POLL.as_secs(),
                    "the folder of the configuration cannot be watched; it is looked at now and then"
                );
            }
            // Between the start and the watch it may have changed.
            reloader.look("watch");
            attend(&told, &reloader);
        });
        let thread = thread.inspect_err(|error| tracing::warn!(%error, "nobody watches the configuration")).ok();
        Some(Self { stop, thread })
    }
}

impl Drop for ConfigWatcher {
    fn drop(&mut self) {
        let _ = self.stop.send(Said::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that watches the configuration ended in a panic");
        }
    }
}

fn attend(told: &Receiver<Said>, reloader: &Reloader) {
    loop {
        match told.recv_timeout(POLL) {
            Ok(Said::Changed) => {
                if !settles(told) {
                    return;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Said::Stop) | Err(RecvTimeoutError::Disconnected) => return,
        }
        reloader.look("watch");
    }
}

/// Waits until nothing more happens; `false`: it is to stop. A folder in which something always happens is looked at all the
/// same.
fn settles(told: &Receiver<Said>) -> bool {
    for _ in 0..MOST_WAITS {
        match told.recv_timeout(QUIET) {
            Ok(Said::Changed) => {}
            Ok(Said::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => return true,
        }
    }
    true
}

/// Whoever writes a file does so in several steps.
const QUIET: Duration = Duration::from_millis(250);
const MOST_WAITS: usize = 20;
/// Network file systems say nothing of what others write.
const POLL: Duration = Duration::from_secs(30);
