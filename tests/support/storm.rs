//! Many clients, most of them badly behaved, against one address: what each of them does is drawn, done and counted.
//!
//! A storm whose kinds have not all happened proves nothing, so the counts come back with it.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::client::{CHAT, Client, chat, post};
use super::dice::Dice;
use super::time;

/// What one client does with its one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    /// Reads its answer to the end.
    Stays,
    /// FIN or reset right after the request.
    LeavesEarly { reset: bool },
    /// FIN or reset after the first token.
    LeavesLate { reset: bool },
    /// Leaves in the middle of its own body.
    LeavesUpload,
    /// Sends what is no request.
    Malformed,
    /// Asks the simulated engine to misbehave, and reads what comes.
    Fault(&'static str),
}

/// Only those that leave.
pub const CANCELS: &[Deed] = &[
    Deed::LeavesEarly { reset: false },
    Deed::LeavesEarly { reset: true },
    Deed::LeavesLate { reset: false },
    Deed::LeavesLate { reset: true },
];

/// Everything.
pub const ALL: &[Deed] = &[
    Deed::Stays,
    Deed::Stays,
    Deed::Stays,
    Deed::Stays,
    Deed::LeavesEarly { reset: false },
    Deed::LeavesEarly { reset: true },
    Deed::LeavesLate { reset: false },
    Deed::LeavesLate { reset: true },
    Deed::LeavesUpload,
    Deed::Malformed,
    Deed::Fault("hang"),
    Deed::Fault("status=503"),
    Deed::Fault("slow-head=5"),
    Deed::Fault("reset-after=2"),
    Deed::Fault("cut-after=2"),
    Deed::Fault("truncate-after=2"),
    Deed::Fault("error-event-after=2"),
    Deed::Fault("stall-after=1"),
];

/// What has happened.
#[derive(Debug, Default)]
pub struct Tally {
    pub done: BTreeMap<Deed, u64>,
    /// Answers by status, 0 for none.
    pub statuses: BTreeMap<u16, u64>,
    /// Streams that were complete with their terminator.
    pub complete: u64,
    /// Streams that ended visibly short, or with an error event.
    pub broken: u64,
    /// Streams that ended as their framing says, without terminator, though no fault asked for that.
    pub forged: u64,
    /// Connections that could not be made: such a client has done nothing.
    pub unconnected: u64,
}

/// Sends requests from `threads` clients at once until `enough` of them were sent, and `more` says no more.
pub fn storm(
    to: SocketAddr,
    deeds: &[Deed],
    threads: u64,
    enough: u64,
    seed: u64,
    more: impl Fn() -> bool + Sync,
) -> Tally {
    let (sent, tally) = (AtomicU64::new(0), Mutex::new(Tally::default()));
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (sent, tally, more) = (&sent, &tally, &more);
            scope.spawn(move || {
                let mut dice = Dice::new(seed * 1000 + thread);
                while sent.fetch_add(1, Relaxed) < enough || more() {
                    let deed = deeds[dice.below(deeds.len())];
                    let seen = perform(to, deed, &mut dice);
                    tally.lock().unwrap().note(deed, seen);
                }
            });
        }
    });
    tally.into_inner().unwrap()
}

/// How a client's one request came out.
enum Seen {
    NoConnection,
    Left,
    Answer { status: u16, complete: bool, terminated: bool },
}

impl Tally {
    fn note(&mut self, deed: Deed, seen: Seen) {
        if matches!(seen, Seen::NoConnection) {
            self.unconnected += 1;
            return;
        }
        *self.done.entry(deed).or_default() += 1;
        let Seen::Answer { status, complete, terminated } = seen else { return };
        *self.statuses.entry(status).or_default() += 1;
        if status == 200 {
            match (complete, terminated) {
                // An engine that says that it failed may close its stream properly.
                (true, true) if deed == Deed::Fault("error-event-after=2") => self.broken += 1,
                (true, true) => self.complete += 1,
                (true, false) if deed != Deed::Fault("truncate-after=2") => self.forged += 1,
                _ => self.broken += 1,
            }
        }
    }

    /// How often `deed` was done.
    pub fn times(&self, deed: Deed) -> u64 {
        self.done.get(&deed).copied().unwrap_or(0)
    }
}

fn perform(to: SocketAddr, deed: Deed, dice: &mut Dice) -> Seen {
    // Whoever leaves in mid-stream leaves a stream that has long to go.
    let tokens = if matches!(deed, Deed::LeavesLate { .. }) { 500 } else { 3 + dice.below(6) as u32 };
    let body = chat(tokens);
    let Some(mut client) = Client::try_connect(to) else { return Seen::NoConnection };
    let fault = match deed {
        Deed::Fault(fault) => format!("x-engine-fault: {fault}\r\n"),
        _ => String::new(),
    };
    let request = match deed {
        Deed::Malformed => b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n".to_vec(),
        Deed::LeavesUpload => {
            let mut request = post(CHAT, "", body.as_bytes());
            request.truncate(request.len() - 5);
            request
        }
        _ => post(CHAT, &fault, body.as_bytes()),
    };
    if client.stream.write_all(&request).is_err() {
        return Seen::Left;
    }
    match deed {
        Deed::LeavesUpload => leave(client, dice.below(2) == 0),
        Deed::LeavesEarly { reset } => {
            // From at once to somewhere in the prefill.
            time::pause(Duration::from_micros(dice.below(4) as u64 * 500));
            leave(client, reset)
        }
        Deed::LeavesLate { reset } => {
            // A token, or what is said instead of one.
            client.reads(&["\"delta\":{\"content\":\"", "\"error\""]);
            leave(client, reset)
        }
        _ => {
            let answer = client.answer();
            let terminated = answer.body.ends_with(b"data: [DONE]\n\n");
            Seen::Answer { status: answer.status, complete: answer.complete, terminated }
        }
    }
}

fn leave(client: Client, reset: bool) -> Seen {
    if reset {
        client.reset();
    } else {
        client.leave();
    }
    Seen::Left
}

/// Looks again and again, on a thread of its own, until `stop` is raised.
pub fn watch(stop: &AtomicBool, mut look: impl FnMut()) {
    while !stop.load(Relaxed) {
        look();
    }
}

/// Raises a flag when it is dropped, so that a test which stops in the middle stops its threads too.
pub struct Raised<'a>(pub &'a AtomicBool);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
