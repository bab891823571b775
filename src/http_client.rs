//! One HTTP/1.1 request on a connection of its own, within bounded time and bytes.
//!
//! Health checks, engine metrics, span exports and the load generator's questions are of this kind: rare, small, and not worth a
//! pool. The caller connects, because each has rules of its own about addresses. Absent: redirects (a 3xx is an answer like any
//! other), retries, reuse of a connection, TLS.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// What an answer may cost.
#[derive(Clone, Copy, Debug)]
pub struct AnswerBounds {
    /// From the first step of connecting to the last byte that is read.
    pub deadline: Duration,
    /// Longest body in bytes; an answer with a longer one is an error.
    pub body: usize,
}

/// Which answers have their body read; another one's body is returned empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadBody {
    Never,
    /// That of a 2xx.
    OnSuccess,
    Always,
}

/// Why a request has no usable answer. No sentence holds a byte that the server sent.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    #[error("no connection: {0}")]
    Connection(io::Error),
    #[error("not HTTP, or it broke off")]
    Protocol,
    #[error("status {0}")]
    Status(StatusCode),
    #[error("more than {} MiB", .0 >> 20)]
    TooLong(usize),
    #[error("no answer in time")]
    Late,
}

/// Sends `request`, whose target is a path and whose `Host` the caller has set, on what `connecting` yields.
///
/// # Errors
/// Every [`Unanswered`] but `Status`: a status is the caller's to judge.
pub async fn send(
    connecting: impl Future<Output = io::Result<TcpStream>>,
    request: Request<Full<Bytes>>,
    bounds: AnswerBounds,
    read: ReadBody,
) -> Result<Response<Bytes>, Unanswered> {
    let exchange = exchange(connecting, request, bounds.body, read);
    tokio::time::timeout(bounds.deadline, exchange).await.unwrap_or(Err(Unanswered::Late))
}

async fn exchange(
    connecting: impl Future<Output = io::Result<TcpStream>>,
    mut request: Request<Full<Bytes>>,
    longest_body: usize,
    read: ReadBody,
) -> Result<Response<Bytes>, Unanswered> {
    let stream = connecting.await.map_err(Unanswered::Connection)?;
    let broken = |_| Unanswered::Protocol;
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(LONGEST_HEAD).handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // Dropped with this future, so a server that hangs holds no connection.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    request.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    let (head, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
    let wanted = match read {
        ReadBody::Never => false,
        ReadBody::OnSuccess => head.status.is_success(),
        ReadBody::Always => true,
    };
    if !wanted {
        return Ok(Response::from_parts(head, Bytes::new()));
    }
    match Limited::new(body, longest_body).collect().await {
        Ok(whole) => Ok(Response::from_parts(head, whole.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Err(Unanswered::TooLong(longest_body)),
        Err(_) => Err(Unanswered::Protocol),
    }
}

/// A status line with its headers is a few hundred bytes.
const LONGEST_HEAD: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// The result of one GET when the server sends `answer`, and the head that the server read.
    async fn asked(answer: &'static str, body: usize, read: ReadBody) -> (Result<Response<Bytes>, Unanswered>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 1024];
            let n = stream.read(&mut head).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&head[..n]).into_owned()
        });
        let request = Request::get("/x").header(header::HOST, "a").body(Full::default()).unwrap();
        let bounds = AnswerBounds { deadline: Duration::from_secs(10), body };
        let answer = send(TcpStream::connect(address), request, bounds, read).await;
        (answer, serving.await.unwrap())
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_is_not_followed() {
        let moved = "HTTP/1.1 302 Found\r\nlocation: /y\r\ncontent-length: 1\r\n\r\nz";
        let (answer, head) = asked(moved, 10, ReadBody::OnSuccess).await;
        let answer = answer.unwrap();
        assert_eq!((answer.status().as_u16(), answer.body().len()), (302, 0));
        assert!(head.starts_with("GET /x HTTP/1.1\r\n") && head.contains("connection: close\r\n"), "{head}");
    }

    #[tokio::test]
    async fn a_body_over_the_bound_is_an_error_unless_it_is_not_read() {
        let long = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc";
        assert_eq!(asked(long, 3, ReadBody::Always).await.0.unwrap().body(), "abc");
        assert!(matches!(asked(long, 2, ReadBody::Always).await.0, Err(Unanswered::TooLong(2))));
        assert!(asked(long, 2, ReadBody::Never).await.0.unwrap().body().is_empty());
    }

    #[tokio::test]
    async fn a_connection_that_never_opens_is_given_up_at_the_deadline() {
        let request = Request::get("/x").body(Full::default()).unwrap();
        let bounds = AnswerBounds { deadline: Duration::from_millis(10), body: 0 };
        let answer = send(std::future::pending(), request, bounds, ReadBody::Never).await;
        assert!(matches!(answer, Err(Unanswered::Late)));
    }
}
