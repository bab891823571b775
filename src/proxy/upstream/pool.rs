//! The idle connections to the backends, a pool for each worker.
//!
//! An idle socket stays registered with the reactor that made it, so each worker has its own pool. Checkout asks the reactor
//! whether the backend has closed or sent something unasked, which costs no system call.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;

use super::target::Target;
use crate::vocabulary::backend_id::BackendId;
use crate::vocabulary::time::Timestamp;

/// One worker's idle connections, newest first per backend.
#[derive(Debug)]
pub struct IdlePool {
    lists: Mutex<Box<[Vec<IdleConnection>]>>,
}

#[derive(Debug)]
struct IdleConnection {
    stream: TcpStream,
    /// A connection to the target that the slot had before is not used.
    target: Arc<Target>,
    since: Timestamp,
}

impl IdlePool {
    /// An empty pool for `backends` backends.
    pub fn new(backends: usize) -> Self {
        Self { lists: Mutex::new((0..backends).map(|_| Vec::new()).collect()) }
    }

    /// A connection that can be used again, if there is one.
    pub fn take(&self, backend: BackendId, target: &Arc<Target>, now: Timestamp) -> Option<TcpStream> {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let list = lists.get_mut(backend.index())?;
        while let Some(idle) = list.pop() {
            let fresh = Arc::ptr_eq(&idle.target, target) && now.since(idle.since) < IDLE_LIMIT;
            if fresh && is_silent(&idle.stream) {
                return Some(idle.stream);
            }
        }
        None
    }

    /// Puts back the connection of a finished exchange.
    pub fn put(&self, backend: BackendId, target: Arc<Target>, stream: TcpStream, now: Timestamp) {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(list) = lists.get_mut(backend.index()).filter(|list| list.len() < IDLE_CAP) {
            list.push(IdleConnection { stream, target, since: now });
        }
    }

    /// Drops what has been idle too long. Called once a second.
    pub fn sweep(&self, now: Timestamp) {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        for list in lists.iter_mut() {
            list.retain(|idle| now.since(idle.since) < IDLE_LIMIT);
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
    async fn a_silent_connection_is_used_until_idle_too_long() {
        let (pool, (ours, _theirs)) = (IdlePool::new(1), pair().await);
        let target = target();
        pool.put(A, target.clone(), ours, Timestamp::ZERO);
        let ours = pool.take(A, &target, Timestamp::ZERO + Duration::from_secs(3)).unwrap();
        pool.put(A, target.clone(), ours, Timestamp::ZERO);
        assert!(pool.take(A, &target, Timestamp::ZERO + IDLE_LIMIT).is_none());
    }

    #[tokio::test]
    async fn a_connection_to_a_former_target_is_not_used() {
        let (pool, (ours, _theirs)) = (IdlePool::new(1), pair().await);
        pool.put(A, target(), ours, Timestamp::ZERO);
        assert!(pool.take(A, &target(), Timestamp::ZERO).is_none());
    }

    fn target() -> Arc<Target> {
        let (name, host, prefix) = ("a".into(), "127.0.0.1".into(), "".into());
        Arc::new(Target { name, host, port: 1, authority: None, prefix })
    }

    #[tokio::test]
    async fn a_closed_connection_or_one_with_bytes_is_not_used() {
        let (pool, target) = (IdlePool::new(1), target());
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
    async fn the_sweep_empties_the_pool() {
        let (pool, target) = (IdlePool::new(1), target());
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
