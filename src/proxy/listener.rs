//! The accept loop: caps before connections, descriptors that run out, and the end of it all.
//!
//! One per worker, over its own listening socket (SO_REUSEPORT). What is over the cap waits in the kernel and costs nothing
//! here, but for one connection a worker that is accepted and not yet served: a place that was taken before there is a
//! connection would be kept from the other workers.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;

use super::connection;
use super::drain::DrainPhase;
use super::io::set_keepalive;
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
                let Some(place) = proxy.addresses.enter(peer.ip()) else { continue };
                connections.spawn(serve(stream, peer.ip(), worker.clone(), permit, place));
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

/// The next connection, and its place. One that still waits for a place when this is dropped stays in `waiting`.
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
    place: AddressSlot,
) -> impl Future<Output = ()> + Send {
    async move {
        let _places = (&permit, &place);
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

/// Descriptors, ports or memory ran out here: nobody else's fault, and over when connections end.
pub(super) fn is_exhausted(e: &io::Error) -> bool {
    // EMFILE, ENFILE, ENOMEM; ENOBUFS and EADDRNOTAVAIL on Linux, then as the BSDs number them.
    matches!(e.raw_os_error(), Some(24 | 23 | 12 | 105 | 99 | 55 | 49))
}

struct Open<'a>(&'a std::sync::atomic::AtomicU64);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Connections per client address in the whole process, where a cap is set. Of IPv6 the first 64 bits count: whoever has one
/// address has all of them.
#[derive(Debug)]
pub struct Addresses {
    /// 0: any number.
    cap: AtomicUsize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

impl Addresses {
    /// At most `cap` connections for each address; `None`: any number.
    pub fn new(cap: Option<usize>) -> Self {
        Self { cap: AtomicUsize::new(cap.unwrap_or(0)), open: Mutex::default() }
    }

    /// Another cap from now on. Connections that came while there was none are not counted.
    pub fn set_cap(&self, cap: Option<usize>) {
        self.cap.store(cap.unwrap_or(0), Relaxed);
    }

    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<AddressSlot> {
        let cap = match self.cap.load(Relaxed) {
            0 => return Some(AddressSlot(None)),
            cap => cap,
        };
        let address = match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::from((u128::from(v6) & HOSTS_PART_LEFT_OUT).to_be_bytes()),
            v4 => v4,
        };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        if *count >= cap {
            return None;
        }
        *count += 1;
        Some(AddressSlot(Some((self.clone(), address))))
    }
}

struct AddressSlot(Option<(Arc<Addresses>, IpAddr)>);

impl Drop for AddressSlot {
    fn drop(&mut self) {
        let Some((addresses, address)) = &self.0 else { return };
        let mut open = addresses.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(address) {
            *count -= 1;
            if *count == 0 {
                open.remove(address);
            }
        }
    }
}

/// The network's part of an IPv6 address.
const HOSTS_PART_LEFT_OUT: u128 = !(u64::MAX as u128);
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

    /// An open stream is little else than its task: 4 KiB leave room for sockets and stamps under 6 KiB a stream.
    const TASK: usize = 2560;

    #[test]
    fn an_address_at_its_cap_is_refused_and_gets_its_place_back() {
        let addresses = Arc::new(Addresses::new(Some(2)));
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = addresses.enter(a);
        let _second = addresses.enter(a);
        assert!(addresses.enter(a).is_none());
        assert!(addresses.enter(b).is_some(), "another address is not affected");
        drop(first);
        assert!(addresses.enter(a).is_some());
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_are_one_and_a_mapped_address_is_the_ipv4_one() {
        let addresses = Arc::new(Addresses::new(Some(1)));
        let enter = |text: &str| addresses.enter(text.parse().unwrap());
        let _places = (enter("2001:db8::1"), enter("::ffff:10.0.0.1"));
        for taken in ["2001:db8::2", "2001:db8::ffff:1:1:1", "10.0.0.1"] {
            assert!(enter(taken).is_none(), "{taken}");
        }
        for free in ["2001:db8:0:1::1", "10.0.0.2", "::ffff:10.0.0.3"] {
            assert!(enter(free).is_some(), "{free}");
        }
    }

    #[test]
    fn without_a_cap_nobody_is_refused() {
        let addresses = Arc::new(Addresses::new(None));
        let places: Vec<_> = (0..10_000).map(|_| addresses.enter(IpAddr::from([127, 0, 0, 1]))).collect();
        assert!(places.iter().all(Option::is_some));
    }
}
