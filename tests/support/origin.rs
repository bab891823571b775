//! A backend that does exactly what a test's script says, over raw sockets, and keeps what it received.
//!
//! What weir asks on its own account (health, the engine's metrics) has no `Via`; it is answered without the script, and is
//! not counted.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::time;

/// A scripted backend; its threads end with their connections.
pub struct Origin {
    pub address: SocketAddr,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
}

/// A request that arrived whole.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which connection, counted from 0 in the order of their first requests.
    pub connection: usize,
    /// Which request of its connection, from 0.
    pub turn: usize,
    pub head: String,
    pub length: usize,
    pub sha256: [u8; 32],
}

/// One connection, as the script sees it.
pub struct Conversation {
    pub stream: TcpStream,
    log: Arc<Log>,
    rest: Vec<u8>,
    number: Option<usize>,
    turn: usize,
}

impl Origin {
    /// Runs `script` for every connection, each on its thread.
    pub fn start(script: impl Fn(&mut Conversation) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (log, script) = (Arc::new(Log::default()), Arc::new(script));
        let kept = log.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (log, script) = (log.clone(), script.clone());
                std::thread::spawn(move || {
                    stream.set_nodelay(true).unwrap();
                    script(&mut Conversation { stream, log, rest: Vec::new(), number: None, turn: 0 });
                });
            }
        });
        Self { address, log: kept }
    }

    /// Answers every request with `answer`, connection after connection.
    pub fn always(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |talk| while talk.request().is_some() && talk.write(&answer) {})
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.log.seen.lock().unwrap().clone()
    }
}

impl Conversation {
    /// The next whole request; `None` when weir has closed the connection.
    pub fn request(&mut self) -> Option<Seen> {
        let head = self.head()?;
        Some(self.body(head))
    }

    /// The next head of a client's request; its body is still to be read.
    pub fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.rest.windows(4).position(|window| window == b"\r\n\r\n") {
                let rest = self.rest.split_off(end + 4);
                let head = String::from_utf8(std::mem::replace(&mut self.rest, rest)).unwrap();
                if !head.to_ascii_lowercase().contains("\r\nvia: ") {
                    self.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
                    continue;
                }
                if self.number.is_none() {
                    self.number = Some(self.log.connections.fetch_add(1, SeqCst));
                }
                return Some(head);
            }
            if !self.more() {
                return None;
            }
        }
    }

    /// The body that belongs to `head`; the request is then in the log.
    pub fn body(&mut self, head: String) -> Seen {
        let field = |line: &str| line.to_ascii_lowercase().strip_prefix("content-length:").map(|v| v.trim().to_owned());
        let length: usize = head.lines().find_map(field).map_or(0, |length| length.parse().unwrap());
        let mut sha256 = Sha256::new();
        let mut left = length;
        while left > 0 {
            if self.rest.is_empty() && !self.more() {
                break;
            }
            let n = left.min(self.rest.len());
            sha256.update(&self.rest[..n]);
            self.rest.drain(..n);
            left -= n;
        }
        let seen = Seen {
            connection: self.number.unwrap_or(0),
            turn: self.turn,
            head,
            length: length - left,
            sha256: sha256.finalize().into(),
        };
        self.turn += 1;
        self.log.seen.lock().unwrap().push(seen.clone());
        seen
    }

    /// Which connection this is; only after its first head.
    pub fn connection(&self) -> usize {
        self.number.unwrap_or(0)
    }

    /// `false` when weir has gone.
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Waits until weir ends the connection, and says when it was seen. Bytes that come are dropped.
    pub fn ended(&mut self) -> Instant {
        while self.more() {
            self.rest.clear();
        }
        time::now()
    }

    /// The connection ends in a reset.
    pub fn reset(&mut self) {
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    fn more(&mut self) -> bool {
        let mut buffer = [0; 64 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(n) => {
                self.rest.extend_from_slice(&buffer[..n]);
                n > 0
            }
            Err(_) => false,
        }
    }
}

/// A backend whose streams end when the test says so.
pub fn held_open() -> (Origin, mpsc::Sender<()>) {
    let (finish, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let origin = Origin::start(move |talk| {
        while let Some(seen) = talk.request() {
            if seen.head.contains("x-short: yes") {
                talk.write(&whole("{}"));
                continue;
            }
            talk.write(&[SSE, &event("one")].concat());
            if wait.lock().unwrap().recv().is_err() {
                talk.ended();
                return;
            }
            talk.write(&[event("two"), closing()].concat());
        }
    });
    (origin, finish)
}

/// A sized answer.
pub fn whole(body: &str) -> Vec<u8> {
    sized(body.as_bytes())
}

pub fn sized(body: &[u8]) -> Vec<u8> {
    let mut answer =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len())
            .into_bytes();
    answer.extend_from_slice(body);
    answer
}

/// A chunk.
pub fn chunk(payload: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", payload.len()).into_bytes();
    chunk.extend_from_slice(payload);
    chunk.extend_from_slice(b"\r\n");
    chunk
}

/// A chunk that holds one content event of a chat.
pub fn event(text: &str) -> Vec<u8> {
    chunk(format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n").as_bytes())
}

/// The end of a stream: finish, terminator, last chunk.
pub fn closing() -> Vec<u8> {
    let mut bytes =
        chunk(b"data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n");
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// The head of a stream of events.
pub const SSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
