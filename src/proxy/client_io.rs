//! Reading from a client and writing to it, each under the connection's timer.
//!
//! Reads go through the worker's one buffer, so that a connection which waits owns none. It holds no rule of HTTP.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use super::io::Io;
use super::read_ahead::ReadAhead;
use super::scratch::SCRATCH;
use super::timer::Timer;
use crate::vocabulary::time::Timestamp;

/// One read through the worker's buffer. `Ready(false)`: closed.
pub(super) fn poll_read<D: Io>(cx: &mut Context<'_>, client: &mut D, mut take: impl FnMut(&[u8])) -> Poll<bool> {
    SCRATCH.with_borrow_mut(|scratch| match client.poll_read(cx, &mut scratch.read) {
        Poll::Ready(Ok(n)) if n > 0 => {
            take(&scratch.read[..n]);
            Poll::Ready(true)
        }
        Poll::Ready(_) => Poll::Ready(false),
        Poll::Pending => Poll::Pending,
    })
}

/// Whether the client has hung up. Bytes of its next request do not end the watch: a hang-up may follow them.
pub(super) fn is_gone<D: Io>(
    cx: &mut Context<'_>,
    client: &mut D,
    read_ahead: &mut ReadAhead,
    half_close: bool,
) -> bool {
    while !read_ahead.half_closed {
        let mut tolerated = true;
        match poll_read(cx, client, |bytes| tolerated = read_ahead.keep(bytes)) {
            Poll::Pending => break,
            Poll::Ready(true) if tolerated => {}
            Poll::Ready(false) if !half_close => read_ahead.half_closed = true,
            Poll::Ready(_) => return true,
        }
    }
    false
}

/// Writes all of `bytes` before the timer's deadline.
pub(super) async fn write_all<D: Io>(client: &mut D, timer: &mut Timer<'_>, bytes: &[u8]) -> io::Result<()> {
    let mut written = 0;
    poll_fn(|cx| {
        while written < bytes.len() {
            match client.poll_write(cx, &bytes[written..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => written += n,
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => return in_time(Poll::Pending, timer, cx),
            }
        }
        in_time(client.poll_flush(cx), timer, cx)
    })
    .await
}

/// FIN, then read and drop what the client still sends, for a moment: closing with unread bytes is a reset, and a reset
/// destroys the answer on its way.
pub(super) async fn lingering_close<D: Io>(client: &mut D, timer: &mut Timer<'_>, now: Timestamp) {
    timer.set(now + LINGER_TIME);
    if poll_fn(|cx| in_time(client.poll_shutdown(cx), timer, cx)).await.is_err() {
        return;
    }
    let mut dropped = 0;
    while dropped < LINGER_BYTES {
        let read = poll_fn(|cx| match poll_read(cx, client, |bytes| dropped += bytes.len()) {
            Poll::Ready(open) => Poll::Ready(open),
            Poll::Pending if timer.is_overdue(cx) => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        });
        if !read.await {
            return;
        }
    }
}

fn in_time(polled: Poll<io::Result<()>>, timer: &mut Timer<'_>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    match polled {
        Poll::Pending if timer.is_overdue(cx) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
        polled => polled,
    }
}

const LINGER_BYTES: usize = 256 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(2);
