//! Ollama's two answers: the last line, with the pieces of all lines before it.

use super::ReassemblyFault;
use super::raw::{Fields, RawEntries, RawPiece, put};

/// The answer so far.
#[derive(Debug, Default)]
pub(super) struct OllamaAnswer {
    fields: RawEntries<RawPiece>,
    message: RawEntries<RawPiece>,
    error: Option<String>,
    done: bool,
}

impl OllamaAnswer {
    /// One line.
    pub fn take(&mut self, data: &str) {
        let Some(line) = Fields::parse(data) else { return };
        if line.get("error").is_some() {
            self.error.get_or_insert_with(|| data.to_owned());
            return;
        }
        self.done |= line.get("done") == Some("true");
        for (key, value) in line.0 {
            match &*key {
                "message" => {
                    self.fields.at("message", RawPiece::null);
                    for (key, value) in Fields::parse(value).map_or_else(Vec::new, |message| message.0) {
                        let piece = self.message.at(&key, RawPiece::null);
                        if key == "role" { piece.keep(value) } else { piece.join(value) }
                    }
                }
                "response" | "thinking" => self.fields.at(&key, RawPiece::null).join(value),
                _ => self.fields.at(&key, RawPiece::null).replace(value),
            }
        }
    }

    pub fn finish(self) -> Result<Vec<u8>, ReassemblyFault> {
        if let Some(error) = self.error {
            return Err(ReassemblyFault::Said { status: 500, body: error.into_bytes() });
        }
        if !self.done {
            return Err(ReassemblyFault::Broken);
        }
        let mut out = String::from("{");
        for (key, piece) in &self.fields.0 {
            match key.as_str() {
                "message" => put(&mut out, key, &RawPiece::Object(self.message.clone()).write()),
                _ => put(&mut out, key, &piece.write()),
            }
        }
        out.push('}');
        Ok(out.into_bytes())
    }
}
