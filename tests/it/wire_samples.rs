//! Answers to read: recorded and hand-written streams of `tests/data`, and those of `../shared/data` where that exists.

use std::fs;
use std::path::{Path, PathBuf};

use weir::wire::{BodyFormat, Dialect, Emission, StreamReading, StreamScanner};

/// One answer.
pub struct Sample {
    pub name: String,
    pub format: BodyFormat,
    /// Without the head, and de-chunked.
    pub body: Vec<u8>,
}

/// Folders of samples: those of the repository, and the shared ones, for whose absence one line is printed.
pub fn folders(name: &str, shared: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shared = root.join("../shared/data").join(shared);
    if !shared.is_dir() {
        println!("../shared/data/{name}: absent, only tests/data is read");
    }
    [root.join("tests/data").join(name), shared].into_iter().filter(|folder| folder.is_dir()).collect()
}

/// Every answer of a folder. What is no answer (a page of metrics, a list of slots, words about the files) is left out.
pub fn samples(folder: &Path) -> Vec<Sample> {
    let mut samples: Vec<Sample> =
        fs::read_dir(folder).unwrap().filter_map(|entry| sample(&entry.unwrap().path())).collect();
    samples.sort_by(|a, b| a.name.cmp(&b.name));
    samples
}

fn sample(path: &Path) -> Option<Sample> {
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    let bytes = fs::read(path).unwrap();
    let (format, body) = match path.extension()?.to_str().unwrap() {
        "http" => answer(&bytes),
        "ndjson" => (BodyFormat::Ndjson, bytes),
        "sse" => (BodyFormat::Sse, bytes),
        "txt" if !name.contains("metrics") => (BodyFormat::Sse, bytes),
        _ => return None,
    };
    Some(Sample { name, format, body })
}

/// A whole answer of HTTP/1.1: how its body is to be read, and the body.
fn answer(bytes: &[u8]) -> (BodyFormat, Vec<u8>) {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let format = if head.contains("text/event-stream") { BodyFormat::Sse } else { BodyFormat::Json };
    let mut rest = &bytes[end + 4..];
    if !head.contains("transfer-encoding: chunked") {
        return (format, rest.to_vec());
    }
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|window| window == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            return (format, body);
        }
        body.extend_from_slice(&rest[line + 2..line + 2 + size]);
        rest = &rest[line + 4 + size..];
    }
}

/// The dialect that a sample of `tests/data/sse` was answered in, by its name.
pub fn dialect(name: &str) -> Dialect {
    let known = [
        ("anthropic_", Dialect::AnthropicMessages),
        ("llamacpp_anthropic_", Dialect::AnthropicMessages),
        ("llamacpp_responses", Dialect::OpenAiResponses),
        ("openai_responses", Dialect::OpenAiResponses),
        ("llamacpp_completions", Dialect::OpenAiCompletions),
        ("llamacpp_embeddings", Dialect::OpenAiEmbeddings),
        ("llamacpp_native", Dialect::LlamacppNative),
        ("ollama_api_chat", Dialect::OllamaChat),
        ("ollama_", Dialect::OllamaGenerate),
        ("sglang_native", Dialect::SglangNative),
        ("tgi_", Dialect::Tgi),
    ];
    known.iter().find(|(start, _)| name.starts_with(start)).map_or(Dialect::OpenAiChat, |(_, dialect)| *dialect)
}

/// What a scanner makes of an answer that comes in these pieces: its reading at the end, and the tokens of each emission.
pub fn read<'a>(scanner: StreamScanner, pieces: impl IntoIterator<Item = &'a [u8]>) -> (StreamReading, Vec<u32>) {
    let (mut scanner, mut tokens) = (scanner, Vec::new());
    let mut keep = |emission: Emission| tokens.push(emission.tokens);
    pieces.into_iter().for_each(|piece| scanner.feed(piece, &mut keep));
    scanner.finish(&mut keep);
    (scanner.reading(), tokens)
}
