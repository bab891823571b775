//! The accept loop: connection caps, exhausted descriptors, and the stop of the data port.
//!
//! One per worker, over its own listening socket (SO_REUSEPORT). What is over the cap waits in the kernel and costs nothing
//! here, except for one connection a worker that is accepted and not yet served: a slot taken before there is a connection
//! would be kept from the other workers.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;

use super::address_cap::AddressSlot;
pub use super::address_cap::Addresses;
use super::connection;
use super::drain::DrainPhase;
use super::io::{is_exhausted, set_keepalive};
use super::state::Worker;

/// A listening socket that several workers may share the port of.
///
/// # Errors
/// The address is in use, not ours, or not permitted.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts until the process stops; returns when the last connection has ended, or after `LAST_CALL`.
pub async fn accept_loop(listener: TcpListener, worker: Arc<Worker>) {
    let proxy = worker.proxy.clone();
    let mut stop = proxy.drain.watch();
    let mut connections = JoinSet::new();
    let (mut backoff, mut waiting) = (Duration::ZERO, None);
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|phase| *phase == DrainPhase::Stopped) => break,
            _ = seconds.tick() => {
                worker.tick();
                continue;
            }
            Some(ended) = connections.join_next() => {
                on_ended(ended);
                continue;
            }
            accepted = accept(&listener, &worker, &mut waiting) => accepted,
        };
        match accepted {
            Ok((permit, stream, peer)) => {
                backoff = Duration::ZERO;
                let Some(slot) = proxy.addresses.enter(peer.ip()) else { continue };
                connections.spawn(serve(stream, peer.ip(), worker.clone(), permit, slot));
            }
            Err(e) => {
                proxy.facts.accept_errors.fetch_add(1, Relaxed);
                if is_exhausted(&e) {
                    backoff = (backoff * 2).clamp(Duration::from_millis(5), Duration::from_millis(200));
                    tokio::time::sleep(backoff).await;
                }
            }
        }
    }
    drop((listener, waiting));
    let rest = async {
        while let Some(ended) = connections.join_next().await {
            on_ended(ended);
        }
    };
    if tokio::time::timeout(LAST_CALL, rest).await.is_err() {
        connections.shutdown().await;
    }
}

/// The next connection, and its slot. One that still waits for a slot when this is dropped stays in `waiting`.
async fn accept(
    listener: &TcpListener,
    worker: &Worker,
    waiting: &mut Option<(TcpStream, SocketAddr)>,
) -> io::Result<(OwnedSemaphorePermit, TcpStream, SocketAddr)> {
    if waiting.is_none() {
        *waiting = Some(listener.accept().await?);
    }
    let permit = worker.proxy.connections.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = waiting.take().ok_or(io::ErrorKind::WouldBlock)?;
    Ok((permit, stream, peer))
}

/// One connection's task, from its first byte to its last.
#[expect(
    clippy::manual_async_fn,
    reason = "an `async fn` keeps its arguments twice; a block uses its captures in place"
)]
fn serve(
    mut stream: TcpStream,
    peer: IpAddr,
    worker: Arc<Worker>,
    permit: OwnedSemaphorePermit,
    slot: AddressSlot,
) -> impl Future<Output = ()> + Send {
    async move {
        let _slots = (&permit, &slot);
        if stream.set_nodelay(true).is_err() {
            return;
        }
        // A stalled client is to be seen by us, not hidden in megabytes of the kernel's send buffer.
        let _ = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(NOT_SENT);
        set_keepalive(&stream);
        let open = &worker.proxy.facts.open_connections;
        open.fetch_add(1, Relaxed);
        let _open = Open(open);
        connection::serve(&mut stream, peer, &worker).await;
    }
}

fn on_ended(ended: Result<(), tokio::task::JoinError>) {
    if ended.is_err_and(|e| e.is_panic()) {
        tracing::error!("a connection's task panicked; its books are closed and the others go on");
    }
}

struct Open<'a>(&'a std::sync::atomic::AtomicU64);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Connections that the kernel holds while we are at the cap.
const BACKLOG: u32 = 4096;
/// Unsent bytes that the kernel takes from us per client before it says that it is full.
const NOT_SENT: u32 = 64 * 1024;
/// What is still open this long after the listener has closed is cut: clients that keep a connection whose answer is over. With the
/// last spans it stays below the second in which a drained process is to be gone.
const LAST_CALL: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;

    fn future_size<A, B, C, D, E, F: Future>(_: impl Fn(A, B, C, D, E) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_a_connection_is_small() {
        let size = future_size(serve);
        println!("{size} bytes");
        assert!(size <= TASK, "{size}");
    }

    /// An open stream is little else than its task: with sockets and stamps it stays under 6 KiB a stream.
    const TASK: usize = 2560;
}
