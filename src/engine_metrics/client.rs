//! One read of an engine's metrics endpoint.
//!
//! A new connection each time: at one a second it costs the engine nothing, and the name of a service that moved is resolved
//! again.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, StatusCode, header};
use tokio::net::TcpStream;

use crate::http_client::{self, AnswerBounds, ReadBody, Unanswered};
use crate::vocabulary::backend_id::is_link_local;

/// Where a metrics endpoint listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name or an address without brackets.
    pub host: Arc<str>,
    pub port: u16,
    /// The value of `Host`: host and port.
    pub authority: Arc<str>,
}

/// The exposition at `path`, at most 4 MiB long and complete within `timeout`.
///
/// # Errors
/// [`Unanswered`]; every status but 200 is one.
pub async fn ask(address: &Address, path: &str, timeout: Duration) -> Result<Bytes, Unanswered> {
    let request = Request::get(path)
        .header(header::HOST, &*address.authority)
        .header(header::ACCEPT, "text/plain;version=0.0.4")
        .body(Full::default())
        .map_err(|_| Unanswered::Protocol)?;
    let bounds = AnswerBounds { deadline: timeout, body: LONGEST_BODY };
    let answer = http_client::send(connect(address), request, bounds, ReadBody::OnSuccess).await?;
    match answer.status() {
        StatusCode::OK => Ok(answer.into_body()),
        status => Err(Unanswered::Status(status)),
    }
}

/// Like the data path, never to a link-local address, where clouds keep their metadata services.
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
