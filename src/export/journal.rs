//! The journal file: one JSON line per request, written by a thread of its own.
//!
//! Senders never wait: a record that finds the channel full is dropped and counted. A file that cannot be written (no
//! space, no permission any more) costs records and one WARN, never a request; writing is tried again with every batch.
//! It holds no format: what a record says is measure/journal.rs' business, and that is stamps and lengths, never content.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;

use crate::measure::journal::JournalLine;

/// The sending side; cheap to clone, one for each worker.
#[derive(Clone, Debug)]
pub struct JournalSender {
    sender: SyncSender<JournalLine>,
    counts: Arc<JournalCounters>,
}

/// The writing thread. It ends when every `Journal` is gone, after the last record is in the file.
#[derive(Debug)]
pub struct JournalFile {
    thread: JoinHandle<()>,
    counts: Arc<JournalCounters>,
}

/// What became of the records; counters only grow.
#[derive(Debug, Default)]
struct JournalCounters {
    written: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

/// What became of the records up to a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalCounts {
    /// Records in the file.
    pub written: u64,
    /// Records that found the channel full.
    pub dropped: u64,
    /// Records lost to a write error.
    pub failed: u64,
}

impl JournalSender {
    /// Opens `path` for appending, created with mode 0600 where the system knows modes, and starts the thread. `epoch` is the
    /// Unix time at which the clock of the records began.
    ///
    /// Fails when the file cannot be opened or the thread cannot be started.
    pub fn open(path: &Path, epoch: f64) -> io::Result<(Self, JournalFile)> {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Self::start(options.open(path)?, CAPACITY, epoch)
    }

    fn start(out: impl Write + Send + 'static, capacity: usize, epoch: f64) -> io::Result<(Self, JournalFile)> {
        let (sender, receiver) = sync_channel(capacity);
        let counts = Arc::new(JournalCounters::default());
        let mut writer = JournalWriter::new(out, counts.clone(), epoch);
        let thread = std::thread::Builder::new().name("weir-journal".into()).spawn(move || writer.run(&receiver))?;
        Ok((Self { sender, counts: counts.clone() }, JournalFile { thread, counts }))
    }

    /// Hands a record over, or drops and counts it. Never waits.
    pub fn offer(&self, record: JournalLine) {
        match self.sender.try_send(record) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.counts.dropped.fetch_add(1, Relaxed);
            }
        }
    }

    /// What became of the records so far.
    pub fn counts(&self) -> JournalCounts {
        self.counts.read()
    }

    /// The channel itself, for the books, which count what finds no room.
    pub fn sender(&self) -> SyncSender<JournalLine> {
        self.sender.clone()
    }
}

impl JournalFile {
    /// Waits until every record of the senders, all dropped by now, is in the file.
    pub fn finish(self) -> JournalCounts {
        if self.thread.join().is_err() {
            tracing::error!("the journal's thread ended in a panic");
        }
        self.counts.read()
    }
}

impl JournalCounters {
    fn read(&self) -> JournalCounts {
        JournalCounts {
            written: self.written.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            failed: self.failed.load(Relaxed),
        }
    }
}

/// A line of the file. A file outlives its process, so every line says what its stamps count from.
#[derive(Serialize)]
struct Stamped<'a> {
    /// Unix time in seconds.
    epoch: f64,
    #[serde(flatten)]
    line: &'a JournalLine,
}

/// Lines gathered in memory, and the file they go to.
struct JournalWriter<W> {
    out: W,
    epoch: f64,
    lines: Vec<u8>,
    pending: u64,
    counts: Arc<JournalCounters>,
    /// Set by the first failure, cleared by the next success: one WARN for each stretch of failures.
    failing: bool,
    /// A write broke off in the middle of a line; the next one starts on a line of its own.
    torn: bool,
}

impl<W: Write> JournalWriter<W> {
    fn new(out: W, counts: Arc<JournalCounters>, epoch: f64) -> Self {
        Self { out, epoch, lines: Vec::new(), pending: 0, counts, failing: false, torn: false }
    }

    fn run(&mut self, receiver: &Receiver<JournalLine>) {
        loop {
            match receiver.recv_timeout(FLUSH_EVERY) {
                Ok(record) => self.gather(&record, receiver),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.flush(),
            }
            self.flush();
        }
    }

    /// Takes what there is for up to a second, or up to a batch.
    fn gather(&mut self, first: &JournalLine, receiver: &Receiver<JournalLine>) {
        self.append(first);
        let until = soon(FLUSH_EVERY);
        while self.lines.len() < BATCH {
            let Some(rest) = until.checked_duration_since(soon(Duration::ZERO)) else { return };
            match receiver.recv_timeout(rest) {
                Ok(record) => self.append(&record),
                Err(_) => return,
            }
        }
    }

    fn append(&mut self, line: &JournalLine) {
        let before = self.lines.len();
        match serde_json::to_writer(&mut self.lines, &Stamped { epoch: self.epoch, line }) {
            Ok(()) => {
                self.lines.push(b'\n');
                self.pending += 1;
            }
            Err(_) => {
                self.lines.truncate(before);
                self.counts.failed.fetch_add(1, Relaxed);
            }
        }
    }

    /// Writes the batch; on failure its unwritten records are lost and counted.
    fn flush(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        let result = self.write();
        self.lines.clear();
        self.lines.shrink_to(BATCH);
        self.pending = 0;
        match result {
            Ok(()) if self.failing => {
                self.failing = false;
                tracing::info!("the journal is written again");
            }
            Ok(()) => {}
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::warn!(%error, "the journal cannot be written, records are lost until it can");
            }
            Err(_) => {}
        }
    }

    fn write(&mut self) -> io::Result<()> {
        if self.torn {
            write_all(&mut self.out, b"\n").map_err(|(_, error)| error)?;
            self.torn = false;
        }
        let result = write_all(&mut self.out, &self.lines);
        let done = result.as_ref().map_or_else(|(done, _)| *done, |()| self.lines.len());
        let whole = self.lines[..done].iter().filter(|byte| **byte == b'\n').count() as u64;
        self.torn = done > 0 && self.lines[done - 1] != b'\n';
        self.counts.written.fetch_add(whole, Relaxed);
        self.counts.failed.fetch_add(self.pending - whole, Relaxed);
        result.map_err(|(_, error)| error)
    }
}

/// Like `Write::write_all`, and says how far it came.
fn write_all(out: &mut impl Write, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut done = 0;
    while done < bytes.len() {
        match out.write(&bytes[done..]) {
            Ok(0) => return Err((done, io::ErrorKind::WriteZero.into())),
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((done, error)),
        }
    }
    out.flush().map_err(|error| (done, error))
}

#[expect(clippy::disallowed_methods, reason = "a timer of this thread, no stamp of anything measured")]
fn soon(span: Duration) -> std::time::Instant {
    std::time::Instant::now() + span
}

/// Records waiting for the thread: at 2,000 requests/s two seconds of a blocked disk.
const CAPACITY: usize = 4_096;
/// How stale the file may be.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// One write call is at most about this long.
const BATCH: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// A disk with room for so many bytes; the room can grow.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut disk = self.0.lock().unwrap();
            let n = bytes.len().min(disk.1 - disk.0.len());
            disk.0.extend_from_slice(&bytes[..n]);
            if n == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(n) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Disk {
        fn with_room(server: usize) -> Self {
            Self(Arc::new(Mutex::new((Vec::new(), server))))
        }

        fn lines(&self) -> Vec<String> {
            String::from_utf8(self.0.lock().unwrap().0.clone()).unwrap().lines().map(str::to_owned).collect()
        }
    }

    #[test]
    fn every_record_is_in_the_file_when_the_senders_are_gone() {
        let disk = Disk::with_room(1 << 20);
        let (journal, file) = JournalSender::start(disk.clone(), 100, 0.0).unwrap();
        (0..100).for_each(|_| journal.offer(record()));
        drop(journal);
        assert_eq!(file.finish(), JournalCounts { written: 100, ..JournalCounts::default() });
        assert_eq!(disk.lines().len(), 100);
    }

    #[test]
    fn a_record_that_finds_the_channel_full_is_dropped_and_counted() {
        let (sender, _receiver) = sync_channel(2);
        let journal = JournalSender { sender, counts: Arc::default() };
        (0..5).for_each(|_| journal.offer(record()));
        assert_eq!(journal.counts(), JournalCounts { dropped: 3, ..JournalCounts::default() });
    }

    #[test]
    fn a_full_disk_loses_records_and_not_the_journal() {
        let line = serde_json::to_vec(&Stamped { epoch: 0.0, line: &record() }).unwrap().len() + 1;
        let disk = Disk::with_room(line + line / 2);
        let mut writer = JournalWriter::new(disk.clone(), Arc::default(), 0.0);
        (0..3).for_each(|_| writer.append(&record()));
        writer.flush();
        assert_eq!(writer.counts.read(), JournalCounts { written: 1, failed: 2, dropped: 0 });
        disk.0.lock().unwrap().1 = 1 << 20;
        writer.append(&record());
        writer.flush();
        assert_eq!(writer.counts.read(), JournalCounts { written: 2, failed: 2, dropped: 0 });
        let lines = disk.lines();
        let whole = lines.iter().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok());
        assert_eq!((lines.len(), whole.count()), (3, 2), "the torn line stands alone");
    }

    fn record() -> JournalLine {
        let line = r#"{"backend":"b","model":"m","priority":"default","timeline":{"arrived":1,"admitted":null,"first_byte":null,"head":null,"first_token":null,"last_token":null,"ended":2},"status":0,"dialect":"openai.chat","stream":true,"prompt_tokens":null,"max_output":null,"choices":1,"retries":[0,0],"overhead":[null,null],"emissions":[],"truncated":false,"verdict":{"end":"abandoned"}}"#;
        serde_json::from_str(line).unwrap()
    }
}
