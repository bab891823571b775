//! A request's wait for its turn.
//!
//! The client is watched meanwhile: whoever hangs up leaves the line at once and is never dispatched. The deadline is a timer
//! of the waiting task itself, so that it holds when nothing else turns any more.

use std::future::poll_fn;
use std::task::{Context, Poll};

use super::client_io::poll_read;
use super::connection::Connection;
use super::dispatch::Unserved;
use super::exchange::ReadAhead;
use super::io::Io;
use super::timer::Timer;
use crate::admission::pool::{Permit, QueueWait};
use crate::vocabulary::time::Timestamp;

impl Connection<'_> {
    /// Waits until its turn, until `deadline`, or until the client is gone.
    pub(super) async fn wait<D: Io>(
        &mut self,
        client: &mut D,
        timer: &mut Timer<'_>,
        mut waiting: QueueWait,
        deadline: Timestamp,
    ) -> Result<Permit, Unserved> {
        let half_close = self.proxy().limits.load().half_close;
        timer.set(deadline);
        let read_ahead = &mut self.read_ahead;
        let ended = poll_fn(|cx| {
            // The client first: a turn that comes with the hang-up is given to somebody else.
            if is_gone(cx, client, read_ahead, half_close) {
                return Poll::Ready(None);
            }
            if let Poll::Ready(turn) = waiting.poll(cx) {
                return Poll::Ready(Some(Some(turn)));
            }
            if timer.is_overdue(cx) { Poll::Ready(Some(None)) } else { Poll::Pending }
        })
        .await;
        let turn = match ended {
            None => return Err(Unserved::ClientGone),
            Some(Some(turn)) => turn,
            Some(None) => waiting.expire(self.proxy().clock.now()),
        };
        turn.map_err(|refused| Unserved::Refused(self.proxy().rules.load().reply(refused)))
    }
}

/// Whether the client has hung up. Bytes ahead of their turn do not end the watch: a hang-up may follow them.
pub(super) fn is_gone<D: Io>(
    cx: &mut Context<'_>,
    client: &mut D,
    read_ahead: &mut ReadAhead,
    half_close: bool,
) -> bool {
    while !read_ahead.half_closed {
        let mut borne = true;
        match poll_read(cx, client, |bytes| borne = read_ahead.keep(bytes)) {
            Poll::Pending => break,
            Poll::Ready(true) if borne => {}
            Poll::Ready(false) if !half_close => read_ahead.half_closed = true,
            Poll::Ready(_) => return true,
        }
    }
    false
}
