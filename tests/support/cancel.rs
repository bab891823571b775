//! How long a client's leaving takes to reach the backend.

use std::sync::Mutex;
use std::sync::mpsc;

use weir::measure::Snapshot;

use super::client::CHAT;
use super::origin::{SSE, event};
use super::{Client, Origin, Weir, chat, post, time};

/// Cancels one by one, in turn by FIN and by reset, in mid-stream and before the first token: `rounds` of each of the four.
/// From the client's close to the close at the backend in seconds, sorted, and the books behind them.
///
/// # Panics
/// A backend never sees the end.
pub fn timed(rounds: usize) -> (Vec<f64>, Snapshot) {
    let (arrived, has_arrived) = mpsc::channel();
    let (ended, has_ended) = mpsc::channel();
    let (arrived, ended) = (Mutex::new(arrived), Mutex::new(ended));
    let origin = Origin::start(move |talk| {
        let Some(seen) = talk.request() else { return };
        if seen.head.contains("x-begin: yes") {
            talk.write(&[SSE, &event("one")].concat());
        }
        arrived.lock().unwrap().send(()).unwrap();
        let at = talk.ended();
        ended.lock().unwrap().send(at).unwrap();
    });
    let weir = Weir::before(&[origin.address]);
    let mut delays = Vec::new();
    for round in 0..4 * rounds {
        let (begun, reset) = (round % 2 == 0, round % 4 < 2);
        let mut client = Client::connect(weir.address);
        let extra = if begun { "x-begin: yes\r\n" } else { "" };
        client.send(&post(CHAT, extra, chat(9).as_bytes()));
        if begun {
            client.until("one");
        }
        has_arrived.recv().unwrap();
        let left = time::now();
        if reset {
            client.reset()
        } else {
            client.leave()
        }
        let seen = has_ended.recv_timeout(time::PATIENCE).expect("the backend never saw the end");
        delays.push(seen.saturating_duration_since(left).as_secs_f64());
    }
    delays.sort_by(f64::total_cmp);
    (delays, weir.settled())
}
