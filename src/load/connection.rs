//! One kept-alive connection to the server under load.
//!
//! The connection is driven by the task of the request that uses it, not by a task of its own: what is read is stamped in
//! the same poll, and an event costs no hop between tasks. An idle connection is not polled; whether it is still alive is
//! checked when it is taken.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A connection and the handle that sends on it; one request at a time.
pub struct LoadConnection {
    sender: SendRequest<Full<Bytes>>,
    connection: Connection<TokioIo<TcpStream>, Full<Bytes>>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Over,
}

impl LoadConnection {
    /// A fresh connection, without Nagle's delay.
    ///
    /// # Errors
    /// The system's error.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = Builder::new().handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        Ok(Self { sender, connection, state: State::Open })
    }

    /// Sends a request; the answer's head resolves the future, its body is read with [`Self::drive`].
    ///
    /// # Errors
    /// Whatever ended the connection before a head.
    pub async fn send(
        &mut self,
        request: http::Request<Full<Bytes>>,
    ) -> hyper::Result<http::Response<hyper::body::Incoming>> {
        let answer = self.sender.send_request(request);
        drive(&mut self.connection, &mut self.state, answer).await
    }

    /// Polls `work` and the connection until `work` is done.
    pub async fn drive<F: Future>(&mut self, work: F) -> F::Output {
        drive(&mut self.connection, &mut self.state, work).await
    }

    /// Whether another request can be sent now: polls once, waits for nothing.
    pub async fn is_usable(&mut self) -> bool {
        poll_fn(|cx| {
            poll_connection(&mut self.connection, &mut self.state, cx);
            Poll::Ready(self.state == State::Open && matches!(self.sender.poll_ready(cx), Poll::Ready(Ok(()))))
        })
        .await
    }
}

/// The work is polled before and after the connection: once to register what it needs, once to take what was read for it.
async fn drive<F: Future>(
    connection: &mut Connection<TokioIo<TcpStream>, Full<Bytes>>,
    state: &mut State,
    work: F,
) -> F::Output {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(output) = work.as_mut().poll(cx) {
            return Poll::Ready(output);
        }
        poll_connection(connection, state, cx);
        work.as_mut().poll(cx)
    })
    .await
}

/// A connection that is over is not polled again; the request gets the error that ended it.
fn poll_connection(
    connection: &mut Connection<TokioIo<TcpStream>, Full<Bytes>>,
    state: &mut State,
    cx: &mut Context<'_>,
) {
    if *state == State::Open && Pin::new(connection).poll(cx).is_ready() {
        *state = State::Over;
    }
}
