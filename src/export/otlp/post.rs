//! One message to a collector over HTTP/1.1.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Full;
use tokio::net::TcpStream;

use super::collector::Collector;
use crate::http_client::{self, AnswerBounds, ReadBody};

/// How a collector answered a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Posted {
    /// It accepted the message; this is its answer.
    Accepted(Bytes),
    /// It may accept the message later: it is down, slow or busy.
    Later,
    /// It never will.
    Refused(StatusCode),
}

/// Sends `message`.
pub async fn post(collector: &Collector, message: Bytes) -> Posted {
    let Some(request) = request(collector, message) else { return Posted::Later };
    let bounds = AnswerBounds { deadline: collector.timeout, body: LONGEST_ANSWER };
    match http_client::send(connect(collector), request, bounds, ReadBody::OnSuccess).await {
        Ok(answer) => match answer.status().as_u16() {
            200..=299 => Posted::Accepted(answer.into_body()),
            // The OTLP specification's list of statuses after which a message may be sent again.
            429 | 502..=504 => Posted::Later,
            _ => Posted::Refused(answer.status()),
        },
        Err(_) => Posted::Later,
    }
}

/// `None`: a header of the configuration cannot be sent.
fn request(collector: &Collector, message: Bytes) -> Option<Request<Full<Bytes>>> {
    let path = collector.traces.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::post(path)
        .header(header::HOST, collector.traces.authority()?.as_str())
        .header(header::CONTENT_TYPE, "application/x-protobuf");
    for (name, value) in &collector.headers {
        request = request.header(name, value);
    }
    request.body(Full::new(message)).ok()
}

async fn connect(collector: &Collector) -> io::Result<TcpStream> {
    let authority = collector.traces.authority().ok_or(io::ErrorKind::InvalidInput)?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await
}

/// Waits between tries of one message.
pub const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];
/// The answer says how many spans the collector rejected, and why.
const LONGEST_ANSWER: usize = 64 << 10;
