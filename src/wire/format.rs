//! How the body of an answer is laid out: what its Content-Type and Content-Encoding say, not what the request asked for.

/// The layout of an answer's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Server-sent events.
    Sse,
    /// One JSON object a line.
    Ndjson,
    /// One JSON document, or something we take for one: an error to a streaming request comes like this.
    Json,
    /// Compressed: relayed, and not read.
    Opaque,
}

impl Format {
    /// The layout of a body with these two header values, each as received. An empty `content_type` means there is none.
    pub fn of(content_type: &[u8], content_encoding: Option<&[u8]>) -> Self {
        if content_encoding.is_some_and(is_coded) {
            return Self::Opaque;
        }
        let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let is = |name: &str| essence.eq_ignore_ascii_case(name.as_bytes());
        if is("text/event-stream") {
            Self::Sse
        } else if NDJSON.into_iter().any(is) {
            Self::Ndjson
        } else {
            Self::Json
        }
    }
}

fn is_coded(content_encoding: &[u8]) -> bool {
    let coding = content_encoding.trim_ascii();
    !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity")
}

/// None of them is registered; the first is Ollama's.
const NDJSON: [&str; 4] = ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_parameters_of_the_type_do_not_matter() {
        assert_eq!(Format::of(b"text/event-stream", None), Format::Sse);
        assert_eq!(Format::of(b"Text/Event-Stream ; charset=utf-8", None), Format::Sse);
        assert_eq!(Format::of(b"application/x-ndjson", Some(b"")), Format::Ndjson);
    }

    #[test]
    fn anything_else_is_read_as_one_document() {
        assert_eq!(Format::of(b"application/json; charset=utf-8", None), Format::Json);
        assert_eq!(Format::of(b"", None), Format::Json);
        assert_eq!(Format::of(b"text/event-streams", None), Format::Json);
    }

    #[test]
    fn a_coded_body_is_not_read_and_identity_is_no_coding() {
        assert_eq!(Format::of(b"text/event-stream", Some(b"gzip")), Format::Opaque);
        assert_eq!(Format::of(b"text/event-stream", Some(b" Identity")), Format::Sse);
    }
}
