//! Connections to the backends: a small pool of plain sockets per worker, and the rules for using one again.
//!
//! A pooled socket stays registered with the reactor that made it, so each worker has its own pool. Checkout asks the
//! reactor whether the peer has closed or spoken out of turn, which costs no system call. TLS and Unix sockets will come
//! from pingora's connector behind the same `Io`; there is none of it here yet.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::net::TcpStream;

use crate::proxy::io::set_keepalive;
use crate::vocabulary::backend_id::{BackendId, is_link_local};
use crate::vocabulary::time::Timestamp;

/// Where a backend listens, and how requests for it are addressed.
#[derive(Clone, Debug)]
pub struct Target {
    /// The name used in labels and in `x-weir-backend`.
    pub name: Arc<str>,
    /// Host name or address.
    pub host: Arc<str>,
    /// TCP port.
    pub port: u16,
    /// Sent as `Host` instead of the client's, when set.
    pub authority: Option<Arc<str>>,
    /// Put before every path; empty, or begins with `/` and does not end with one.
    pub prefix: Arc<str>,
}

impl Target {
    /// A fresh connection. Names are resolved at each dial, so a moved service is found again.
    ///
    /// # Errors
    /// Whatever the resolver or the kernel says; `PermissionDenied` when a name resolves to a link-local address, which
    /// is where clouds keep their metadata services.
    pub async fn connect(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for address in tokio::net::lookup_host((&*self.host, self.port)).await? {
            if is_link_local(address.ip()) {
                last = io::ErrorKind::PermissionDenied.into();
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    set_keepalive(&stream);
                    return Ok(stream);
                }
                Err(e) => last = e,
            }
        }
        Err(last)
    }
}

/// The targets by place. A place keeps its target until another one is set there.
#[derive(Debug)]
pub struct Targets(Box<[ArcSwapOption<Target>]>);

impl Targets {
    /// So many places, none of them taken.
    pub fn new(places: usize) -> Self {
        Self((0..places).map(|_| ArcSwapOption::empty()).collect())
    }

    /// Requests for `backend` go there from now on; those under way stay where they are.
    pub fn set(&self, backend: BackendId, target: Target) {
        if let Some(place) = self.0.get(backend.index()) {
            place.store(Some(Arc::new(target)));
        }
    }

    /// Where `backend` listens. Whoever holds a permit for it finds it there.
    pub fn of(&self, backend: BackendId) -> Option<Arc<Target>> {
        self.0.get(backend.index())?.load_full()
    }

    /// Its name, for a line of the log.
    pub fn name(&self, backend: BackendId) -> Arc<str> {
        self.of(backend).map_or_else(|| "unknown".into(), |target| target.name.clone())
    }

    /// Number of places.
    pub fn places(&self) -> usize {
        self.0.len()
    }
}

/// One worker's idle connections, newest first per backend.
#[derive(Debug)]
pub struct Idle {
    lists: Mutex<Box<[Vec<Resting>]>>,
}

#[derive(Debug)]
struct Resting {
    stream: TcpStream,
    /// A connection to what stood at this place before is of no use.
    target: Arc<Target>,
    since: Timestamp,
}

impl Idle {
    /// An empty pool for `backends` backends.
    pub fn new(backends: usize) -> Self {
        Self { lists: Mutex::new((0..backends).map(|_| Vec::new()).collect()) }
    }

    /// A connection that is fit to be used again, if there is one.
    pub fn take(&self, backend: BackendId, target: &Arc<Target>, now: Timestamp) -> Option<TcpStream> {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let list = lists.get_mut(backend.index())?;
        while let Some(resting) = list.pop() {
            let fresh = Arc::ptr_eq(&resting.target, target) && now.since(resting.since) < IDLE_LIMIT;
            if fresh && is_silent(&resting.stream) {
                return Some(resting.stream);
            }
        }
        None
    }

    /// Puts back the connection of a finished exchange.
    pub fn put(&self, backend: BackendId, target: Arc<Target>, stream: TcpStream, now: Timestamp) {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(list) = lists.get_mut(backend.index()).filter(|list| list.len() < IDLE_CAP) {
            list.push(Resting { stream, target, since: now });
        }
    }

    /// Drops what has rested too long. Called once a second.
    pub fn sweep(&self, now: Timestamp) {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        for list in lists.iter_mut() {
            list.retain(|resting| now.since(resting.since) < IDLE_LIMIT);
            if list.is_empty() && list.capacity() > 0 {
                *list = Vec::new();
            }
        }
    }
}

/// Nothing to read and not closed. Anything else, bytes included, makes the connection unfit.
fn is_silent(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0; 1]), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
}

/// uvicorn-based engines and llama.cpp close after 5 s; one second less, so that we never use what they are closing.
const IDLE_LIMIT: Duration = Duration::from_secs(4);
/// Per worker and backend.
const IDLE_CAP: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    const A: BackendId = BackendId(0);

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (ours, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn a_silent_connection_is_used_again_until_it_has_rested_too_long() {
        let (pool, (ours, _theirs)) = (Idle::new(1), pair().await);
        let target = target();
        pool.put(A, target.clone(), ours, Timestamp::ZERO);
        let ours = pool.take(A, &target, Timestamp::ZERO + Duration::from_secs(3)).unwrap();
        pool.put(A, target.clone(), ours, Timestamp::ZERO);
        assert!(pool.take(A, &target, Timestamp::ZERO + IDLE_LIMIT).is_none());
    }

    #[tokio::test]
    async fn a_connection_to_what_stood_there_before_is_not_used_again() {
        let (pool, (ours, _theirs)) = (Idle::new(1), pair().await);
        pool.put(A, target(), ours, Timestamp::ZERO);
        assert!(pool.take(A, &target(), Timestamp::ZERO).is_none());
    }

    fn target() -> Arc<Target> {
        let (name, host, prefix) = ("a".into(), "127.0.0.1".into(), "".into());
        Arc::new(Target { name, host, port: 1, authority: None, prefix })
    }

    #[tokio::test]
    async fn a_connection_that_was_closed_or_spoke_out_of_turn_is_not_used_again() {
        let (pool, target) = (Idle::new(1), target());
        let (ours, theirs) = pair().await;
        drop(theirs);
        ours.readable().await.unwrap();
        pool.put(A, target.clone(), ours, Timestamp::ZERO);
        assert!(pool.take(A, &target, Timestamp::ZERO).is_none());
        let (ours, mut theirs) = pair().await;
        theirs.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
        ours.readable().await.unwrap();
        pool.put(A, target.clone(), ours, Timestamp::ZERO);
        assert!(pool.take(A, &target, Timestamp::ZERO).is_none());
    }

    #[tokio::test]
    async fn the_pool_holds_no_more_than_its_cap_and_the_sweep_empties_it() {
        let (pool, target) = (Idle::new(1), target());
        let mut peers = Vec::new();
        for _ in 0..3 {
            let (ours, theirs) = pair().await;
            peers.push(theirs);
            pool.put(A, target.clone(), ours, Timestamp::ZERO);
        }
        pool.sweep(Timestamp::ZERO + IDLE_LIMIT);
        assert!(pool.take(A, &target, Timestamp::ZERO).is_none());
    }
}
