//! Where each backend listens, and how it is dialled.
//!
//! Plain TCP only: TLS and Unix sockets will come from pingora's connector behind the same `Io`.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::net::TcpStream;

use crate::proxy::io::set_keepalive;
use crate::vocabulary::backend_id::{BackendId, is_link_local};

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

/// The target of each backend slot. A slot keeps its target until another one is set.
#[derive(Debug)]
pub struct Targets(Box<[ArcSwapOption<Target>]>);

impl Targets {
    /// `slots` slots, all empty.
    pub fn new(slots: usize) -> Self {
        Self((0..slots).map(|_| ArcSwapOption::empty()).collect())
    }

    /// Requests for `backend` are dispatched there from now on; those in flight stay where they are.
    pub fn set(&self, backend: BackendId, target: Target) {
        if let Some(slot) = self.0.get(backend.index()) {
            slot.store(Some(Arc::new(target)));
        }
    }

    /// Where `backend` listens. While a permit for it is held, it is there.
    pub fn of(&self, backend: BackendId) -> Option<Arc<Target>> {
        self.0.get(backend.index())?.load_full()
    }

    /// Its name, for a line of the log.
    pub fn name(&self, backend: BackendId) -> Arc<str> {
        self.of(backend).map_or_else(|| "unknown".into(), |target| target.name.clone())
    }

    /// Number of slots.
    pub fn places(&self) -> usize {
        self.0.len()
    }
}
