//! The thread that writes the log to standard error, so that no caller waits for it.
//!
//! A pipe without a reader fills within seconds; then lines are dropped and counted (`sink`), and a notice with the count precedes
//! the next line that is written. Absent: the form of a line (`logging`).

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use super::sink::{LostCount, Sink};

enum LogItem {
    Line(Vec<u8>),
    /// Everything before it is written when it is answered.
    Mark(SyncSender<()>),
}

static SINK: OnceLock<Sink<SyncSender<LogItem>>> = OnceLock::new();

/// Writes a whole line, or drops and counts it. Before the first `start` it is written at once.
pub(super) fn line(line: Vec<u8>) {
    match SINK.get() {
        Some(sink) => sink.offer(LogItem::Line(line)),
        // There is nowhere to report that this fails.
        None => drop(io::stderr().lock().write_all(&line)),
    }
}

/// Starts the thread; a second call changes nothing. `notice` makes the line that says how many were dropped.
///
/// # Errors
/// The thread cannot be started.
pub(super) fn start(notice: impl Fn(u64) -> Vec<u8> + Send + 'static) -> io::Result<()> {
    let (sink, receiver) = Sink::blocking(CAPACITY);
    let lost = sink.lost_count();
    if SINK.set(sink).is_ok() {
        std::thread::Builder::new()
            .name("weir-log".into())
            .spawn(move || run(&receiver, &lost, || io::stderr().lock(), notice))?;
    }
    Ok(())
}

/// Waits up to one second until the lines so far are written.
pub fn flush() {
    let Some(sink) = SINK.get() else { return };
    let (done, written) = sync_channel(1);
    if sink.offer_uncounted(LogItem::Mark(done)) {
        let _ = written.recv_timeout(FLUSH_TIMEOUT);
    }
}

/// Lines that were dropped.
pub fn lost() -> u64 {
    SINK.get().map_or(0, Sink::lost)
}

fn run<W: Write>(receiver: &Receiver<LogItem>, lost: &LostCount, out: impl Fn() -> W, notice: impl Fn(u64) -> Vec<u8>) {
    let mut noticed = 0;
    for item in receiver {
        let now_lost = lost.get();
        if now_lost > noticed {
            let _ = out().write_all(&notice(now_lost - noticed));
            noticed = now_lost;
        }
        match item {
            LogItem::Line(line) => drop(out().write_all(&line)),
            LogItem::Mark(done) => drop(done.try_send(())),
        }
    }
}

/// Lines of some hundred bytes each: a few MiB.
const CAPACITY: usize = 8192;
/// A process that ends does not wait for a pipe without a reader.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

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
    fn the_notice_precedes_the_next_line_and_stands_once() {
        let (sink, receiver) = Sink::blocking(2);
        for line in ["one\n", "two\n", "three\n"] {
            sink.offer(LogItem::Line(line.into()));
        }
        let (kept, lost) = (KeptLines::default(), sink.lost_count());
        drop(sink);
        run(&receiver, &lost, || kept.clone(), |n| format!("lost {n}\n").into_bytes());
        assert_eq!(String::from_utf8(kept.0.lock().unwrap().clone()).unwrap(), "lost 1\none\ntwo\n");
    }
}
