//! Chat completions and text completions of OpenAI's dialect.

use std::collections::BTreeMap;

use super::ReassemblyFault;
use super::raw::{Fields, RawEntries, RawPiece, elements, put};

/// The answer so far.
#[derive(Debug, Default)]
pub(super) struct Completion {
    /// Of the answer itself, in the order in which the engine first writes them; `choices` is a placeholder.
    fields: RawEntries<RawPiece>,
    choices: BTreeMap<u64, PartialChoice>,
    error: Option<String>,
    terminated: bool,
}

#[derive(Debug, Default)]
struct PartialChoice {
    fields: RawEntries<MessagePart>,
}

#[derive(Debug)]
enum MessagePart {
    Piece(RawPiece),
    Message(OpenAiMessage),
}

#[derive(Debug, Default)]
struct OpenAiMessage {
    fields: RawEntries<RawPiece>,
    /// By index; `None`: never named.
    tools: Option<BTreeMap<u64, RawEntries<RawPiece>>>,
}

impl Completion {
    /// The data of one event.
    pub fn take(&mut self, data: &str) {
        if data.trim() == "[DONE]" {
            self.terminated = true;
            return;
        }
        let Some(event) = Fields::parse(data) else { return };
        if let Some(error) = event.get("error").filter(|error| *error != "null") {
            self.error.get_or_insert_with(|| error.to_owned());
            return;
        }
        for (key, value) in event.0 {
            match &*key {
                "choices" => {
                    self.fields.at("choices", RawPiece::null);
                    for choice in elements(value).unwrap_or_default() {
                        self.on_choice(choice.get());
                    }
                }
                "object" => self.fields.at("object", RawPiece::null).keep(&value.replace(".chunk\"", "\"")),
                "usage" => self.fields.at("usage", RawPiece::null).replace(value),
                // Only there to hide the lengths of a stream's events.
                "obfuscation" => {}
                _ => self.fields.at(&key, RawPiece::null).replace(value),
            }
        }
    }

    pub fn finish(self) -> Result<Vec<u8>, ReassemblyFault> {
        if let Some(error) = self.error {
            let status = Fields::parse(&error).and_then(|error| error.get("code")?.parse().ok());
            let status = status.filter(|status| (400..600).contains(status)).unwrap_or(500);
            return Err(ReassemblyFault::Said { status, body: format!("{{\"error\":{error}}}").into_bytes() });
        }
        let finished = !self.choices.is_empty() && self.choices.values().all(PartialChoice::is_finished);
        if !(self.terminated || finished) || self.choices.is_empty() {
            return Err(ReassemblyFault::Broken);
        }
        let mut out = String::from("{");
        for (key, piece) in &self.fields.0 {
            match key.as_str() {
                "choices" => {
                    let choices: Vec<String> = self.choices.values().map(PartialChoice::write).collect();
                    put(&mut out, key, &format!("[{}]", choices.join(",")));
                }
                _ => put(&mut out, key, &piece.write()),
            }
        }
        out.push('}');
        Ok(out.into_bytes())
    }

    fn on_choice(&mut self, choice: &str) {
        let Some(fields) = Fields::parse(choice) else { return };
        let index = fields.get("index").and_then(|index| index.parse().ok()).unwrap_or(0);
        // More than any request asks for, and a bound on what an engine can make of its indices.
        if index > MOST_CHOICES {
            return;
        }
        let choice = self.choices.entry(index).or_default();
        for (key, value) in fields.0 {
            match &*key {
                "delta" => {
                    if let MessagePart::Message(message) =
                        choice.fields.at("message", || MessagePart::Message(OpenAiMessage::default()))
                    {
                        message.on_delta(value);
                    }
                }
                _ => {
                    let MessagePart::Piece(piece) = choice.fields.at(&key, || MessagePart::Piece(RawPiece::null()))
                    else {
                        continue;
                    };
                    match &*key {
                        "text" | "logprobs" => piece.join(value),
                        _ => piece.replace(value),
                    }
                }
            }
        }
    }
}

impl PartialChoice {
    fn is_finished(&self) -> bool {
        let reason = self.fields.0.iter().find(|(key, _)| key == "finish_reason");
        reason.is_some_and(|(_, part)| matches!(part, MessagePart::Piece(RawPiece::Value(value)) if value != "null"))
    }

    fn write(&self) -> String {
        let mut out = String::from("{");
        for (key, part) in &self.fields.0 {
            match part {
                MessagePart::Piece(piece) => put(&mut out, key, &piece.write()),
                MessagePart::Message(message) => put(&mut out, key, &message.write()),
            }
        }
        out.push('}');
        out
    }
}

impl OpenAiMessage {
    fn on_delta(&mut self, delta: &str) {
        let Some(fields) = Fields::parse(delta) else { return };
        for (key, value) in fields.0 {
            match &*key {
                "tool_calls" => {
                    if value == "null" {
                        continue;
                    }
                    // Its position among the keys.
                    self.fields.at("tool_calls", RawPiece::null);
                    let tools = self.tools.get_or_insert_default();
                    for tool in elements(value).unwrap_or_default() {
                        on_tool(tools, tool.get());
                    }
                }
                "role" => self.fields.at("role", RawPiece::null).keep(value),
                _ => self.fields.at(&key, RawPiece::null).join(value),
            }
        }
    }

    fn write(&self) -> String {
        let mut out = String::from("{");
        let calls = self.tools.as_ref().is_some_and(|tools| !tools.is_empty());
        let has_content = self.fields.0.iter().any(|(key, _)| key == "content");
        for (key, piece) in &self.fields.0 {
            match (key.as_str(), &self.tools) {
                ("tool_calls", Some(tools)) => {
                    let tools: Vec<String> =
                        tools.values().map(|tool| RawPiece::Object(tool.clone()).write()).collect();
                    put(&mut out, key, &format!("[{}]", tools.join(",")));
                }
                // A stream begins with an empty string where a whole answer has none.
                ("content", _) if calls && piece.is_empty_text() => put(&mut out, key, "null"),
                _ => put(&mut out, key, &piece.write()),
            }
            if key == "role" && !has_content {
                put(&mut out, "content", "null");
            }
        }
        out.push('}');
        out
    }
}

fn on_tool(tools: &mut BTreeMap<u64, RawEntries<RawPiece>>, tool: &str) {
    let Some(fields) = Fields::parse(tool) else { return };
    let index = fields.get("index").and_then(|index| index.parse().ok()).unwrap_or(0);
    if index > MOST_CHOICES {
        return;
    }
    let tool = tools.entry(index).or_default();
    for (key, value) in fields.0 {
        match &*key {
            "index" => {}
            "function" => {
                let function = tool.at("function", || RawPiece::Object(RawEntries::default()));
                let (RawPiece::Object(parts), Some(fields)) = (function, Fields::parse(value)) else { continue };
                for (key, value) in fields.0 {
                    match &*key {
                        "arguments" => parts.at(&key, RawPiece::null).join(value),
                        _ => parts.at(&key, RawPiece::null).keep(value),
                    }
                }
            }
            _ => tool.at(&key, RawPiece::null).keep(value),
        }
    }
}

const MOST_CHOICES: u64 = 4096;
