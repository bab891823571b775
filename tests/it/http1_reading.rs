//! What weir makes of the bytes of one connection, without a socket: the requests it sees and the bytes it would forward.

use weir::http1::{ChunkedBody, HeadEnd, Peer, Reject, RequestBody, RequestHead, finish_request_head, request_head};

/// One request, and what leaves for the backend because of it.
#[derive(Debug)]
pub struct Seen {
    pub method: Vec<u8>,
    pub target: Vec<u8>,
    pub body: Vec<u8>,
    pub forwarded: Vec<u8>,
}

/// The whole connection.
#[derive(Debug, Default)]
pub struct Connection {
    pub seen: Vec<Seen>,
    pub refused: Option<Reject>,
    pub incomplete: bool,
    /// The last request asked for it: what follows is not looked at.
    pub closes: bool,
}

/// Reads until the bytes are used up, a request is refused or incomplete, or the connection would be closed.
pub fn read_connection(bytes: &[u8]) -> Connection {
    let mut connection = Connection::default();
    let mut at = 0;
    while at < bytes.len() {
        match read_request(&bytes[at..]) {
            Ok(Some((seen, used, keep_alive))) => {
                connection.seen.push(seen);
                at += used;
                if !keep_alive {
                    connection.closes = true;
                    break;
                }
            }
            Ok(None) => {
                connection.incomplete = true;
                break;
            }
            Err(reject) => {
                connection.refused = Some(reject);
                break;
            }
        }
    }
    connection
}

fn read_request(bytes: &[u8]) -> Result<Option<(Seen, usize, bool)>, Reject> {
    let Some(end) = HeadEnd::new().find(bytes)? else { return Ok(None) };
    let (head, rest) = bytes.split_at(end);
    let peer = Peer { forwarded_for: "192.0.2.7", trusted: false, proto: "http", via: "1.1 weir-test", traced: false };
    let mut forwarded = Vec::new();
    let read = request_head(head, &peer, |_, _| true, &mut forwarded)?;
    let Some((body, used)) = read_body(&read, rest)? else { return Ok(None) };
    let length = read.needs_length().then_some(body.len() as u64);
    finish_request_head(&mut forwarded, b"backend:8000", None, length);
    forwarded.extend_from_slice(&body);
    let (method, target) = (read.method.as_bytes().to_vec(), head[read.target].to_vec());
    Ok(Some((Seen { method, target, body, forwarded }, end + used, read.keep_alive)))
}

fn read_body(head: &RequestHead, rest: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Reject> {
    match head.body {
        RequestBody::None => Ok(Some((Vec::new(), 0))),
        RequestBody::Length(n) => {
            let n = usize::try_from(n).unwrap_or(usize::MAX);
            Ok(rest.get(..n).map(|body| (body.to_vec(), n)))
        }
        RequestBody::Chunked => {
            let (mut chunked, mut body) = (ChunkedBody::default(), Vec::new());
            let used = chunked.feed(rest, |payload| body.extend_from_slice(payload))?;
            Ok(chunked.ended().then_some((body, used)))
        }
    }
}
