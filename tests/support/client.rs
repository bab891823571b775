//! A client that knows only sockets: what it sends is what the test wrote, and what it reads is kept byte for byte.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// One connection.
pub struct Client {
    pub stream: TcpStream,
    /// Bytes read beyond the last answer.
    rest: Vec<u8>,
}

/// One answer, its framing taken off.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    /// Status line and fields, as received.
    pub head: String,
    pub body: Vec<u8>,
    /// The body ended as its framing says; a close-delimited one by a FIN.
    pub complete: bool,
    /// Sizes of the chunks, for the curious.
    pub chunked: bool,
    /// Heads with 1xx before the final one.
    pub informational: Vec<String>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap()
    }

    /// `None` when nobody listens.
    pub fn try_connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Some(Self { stream, rest: Vec::new() })
    }

    /// A client whose kernel takes little ahead of it.
    pub fn with_receive_buffer(address: SocketAddr, bytes: usize) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(bytes).unwrap();
        socket.connect(&address.into()).unwrap();
        Self { stream: socket.into(), rest: Vec::new() }
    }

    /// A reader of bytes that were received already: its connection is at its end.
    pub fn replay(received: Vec<u8>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        Self { stream, rest: received }
    }

    pub fn send(&mut self, bytes: &[u8]) -> &mut Self {
        self.stream.write_all(bytes).unwrap();
        self
    }

    /// The same where the server may be gone already.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Reads one answer to a request that was not a HEAD.
    pub fn answer(&mut self) -> Answer {
        self.read_answer(false)
    }

    pub fn answer_to_head(&mut self) -> Answer {
        self.read_answer(true)
    }

    /// Reads until `text` has been received, and says everything that has.
    pub fn until(&mut self, text: &str) -> String {
        let found = self.reads(&[text]);
        assert!(found, "the connection ended before {text:?}: {:?}", String::from_utf8_lossy(&self.rest));
        String::from_utf8_lossy(&self.rest).into_owned()
    }

    /// Reads until one of `texts` has been received; `false`: the connection ended first.
    pub fn reads(&mut self, texts: &[&str]) -> bool {
        let holds = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        while !texts.iter().any(|text| holds(&self.rest, text)) {
            if !self.more() {
                return false;
            }
        }
        true
    }

    /// Takes up to `most` bytes, and says how many came; 0 at the end.
    pub fn take_some(&mut self, most: usize) -> Vec<u8> {
        if self.rest.is_empty() {
            let mut buffer = vec![0; most];
            let n = self.stream.read(&mut buffer).unwrap_or(0);
            buffer.truncate(n);
            return buffer;
        }
        self.take(most)
    }

    /// Everything until the connection ends, by whatever end.
    pub fn everything(&mut self) -> Vec<u8> {
        while self.more() {}
        std::mem::take(&mut self.rest)
    }

    /// The server has ended the connection, and nothing was left in it.
    pub fn is_ended(&mut self) -> bool {
        !self.more() && self.rest.is_empty()
    }

    /// FIN, as long as nothing unread is in the socket.
    pub fn leave(self) {
        drop(self.stream);
    }

    /// RST.
    pub fn reset(self) {
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    pub fn finish_sending(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// One read; `false` at the end.
    fn more(&mut self) -> bool {
        let mut buffer = [0; 64 * 1024];
        match self.stream.read(&mut buffer) {
            // With a timeout set, a read that was stopped and continued ends so; nothing of the stream is lost.
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => self.more(),
            Ok(n) => {
                self.rest.extend_from_slice(&buffer[..n]);
                n > 0
            }
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                panic!("nothing came for 30 s; so far {} bytes", self.rest.len())
            }
            Err(_) => false,
        }
    }

    fn read_answer(&mut self, head_request: bool) -> Answer {
        let mut answer = Answer::default();
        loop {
            let Some(head) = self.head() else { return answer };
            answer.status = head.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0);
            if (100..200).contains(&answer.status) {
                answer.informational.push(head);
                continue;
            }
            answer.head = head;
            break;
        }
        if head_request || matches!(answer.status, 204 | 304) {
            answer.complete = true;
        } else if let Some(length) = answer.field("content-length") {
            let length: usize = length.parse().unwrap();
            while self.rest.len() < length && self.more() {}
            answer.complete = self.rest.len() >= length;
            answer.body = self.take(length);
        } else if answer.field("transfer-encoding").is_some() {
            answer.chunked = true;
            self.read_chunks(&mut answer);
        } else {
            answer.body = self.everything();
            answer.complete = true;
        }
        answer
    }

    fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.rest.windows(4).position(|window| window == b"\r\n\r\n") {
                return Some(String::from_utf8_lossy(&self.take(end + 4)).into_owned());
            }
            if !self.more() {
                return None;
            }
        }
    }

    fn read_chunks(&mut self, answer: &mut Answer) {
        loop {
            let Some(line) = self.line() else { return };
            let size = usize::from_str_radix(&line, 16).expect("a size line of digits only");
            if size == 0 {
                answer.complete = self.line().as_deref() == Some("");
                return;
            }
            while self.rest.len() < size + 2 && self.more() {}
            answer.body.extend_from_slice(&self.take(size));
            if self.line().as_deref() != Some("") {
                return;
            }
        }
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.rest.windows(2).position(|window| window == b"\r\n") {
                let line = self.take(end + 2);
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if !self.more() {
                return None;
            }
        }
    }

    fn take(&mut self, n: usize) -> Vec<u8> {
        let n = n.min(self.rest.len());
        let rest = self.rest.split_off(n);
        std::mem::replace(&mut self.rest, rest)
    }
}

impl Answer {
    /// The value of a field, whose name is given in lower case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One exchange on a connection of its own.
pub fn ask(address: SocketAddr, request: &[u8]) -> Answer {
    Client::connect(address).send(request).answer()
}

/// A POST whose connection may be used again. `extra` are whole field lines.
pub fn post(path: &str, extra: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut request =
        format!("POST {path} HTTP/1.1\r\nhost: a\r\n{extra}content-length: {length}\r\n\r\n").into_bytes();
    request.extend_from_slice(body);
    request
}

/// The same in chunks of this size, some of them with an extension, and a trailer.
pub fn post_chunked(path: &str, extra: &str, body: &[u8], chunk: usize) -> Vec<u8> {
    let mut request =
        format!("POST {path} HTTP/1.1\r\nhost: a\r\n{extra}transfer-encoding: chunked\r\n\r\n").into_bytes();
    for (i, piece) in body.chunks(chunk).enumerate() {
        // A few: of extensions a body may have 4 KiB in all.
        let extension = if i % 7 == 3 && i < 700 { ";a=b" } else { "" };
        request.extend_from_slice(format!("{:x}{extension}\r\n", piece.len()).as_bytes());
        request.extend_from_slice(piece);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\nx-trailer: v\r\n\r\n");
    request
}

/// A streamed chat of `tokens` tokens, usage included.
pub fn chat(tokens: u32) -> String {
    format!(
        r#"{{"model":"m","messages":[{{"role":"user","content":"hello"}}],"stream":true,"max_tokens":{tokens},"ignore_eos":true,"stream_options":{{"include_usage":true}}}}"#
    )
}

pub const CHAT: &str = "/v1/chat/completions";
