//! The viewers of the live page: each is told the same bytes, and none is waited for.
//!
//! A viewer that has not taken the last frames is dropped: it reconnects if it still lives. It makes no frames and knows no clock.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use serde_json::Value;
use tokio::sync::mpsc::{self, Receiver, Sender};

/// Everybody who looks.
#[derive(Debug, Default)]
pub struct Hub(Mutex<Vec<Sender<Bytes>>>);

/// What one viewer is told: a body that ends only with the port, or when its reader is too slow.
pub struct Frames {
    told: Receiver<Bytes>,
    on_taken: Option<Box<dyn Fn() + Send>>,
}

impl Hub {
    /// A place among the viewers, with a first event; `None` when all are taken.
    pub fn join(&self, first: impl FnOnce() -> Bytes) -> Option<Frames> {
        let mut viewers = self.viewers();
        viewers.retain(|viewer| !viewer.is_closed());
        if viewers.len() >= VIEWERS {
            return None;
        }
        let (tell, told) = mpsc::channel(BEHIND);
        // The channel is empty and has room.
        let _ = tell.try_send(first());
        viewers.push(tell);
        Some(Frames { told, on_taken: None })
    }

    /// Tells every viewer; those that are gone or too far behind are dropped.
    pub fn tell(&self, event: &Bytes) {
        self.viewers().retain(|viewer| viewer.try_send(event.clone()).is_ok());
    }

    /// Whether nobody looks.
    pub fn is_empty(&self) -> bool {
        self.viewers().iter().all(Sender::is_closed)
    }

    fn viewers(&self) -> MutexGuard<'_, Vec<Sender<Bytes>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Frames {
    /// Calls `noted` whenever a frame is taken, so that whoever holds the connection knows that it is read.
    pub fn note_taken(&mut self, noted: impl Fn() + Send + 'static) {
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
        let event = ready!(self.told.poll_recv(context));
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

/// A quarter of the port's places: whatever is left open in browsers, probes and scrapes find room.
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

    fn say(hub: &Hub, what: &'static str) {
        hub.tell(&Bytes::from_static(what.as_bytes()));
    }

    #[test]
    fn every_viewer_is_told_the_same_and_begins_with_a_frame_of_its_own() {
        let hub = Hub::default();
        let mut viewers: Vec<_> = (0..2).map(|_| hub.join(|| "first".into()).unwrap()).collect();
        say(&hub, "second");
        for viewer in &mut viewers {
            assert_eq!(taken(viewer), Poll::Ready(Some("first".into())));
            assert_eq!(taken(viewer), Poll::Ready(Some("second".into())));
            assert_eq!(taken(viewer), Poll::Pending);
        }
    }

    #[test]
    fn there_are_so_many_viewers_and_a_place_that_is_left_is_free_again() {
        let hub = Hub::default();
        let mut viewers: Vec<_> = (0..VIEWERS).map(|_| hub.join(Bytes::new).unwrap()).collect();
        assert!(hub.join(|| panic!("no frame is made for one who is turned away")).is_none());
        viewers.pop();
        assert!(hub.join(Bytes::new).is_some());
    }

    #[test]
    fn one_who_does_not_read_is_dropped_and_one_who_reads_is_not() {
        let hub = Hub::default();
        let (mut reads, mut sleeps) = (hub.join(Bytes::new).unwrap(), hub.join(Bytes::new).unwrap());
        for _ in 0..BEHIND + 1 {
            say(&hub, "x");
            while taken(&mut reads).is_ready() {}
        }
        assert_eq!(taken(&mut reads), Poll::Pending, "still told");
        let rest: Vec<_> = std::iter::from_fn(|| Some(taken(&mut sleeps))).take(BEHIND + 1).collect();
        assert_eq!(rest.last(), Some(&Poll::Ready(None)), "what was told is there, then it ends: {rest:?}");
    }

    #[test]
    fn nobody_is_told_when_nobody_looks() {
        let hub = Hub::default();
        assert!(hub.is_empty());
        let viewer = hub.join(Bytes::new).unwrap();
        assert!(!hub.is_empty());
        drop(viewer);
        assert!(hub.is_empty());
    }

    #[test]
    fn whoever_holds_the_connection_hears_that_a_frame_was_taken() {
        let hub = Hub::default();
        let mut viewer = hub.join(Bytes::new).unwrap();
        let (heard, hears) = std::sync::mpsc::channel();
        viewer.note_taken(move || heard.send(()).unwrap());
        assert!(taken(&mut viewer).is_ready() && taken(&mut viewer).is_pending());
        assert_eq!(hears.try_iter().count(), 1);
    }

    #[test]
    fn an_event_is_one_line_whatever_a_sentence_holds() {
        let event = event(&serde_json::json!({ "reason": "a\nb\r\n\ndata: c" }));
        let text = std::str::from_utf8(&event).unwrap();
        assert_eq!(text, "retry: 1000\ndata: {\"reason\":\"a\\nb\\r\\n\\ndata: c\"}\n\n");
    }
}
