//! One question to an engine's metrics port, over a connection of its own, within bounded time and bytes.
//!
//! A new connection each time: at one a second it costs the engine nothing, and a moved service is found again.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::vocabulary::backend_id::is_link_local;

/// Where a metrics port is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name or an address without brackets.
    pub host: Arc<str>,
    pub port: u16,
    /// Host and port as the `Host` line says them.
    pub authority: Arc<str>,
}

/// Why a question had no answer. The sentence holds nothing that the engine sent.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    #[error("no connection: {0}")]
    Connection(io::Error),
    #[error("not HTTP, or it broke off")]
    Protocol,
    #[error("status {0}")]
    Status(StatusCode),
    #[error("more than {} MiB", LONGEST_BODY >> 20)]
    TooLong,
    #[error("no answer in time")]
    Late,
}

/// The exposition at `path`, at most `LONGEST_BODY` long and `patience` late.
///
/// # Errors
/// [`Unanswered`]; every status but 200 is one.
pub async fn ask(address: &Address, path: &str, patience: Duration) -> Result<Bytes, Unanswered> {
    tokio::time::timeout(patience, exchange(address, path)).await.unwrap_or(Err(Unanswered::Late))
}

async fn exchange(address: &Address, path: &str) -> Result<Bytes, Unanswered> {
    let stream = connect(address).await.map_err(Unanswered::Connection)?;
    let broken = |_| Unanswered::Protocol;
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(LONGEST_HEAD).handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // Dropped with this future: whatever becomes of the answer, the connection does not outlive it.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let request = Request::get(path)
        .header(header::HOST, &*address.authority)
        .header(header::ACCEPT, "text/plain;version=0.0.4")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|_| Unanswered::Protocol)?;
    let answer = sender.send_request(request).await.map_err(broken)?;
    if answer.status() != StatusCode::OK {
        return Err(Unanswered::Status(answer.status()));
    }
    match Limited::new(answer.into_body(), LONGEST_BODY).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Unanswered::TooLong),
        Err(_) => Err(Unanswered::Protocol),
    }
}

/// Like the data path, never to where clouds keep their metadata services.
async fn connect(address: &Address) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for found in tokio::net::lookup_host((&*address.host, address.port)).await? {
        let ip: IpAddr = found.ip();
        if is_link_local(ip) {
            last = io::ErrorKind::PermissionDenied.into();
            continue;
        }
        match TcpStream::connect(found).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// vLLM's exposition with many LoRA adapters is some hundred KiB.
const LONGEST_BODY: usize = 4 << 20;
const LONGEST_HEAD: usize = 64 << 10;
