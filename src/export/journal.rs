//! The journal file: one JSON line per request and state transition, written by a thread of its own.
//!
//! Senders never wait (`sink`). A file that cannot be written (no space, permission withdrawn) costs records and one WARN, never a
//! request; writing is tried again with every batch. Absent: the format, which is that of `measure::journal`: stamps and lengths,
//! never content.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;

use super::sink::{LostCount, Sink};
use crate::measure::journal::JournalLine;

/// The sending side; cheap to clone, one for each worker.
#[derive(Clone, Debug)]
pub struct JournalSender {
    sink: Sink<SyncSender<JournalLine>>,
    counts: Arc<JournalCounters>,
}

/// The writing thread. It ends when every `JournalSender` is gone, after the last record is in the file.
#[derive(Debug)]
pub struct JournalFile {
    thread: JoinHandle<()>,
    counts: Arc<JournalCounters>,
    lost: LostCount,
}

/// Records that reached the thread; counters only grow.
#[derive(Debug, Default)]
struct JournalCounters {
    written: AtomicU64,
    failed: AtomicU64,
}

/// Records up to a moment, by what happened to them.
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
        let (sink, receiver) = Sink::blocking(capacity);
        let counts = Arc::new(JournalCounters::default());
        let mut writer = JournalWriter::new(out, counts.clone(), epoch);
        let thread = std::thread::Builder::new().name("weir-journal".into()).spawn(move || writer.run(&receiver))?;
        let lost = sink.lost_count();
        Ok((Self { sink, counts: counts.clone() }, JournalFile { thread, counts, lost }))
    }

    /// Sends a record, or drops and counts it.
    pub fn offer(&self, record: JournalLine) {
        self.sink.offer(record);
    }

    /// The records so far.
    pub fn counts(&self) -> JournalCounts {
        self.counts.read(self.sink.lost())
    }

    /// The channel itself, for the ledger, which counts the records that it loses.
    pub fn sender(&self) -> SyncSender<JournalLine> {
        self.sink.channel().clone()
    }
}

impl JournalFile {
    /// Waits until every record is in the file. The caller has dropped every sender.
    pub fn finish(self) -> JournalCounts {
        if self.thread.join().is_err() {
            tracing::error!("the journal's thread ended in a panic");
        }
        self.counts.read(self.lost.get())
    }
}

impl JournalCounters {
    fn read(&self, dropped: u64) -> JournalCounts {
        JournalCounts { written: self.written.load(Relaxed), dropped, failed: self.failed.load(Relaxed) }
    }
}

/// A line of the file. A file outlives its process, so each line holds the epoch of its stamps.
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
    /// A write ended in the middle of a line; the next write starts a new line.
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

    /// Receives records for up to a second, or up to a batch.
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

/// Like `Write::write_all`; an error carries the number of bytes written before it.
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

/// Records waiting for the thread: two seconds of a blocked disk at 2,000 requests/s.
const CAPACITY: usize = 4_096;
/// The longest time for which the file lags behind.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// Bytes of one write call, about.
const BATCH: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// A disk with free space for N bytes; N can grow.
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
        fn with_space(bytes: usize) -> Self {
            Self(Arc::new(Mutex::new((Vec::new(), bytes))))
        }

        fn lines(&self) -> Vec<String> {
            String::from_utf8(self.0.lock().unwrap().0.clone()).unwrap().lines().map(str::to_owned).collect()
        }
    }

    #[test]
    fn every_record_is_in_the_file_when_the_senders_are_gone() {
        let disk = Disk::with_space(1 << 20);
        let (journal, file) = JournalSender::start(disk.clone(), 100, 0.0).unwrap();
        (0..100).for_each(|_| journal.offer(record()));
        drop(journal);
        assert_eq!(file.finish(), JournalCounts { written: 100, ..JournalCounts::default() });
        assert_eq!(disk.lines().len(), 100);
    }

    #[test]
    fn a_record_that_finds_the_channel_full_is_counted() {
        let (sink, _receiver) = Sink::blocking(2);
        let journal = JournalSender { sink, counts: Arc::default() };
        (0..5).for_each(|_| journal.offer(record()));
        assert_eq!(journal.counts(), JournalCounts { dropped: 3, ..JournalCounts::default() });
    }

    #[test]
    fn a_full_disk_loses_records_and_not_the_journal() {
        let line = serde_json::to_vec(&Stamped { epoch: 0.0, line: &record() }).unwrap().len() + 1;
        let disk = Disk::with_space(line + line / 2);
        let mut writer = JournalWriter::new(disk.clone(), Arc::default(), 0.0);
        (0..3).for_each(|_| writer.append(&record()));
        writer.flush();
        assert_eq!(writer.counts.read(0), JournalCounts { written: 1, failed: 2, dropped: 0 });
        disk.0.lock().unwrap().1 = 1 << 20;
        writer.append(&record());
        writer.flush();
        assert_eq!(writer.counts.read(0), JournalCounts { written: 2, failed: 2, dropped: 0 });
        let lines = disk.lines();
        let whole = lines.iter().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok());
        assert_eq!((lines.len(), whole.count()), (3, 2), "the torn line stands alone");
    }

    fn record() -> JournalLine {
        let line = r#"{"backend":"b","model":"m","priority":"default","timeline":{"arrived":1,"admitted":null,"first_byte":null,"head":null,"first_token":null,"last_token":null,"ended":2},"status":0,"dialect":"openai.chat","stream":true,"prompt_tokens":null,"max_output":null,"choices":1,"retries":[0,0],"overhead":[null,null],"emissions":[],"truncated":false,"verdict":{"end":"abandoned"}}"#;
        serde_json::from_str(line).unwrap()
    }
}
