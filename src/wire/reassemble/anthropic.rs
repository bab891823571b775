//! Messages of Anthropic's dialect.

use std::collections::BTreeMap;

use super::ReassemblyFault;
use super::raw::{Fields, RawEntries, RawPiece, inner, put, text};

/// The answer so far.
#[derive(Debug, Default)]
pub(super) struct AnthropicMessage {
    fields: RawEntries<RawPiece>,
    usage: RawEntries<RawPiece>,
    blocks: BTreeMap<u64, ContentBlock>,
    error: Option<String>,
    begun: bool,
    terminated: bool,
}

#[derive(Debug, Default)]
struct ContentBlock {
    fields: RawEntries<RawPiece>,
    /// The input of a tool, which comes as text that is JSON.
    input: Option<String>,
}

impl AnthropicMessage {
    /// The data of one event.
    pub fn take(&mut self, data: &str) {
        let Some(event) = Fields::parse(data) else { return };
        let Some(kind) = event.get("type").and_then(inner) else { return };
        match kind {
            "message_start" => {
                self.begun = true;
                for (key, value) in event.get("message").and_then(Fields::parse).map_or_else(Vec::new, |m| m.0) {
                    if key == "usage" {
                        self.on_usage(value);
                    }
                    self.fields.at(&key, RawPiece::null).keep(value);
                }
            }
            "content_block_start" => {
                let block = self.block(&event);
                for (key, value) in event.get("content_block").and_then(Fields::parse).map_or_else(Vec::new, |b| b.0) {
                    block.fields.at(&key, RawPiece::null).join(value);
                }
            }
            "content_block_delta" => {
                let Some(delta) = event.get("delta").and_then(Fields::parse) else { return };
                self.block(&event).on_delta(&delta);
            }
            "message_delta" => {
                for (key, value) in event.get("delta").and_then(Fields::parse).map_or_else(Vec::new, |d| d.0) {
                    self.fields.at(&key, RawPiece::null).replace(value);
                }
                if let Some(usage) = event.get("usage") {
                    self.on_usage(usage);
                }
            }
            "message_stop" => self.terminated = true,
            "error" => _ = self.error.get_or_insert_with(|| data.to_owned()),
            _ => {}
        }
    }

    pub fn finish(self) -> Result<Vec<u8>, ReassemblyFault> {
        if let Some(error) = self.error {
            let kind = Fields::parse(&error)
                .and_then(|event| Fields::parse(event.get("error")?)?.get("type").map(str::to_owned));
            let status = match kind.as_deref().and_then(inner) {
                Some("overloaded_error") => 529,
                Some("rate_limit_error") => 429,
                Some("invalid_request_error") => 400,
                _ => 500,
            };
            return Err(ReassemblyFault::Said { status, body: error.into_bytes() });
        }
        if !(self.begun && self.terminated) {
            return Err(ReassemblyFault::Broken);
        }
        let mut out = String::from("{");
        for (key, piece) in &self.fields.0 {
            match key.as_str() {
                "content" => {
                    let blocks: Vec<String> = self.blocks.values().map(ContentBlock::write).collect();
                    put(&mut out, key, &format!("[{}]", blocks.join(",")));
                }
                "usage" => put(&mut out, key, &RawPiece::Object(self.usage.clone()).write()),
                _ => put(&mut out, key, &piece.write()),
            }
        }
        out.push('}');
        Ok(out.into_bytes())
    }

    fn on_usage(&mut self, usage: &str) {
        for (key, value) in Fields::parse(usage).map_or_else(Vec::new, |usage| usage.0) {
            self.usage.at(&key, RawPiece::null).replace(value);
        }
    }

    fn block(&mut self, event: &Fields<'_>) -> &mut ContentBlock {
        let index: u64 = event.get("index").and_then(|index| index.parse().ok()).unwrap_or(0);
        self.blocks.entry(index.min(MOST_BLOCKS)).or_default()
    }
}

impl ContentBlock {
    fn on_delta(&mut self, delta: &Fields<'_>) {
        for (key, value) in &delta.0 {
            match &**key {
                "type" => {}
                // Text that is JSON: the string is read, and what it holds is written as it is.
                "partial_json" => self.input.get_or_insert_default().push_str(&text(value).unwrap_or_default()),
                "citation" => self.fields.at("citations", RawPiece::null).join(&format!("[{value}]")),
                _ => self.fields.at(key, RawPiece::null).join(value),
            }
        }
    }

    fn write(&self) -> String {
        let mut out = String::from("{");
        for (key, piece) in &self.fields.0 {
            match (key.as_str(), &self.input) {
                ("input", Some(input)) if !input.trim().is_empty() => put(&mut out, key, input),
                _ => put(&mut out, key, &piece.write()),
            }
        }
        out.push('}');
        out
    }
}

const MOST_BLOCKS: u64 = 4096;
