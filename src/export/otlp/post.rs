//! One message to a collector over HTTP/1.1, within bounded time and bytes.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::collector::Collector;

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Posted {
    /// It was taken; this is what was said of it.
    Taken(Bytes),
    /// It may be taken later: the collector is away, slow or busy.
    Later,
    /// It never will be.
    Refused(StatusCode),
}

/// Sends `message`.
pub async fn post(collector: &Collector, message: Bytes) -> Posted {
    let sent = tokio::time::timeout(collector.timeout, exchange(collector, message)).await;
    sent.ok().flatten().unwrap_or(Posted::Later)
}

/// `None`: no connection, or it broke off.
async fn exchange(collector: &Collector, message: Bytes) -> Option<Posted> {
    let target = &collector.traces;
    let authority = target.authority()?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    // Dropped with this future: a collector that hangs holds no connection.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let path = target.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::post(path)
        .header(header::HOST, authority.as_str())
        .header(header::CONTENT_TYPE, "application/x-protobuf")
        .header(header::CONNECTION, "close");
    for (name, value) in &collector.headers {
        request = request.header(name, value);
    }
    let answer = sender.send_request(request.body(Full::new(message)).ok()?).await.ok()?;
    let status = answer.status();
    match status.as_u16() {
        200..=299 => {
            let said = Limited::new(answer.into_body(), LONGEST_ANSWER).collect().await.ok()?;
            Some(Posted::Taken(said.to_bytes()))
        }
        // The standard's list of what may be tried again.
        429 | 502..=504 => Some(Posted::Later),
        _ => Some(Posted::Refused(status)),
    }
}

/// Waits between tries of one message.
pub const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];
/// It says how many spans were refused, and why.
const LONGEST_ANSWER: usize = 64 << 10;
