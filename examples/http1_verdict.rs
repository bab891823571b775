//! weir's verdict on raw requests, for comparison with other parsers (tests/differential/run.py).
//!
//! Standard input: cases, each a length (4 bytes, big endian) and that many bytes. Standard output: one JSON line a case
//! with the status of a refusal, the requests seen and, for each, the bytes that would be forwarded, in hexadecimal.
//! `--plant` lets Content-Length beside Transfer-Encoding pass as received: the comparison must notice.

#[path = "../tests/it/http1_reading.rs"]
mod http1_reading;

use std::io::{self, Read, Write};

use http1_reading::{Connection, Seen, read_connection};
use weir::http1::{HeadEnd, Reject};

fn main() -> io::Result<()> {
    let plant = std::env::args().any(|argument| argument == "--plant");
    let (mut input, mut output) = (io::stdin().lock(), io::BufWriter::new(io::stdout().lock()));
    let mut length = [0; 4];
    while input.read_exact(&mut length).is_ok() {
        let mut case = vec![0; u32::from_be_bytes(length) as usize];
        input.read_exact(&mut case)?;
        let mut connection = read_connection(&case);
        if plant && connection.refused == Some(Reject::LengthAndEncoding) {
            connection = planted(&case).unwrap_or(connection);
        }
        writeln!(output, "{}", verdict(&connection))?;
    }
    output.flush()
}

fn verdict(connection: &Connection) -> serde_json::Value {
    let requests: Vec<_> = connection.seen.iter().map(request).collect();
    serde_json::json!({
        "refused": connection.refused.map(Reject::status),
        "why": connection.refused.map(Reject::sentence),
        "incomplete": connection.incomplete,
        "closes": connection.closes,
        "requests": requests,
    })
}

fn request(seen: &Seen) -> serde_json::Value {
    serde_json::json!({
        "method": String::from_utf8_lossy(&seen.method),
        "target": String::from_utf8_lossy(&seen.target),
        "body": hex(&seen.body),
        "forwarded": hex(&seen.forwarded),
    })
}

/// The defect that the comparison must find: the first length counts, and the bytes pass unchanged.
fn planted(case: &[u8]) -> Option<Connection> {
    let end = HeadEnd::new().find(case).ok()??;
    let head = String::from_utf8_lossy(&case[..end]).to_ascii_lowercase();
    let digits = head.split("content-length:").nth(1)?.lines().next()?.trim();
    let body = case.get(end..end.checked_add(digits.parse().ok()?)?)?.to_vec();
    let mut words = case.split(|b| *b == b' ');
    let (method, target) = (words.next()?.to_vec(), words.next()?.to_vec());
    let forwarded = [&case[..end], &body].concat();
    Some(Connection { seen: vec![Seen { method, target, body, forwarded }], ..Connection::default() })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
