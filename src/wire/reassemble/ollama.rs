//! Ollama's two answers: the last line, with the pieces of all lines before it.

use super::Fault;
use super::raw::{Entries, Fields, Piece, put};

/// The answer so far.
#[derive(Debug, Default)]
pub(super) struct Line {
    fields: Entries<Piece>,
    message: Entries<Piece>,
    error: Option<String>,
    done: bool,
}

impl Line {
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
                    self.fields.at("message", Piece::null);
                    for (key, value) in Fields::parse(value).map_or_else(Vec::new, |message| message.0) {
                        let piece = self.message.at(&key, Piece::null);
                        if key == "role" { piece.keep(value) } else { piece.join(value) }
                    }
                }
                "response" | "thinking" => self.fields.at(&key, Piece::null).join(value),
                _ => self.fields.at(&key, Piece::null).replace(value),
            }
        }
    }

    pub fn finish(self) -> Result<Vec<u8>, Fault> {
        if let Some(error) = self.error {
            return Err(Fault::Said { status: 500, body: error.into_bytes() });
        }
        if !self.done {
            return Err(Fault::Broken);
        }
        let mut out = String::from("{");
        for (key, piece) in &self.fields.0 {
            match key.as_str() {
                "message" => put(&mut out, key, &Piece::Object(self.message.clone()).write()),
                _ => put(&mut out, key, &piece.write()),
            }
        }
        out.push('}');
        Ok(out.into_bytes())
    }
}
