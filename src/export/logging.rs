//! The log: its lines, their form, and their level.
//!
//! One line for each event on standard error, JSON or text, ASCII only, of bounded length. The level is for weir's own events; other
//! crates log at WARN and above at any level, because their DEBUG lines print header values. The panic hook prints the location and
//! not the payload, which may quote a request. Absent: a log file and its rotation, which are the supervisor's.

use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

use super::settings::{LogFormat, LogLevel};
use super::stderr;

/// The log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `init` was called before.
    #[error("the log is set up already")]
    AlreadySetUp,
    /// Its thread cannot be started.
    #[error("the log's thread cannot be started: {0}")]
    Thread(#[from] io::Error),
}

/// Sets up the process's log, the `log` crate's events included. To be called once.
pub fn init(format: LogFormat, level: LogLevel) -> Result<LevelHandle, LogError> {
    stderr::start(move |lost| lost_lines_notice(lost, format))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter(level)).with_ansi(false);
    let (result, set) = match format {
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_writer(Lines { format }).with_filter_reloading();
            let filters = builder.reload_handle();
            let set: SetLevel = Box::new(move |level| _ = filters.reload(filter(level)));
            (builder.finish().try_init(), set)
        }
        LogFormat::Text => {
            let builder = builder.with_writer(Lines { format }).with_filter_reloading();
            let filters = builder.reload_handle();
            let set: SetLevel = Box::new(move |level| _ = filters.reload(filter(level)));
            (builder.finish().try_init(), set)
        }
    };
    result.map(|()| LevelHandle(set)).map_err(|_| LogError::AlreadySetUp)
}

/// Sets the level while the process runs.
pub struct LevelHandle(SetLevel);

type SetLevel = Box<dyn Fn(LogLevel) + Send + Sync>;

impl LevelHandle {
    /// Lines from this level on are written.
    pub fn set(&self, level: LogLevel) {
        (self.0)(level);
    }
}

/// Makes a panic an ERROR line with its location only, and counts it in `panics`.
pub fn on_panic(panics: Arc<AtomicU64>) {
    std::panic::set_hook(Box::new(move |info| {
        panics.fetch_add(1, Relaxed);
        report(info);
    }));
}

fn report(info: &PanicHookInfo<'_>) {
    let (file, line) = info.location().map_or(("unknown", 0), |location| (location.file(), location.line()));
    let thread = std::thread::current();
    tracing::error!(file, line, thread = thread.name().unwrap_or("unnamed"), "a task panicked");
}

/// weir at `level`, other crates at WARN or less.
fn filter(level: LogLevel) -> EnvFilter {
    let others = match level {
        LogLevel::Error => LogLevel::Error,
        LogLevel::Warn | LogLevel::Info | LogLevel::Debug => LogLevel::Warn,
    };
    // The access log has a setting of its own, so the level does not leave it out.
    EnvFilter::new(format!("{},weir={},weir::access=info", others.as_str(), level.as_str()))
}

/// Writes whole lines to stderr, made safe for it.
#[derive(Clone, Copy, Debug)]
struct Lines {
    format: LogFormat,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        *self
    }
}

impl Write for Lines {
    /// The formatter writes one event in one call.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        stderr::line(safe_line(event, self.format));
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The line in place of lost ones.
fn lost_lines_notice(lost: u64, format: LogFormat) -> Vec<u8> {
    match format {
        LogFormat::Json => format!("{{\"level\":\"WARN\",\"message\":\"log lines were lost\",\"lost\":{lost}}}\n"),
        LogFormat::Text => format!("WARN log lines were lost lost={lost}\n"),
    }
    .into_bytes()
}

/// One line of printable ASCII: control characters and non-ASCII become `\uXXXX`, and a line that is too long is cut (text) or
/// replaced by one that says so (JSON, where half an object cannot be read).
fn safe_line(event: &[u8], format: LogFormat) -> Vec<u8> {
    let event = event.strip_suffix(b"\n").unwrap_or(event);
    if event.len() > LONGEST && format == LogFormat::Json {
        let length = event.len();
        return format!("{{\"level\":\"WARN\",\"message\":\"log line too long\",\"length\":{length}}}\n").into_bytes();
    }
    let kept = &event[..event.len().min(LONGEST)];
    let mut line = Vec::with_capacity(kept.len() + 1);
    for c in String::from_utf8_lossy(kept).chars() {
        match c {
            ' '..='~' => line.push(c as u8),
            _ => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    line.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
                }
            }
        }
    }
    line.push(b'\n');
    line
}

/// weir's longest line has some twenty short fields.
const LONGEST: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_for_own_events_and_others_stay_at_warn() {
        assert_eq!(filter(LogLevel::Info).to_string(), "weir::access=info,weir=info,warn");
        assert_eq!(filter(LogLevel::Debug).to_string(), "weir::access=info,weir=debug,warn");
        assert_eq!(filter(LogLevel::Warn).to_string(), "weir::access=info,weir=warn,warn");
        assert_eq!(filter(LogLevel::Error).to_string(), "weir::access=info,weir=error,error");
    }

    #[test]
    fn lines_are_printable_ascii_and_json_stays_json() {
        let event = "{\"model\":\"\u{1b}[2J\u{202e}gpt \u{1f600}\"}\n";
        let line = safe_line(event.as_bytes(), LogFormat::Json);
        assert_eq!(line, b"{\"model\":\"\\u001b[2J\\u202egpt \\ud83d\\ude00\"}\n");
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["model"], "\u{1b}[2J\u{202e}gpt \u{1f600}");
    }

    #[test]
    fn an_event_cannot_make_a_second_line() {
        let line = safe_line(b"a\nlevel=ERROR forged\r\n", LogFormat::Text);
        assert_eq!(line, b"a\\u000alevel=ERROR forged\\u000d\n");
    }

    #[test]
    fn a_long_line_is_cut_in_text_and_replaced_in_json() {
        let long = vec![b'x'; LONGEST + 1];
        assert_eq!(safe_line(&long, LogFormat::Text).len(), LONGEST + 1);
        assert!(serde_json::from_slice::<serde_json::Value>(&safe_line(&long, LogFormat::Json)).is_ok());
        assert_eq!(safe_line(&long[1..], LogFormat::Json).len(), LONGEST + 1);
    }
}
