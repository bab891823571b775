//! One small trait over whatever carries bytes: a plain TCP socket, or pingora's stream (TLS, Unix sockets, later).
//!
//! The exchange is generic over it, so that the plain path holds no boxed stream and the TLS path needs no code of its
//! own. Everything is poll-shaped: one task drives both sides of an exchange. It holds no buffer and no policy.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pingora_core::protocols::Stream;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A byte stream in both directions.
pub trait Io: Send + Unpin + 'static {
    /// Reads into `into`; `Ready(Ok(0))` is the peer's FIN.
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>>;
    /// Writes a part of `from`, and says how much.
    fn poll_write(&mut self, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>>;
    /// Pushes out what the layer below still holds. A TLS layer may take plaintext and keep the record: without this the
    /// last event of a stream would stay behind until the next one.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Ends our direction: FIN, or close_notify and FIN.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// When it is dropped, the peer is to see that something broke: a reset, or an end without close_notify.
    fn reset_on_drop(&mut self);
}

impl Io for TcpStream {
    /// `poll_read`, not `try_read`: only the former drops readiness after a short read, which saves a second system call.
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        read(Pin::new(self), cx, into)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self).poll_write(cx, from)
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(self), cx)
    }

    fn reset_on_drop(&mut self) {
        let _ = SockRef::from(&*self).set_linger(Some(Duration::ZERO));
    }
}

/// Lets the kernel probe a silent peer. A peer that vanished without a FIN would otherwise be noticed by
/// the next write only, which before a first token may be minutes away.
pub fn set_keepalive(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new().with_time(SILENCE).with_interval(BETWEEN_PROBES).with_retries(PROBES);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

/// A peer is given up half a minute after its last sign of life.
const SILENCE: Duration = Duration::from_secs(15);
const BETWEEN_PROBES: Duration = Duration::from_secs(5);
const PROBES: u32 = 3;

/// Descriptors, ports or memory ran out here: no peer's fault, and over when connections end.
pub(super) fn is_exhausted(e: &io::Error) -> bool {
    // EMFILE, ENFILE, ENOMEM; ENOBUFS and EADDRNOTAVAIL on Linux, then as the BSDs number them.
    matches!(e.raw_os_error(), Some(24 | 23 | 12 | 105 | 99 | 55 | 49))
}

/// pingora's stream behind the same trait.
pub struct Piped(pub Stream);

impl Io for Piped {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        read(Pin::new(&mut *self.0), cx, into)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(cx, from)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(cx)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut *self.0), cx)
    }

    /// Dropped without close_notify, which a TLS client takes for a truncation.
    fn reset_on_drop(&mut self) {}
}

fn read<S: AsyncRead + ?Sized>(stream: Pin<&mut S>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
    let mut buffer = ReadBuf::new(into);
    stream.poll_read(cx, &mut buffer).map_ok(|()| buffer.filled().len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_silent_peer_is_probed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        assert!(!SockRef::from(&stream).keepalive().unwrap());
        set_keepalive(&stream);
        assert!(SockRef::from(&stream).keepalive().unwrap());
    }
}
