//! A collector of spans: takes OTLP over HTTP, decodes it and keeps it; or hangs, refuses, is not there.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use super::time;

/// What it does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Takes,
    /// Answers with this status.
    Says(u16),
    /// Reads, and never answers.
    Hangs,
}

/// Runs until the test ends.
pub struct Collector {
    pub address: SocketAddr,
    kept: Arc<Kept>,
}

#[derive(Default)]
struct Kept {
    messages: Mutex<Vec<(String, Vec<u8>)>>,
    connections: AtomicUsize,
}

impl Collector {
    pub fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let kept = Arc::new(Kept::default());
        let keeping = kept.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let keeping = keeping.clone();
                keeping.connections.fetch_add(1, SeqCst);
                std::thread::spawn(move || serve(stream, manner, &keeping));
            }
        });
        Self { address, kept }
    }

    /// Connections that were made to it.
    pub fn connections(&self) -> usize {
        self.kept.connections.load(SeqCst)
    }

    /// Every head and every byte of a body that came.
    pub fn everything(&self) -> Vec<(String, Vec<u8>)> {
        self.kept.messages.lock().unwrap().clone()
    }

    /// The messages with spans.
    pub fn messages(&self) -> Vec<ExportTraceServiceRequest> {
        let all = self.everything();
        let traces = all.iter().filter(|(head, _)| head.starts_with("POST /v1/traces "));
        traces.map(|(_, body)| ExportTraceServiceRequest::decode(&**body).unwrap()).collect()
    }

    /// Every span so far.
    pub fn spans(&self) -> Vec<Span> {
        let resources = self.messages().into_iter().flat_map(|message| message.resource_spans);
        resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
    }

    /// Every span, once there are `count`.
    pub fn wait_for(&self, count: usize) -> Vec<Span> {
        time::until(&format!("{count} spans have come"), || self.spans().len() >= count);
        let spans = self.spans();
        assert_eq!(spans.len(), count, "{spans:#?}");
        spans
    }
}

fn serve(mut stream: TcpStream, manner: Manner, kept: &Kept) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length =
                head.to_ascii_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let length: usize = length.unwrap_or(0);
            if bytes.len() >= end + length {
                kept.messages.lock().unwrap().push((head, bytes[end..end + length].to_vec()));
                break;
            }
        }
        match stream.read(&mut buffer) {
            Ok(n) if n > 0 => bytes.extend_from_slice(&buffer[..n]),
            _ => return,
        }
    }
    let status = match manner {
        Manner::Takes => 200,
        Manner::Says(status) => status,
        Manner::Hangs => {
            let _ = stream.read(&mut buffer);
            return;
        }
    };
    let _ = stream.write_all(format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n").as_bytes());
}

/// An attribute as text.
pub fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    match attributes.iter().find(|pair| pair.key == key)?.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{key}: {other:?}"),
    }
}
