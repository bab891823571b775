//! Streams counted at the backend, while clients leave, backends reset and weir itself panics.
//!
//! A stream is there from its request until the backend's last byte, or until its connection has been closed by weir: a close
//! that has arrived counts, whether or not the backend's thread has looked.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;
use weir::proxy::state::HookPoint;
use weir::vocabulary::backend_id::BackendId;

use super::origin::{Conversation, Origin, SSE, closing, event, whole};
use super::storm::{Deed, storm};
use super::{Weir, time};

/// What was seen.
#[derive(Debug)]
pub struct Seen {
    pub kinds: BTreeMap<Deed, u64>,
    pub panics: u64,
    pub resets: u64,
    /// Most streams at the backend at one time.
    pub most: usize,
    /// Places that were not given back, and requests that still wait.
    pub left_over: usize,
}

#[derive(Default)]
struct Census {
    here: Mutex<Vec<(usize, TcpStream)>>,
    next: AtomicUsize,
    most: AtomicUsize,
    resets: AtomicU64,
}

impl Census {
    fn enter(&self, talk: &Conversation) -> usize {
        let id = self.next.fetch_add(1, SeqCst);
        let mut here = self.here.lock().unwrap();
        here.push((id, talk.stream.try_clone().unwrap()));
        here.retain(|(_, stream)| !is_closed(stream));
        self.most.fetch_max(here.len(), SeqCst);
        id
    }

    fn leave(&self, id: usize) {
        self.here.lock().unwrap().retain(|(other, _)| *other != id);
    }

    /// One request's answer; `false` ends the connection.
    fn serve(&self, talk: &mut Conversation, id: usize) -> bool {
        let began = || [SSE, &event("a")[..]].concat();
        let last = |talk: &mut Conversation, bytes: &[u8]| {
            self.leave(id);
            talk.write(bytes)
        };
        let reset = |talk: &mut Conversation| {
            self.resets.fetch_add(1, SeqCst);
            self.leave(id);
            talk.reset();
            false
        };
        match id % 7 {
            0 => last(talk, &whole("{\"error\":0}")),
            1 => talk.write(&began()) && reset(talk),
            2 => reset(talk),
            _ => {
                let began = talk.write(&began());
                time::pause(Duration::from_micros(500));
                began && last(talk, &closing())
            }
        }
    }
}

/// The peer's FIN or reset is here.
fn is_closed(stream: &TcpStream) -> bool {
    let mut byte = [MaybeUninit::uninit()];
    match SockRef::from(stream).recv_with_flags(&mut byte, PEEK) {
        Ok(n) => n == 0,
        Err(e) => e.kind() != std::io::ErrorKind::WouldBlock,
    }
}

/// MSG_PEEK and MSG_DONTWAIT.
const PEEK: i32 = if cfg!(target_os = "linux") { 0x42 } else { 0x82 };

static CALLS: AtomicU64 = AtomicU64::new(0);
static PANICS: AtomicU64 = AtomicU64::new(0);

fn panic_now_and_then(phase: HookPoint) {
    if phase == HookPoint::Dispatched && CALLS.fetch_add(1, SeqCst) % 31 == 30 {
        PANICS.fetch_add(1, SeqCst);
        panic!("injected");
    }
}

/// `requests` from `threads` clients at once, against a limit of so many in flight.
pub fn run(limit: u32, requests: u64, threads: u64, seed: u64) -> Seen {
    let census = Arc::new(Census::default());
    let counting = census.clone();
    let origin = Origin::start(move |talk| {
        while talk.request().is_some() {
            let id = counting.enter(talk);
            let goes_on = counting.serve(talk, id);
            counting.leave(id);
            if !goes_on {
                return;
            }
        }
    });
    let settings = format!("mode: enforce\nworkers: 2\nslo: {{ttft: 5s}}\ncontrol: {{policy: static, limit: {limit}}}");
    let weir = Weir::with(&[origin.address], &settings, |proxy| proxy.test_hook = panic_now_and_then);
    let deeds = [
        Deed::Stays,
        Deed::LeavesEarly { reset: true },
        Deed::LeavesEarly { reset: false },
        Deed::LeavesLate { reset: true },
        Deed::LeavesLate { reset: false },
    ];
    let tally = storm(weir.address, &deeds, threads, requests, seed, || false);
    weir.settled();
    let pool = &weir.proxy().pool;
    let left_over = pool.load(BackendId(0)) as usize + pool.gauges(BackendId(0)).queued;
    let (panics, resets) = (PANICS.load(SeqCst), census.resets.load(SeqCst));
    Seen { kinds: tally.done, panics, resets, most: census.most.load(SeqCst), left_over }
}
