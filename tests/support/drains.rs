//! A weir that is told to leave under load, and one that is told to leave under a long stream.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::client::{CHAT, Client, chat, post};
use super::reloads::streaming;
use super::{Process, time};

/// What was seen of one drain.
#[derive(Debug, Default)]
pub struct Seen {
    /// Streams that came whole.
    pub whole: u64,
    /// Requests that were told to go elsewhere, or that nobody heard any more.
    pub turned_away: u64,
    /// Streams that began and did not come whole, or refusals before there was a reason for one.
    pub broken: Vec<String>,
    /// From the end of the last stream to the end of the process.
    pub lag: Duration,
    pub failed_exit: bool,
}

/// One drain while `clients` send stream after stream, each on a connection of its own.
pub fn under_load(program: &Path, clients: usize) -> Seen {
    let origin = streaming(12, Duration::from_millis(15));
    let settings = "{workers: 2, drain: {min_delay: 200ms, timeout: 60s}}";
    let mut weir = Process::serve(program, &[origin.address], settings);
    let told = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..clients)
        .map(|i| {
            let (told, address) = (told.clone(), weir.address);
            std::thread::spawn(move || {
                time::pause(Duration::from_millis(11 * i as u64));
                until_nobody_hears(address, &told)
            })
        })
        .collect();
    time::pause(Duration::from_millis(400));
    told.store(true, SeqCst);
    weir.terminate();
    let ended = weir.ended(Duration::from_secs(30));
    let mut seen = Seen { failed_exit: !ended.is_some_and(|(_, status)| status.success()), ..Seen::default() };
    let mut last: Option<Instant> = None;
    for client in load {
        let (whole, turned_away, broken, end) = client.join().unwrap();
        seen.whole += whole;
        seen.turned_away += turned_away;
        seen.broken.extend(broken);
        last = last.max(end);
    }
    if let (Some((ended, _)), Some(last)) = (ended, last) {
        seen.lag = ended.saturating_duration_since(last);
    }
    seen
}

/// A stream of `events`, so far `apart`, that a drain begins under. How long it went on, whether it came whole, and how long
/// after it the process left.
pub fn under_a_long_stream(program: &Path, events: usize, apart: Duration, drain: &str) -> (Duration, bool, Duration) {
    let origin = streaming(events, apart);
    let mut weir = Process::serve(program, &[origin.address], &format!("{{workers: 1, drain: {drain}}}"));
    let mut client = Client::connect(weir.address);
    let start = time::now();
    client.send(&post(CHAT, "connection: close\r\n", chat(2).as_bytes())).until("\"a\"");
    weir.terminate();
    let whole = is_whole(&client.everything());
    let last = time::now();
    let ended = weir.ended(Duration::from_secs(30));
    (last - start, whole, ended.map_or(Duration::MAX, |(ended, _)| ended.saturating_duration_since(last)))
}

/// Whole, turned away, broken, the end of the last whole one.
type Told = (u64, u64, Vec<String>, Option<Instant>);

fn until_nobody_hears(address: SocketAddr, told: &AtomicBool) -> Told {
    let (mut whole, mut turned_away, mut broken, mut last) = (0, 0, Vec::new(), None);
    loop {
        let reason = told.load(SeqCst);
        let Some(mut client) = Client::try_connect(address) else {
            turned_away += 1;
            return (whole, turned_away, broken, last);
        };
        let sent = client.try_send(&post(CHAT, "connection: close\r\n", chat(12).as_bytes()));
        let bytes = if sent { client.everything() } else { Vec::new() };
        let reason = reason || told.load(SeqCst);
        if bytes.starts_with(b"HTTP/1.1 200 ") && is_whole(&bytes) {
            (whole, last) = (whole + 1, Some(time::now()));
        } else if reason && (bytes.is_empty() || bytes.starts_with(b"HTTP/1.1 503 ")) {
            turned_away += 1;
            time::pause(Duration::from_millis(5));
        } else {
            broken.push(String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}

fn is_whole(bytes: &[u8]) -> bool {
    bytes.ends_with(b"0\r\n\r\n") && bytes.windows(12).any(|window| window == b"data: [DONE]")
}
