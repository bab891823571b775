//! The thread that writes the log: whoever says something hands a line over and never waits for standard error.
//!
//! A pipe that nobody reads fills within seconds; then lines are dropped and counted, and the next one that gets through is
//! preceded by the count. It knows no form of a line.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

enum LogItem {
    Line(Vec<u8>),
    /// Everything before is written.
    Mark(SyncSender<()>),
}

static SENDER: OnceLock<SyncSender<LogItem>> = OnceLock::new();
static LOST: AtomicU64 = AtomicU64::new(0);

/// Writes a whole line, or drops and counts it. Before the first `start` it is written at once.
pub(super) fn line(line: Vec<u8>) {
    let Some(sender) = SENDER.get() else {
        // Nobody can be told that this fails.
        let _ = io::stderr().lock().write_all(&line);
        return;
    };
    if sender.try_send(LogItem::Line(line)).is_err() {
        LOST.fetch_add(1, Relaxed);
    }
}

/// Starts the thread; a second call changes nothing. `confess` makes the line that says how many were dropped.
///
/// # Errors
/// The thread cannot be started.
pub(super) fn start(confess: impl Fn(u64) -> Vec<u8> + Send + 'static) -> io::Result<()> {
    let (sender, receiver) = sync_channel(CAPACITY);
    if SENDER.set(sender).is_ok() {
        std::thread::Builder::new()
            .name("weir-log".into())
            .spawn(move || run(&receiver, &LOST, || io::stderr().lock(), confess))?;
    }
    Ok(())
}

/// Waits until what was said so far is written, but not for long.
pub fn flush() {
    let Some(sender) = SENDER.get() else { return };
    let (done, written) = sync_channel(1);
    if sender.try_send(LogItem::Mark(done)).is_ok() {
        let _ = written.recv_timeout(PATIENCE);
    }
}

/// Lines that were dropped.
pub fn lost() -> u64 {
    LOST.load(Relaxed)
}

fn run<W: Write>(
    receiver: &Receiver<LogItem>,
    lost: &AtomicU64,
    out: impl Fn() -> W,
    confess: impl Fn(u64) -> Vec<u8>,
) {
    let mut confessed = 0;
    for item in receiver {
        let now_lost = lost.load(Relaxed);
        if now_lost > confessed {
            let _ = out().write_all(&confess(now_lost - confessed));
            confessed = now_lost;
        }
        match item {
            LogItem::Line(line) => drop(out().write_all(&line)),
            LogItem::Mark(done) => drop(done.try_send(())),
        }
    }
}

/// Of some hundred bytes each: a few mebibytes.
const CAPACITY: usize = 8192;
/// A process that ends does not wait for whoever does not read.
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct KeptLines(Arc<Mutex<Vec<u8>>>);

    impl Write for KeptLines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_was_dropped_is_said_before_the_next_line_and_only_once() {
        let (sender, receiver) = sync_channel(4);
        for line in ["one\n", "two\n"] {
            sender.send(LogItem::Line(line.into())).unwrap();
        }
        drop(sender);
        let (kept, lost) = (KeptLines::default(), AtomicU64::new(7));
        run(&receiver, &lost, || kept.clone(), |n| format!("lost {n}\n").into_bytes());
        assert_eq!(String::from_utf8(kept.0.lock().unwrap().clone()).unwrap(), "lost 7\none\ntwo\n");
    }
}
