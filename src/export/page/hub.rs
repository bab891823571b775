//! The viewers of the live page: each gets the same bytes, and no sender waits for one.
//!
//! A viewer that lags by several frames is dropped, and reconnects if it is alive. Absent: the frames themselves, and a clock.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use serde_json::Value;
use tokio::sync::mpsc::{self, Receiver, Sender};

/// The open viewers.
#[derive(Debug, Default)]
pub struct Hub(Mutex<Vec<Sender<Bytes>>>);

/// One viewer's frames: a body that ends only with the port, or when its reader is too slow.
pub struct Frames {
    receiver: Receiver<Bytes>,
    on_taken: Option<Box<dyn Fn() + Send>>,
}

impl Hub {
    /// A new viewer with a first event; `None` at the limit of viewers.
    pub fn join(&self, first: impl FnOnce() -> Bytes) -> Option<Frames> {
        let mut viewers = self.viewers();
        viewers.retain(|viewer| !viewer.is_closed());
        if viewers.len() >= VIEWERS {
            return None;
        }
        let (sender, receiver) = mpsc::channel(BEHIND);
        // The channel is empty, so this succeeds.
        let _ = sender.try_send(first());
        viewers.push(sender);
        Some(Frames { receiver, on_taken: None })
    }

    /// Sends every viewer an event; those that are gone or lag too far are dropped.
    pub fn send(&self, event: &Bytes) {
        self.viewers().retain(|viewer| viewer.try_send(event.clone()).is_ok());
    }

    /// Whether there is no viewer.
    pub fn is_empty(&self) -> bool {
        self.viewers().iter().all(Sender::is_closed)
    }

    fn viewers(&self) -> MutexGuard<'_, Vec<Sender<Bytes>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Frames {
    /// Calls `noted` whenever a frame is taken, so that the server extends the connection's deadline.
    pub fn on_taken(&mut self, noted: impl Fn() + Send + 'static) {
        self.on_taken = Some(Box::new(noted));
    }
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frames").finish_non_exhaustive()
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let event = ready!(self.receiver.poll_recv(context));
        if let (Some(_), Some(noted)) = (&event, &self.on_taken) {
            noted();
        }
        Poll::Ready(event.map(|event| Ok(Frame::data(event))))
    }
}

/// One server-sent event: a line of JSON, and how soon to come back when the connection breaks.
pub fn event(frame: &Value) -> Bytes {
    format!("retry: {RETRY_MS}\ndata: {frame}\n\n").into()
}

/// A quarter of the port's connections, so that open browsers leave slots for probes and scrapes.
pub const VIEWERS: usize = 16;
/// Events a viewer may be behind, beside what the sockets hold.
const BEHIND: usize = 4;
const RETRY_MS: u32 = 1_000;

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn taken(frames: &mut Frames) -> Poll<Option<Bytes>> {
        let mut context = Context::from_waker(Waker::noop());
        Pin::new(frames).poll_frame(&mut context).map(|frame| frame.map(|frame| frame.unwrap().into_data().unwrap()))
    }

    fn send(hub: &Hub, what: &'static str) {
        hub.send(&Bytes::from_static(what.as_bytes()));
    }

    #[test]
    fn every_viewer_gets_a_first_frame_and_then_the_same_ones() {
        let hub = Hub::default();
        let mut viewers: Vec<_> = (0..2).map(|_| hub.join(|| "first".into()).unwrap()).collect();
        send(&hub, "second");
        for viewer in &mut viewers {
            assert_eq!(taken(viewer), Poll::Ready(Some("first".into())));
            assert_eq!(taken(viewer), Poll::Ready(Some("second".into())));
            assert_eq!(taken(viewer), Poll::Pending);
        }
    }

    #[test]
    fn the_number_of_viewers_is_limited_and_a_slot_is_reused() {
        let hub = Hub::default();
        let mut viewers: Vec<_> = (0..VIEWERS).map(|_| hub.join(Bytes::new).unwrap()).collect();
        assert!(hub.join(|| panic!("no frame is made for a rejected viewer")).is_none());
        viewers.pop();
        assert!(hub.join(Bytes::new).is_some());
    }

    #[test]
    fn only_a_viewer_that_does_not_read_is_dropped() {
        let hub = Hub::default();
        let (mut reads, mut sleeps) = (hub.join(Bytes::new).unwrap(), hub.join(Bytes::new).unwrap());
        for _ in 0..BEHIND + 1 {
            send(&hub, "x");
            while taken(&mut reads).is_ready() {}
        }
        assert_eq!(taken(&mut reads), Poll::Pending, "still open");
        let rest: Vec<_> = std::iter::from_fn(|| Some(taken(&mut sleeps))).take(BEHIND + 1).collect();
        assert_eq!(rest.last(), Some(&Poll::Ready(None)), "the sent frames are there, then it ends: {rest:?}");
    }

    #[test]
    fn a_hub_without_viewers_is_empty() {
        let hub = Hub::default();
        assert!(hub.is_empty());
        let viewer = hub.join(Bytes::new).unwrap();
        assert!(!hub.is_empty());
        drop(viewer);
        assert!(hub.is_empty());
    }

    #[test]
    fn a_taken_frame_is_reported() {
        let hub = Hub::default();
        let mut viewer = hub.join(Bytes::new).unwrap();
        let (taking, takes) = std::sync::mpsc::channel();
        viewer.on_taken(move || taking.send(()).unwrap());
        assert!(taken(&mut viewer).is_ready() && taken(&mut viewer).is_pending());
        assert_eq!(takes.try_iter().count(), 1);
    }

    #[test]
    fn an_event_is_one_line_for_any_text() {
        let event = event(&serde_json::json!({ "reason": "a\nb\r\n\ndata: c" }));
        let text = std::str::from_utf8(&event).unwrap();
        assert_eq!(text, "retry: 1000\ndata: {\"reason\":\"a\\nb\\r\\n\\ndata: c\"}\n\n");
    }
}
